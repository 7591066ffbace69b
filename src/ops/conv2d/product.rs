//! The products of a convolution on tensor cores, whichever kernel computes them.

use crate::device::params::{MMA_TILE, ROUNDED_IMAGES};
use crate::device::{Sink, Slot};
use crate::ops::Shape;

/// What is added to a product.
#[derive(Default)]
pub(super) struct Epilogue {
    pub bias: Option<Slot>,
    /// One value per image and channel, and the words of an image's row, of which these are a part.
    pub emb: Option<(Slot, usize)>,
    pub residual: Option<Slot>,
    /// A shortcut's inputs and their channels.
    pub sides: [Option<(Slot, usize)>; 2],
    pub sweight: Option<Slot>,
    pub sbias: Option<Slot>,
    pub srow: usize,
}

/// An implicit product: y [n, ho, wo, o] of x [n, h, w, c] through a window (size, stride, padding).
pub(super) struct Product {
    pub y: Sink,
    pub y_shape: Shape,
    pub x: Slot,
    pub x_shape: Shape,
    pub weight: Slot,
    pub window: [usize; 3],
    pub scale: f32,
}

/// Images of each partial sum of a weight's gradient, of dy [n, ho, wo, o] and c channels of x: more of smaller ones, so
/// that a block has more to multiply than to write, but as few as there may be where a layer is no whole tile and gives
/// few blocks to begin with.
pub fn chunk_images([_, ho, wo, o]: Shape, c: usize) -> usize {
    let times = match ho * wo {
        _ if o.min(c) < MMA_TILE => 1,
        ..=64 => 4,
        65..=256 => 2,
        _ => 1,
    };
    times * ROUNDED_IMAGES
}

/// A product for partial gradients of a weight: [chunk, o, k, k, c] of dy [n, ho, wo, o] and x [n, h, w, c] through a window.
pub(super) struct WeightProduct {
    pub partials: Slot,
    pub dy: Slot,
    pub y_shape: Shape,
    pub x: Slot,
    pub x_shape: Shape,
    pub window: [usize; 3],
    /// Images of a partial sum.
    pub chunk: usize,
}
