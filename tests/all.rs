//! The one integration-test binary.

mod ahead;
mod audit;
mod believed;
mod bench;
mod brackets;
mod broken_io;
#[cfg(feature = "emulator")]
mod cards;
mod check;
mod circles;
mod ckpt;
mod compare;
mod cpu;
#[cfg(feature = "emulator")]
mod cuda;
mod data;
mod dependencies;
mod doctor;
#[cfg(feature = "emulator")]
mod emulator;
mod figures;
mod find;
mod flags;
mod fuzz;
mod fuzz_runs;
mod gap;
mod gpu_scripts;
mod held;
#[cfg(feature = "emulator")]
mod kernels;
mod launch;
mod layers;
mod longer;
mod memorization;
mod model;
mod mutate;
mod nearest;
mod numerics;
mod ops;
mod optimal;
mod outcomes;
mod pack;
mod pages;
mod passed_over;
mod predict;
mod random;
mod rates;
mod repeats;
mod report;
mod results;
mod run;
mod sampler;
#[cfg(feature = "emulator")]
mod self_tests;
mod shells;
mod sources;
mod status;
mod stops;
mod study;
#[allow(dead_code)]
mod support;
mod sweep;
mod tape;
mod tensorboard;
mod theirs;
mod verify;
mod when;
mod within;
