//! The products of a convolution on tensor cores, whichever kernel computes them.

use crate::device::{Dtype, Entry, Sink, Slot};
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

/// Images that a chain of a layer of so many pixels is whole multiples of, and micro-batches of a network with such a layer:
/// tensor cores multiply 16 pixels at a time, tensor copies bring up to 64 of whole images.
pub fn chain_unit(pixels: usize) -> usize {
    let common = 1 << pixels.trailing_zeros().min(4);
    let copied = (64 / pixels).max(1).next_power_of_two();
    (16 / common).max(copied).min(32)
}

/// How the images of a batch are cut for the partial sums of a weight's gradient: neighbours are a chain's, whose one sum runs
/// through them, whatever micro-batch they come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chains {
    /// Of a chain; the last has the rest.
    pub images: usize,
    pub count: usize,
}

impl Chains {
    /// Those that take least time: every multiprocessor has a block all the time, or nearly so, and few partial sums are
    /// written and read.
    ///
    /// - `pixels`: of an image; `step`: of a k-step. `blocks`: of a chain; `slots`: blocks that the GPU runs at once.
    pub fn new(batch: usize, [pixels, step]: [usize; 2], blocks: usize, slots: usize) -> Chains {
        const MOST: usize = 64;
        // In k-steps: what a block takes to begin and to end; its sums take a twelfth of one to be written and read again.
        let (ends, sums) = (8, 12);
        let unit = chain_unit(pixels);
        let cut = |wanted: usize| {
            let images = batch.div_ceil(wanted).next_multiple_of(unit);
            Chains { images, count: batch.div_ceil(images) }
        };
        let cost = |chains: &Chains| {
            let rounds = (blocks * chains.count).div_ceil(slots);
            let steps = (chains.images.min(batch) * pixels).div_ceil(step);
            sums * rounds * (steps + ends) + blocks * chains.count
        };
        let all = (1..=MOST.min(batch.div_ceil(unit))).map(cut);
        all.min_by_key(cost).expect("one chain at least")
    }
}

/// A product for partial gradients of a weight: [chain, o, k, k, c] of dy [n, ho, wo, o] and x [n, h, w, c] through a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct WeightShape {
    /// How dy and x are stored.
    pub dtype: Dtype,
    pub y: Shape,
    pub x: Shape,
    pub window: [usize; 3],
    /// Channels of a shortcut's inputs whose weights' gradients come with it: they have y's pixels.
    pub sides: [Option<usize>; 2],
    /// Images of the whole batch.
    pub batch: usize,
}

impl WeightShape {
    /// Blocks of a chain, in tiles of so many outputs and input channels.
    pub fn blocks(&self, outs: usize, channels: usize) -> usize {
        let columns = |c: usize| c.div_ceil(channels);
        let of_sides: usize = self.sides.into_iter().flatten().map(columns).sum();
        self.y[3].div_ceil(outs) * (self.window[0].pow(2) * columns(self.x[3]) + of_sides)
    }
}

/// The same with its places.
pub(super) struct WeightProduct {
    pub shape: WeightShape,
    pub chains: Chains,
    pub dy: Slot,
    /// x, then a shortcut's, each with the partial sums of its weight's gradient.
    pub inputs: [Option<(Slot, Slot)>; 3],
}

impl WeightProduct {
    pub fn inputs(&self) -> [Option<Slot>; 3] {
        self.inputs.map(|i| i.map(|(input, _)| input))
    }

    pub fn partials(&self) -> [Option<Slot>; 3] {
        self.inputs.map(|i| i.map(|(_, partials)| partials))
    }

    /// Channels of a shortcut's inputs.
    pub fn side_channels(&self) -> [usize; 2] {
        self.shape.sides.map(|c| c.unwrap_or(0))
    }
}

/// Which of a general kernel's three, [float32, bf16, the last layer's], takes x or its gradient and y or its gradient.
pub(super) fn general<P>(kernels: [Entry<P>; 3], x: Slot, y: Slot) -> Entry<P> {
    match (x.dtype, y.dtype) {
        (Dtype::F32, Dtype::F32) => kernels[0],
        (Dtype::Bf16, Dtype::Bf16) => kernels[1],
        (Dtype::Bf16, Dtype::F32) => kernels[2],
        (Dtype::F32, Dtype::Bf16) => panic!("no convolution stores float32 {x:?} in bf16 {y:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micro_batches_can_be_cut_at_units() {
        for pixels in [1, 4, 9, 16, 49, 64, 81, 196, 256, 784, 1024] {
            let unit = chain_unit(pixels);
            assert!((unit * pixels).is_multiple_of(16), "{unit} of {pixels}");
            // So that the largest of a network is a multiple of all.
            assert!(unit.is_power_of_two(), "{unit} of {pixels}");
        }
        assert_eq!([16, 64, 196, 1024].map(chain_unit), [4, 1, 4, 1]);
    }

    #[test]
    fn chains_fill_a_gpu_and_cover_the_batch() {
        // 3×3 of 256 to 256 channels: 18 blocks a chain for 132 multiprocessors, or 108.
        let of = |slots| Chains::new(512, [1024, 64], 18, slots);
        assert_eq!(
            (of(132), of(108)),
            (Chains { images: 74, count: 7 }, Chains { images: 86, count: 6 })
        );
        for (batch, pixels, blocks) in
            [(1, 16, 1), (13, 64, 9), (512, 4, 4), (17, 784, 36), (512, 64, 200)]
        {
            let chains = Chains::new(batch, [pixels, 64], blocks, 132);
            assert!(chains.images.is_multiple_of(chain_unit(pixels)), "{chains:?}");
            let covered = chains.images * chains.count;
            assert!(covered >= batch && covered - chains.images < batch, "{chains:?} of {batch}");
        }
    }
}
