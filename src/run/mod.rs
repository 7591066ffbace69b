//! One run: its resolved configuration, its directory, the training loop with scoring, resume.

pub mod config;
pub mod progress;
pub mod train;

pub use config::{DataId, Order, Precision, RunConfig, TrainConfig};
pub use train::{Look, Outcome, RunOptions, train};
