//! The convolution's attributes, inputs and sizes.

use crate::device::cpu::patches::Window;
use crate::device::cpu::winograd::suits;
use crate::ops::{Shape, words};
use std::ops::Range;

#[derive(Debug, Clone, Copy)]
pub struct Shortcut {
    /// Whether there is a second input.
    pub two: bool,
    /// Channels of the weight that meet a switched-off skip.
    pub off: usize,
}

#[derive(Debug, Clone, Copy)]
pub struct Conv2d {
    /// 1 or 3.
    pub kernel: usize,
    pub stride: usize,
    pub pad: usize,
    pub out_channels: usize,
    pub scale: f32,
    /// The first of the columns of emb that are this convolution's.
    pub emb: Option<usize>,
    pub residual: bool,
    pub shortcut: Option<Shortcut>,
    /// y is float32 at every precision: the network's last.
    pub float32: bool,
}

impl Conv2d {
    /// k×k, stride 1, same size.
    pub fn same(kernel: usize, out_channels: usize) -> Self {
        Conv2d {
            kernel,
            stride: 1,
            pad: kernel / 2,
            out_channels,
            scale: 1.0,
            emb: None,
            residual: false,
            shortcut: None,
            float32: false,
        }
    }

    pub(super) fn input(&self, which: Input) -> Option<usize> {
        let emb = 1;
        let residual = emb + self.emb.is_some() as usize;
        let s1 = residual + self.residual as usize;
        match which {
            Input::Emb => self.emb.map(|_| emb),
            Input::Residual => self.residual.then_some(residual),
            Input::S1 => self.shortcut.map(|_| s1),
            Input::S2 => self.shortcut.filter(|s| s.two).map(|_| s1 + 1),
        }
    }

    pub(super) fn num_inputs(&self) -> usize {
        let shortcut = self.shortcut.map_or(0, |s| 1 + s.two as usize);
        1 + self.emb.is_some() as usize + self.residual as usize + shortcut
    }

    /// The columns of emb that are this convolution's.
    pub(super) fn emb_columns(&self) -> Range<usize> {
        let first = self.emb.unwrap_or(0);
        first..first + self.out_channels
    }

    pub(super) fn out_shape(&self, x: Shape) -> Shape {
        let out = |size: usize| (size + 2 * self.pad - self.kernel) / self.stride + 1;
        [x[0], out(x[1]), out(x[2]), self.out_channels]
    }

    /// Channels that the shortcut's weight takes, off ones included.
    pub(super) fn shortcut_channels(&self, ins: &[Shape]) -> usize {
        let channels = |which| self.input(which).map_or(0, |i| ins[i][3]);
        self.shortcut.map_or(0, |s| channels(Input::S1) + channels(Input::S2) + s.off)
    }

    pub(super) fn depth(&self, x: Shape) -> usize {
        self.kernel * self.kernel * x[3]
    }

    /// 2 × multiply-adds of the forward.
    pub(super) fn matrix_flop(&self, ins: &[Shape]) -> u64 {
        let y = self.out_shape(ins[0]);
        let shortcut = self.shortcut_channels(ins) - self.shortcut.map_or(0, |s| s.off);
        2 * words(y) as u64 * (self.depth(ins[0]) + shortcut) as u64
    }

    pub(super) fn window(&self) -> Window {
        Window { kernel: self.kernel, stride: self.stride, pad: self.pad as isize }
    }

    /// The inputs of the shortcut.
    pub(super) fn sides(&self) -> impl Iterator<Item = usize> + use<> {
        let op = *self;
        [Input::S1, Input::S2].into_iter().filter_map(move |s| op.input(s))
    }

    fn is_plain(&self) -> bool {
        (self.kernel, self.stride, self.pad) == (3, 1, 1)
    }

    /// 1×1: a product of the pixels as they lie.
    pub(super) fn is_point(&self) -> bool {
        (self.kernel, self.stride, self.pad) == (1, 1, 0)
    }

    /// 3×3 of images so small that every pixel sees every other: a product for each pair of them.
    pub(super) fn pairs(&self, x: Shape) -> Option<Pairs> {
        (self.is_plain() && x[1] <= 2 && x[2] <= 2).then_some(Pairs { h: x[1], w: x[2] })
    }

    /// Whether Winograd's algorithm, which is the fastest, takes it.
    pub(super) fn suits_winograd(&self, x: Shape) -> bool {
        self.is_plain() && self.pairs(x).is_none() && suits(x[3], self.out_channels)
    }
}

#[derive(Clone, Copy)]
pub(super) enum Input {
    Emb,
    Residual,
    S1,
    S2,
}

/// The pixels of an image of at most 2×2, in pairs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pairs {
    h: usize,
    w: usize,
}

impl Pairs {
    pub(super) fn pixels(self) -> usize {
        self.h * self.w
    }

    /// The tap through which output pixel `p` sees input pixel `q`.
    pub(super) fn tap(self, p: usize, q: usize) -> usize {
        let [y, x] = [q / self.w + 1 - p / self.w, q % self.w + 1 - p % self.w];
        3 * y + x
    }

    /// All (output pixel, input pixel).
    pub(super) fn all(self) -> impl Iterator<Item = (usize, usize)> {
        let n = self.pixels();
        (0..n * n).map(move |i| (i / n, i % n))
    }
}
