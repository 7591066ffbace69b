//! Sweeps handed to engines of many machines: what each reads is written here, and starts `emm sweep run-one`.

pub mod k8s;
mod order;
pub mod sky;
pub mod slurm;
mod times;
mod yaml;
