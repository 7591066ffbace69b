//! conv2d: y = (conv(x) + bias + emb + residual + shortcut) · scale, all in one pass over y.
//!
//! - x `[N, H, W, C]`; weight `[O, k, k, C]`, bias `[O]`; y `[N, Ho, Wo, O]`.
//! - emb [N, 1, 1, E]: one value per image and channel in O of its columns, the others being other convolutions'.
//!   residual [N, Ho, Wo, O].
//! - shortcut: a 1×1 convolution of [s1, s2] (channels concatenated, never copied) with weight [O, C1 + C2 + off]
//!   and bias `[O]`; `off` channels are those of a skip that is switched off: zeros, neither read nor stored.

mod cpu_bwd;
mod cpu_fwd;
mod cpu_wgrad;
mod gpu;
mod hopper;
mod mma;
mod product;
mod shape;
mod tiles;
mod weights;
mod winograd;

pub use product::chain_unit;
pub use shape::{Conv2d, Shortcut};

use super::golden::{Described, GoldenCase, GoldenIn, GoldenOut};
use super::later::{LaterSums, LaterWords};
use super::pack::Pack;
use super::{Direction, Grads, Io, Op, Reads, Shape};
use crate::device::{Dtype, GpuLimits, Kernel, Launch, Precision};
use anyhow::{Result, ensure};
use mma::Algorithms;
use shape::Input;
use std::ops::Range;

impl Conv2d {
    /// The op of a golden's case.
    pub fn golden(case: &Described) -> GoldenCase {
        let shape = |tensor: &str| (case.shape)(tensor).expect("a golden's tensor");
        let has = |tensor: &&str| case.has(tensor);
        let op = Conv2d {
            kernel: case.size("kernel"),
            stride: case.size("stride"),
            pad: case.size("pad"),
            out_channels: shape("w")[0],
            scale: case.attributes["scale"].as_f64().unwrap_or(1.0) as f32,
            emb: case.has("emb").then(|| case.size("emb_first")),
            residual: case.has("residual"),
            shortcut: (case.has("s1"))
                .then(|| Shortcut { two: case.has("s2"), off: case.size("off") }),
            float32: case.flag("last"),
        };
        let ins = ["x", "emb", "residual", "s1", "s2"].into_iter().filter(has);
        let ins =
            ins.map(|t| if t == "emb" { GoldenIn::Float32(t) } else { GoldenIn::Activation(t) });
        let params = ["w", "b", "sw", "sb"].into_iter().filter(has).collect::<Vec<_>>();
        GoldenCase::new(op, &ins.collect::<Vec<_>>(), &params, &[GoldenOut::Differentiated("y")])
    }
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn outputs(&self, ins: &[Shape]) -> Result<Vec<Shape>> {
        ensure!(
            ins.len() == self.num_inputs(),
            "conv2d: {} inputs wanted, {} given",
            self.num_inputs(),
            ins.len()
        );
        let x = ins[0];
        ensure!(
            [x[1], x[2]].iter().all(|s| s + 2 * self.pad >= self.kernel
                && (s + 2 * self.pad - self.kernel).is_multiple_of(self.stride)),
            "conv2d: a {k}×{k} window of stride {s} does not fit {x:?}",
            k = self.kernel,
            s = self.stride
        );
        let y = self.out_shape(x);
        if let Some(i) = self.input(Input::Emb) {
            let columns = self.emb_columns();
            ensure!(
                ins[i][..3] == [y[0], 1, 1] && columns.end <= ins[i][3],
                "conv2d: emb {:?} with columns {columns:?} for output {y:?}",
                ins[i]
            );
        }
        if let Some(i) = self.input(Input::Residual) {
            ensure!(ins[i] == y, "conv2d: residual {:?} for output {y:?}", ins[i]);
        }
        for i in self.sides() {
            ensure!(ins[i][..3] == y[..3], "conv2d: shortcut {:?} for output {y:?}", ins[i]);
        }
        Ok(vec![y])
    }

    fn columns(&self, ins: &[Shape], i: usize) -> Range<usize> {
        if self.input(Input::Emb) == Some(i) { self.emb_columns() } else { 0..ins[i][3] }
    }

    fn dtypes(&self, precision: Precision, _outs: usize) -> Vec<Dtype> {
        vec![if self.float32 { Dtype::F32 } else { precision.storage() }]
    }

    fn param_lens(&self, ins: &[Shape]) -> Vec<usize> {
        let o = self.out_channels;
        let mut lens = vec![o * self.depth(ins[0]), o];
        if self.shortcut.is_some() {
            lens.extend([o * self.shortcut_channels(ins), o]);
        }
        lens
    }

    fn reads(&self, _ins: &[Shape]) -> Reads {
        Reads { ins: std::iter::once(0).chain(self.sides()).collect(), outs: vec![] }
    }

    fn temp_words(&self, ins: &[Shape], direction: Direction) -> usize {
        match direction {
            Direction::Fwd => 0,
            Direction::Bwd => cpu_bwd::temps(self, ins).words(),
        }
    }

    fn flop(&self, ins: &[Shape]) -> u64 {
        self.matrix_flop(ins)
    }

    fn fwd(&self, io: &Io) -> Launch {
        cpu_fwd::forward(*self, io)
    }

    fn bwd(&self, io: &Io, grads: &Grads) -> Launch {
        cpu_bwd::backward(*self, io, grads)
    }

    fn kernel_temp_words(
        &self,
        ins: &[Shape],
        precision: Precision,
        direction: Direction,
    ) -> usize {
        gpu::temp_words(self, ins, precision, direction)
    }

    fn later_words(
        &self,
        ins: &[Shape],
        precision: Precision,
        limits: GpuLimits,
        batch: usize,
    ) -> LaterWords {
        gpu::later_words(self, ins, precision, limits, batch)
    }

    fn sums(&self, io: &Io, grads: &Grads) -> LaterSums {
        gpu::sums(self, io, grads)
    }

    fn takes_sums(&self) -> bool {
        true
    }

    fn residual(&self) -> Option<(usize, f32)> {
        Some((self.input(Input::Residual)?, self.scale))
    }

    fn sums_are_gradient_of(&self) -> Option<usize> {
        self.input(Input::Emb).filter(|_| self.scale == 1.0)
    }

    fn packs(&self, ins: &[Shape], precision: Precision, training: bool) -> Vec<Pack> {
        Algorithms::new(self, precision).packs(ins, training)
    }

    fn kernels(&self, io: &Io, grads: Option<&Grads>) -> Vec<Kernel> {
        match grads {
            None => gpu::forward(self, io),
            Some(grads) => gpu::backward(self, io, grads),
        }
    }
}
