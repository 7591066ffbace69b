//! The convolution on tensor cores: which of its products they take and how (`kernels/conv2d_mma.cu`,
//! `conv2d_wgrad_mma.cu`, `pack.cu`).
//!
//! They read vectors of 16 bytes of channels. What has fewer channels than one, as images have, is written out as
//! patches first, and its convolution becomes a 1×1 one.

use super::shape::{Conv2d, Input};
use crate::device::params::BLOCK_THREADS;
use crate::device::{Dtype, Kernel, Precision, Slot, params};
use crate::ops::pack::{Form, Pack};
use crate::ops::{Shape, words};

/// How a product is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// On the fp32 pipes, any shape.
    General,
    Tensor,
    /// On tensor cores, of the patches of x.
    PatchesOfX,
    /// On tensor cores, of the patches of dy.
    PatchesOfDy,
}

/// The algorithms of a convolution's products at one precision.
#[derive(Clone, Copy)]
pub(super) struct Algorithms {
    op: Conv2d,
    dtype: Dtype,
    /// Elements of 16 bytes; `None` where tensor cores are too coarse.
    vec16: Option<usize>,
}

impl Algorithms {
    pub(super) fn new(op: &Conv2d, precision: Precision) -> Self {
        let vec16 = match precision {
            Precision::Fp32 => None,
            Precision::Tf32 => Some(4),
            Precision::Bf16 => Some(8),
        };
        Algorithms { op: *op, dtype: precision.storage(), vec16 }
    }

    /// How patches are stored.
    pub(super) fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn whole(&self, channels: usize) -> bool {
        self.vec16.is_some_and(|n| channels.is_multiple_of(n))
    }

    fn few(&self, channels: usize) -> bool {
        self.vec16.is_some_and(|n| channels < n)
    }

    fn padded(&self, width: usize) -> usize {
        width.next_multiple_of(self.vec16.unwrap_or(1))
    }

    /// Whether dy is float32 beside an x in bf16: the network's last convolution.
    fn mixed(&self) -> bool {
        self.op.float32 && self.dtype == Dtype::Bf16
    }

    pub(super) fn forward(&self, ins: &[Shape]) -> Algorithm {
        let sides = self.op.sides();
        match ins[0][3] {
            _ if sides.into_iter().any(|i| !self.whole(ins[i][3])) => Algorithm::General,
            c if self.whole(c) => Algorithm::Tensor,
            c if self.few(c) => Algorithm::PatchesOfX,
            _ => Algorithm::General,
        }
    }

    /// Of the gradient of x.
    pub(super) fn input_gradient(&self) -> Algorithm {
        let o = self.op.out_channels;
        match self.op.stride {
            1 if self.few(o) || self.mixed() => Algorithm::PatchesOfDy,
            1 if self.whole(o) => Algorithm::Tensor,
            _ => Algorithm::General,
        }
    }

    /// Of the gradient of x's weight.
    pub(super) fn weight_gradient(&self, x: Shape) -> Algorithm {
        let (c, o, mixed) = (x[3], self.op.out_channels, self.mixed());
        match self.op.stride {
            1 if (self.few(o) || mixed) && self.whole(c) => Algorithm::PatchesOfDy,
            _ if mixed || !self.whole(o) => Algorithm::General,
            _ if self.whole(c) => Algorithm::Tensor,
            _ if self.few(c) => Algorithm::PatchesOfX,
            _ => Algorithm::General,
        }
    }

    /// Of both gradients of a shortcut's input and its columns: for the first dy's channels matter alone.
    pub(super) fn side_gradients(&self, channels: usize) -> [Algorithm; 2] {
        let o = self.whole(self.op.out_channels);
        [o, o && self.whole(channels)]
            .map(|yes| if yes { Algorithm::Tensor } else { Algorithm::General })
    }

    /// Shape of the patches of x, rows padded to whole 16 bytes.
    pub(super) fn patches_of_x(&self, x: Shape) -> Shape {
        let [n, ho, wo, _] = self.op.out_shape(x);
        [n, ho, wo, self.padded(self.op.depth(x))]
    }

    /// Shape of the patches of dy that reach x's pixels.
    fn patches_of_dy(&self, x: Shape) -> Shape {
        let taps = self.op.kernel * self.op.kernel;
        [x[0], x[1], x[2], self.padded(taps * self.op.out_channels)]
    }

    /// Words of the forward's patches.
    pub(super) fn forward_words(&self, ins: &[Shape]) -> usize {
        match self.forward(ins) {
            Algorithm::PatchesOfX => self.dtype.words(words(self.patches_of_x(ins[0]))),
            _ => 0,
        }
    }

