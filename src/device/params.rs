//! What kernels take, kernels by name, and the numbers that they share with the host: all as `kernels/params` declares it.

use super::arg::{Arg, Fields, Int, put_each};
use super::entry::{Entry, Unit};
use super::map::Map;
use super::ptr::Ptr;
use super::slot::Dtype::{Bf16, F32};

include!(concat!(env!("OUT_DIR"), "/params.rs"));
