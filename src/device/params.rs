//! What kernels take, kernels by name, and the numbers that they share with the host: all as `kernels/params` declares it.

use super::Dtype::{Bf16, F32};
use super::arg::{Arg, Fields, Int, Ptr};
use super::kernel::{Entry, Unit};

include!(concat!(env!("OUT_DIR"), "/params.rs"));
