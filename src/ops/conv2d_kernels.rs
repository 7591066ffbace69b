//! The convolution on the CUDA device: `kernels/conv2d_fwd.cu`, `conv2d_bwd.cu`, `sums.cu`.

use super::conv2d::{Conv2d, Input};
use super::sums::{scaled_add, sum_rows, zeros};
use super::{Grads, Io, Op as _, Shape};
use crate::device::{Dtype, Kernel, Sink, Slot, args, typed};

/// Side of the tiles that products are cut into.
const TILE: usize = 64;
/// Images per partial weight gradient: the unit in which sums over images are rounded.
const IMAGES: usize = 8;

/// One of the inputs that a weight's rows hold columns for.
struct Columns {
    input: Slot,
    shape: Shape,
    /// First column in the rows, which have `row_words`.
    first: usize,
    row_words: usize,
    kernel: usize,
    stride: usize,
    pad: usize,
}

impl Columns {
    fn width(&self) -> usize {
        self.kernel * self.kernel * self.shape[3]
    }
}

/// Words that the backward needs for itself: sums per image and channel, and partial weight gradients.
pub(super) fn temp_words(op: &Conv2d, ins: &[Shape]) -> usize {
    let x = ins[0];
    let widest = ins.iter().map(|s| s[3]).max().unwrap_or(0).max(op.depth(x));
    let sums = (x[0] * op.out_channels).next_multiple_of(16);
    sums + x[0].div_ceil(IMAGES) * op.out_channels * widest
}

/// Which of a general kernel's three, [float32, bf16, the last layer's], takes x or its gradient and y or its gradient.
fn general(names: [&'static str; 3], x: Slot, y: Slot) -> &'static str {
    match (x.dtype, y.dtype) {
        (Dtype::F32, Dtype::F32) => names[0],
        (Dtype::Bf16, Dtype::Bf16) => names[1],
        (Dtype::Bf16, Dtype::F32) => names[2],
        (Dtype::F32, Dtype::Bf16) => panic!("no convolution stores float32 {x:?} in bf16 {y:?}"),
    }
}

pub(super) fn forward(op: &Conv2d, io: &Io) -> Vec<Kernel> {
    let (x, y) = (io.shapes[0], op.out_shape(io.shapes[0]));
    let [n, h, w, c] = x;
    let [_, ho, wo, o] = y;
    let slot = |which| op.input(which).map(|i| io.ins[i]);
    let channels = |which| op.input(which).map_or(0, |i| io.shapes[i][3]);
    let param = |i: usize| io.params.get(i).copied();
    vec![
        Kernel::new(
            general(["conv2d_fwd", "conv2d_fwd_bf16", "conv2d_fwd_last"], io.ins[0], io.outs[0]),
            [(n * ho * wo).div_ceil(TILE), o.div_ceil(TILE)],
            args![
                io.outs[0],
                io.ins[0],
                io.params[0],
                io.params[1],
                slot(Input::Emb),
                slot(Input::Residual),
                slot(Input::S1),
                slot(Input::S2),
                param(2),
                param(3),
                n,
                h,
                w,
                c,
                ho,
                wo,
                o,
                op.kernel,
                op.stride,
                op.pad,
                channels(Input::S1),
                channels(Input::S2),
                op.shortcut_channels(&io.shapes),
                op.scale,
            ],
        )
        .flop(op.flop(&io.shapes) as usize),
    ]
}

pub(super) fn backward(op: &Conv2d, io: &Io, grads: &Grads) -> Vec<Kernel> {
    let (x, y) = (io.shapes[0], op.out_shape(io.shapes[0]));
    let (n, pixels, o) = (y[0], y[1] * y[2], y[3]);
    let dy = grads.outs[0].expect("conv2d has one output");
    let sums = io.temp.part(0, n * o);
    let at = (n * o).next_multiple_of(16);
    let partials = io.temp.part(at, io.temp.len - at);
    let sink = |which| op.input(which).and_then(|i| grads.ins[i]);

    let demb = sink(Input::Emb);
    let add = demb.is_some_and(|s| s.acc == crate::device::Acc::Add);
    let mut list = vec![Kernel::new(
        typed!("sum_pixels", dy.dtype),
        [o.div_ceil(32), n],
        args![sums, demb, dy, pixels, o, op.scale, add],
    )];
    for i in [1, 3].into_iter().filter(|&i| i < grads.params.len()) {
        list.push(sum_rows(grads.params[i], sums, n, o));
    }
    if let Some(residual) = sink(Input::Residual) {
        list.push(scaled_add(residual, dy, op.scale));
    }
    let main = Columns {
        input: io.ins[0],
        shape: x,
        first: 0,
        row_words: op.depth(x),
        kernel: op.kernel,
        stride: op.stride,
        pad: op.pad,
    };
    list.extend(of_input(op, &main, grads.ins[0], io.params[0], grads.params[0], dy, y, partials));
    let Some(shortcut) = op.shortcut else { return list };
    let row_words = op.shortcut_channels(&io.shapes);
    let mut first = 0;
    for i in [Input::S1, Input::S2].into_iter().filter_map(|s| op.input(s)) {
        let shape = io.shapes[i];
        let side =
            Columns { input: io.ins[i], shape, first, row_words, kernel: 1, stride: 1, pad: 0 };
        list.extend(of_input(
            op,
            &side,
            grads.ins[i],
            io.params[2],
            grads.params[2],
            dy,
            y,
            partials,
        ));
        first += shape[3];
    }
    if shortcut.off > 0 {
        list.push(zeros(grads.params[2], o, shortcut.off, row_words, first));
    }
    list
}

/// Gradients of one input and of its columns of the weight.
fn of_input(
    op: &Conv2d,
    columns: &Columns,
    dx: Option<Sink>,
    weight: Slot,
    dw: Sink,
    dy: Slot,
    y: Shape,
    partials: Slot,
) -> Vec<Kernel> {
    let [n, h, w, c] = columns.shape;
    let [_, ho, wo, o] = y;
    let Columns { first, row_words, kernel, stride, pad, .. } = *columns;
    let (chunks, width) = (n.div_ceil(IMAGES), columns.width());
    let partials = partials.part(0, chunks * o * width);
    let flop = 2 * n * ho * wo * o * width;
    let mut list = Vec::new();
    if let Some(dx) = dx {
        let dgrad = Kernel::new(
            general(["conv2d_dgrad", "conv2d_dgrad_bf16", "conv2d_dgrad_last"], dx.slot, dy),
            [(n * h * w).div_ceil(TILE), c.div_ceil(TILE)],
            args![
                dx, dy, weight, n, h, w, c, ho, wo, o, kernel, stride, pad, row_words, first,
                op.scale, dx.acc,
            ],
        );
        list.push(dgrad.flop(flop));
    }
    let wgrad = Kernel::new(
        general(["conv2d_wgrad", "conv2d_wgrad_bf16", "conv2d_wgrad_last"], columns.input, dy),
        [o.div_ceil(TILE) * c.div_ceil(TILE), kernel * kernel, chunks],
        args![partials, dy, columns.input, n, h, w, c, ho, wo, o, kernel, stride, pad, IMAGES],
    );
    list.push(wgrad.flop(flop));
    list.push(Kernel::new(
        "wgrad_reduce",
        (o * width).div_ceil(256),
        args![dw, partials, o, width, width, row_words, first, chunks, op.scale, dw.acc],
    ));
    list
}
