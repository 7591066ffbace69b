//! The one integration-test binary.

mod check;
mod ckpt;
mod data;
#[cfg(feature = "emulator")]
mod emulator;
mod find;
mod flags;
#[cfg(feature = "emulator")]
mod kernels;
mod layers;
mod memorization;
mod model;
mod nearest;
mod ops;
mod optimal;
mod report;
mod run;
mod sampler;
#[allow(dead_code)]
mod support;
mod tape;
