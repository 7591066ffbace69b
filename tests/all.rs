//! The one integration-test binary.

mod ckpt;
mod data;
mod find;
mod flags;
mod layers;
mod memorization;
mod model;
mod ops;
mod report;
mod run;
mod sampler;
#[allow(dead_code)]
mod support;
mod tape;
