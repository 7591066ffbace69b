//! One run: its resolved configuration, its directory, the training loop with scoring, resume.

pub mod at_once;
pub mod audit;
pub mod bench;
pub mod bench_nearest;
pub mod bench_optimal;
pub mod ceilings;
pub mod config;
pub mod dir;
pub mod evaluation;
pub mod gpu;
pub mod kernel_times;
pub mod longer;
pub mod memory;
pub mod numerics;
pub mod outcome;
pub mod progress;
pub mod rate;
pub mod schedule;
pub mod score;
pub mod scores;
pub mod scoring;
pub mod settings;
pub mod state;
pub mod stats;
pub mod train;
pub mod verify;
pub mod whole;

pub use crate::device::Precision;
pub use config::{DataId, Order, RunConfig, TrainConfig, TrainSettings};
pub use dir::RunDir;
pub use evaluation::{Distinct, Evaluation};
pub use outcome::Outcome;
pub use score::Network;
pub use settings::{ImageShape, RunSettings};
pub use train::{RunOptions, SaveEvery, train};
