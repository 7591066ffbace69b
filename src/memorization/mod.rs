//! Which images are copies of training images, what share of them, and at what training-set size most are.

pub mod audit;
mod bootstrap;
pub mod emm;
pub mod interval;
pub mod membership;
pub mod nearest;
pub mod onset;
pub mod ratio;
pub mod repeats;
pub mod search;
mod within;

pub use bootstrap::{RESAMPLES, bootstrap};
pub use emm::{Beyond, Bracket, Emm, NextSize, SizeRatio, emm_of, next_size};
pub use interval::{Counted, emm_interval};
pub use membership::Inference;
pub use nearest::{Nearest, Neighbour, Pruning, References};
pub use ratio::{Score, Threshold, wilson};
pub use repeats::Repeats;
pub use search::Search;
pub use within::Within;
