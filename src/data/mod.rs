//! Image sets: 8-bit pixels in N,H,W,C order with optional labels, and where they come from.

pub mod dataset;

pub use dataset::Dataset;