    /// Shape of the backward's patches.
    pub(super) fn backward_patches(&self, x: Shape) -> Option<Shape> {
        match (self.weight_gradient(x), self.input_gradient()) {
            (Algorithm::PatchesOfX, _) => Some(self.patches_of_x(x)),
            (Algorithm::PatchesOfDy, _) | (_, Algorithm::PatchesOfDy) => {
                Some(self.patches_of_dy(x))
            }
            _ => None,
        }
    }

    pub(super) fn packs(&self, ins: &[Shape], training: bool) -> Vec<Pack> {
        self.roles(ins, training).into_iter().map(|(_, pack)| pack).collect()
    }

    /// The working copies in order; inference has the first of training's.
    fn roles(&self, ins: &[Shape], training: bool) -> Vec<(Role, Pack)> {
        let (op, dtype, x) = (&self.op, self.dtype, ins[0]);
        let (o, depth, srow) = (op.out_channels, op.depth(x), op.shortcut_channels(ins));
        let mut list = Vec::new();
        let mut rows = |role: Role, param: usize, width: usize| {
            let padded = self.padded(width);
            // Rows of float32 that need no padding are read where they lie.
            if dtype == Dtype::Bf16 || padded > width {
                list.push((
                    role,
                    Pack { param, dtype, padded, form: Form::Rows { rows: o, width } },
                ));
            }
        };
        if self.forward(ins) != Algorithm::General {
            rows(Role::Weight, 0, depth);
            if op.shortcut.is_some() {
                rows(Role::Shortcut, 2, srow);
            }
        }
        if !training {
            return list;
        }
        let taps = op.kernel * op.kernel;
        let transposed = |param, taps, c, row_words, first, padded| Pack {
            param,
            dtype,
            padded,
            form: Form::Transposed { o, taps, c, row_words, first },
        };
        if self.input_gradient() != Algorithm::General {
            let padded = self.padded(taps * o);
            list.push((Role::Back, transposed(0, taps, x[3], depth, 0, padded)));
        }
        let mut first = 0;
        for which in [Input::S1, Input::S2] {
            let Some(i) = op.input(which) else { continue };
            if self.side_gradients(ins[i][3])[0] == Algorithm::Tensor {
                let pack = transposed(2, 1, ins[i][3], srow, first, o);
                list.push((Role::BackOf(i), pack));
            }
            first += ins[i][3];
        }
        list
    }

    /// The working copy in a role, which is the parameter itself where none is needed.
    pub(super) fn weight(&self, role: Role, ins: &[Shape], packed: &[Slot], param: Slot) -> Slot {
        let found = self.roles(ins, true).iter().position(|(r, _)| *r == role);
        found.map_or(param, |i| packed[i])
    }

    /// Length of a shortcut's rows as the forward reads them.
    pub(super) fn shortcut_row(&self, ins: &[Shape]) -> usize {
        self.padded(self.op.shortcut_channels(ins))
    }

    /// The patches of x [n, ho, wo, width].
    pub(super) fn write_patches_of_x(&self, to: Slot, x: Slot, shape: Shape) -> Kernel {
        let p = self.patches_of_x(shape);
        im2col(to, x, shape, p, [self.op.kernel, self.op.stride, self.op.pad])
    }

    /// The patches of dy [n, h, w, width].
    pub(super) fn write_patches_of_dy(&self, to: Slot, dy: Slot, x: Shape) -> Kernel {
        let (p, y) = (self.patches_of_dy(x), self.op.out_shape(x));
        im2col(to, dy, y, p, [self.op.kernel, 1, self.op.kernel - 1 - self.op.pad])
    }
}

/// What a working copy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Weight,
    Shortcut,
    /// The gradient of x.
    Back,
    /// The gradient of this input, one of a shortcut's.
    BackOf(usize),
}

fn im2col(to: Slot, x: Slot, from: Shape, p: Shape, [kernel, stride, pad]: [usize; 3]) -> Kernel {
    let entry = match (x.dtype, to.dtype) {
        (Dtype::F32, Dtype::Bf16) => params::IM2COL_LAST,
        (_, Dtype::F32) => params::IM2COL,
        (_, Dtype::Bf16) => params::IM2COL_BF16,
    };
    let ([n, h, w, c], [_, ho, wo, width]) = (from, p);
    let arguments =
        params! { Im2col { cols: to, x, n, h, w, c, ho, wo, kernel, stride, pad, width } };
    Kernel::new(entry, words(p).div_ceil(BLOCK_THREADS), arguments)
}
