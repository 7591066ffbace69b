//! The one integration-test binary.

mod data;
mod find;
mod layers;
mod memorization;
mod model;
mod ops;
mod peers;
mod report;
mod run;
mod sampler;
#[allow(dead_code)]
mod support;
mod tape;
