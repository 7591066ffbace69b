//! The network: DDPM++ and NCSN++ U-Nets (Song et al. 2021) under VP, VE or EDM preconditioning
//! (Karras et al. 2022), what they are made of, and the two ways they run: [`Trainer`] and [`Denoiser`].

pub mod checkpoint;
pub mod config;
pub mod denoiser;
pub mod flops;
pub mod infer;
pub mod layout;
pub mod params;
pub mod recording;
mod resolve;
mod step_cpu;
mod step_gpu;
pub mod tensor_file;
pub mod trainer;
pub mod training;
pub mod unet;

pub use crate::ops::adam_ema::Rates;
pub use checkpoint::SavedModel;
pub use config::{Arch, Embedding, ModelConfig, ModelSettings, Precond};
pub use denoiser::Denoiser;
pub use layout::Layout;
pub use params::{ParamSpec, Params};
pub use recording::Recording;
pub use trainer::Trainer;
pub use training::{Steps, TrainerOptions, Training};
