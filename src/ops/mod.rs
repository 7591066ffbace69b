//! The ops of the U-Net: coarse, each one thing that the network really does. An op states its shapes, what
//! its backward reads, and lowers itself to launches with resolved slots; it never decides whether a gradient
//! is written or added ([`Sink`] says), allocates nothing and looks up no name when it runs.

pub mod adam_ema;
pub mod attention;
pub mod conv2d;
pub mod fir;
pub mod golden;
pub mod label_embed;
pub mod later;
pub mod linear;
pub mod loss;
pub mod noise_embed;
pub mod norm;
pub mod pack;
pub mod precondition;
pub mod prepare_batch;
mod scratch;
mod sums;

use crate::device::{
    Acc, Cost, Dtype, GpuLimits, Kernel, Launch, Precision, Sink, Slot, Target, bytes_of,
};
use anyhow::Result;
use later::{LaterSums, LaterWords};
use pack::Pack;
use std::ops::Range;

/// N, H, W, C. Vectors per image are [N, 1, 1, C]; a float64 or two-word value counts as two channels.
pub type Shape = [usize; 4];

/// Words of a tensor.
pub fn words(s: Shape) -> usize {
    s.iter().product()
}

/// Words of one image of a tensor.
pub fn image_words(s: Shape) -> usize {
    s[1] * s[2] * s[3]
}

/// Resolved places of a recorded op.
#[derive(Debug, Clone)]
pub struct Io {
    pub shapes: Vec<Shape>,
    pub ins: Vec<Slot>,
    pub params: Vec<Slot>,
    pub outs: Vec<Slot>,
    /// Words asked by [`Op::temp_words`] for this direction.
    pub temp: Slot,
    /// Working copies asked by [`Op::packs`].
    pub packed: Vec<Slot>,
    /// Words asked by [`Op::later_words`]: until the end of the backward, and of the batch.
    pub rows: Slot,
    pub chains: Slot,
    /// Images of the whole batch, of which these are a part.
    pub batch: usize,
    pub precision: Precision,
    pub limits: GpuLimits,
}

/// Gradients that reach an op and where its own go; `None` where nobody asks.
#[derive(Debug, Clone)]
pub struct Grads {
    pub outs: Vec<Option<Slot>>,
    pub ins: Vec<Option<Sink>>,
    pub params: Vec<Sink>,
    /// The sums over pixels of the first output's, where whoever wrote it last gave them.
    pub out_sums: Option<PixelSums>,
    /// Where the sums over pixels of `ins` go: of what is there once they are written.
    pub in_sums: Vec<Option<PixelSums>>,
    /// What the first input's gets beside: so much times this gradient, which is stored alike. See [`Op::takes_residual`].
    pub residual: Option<(Slot, f32)>,
}

/// Sums over pixels [N, C] in float32. They may be columns of a wider tensor.
#[derive(Debug, Clone, Copy)]
pub struct PixelSums {
    /// From the first on, as long as they are together.
    pub slot: Slot,
    /// Words from image to image.
    pub row: usize,
}

impl PixelSums {
    /// Columns of a float32 tensor of `n` rows.
    pub fn columns(slot: Slot, n: usize, columns: Range<usize>) -> Self {
        PixelSums { slot: columns_of(slot, n, columns), row: slot.len / n }
    }
}

/// Which tensors an op's backward reads, as indices into its inputs and outputs.
#[derive(Debug, Clone, Default)]
pub struct Reads {
    pub ins: Vec<usize>,
    pub outs: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Fwd,
    Bwd,
}

/// Columns of a float32 tensor of `rows` rows as one piece: it begins at the first of them and is as long as they are
/// together, though rows lie between.
fn columns_of(slot: Slot, rows: usize, columns: Range<usize>) -> Slot {
    slot.part(columns.start, rows * columns.len())
}

/// The cost of an op's forward, or of its backward where there are `grads`.
pub fn cost(op: &dyn Op, io: &Io, grads: Option<&Grads>) -> Cost {
    let forward = op.flop(&io.shapes);
    // What the op takes of its input i, or of that input's gradient.
    let taken = |i: usize, slot: Slot| {
        let shape = io.shapes[i];
        columns_of(slot, words(shape) / shape[3], op.columns(&io.shapes, i))
    };
    let Some(grads) = grads else {
        let ins = io.ins.iter().enumerate().map(|(i, &slot)| taken(i, slot));
        let all = ins.chain(io.params.iter().chain(&io.outs).copied());
        return Cost { flop: forward, bytes: bytes_of(all) as u64, ..Cost::default() };
    };
    let reads = op.reads(&io.shapes);
    let ins = reads.ins.iter().map(|&i| taken(i, io.ins[i]));
    let outs = reads.outs.iter().map(|&o| io.outs[o]);
    let given = io.params.iter().chain(grads.outs.iter().flatten()).copied();
    let of_ins = || {
        let ins = grads.ins.iter().enumerate();
        ins.filter_map(|(i, s)| s.map(|s| Sink { slot: taken(i, s.slot), ..s }))
    };
    let sinks = || of_ins().chain(grads.params.iter().copied());
    let all = ins.chain(outs).chain(given).chain(sinks().map(|s| s.slot));
    let added = sinks().filter(|s| s.acc == Acc::Add).map(|s| s.slot.bytes()).sum::<usize>();
    // Every product is differentiated for both factors, save that the image needs no gradient.
    let factors = 1 + grads.ins.first().is_some_and(Option::is_some) as u64;
    Cost { flop: factors * forward, bytes: (bytes_of(all) + added) as u64, ..Cost::default() }
}

