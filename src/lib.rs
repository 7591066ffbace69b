//! Measures how much diffusion models memorize (Gu et al. 2023, arXiv:2310.02664).
//!
//! Data flows one way: `cli → {views, study} → run → {data, model, sampler, memorization, report, check} →
//! tape → ops → device`; views read what studies found. A module uses only what stands to its right; `error`, `rng`, `files` and
//! `memory` and `signal` serve all.

pub mod settings;

pub mod check;
// Doc comments are help texts there, and shapes in brackets no links.
#[allow(rustdoc::broken_intra_doc_links)]
pub mod cli;
pub mod data;
pub mod device;
pub mod error;
pub mod files;
pub mod memorization;
pub mod memory;
pub mod model;
pub mod numbers;
pub mod ops;
pub mod report;
pub mod rng;
pub mod run;
pub mod sampler;
pub mod signal;
pub mod simd;
pub mod study;
pub mod tape;
pub mod views;
