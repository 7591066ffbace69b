//! The one integration-test binary.

mod believed;
mod bench;
mod broken_io;
mod check;
mod ckpt;
mod cpu;
#[cfg(feature = "emulator")]
mod cuda;
mod data;
#[cfg(feature = "emulator")]
mod emulator;
mod figures;
mod find;
mod flags;
mod gpu_scripts;
mod fuzz_runs;
#[cfg(feature = "emulator")]
mod kernels;
mod layers;
mod memorization;
mod model;
mod nearest;
mod ops;
mod optimal;
mod pack;
mod pages;
mod report;
mod run;
mod sampler;
mod sources;
mod stops;
mod study;
#[allow(dead_code)]
mod support;
mod sweep;
mod tape;
mod theirs;
