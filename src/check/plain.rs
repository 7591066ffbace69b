//! The ops by their definitions, in float64, for a few values of each of their tensors: what is summed is summed in one
//! loop, so that sizes of a network in use are in reach without a second implementation that is fast.

mod conv2d;
mod norm;
mod products;
mod rest;
mod sample;

use super::cases::Case;
use crate::ops::conv2d::Conv2d;
use crate::ops::label_embed::LabelEmbed;
use crate::ops::linear::Linear;
use crate::ops::loss::Loss;
use crate::ops::noise_embed::NoiseEmbed;
use crate::ops::norm::Norm;
use crate::ops::precondition::{Denoised, Noisy, Precond};
use crate::ops::{Op, attention, fir};

pub use sample::{Of, Sample};

/// An op that has a definition here.
#[derive(Debug, Clone)]
pub enum Plain {
    Attention,
    Conv2d(Conv2d),
    Denoised(Precond),
    Fir,
    LabelEmbed(LabelEmbed),
    Linear(Linear),
    Loss(Loss),
    NoiseEmbed(NoiseEmbed),
    Noisy(Precond),
    Norm(Norm),
}

impl Plain {
    pub fn op(&self) -> Box<dyn Op> {
        match self {
            Plain::Attention => Box::new(attention::Attention),
            Plain::Conv2d(op) => Box::new(*op),
            Plain::Denoised(precond) => Box::new(Denoised(*precond)),
            Plain::Fir => Box::new(fir::Fir),
            Plain::LabelEmbed(op) => Box::new(*op),
            Plain::Linear(op) => Box::new(op.clone()),
            Plain::Loss(op) => Box::new(*op),
            Plain::NoiseEmbed(op) => Box::new(*op),
            Plain::Noisy(precond) => Box::new(Noisy(*precond)),
            Plain::Norm(op) => Box::new(*op),
        }
    }

    /// Some values of each tensor that a case of this op compares.
    pub fn samples(&self, case: &Case) -> Vec<Sample> {
        match self {
            Plain::Attention => products::attention(case),
            Plain::Conv2d(op) => conv2d::samples(op, case),
            Plain::Denoised(precond) => rest::denoised(*precond, case),
            Plain::Fir => rest::fir(case),
            Plain::LabelEmbed(op) => rest::label_embed(op, case),
            Plain::Linear(op) => products::linear(op, case),
            Plain::Loss(op) => rest::loss(op, case),
            Plain::NoiseEmbed(op) => rest::noise_embed(op, case),
            Plain::Noisy(precond) => rest::noisy(*precond, case),
            Plain::Norm(op) => norm::samples(op, case),
        }
    }
}
