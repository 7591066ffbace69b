//! What the paper does over many runs: the settings of its experiments.

pub mod presets;
