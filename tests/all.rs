//! The one integration-test binary.

mod check;
mod ckpt;
mod data;
#[cfg(feature = "emulator")]
mod emulator;
mod figures;
mod find;
mod flags;
#[cfg(feature = "emulator")]
mod kernels;
mod layers;
mod memorization;
mod model;
mod ops;
mod pages;
mod report;
mod run;
mod sampler;
mod study;
#[allow(dead_code)]
mod support;
mod tape;
mod theirs;
