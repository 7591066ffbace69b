//! The gradients of a convolution's weights on the CUDA device: partial sums over chains of images, kept until the batch has
//! ended, and what is then made of them.

use super::mma::{Algorithm, Algorithms};
use super::product::{self, Chains, WeightProduct, WeightShape};
use super::shape::Conv2d;
use super::{hopper, tiles};
use crate::device::params::{CONV2D_WGRAD, CONV2D_WGRAD_BF16, CONV2D_WGRAD_LAST, TILE};
use crate::device::{GpuLimits, Int, Kernel, Precision, Ptr, Slot, params};
use crate::ops::later::ChainSum;
use crate::ops::{Grads, Io, Shape};

/// The gradient of the columns of a weight's rows that meet one input.
pub(super) struct WeightGradient {
    /// Index into the inputs.
    pub input: usize,
    /// Index into the parameters.
    param: usize,
    /// First column in the rows, and words of a row.
    pub columns: [usize; 2],
    /// Elements of them.
    elements: usize,
    algorithm: Algorithm,
    /// The product that gives the partial sums.
    shape: WeightShape,
    chains: Chains,
    /// Word of [`Io::chains`] at which its partial sums begin.
    at: usize,
}

/// Of all inputs that a weight meets, x first.
pub(super) fn all(
    op: &Conv2d,
    ins: &[Shape],
    precision: Precision,
    limits: GpuLimits,
    batch: usize,
) -> Vec<WeightGradient> {
    let algorithms = Algorithms::new(op, precision);
    let (x, y) = (ins[0], op.out_shape(ins[0]));
    let whole = WeightShape {
        dtype: algorithms.dtype(),
        y,
        x,
        window: [op.kernel, op.stride, op.pad],
        sides: [None; 2],
        batch,
    };
    let main = algorithms.weight_gradient(x);
    let patches = algorithms.backward_patches(x);
    let of_patches = WeightShape { window: [1, 1, 0], ..whole };
    let shape = match (main, patches) {
        (Algorithm::PatchesOfX, Some(x)) => WeightShape { x, ..of_patches },
        (Algorithm::PatchesOfDy, Some(y)) => WeightShape { y, ..of_patches },
        _ => whole,
    };
    let side = |i: usize| algorithms.side_gradients(ins[i][3])[1];
    let tensor = |a| a == Algorithm::Tensor;
    let together = tensor(main) && op.sides().all(|i| tensor(side(i)));
    let mut sides = [None; 2];
    op.sides().zip(&mut sides).for_each(|(i, to)| *to = together.then_some(ins[i][3]));
    let of_all = chains(main, &WeightShape { sides, ..shape }, limits);
    let mut list: Vec<WeightGradient> = Vec::new();
    let mut add = |input, param, columns: [usize; 3], algorithm, shape: WeightShape| {
        let [first, row_words, width] = columns;
        let chains = if together { of_all } else { chains(algorithm, &shape, limits) };
        let at = list.last().map_or(0, |last| last.at + last.words().next_multiple_of(16));
        let (columns, elements) = ([first, row_words], op.out_channels * width);
        list.push(WeightGradient { input, param, columns, elements, algorithm, shape, chains, at });
    };
    add(0, 0, [0, op.depth(x), op.depth(x)], main, WeightShape { sides, ..shape });
    let (mut first, row_words) = (0, op.shortcut_channels(ins));
    for input in op.sides() {
        let x = ins[input];
        add(input, 2, [first, row_words, x[3]], side(input), WeightShape { x, ..of_patches });
        first += x[3];
    }
    list
}

/// Words of the partial sums of all.
pub(super) fn words(all: &[WeightGradient]) -> usize {
    all.last().map_or(0, |last| last.at + last.words())
}

fn chains(algorithm: Algorithm, shape: &WeightShape, limits: GpuLimits) -> Chains {
    if algorithm != Algorithm::General {
        return hopper::chains(shape, limits).unwrap_or_else(|| tiles::chains(shape, limits));
    }
    // Blocks that a multiprocessor holds of the general kernel, and pixels of its k-step.
    const TOGETHER: usize = 4;
    const STEP: usize = 16;
    let ([_, h, w, o], c) = (shape.y, shape.x[3]);
    let blocks = o.div_ceil(TILE) * c.div_ceil(TILE) * shape.window[0].pow(2);
    Chains::new(shape.batch, [h * w, STEP], blocks, TOGETHER * limits.multiprocessors)
}

