//! What the paper does over many runs: the settings of its experiments, the search for the EMM, the gap to the
//! optimum.

pub mod find;
pub mod gap;
pub mod pictures;
pub mod presets;
pub mod quickstart;

pub use find::{Found, Measured, Search, Sizes, find};