pub trait Op: Send + Sync {
    fn name(&self) -> &'static str;

    /// Shapes of the outputs.
    ///
    /// # Errors
    /// If it does not take these inputs; names the op and the shapes.
    fn outputs(&self, ins: &[Shape]) -> Result<Vec<Shape>>;

    /// Lengths of the parameters it takes.
    fn param_lens(&self, _ins: &[Shape]) -> Vec<usize> {
        vec![]
    }

    /// What the backward launches read, so that the plan can free everything else early.
    fn reads(&self, ins: &[Shape]) -> Reads;

    /// The columns (last axis) of input `i` that it reads, and whose gradient it gives. Where they are not all, the input
    /// is float32 and shared: other ops take the other columns.
    fn columns(&self, ins: &[Shape], i: usize) -> Range<usize> {
        0..ins[i][3]
    }

    /// How each of its `outs` outputs, and the gradient of each, is stored.
    fn dtypes(&self, _precision: Precision, outs: usize) -> Vec<Dtype> {
        vec![Dtype::F32; outs]
    }

    /// As [`Op::words_beside`], of the CPU device.
    fn temp_words(&self, _ins: &[Shape], _direction: Direction) -> usize {
        0
    }

    /// 2 × multiply-adds of the forward, as the direct algorithm needs them; only matrix work counts.
    fn flop(&self, _ins: &[Shape]) -> u64 {
        0
    }

    /// As [`Op::words_beside`], of the CUDA device.
    fn kernel_temp_words(
        &self,
        _ins: &[Shape],
        _precision: Precision,
        _direction: Direction,
    ) -> usize {
        0
    }

    /// Working copies of its parameters that the CUDA device's kernels read; `training`: also the backward's, after
    /// those of the forward. They depend on neither the number of images nor their size.
    fn packs(&self, _ins: &[Shape], _precision: Precision, _training: bool) -> Vec<Pack> {
        vec![]
    }

    /// Words that it keeps on a GPU for [`Op::sums`], of which `ins` are a part of a batch.
    fn later_words(
        &self,
        _ins: &[Shape],
        _precision: Precision,
        _limits: GpuLimits,
        _batch: usize,
    ) -> LaterWords {
        LaterWords::default()
    }

    /// What is left to be summed for gradients of its parameters on a GPU after its backward has run.
    fn sums(&self, _io: &Io, _grads: &Grads) -> LaterSums {
        LaterSums::default()
    }

    /// Whether its backward on a GPU takes [`Grads::out_sums`].
    fn takes_sums(&self) -> bool {
        false
    }

    /// The input whose columns have those sums for their gradient, just as they are: then they are put there at once where
    /// nothing is there before.
    fn sums_are_gradient_of(&self) -> Option<usize> {
        None
    }

    /// Whether its backward on such a GPU gives [`Grads::in_sums`].
    fn gives_sums(&self, _ins: &[Shape], _precision: Precision, _limits: GpuLimits) -> bool {
        false
    }

    /// The input that is added to its output as it is, and what both are scaled by.
    fn residual(&self) -> Option<(usize, f32)> {
        None
    }

    /// Whether its backward on such a GPU takes [`Grads::residual`].
    fn takes_residual(&self, _ins: &[Shape], _precision: Precision, _limits: GpuLimits) -> bool {
        false
    }

    /// All that one direction is on a device: the forward, or the backward where there are `grads`.
    fn lower(&self, target: Target, io: &Io, grads: Option<&Grads>) -> Vec<Launch> {
        match (target, grads) {
            (Target::Cpu, None) => vec![self.fwd(io)],
            (Target::Cpu, Some(grads)) => vec![self.bwd(io, grads)],
            (Target::Cuda(_), _) => self.kernels(io, grads).into_iter().map(Launch::Gpu).collect(),
        }
    }

    /// Words of memory that live during one direction of this op on a device only.
    fn words_beside(
        &self,
        target: Target,
        ins: &[Shape],
        precision: Precision,
        direction: Direction,
    ) -> usize {
        match target {
            Target::Cpu => self.temp_words(ins, direction),
            Target::Cuda(_) => self.kernel_temp_words(ins, precision, direction),
        }
    }

    /// The CPU device's forward.
    fn fwd(&self, io: &Io) -> Launch;

    /// Gradients of inputs and parameters from those of the outputs.
    fn bwd(&self, io: &Io, grads: &Grads) -> Launch;

    /// The CUDA device's forward, or its backward where there are `grads`.
    fn kernels(&self, io: &Io, grads: Option<&Grads>) -> Vec<Kernel>;
}