/// What adds these images to the partial sums of all, in one launch where tensor cores take each. `patches`: of x or of dy,
/// where there are any.
pub(super) fn kernels(
    all: &[WeightGradient],
    io: &Io,
    dy: Slot,
    patches: Option<Slot>,
) -> Vec<Kernel> {
    let together = all[0].shape.sides.iter().any(Option::is_some);
    let launches = all.chunks(if together { all.len() } else { 1 });
    launches.map(|of| kernel(of, io, dy, patches)).collect()
}

/// Of the first alone, or of it with a shortcut's.
fn kernel(of: &[WeightGradient], io: &Io, dy: Slot, patches: Option<Slot>) -> Kernel {
    let WeightGradient { algorithm, shape, chains, .. } = of[0];
    let x = io.ins[of[0].input];
    let (dy, x) = match (algorithm, patches) {
        (Algorithm::PatchesOfX, Some(patches)) => (dy, patches),
        (Algorithm::PatchesOfDy, Some(patches)) => (patches, x),
        _ => (dy, x),
    };
    let flop = of.iter().map(WeightGradient::flop).sum();
    if algorithm == Algorithm::General {
        return general(&of[0], io, dy, x).flop(flop);
    }
    let mut inputs = [None; 3];
    for (i, (to, of)) in inputs.iter_mut().zip(of).enumerate() {
        *to = Some((if i == 0 { x } else { io.ins[of.input] }, of.partials(io)));
    }
    let product = WeightProduct { shape, chains, dy, inputs };
    hopper::weight_product(&product, io.limits)
        .unwrap_or_else(|| tiles::weight_product(&product, io.limits))
        .flop(flop)
}

/// On the fp32 pipes.
fn general(of: &WeightGradient, io: &Io, dy: Slot, x: Slot) -> Kernel {
    let WeightShape { x: [n, h, w, c], y: [_, ho, wo, o], window, .. } = of.shape;
    let ([kernel, stride, pad], partials) = (window, of.partials(io));
    let grid = [o.div_ceil(TILE) * c.div_ceil(TILE), kernel * kernel, of.chains.count];
    let (chain, first_image) = (of.chains.images, Int::FirstImage);
    let (s1, s2, partials1, partials2) = (Ptr::Null, Ptr::Null, Ptr::Null, Ptr::Null);
    let [c1, c2] = [0; 2];
    let arguments = params! { Conv2dWgrad {
        partials, partials1, partials2, dy, x, s1, s2, n, h, w, c, ho, wo, o, kernel, stride, pad, c1, c2, chain,
        first_image,
    } };
    let kernels = [CONV2D_WGRAD, CONV2D_WGRAD_BF16, CONV2D_WGRAD_LAST];
    Kernel::new(product::general(kernels, x, dy), grid, arguments)
}

impl WeightGradient {
    /// Of a chain's partial sums.
    fn chain_words(&self) -> usize {
        self.shape.y[3] * self.shape.window[0].pow(2) * self.shape.x[3]
    }

    fn words(&self) -> usize {
        self.chains.count * self.chain_words()
    }

    fn flop(&self) -> usize {
        let [n, ho, wo, _] = self.shape.y;
        2 * n * ho * wo * self.elements
    }

    fn partials(&self, io: &Io) -> Slot {
        io.chains.part(self.at, self.words())
    }

    /// The gradient itself, of a convolution of so many taps.
    pub(super) fn sum(&self, op: &Conv2d, io: &Io, grads: &Grads) -> ChainSum {
        let (partials, dw) = (self.partials(io), grads.params[self.param]);
        let (o, c, taps) = (op.out_channels, io.shapes[self.input][3], op.kernel * op.kernel);
        let sum = |rows, width| {
            let alike = ChainSum::alike(dw, partials, [rows, width, self.chains.count], op.scale);
            ChainSum { chain_words: self.chain_words(), ..alike }
        };
        match self.algorithm {
            Algorithm::PatchesOfX => {
                let padded = self.shape.x[3];
                ChainSum { partial_words: padded, ..sum(o, taps * c) }
            }
            Algorithm::PatchesOfDy => ChainSum { taps, ..sum(o * taps, c) },
            Algorithm::General | Algorithm::Tensor => {
                let width = self.chain_words() / o;
                let [first, row_words] = self.columns;
                ChainSum { row_words, first, ..sum(o, width) }
            }
        }
    }
}
