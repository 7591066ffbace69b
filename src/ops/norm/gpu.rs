//! The norm on the CUDA device: in one pass over slabs of channels (`kernels/norm_slab.cu`) where an image's slab fits in
//! the shared memory that the GPU gives a block, else by `kernels/norm.cu`.

use super::shape::{Norm, keep_threshold};
use crate::device::cpu::resample::Resampling;
use crate::device::params::{BLOCK_THREADS, DRAWN_ELEMENTS};
use crate::device::{Acc, Dtype, Entry, GpuLimits, Int, Kernel, Ptr, Sink, params, typed};
use crate::ops::later::{LaterSums, RowSum};
use crate::ops::{Direction, Grads, Io, Shape};

/// What the backward needs for itself: two means of each image's groups.
pub(super) fn temp_words(op: &Norm, ins: &[Shape], direction: Direction) -> usize {
    match direction {
        Direction::Fwd => 0,
        Direction::Bwd => 2 * ins[0][0] * op.groups,
    }
}

/// The gradients of gamma and beta, by the sums of each image's channels.
pub(super) fn sums(op: &Norm, io: &Io, grads: &Grads) -> LaterSums {
    let (n, c) = (io.shapes[0][0], op.channels(&io.shapes));
    let sums = grads.params.iter().zip(op.image_sums(&io.shapes).slots(io.rows));
    let sum = |(&dst, src)| RowSum { dst, src, src_row: c, rows: n, columns: c, scale: 1.0 };
    LaterSums { rows: sums.map(sum).collect(), chains: vec![] }
}

/// Channels that a block of the one-pass kernels takes, and the shared memory it needs for them.
struct Slab {
    channels: usize,
    bytes: usize,
}

impl Slab {
    /// `copies`: tensors of the slab that are kept: x, and backward the gradient too.
    fn new(op: &Norm, io: &Io, copies: usize) -> Option<Slab> {
        Slab::of(op, &io.shapes, io.ins[0].dtype, io.limits, copies)
    }

    fn of(
        op: &Norm,
        ins: &[Shape],
        dtype: Dtype,
        limits: GpuLimits,
        copies: usize,
    ) -> Option<Slab> {
        let (c, pixels) = (op.channels(ins), ins[0][1] * ins[0][2]);
        let (size, vec16) = (dtype.bytes(1), 16 / dtype.bytes(1));
        let whole = |channels: usize| channels.is_multiple_of(vec16);
        if !limits.slabs || !whole(c) || !ins.iter().all(|s| whole(s[3])) {
            return None;
        }
        let bytes = |channels: usize| copies * pixels * channels * size + 8192 + 40 * channels;
        let fits = |&n: &usize| {
            let per = c / op.groups;
            c.is_multiple_of(n)
                && n.is_multiple_of(per)
                && whole(n)
                && bytes(n) <= limits.shared_bytes
        };
        let all: Vec<usize> = (vec16..=c.min(512)).step_by(vec16).filter(fits).collect();
        // Whole sectors of memory and work for every thread; more blocks rather than larger ones.
        let busy = |n: &&usize| *n * size >= 32 && pixels * (*n / vec16) >= 256;
        let channels = *all.iter().find(busy).or(all.last())?;
        Some(Slab { channels, bytes: bytes(channels) })
    }
}

/// Whether the backward goes in one pass.
pub(super) fn gives_sums(op: &Norm, ins: &[Shape], dtype: Dtype, limits: GpuLimits) -> bool {
    Slab::of(op, ins, dtype, limits, 2).is_some()
}

/// The one-pass kernels of bf16: for any norm, and for those that networks are made of.
const FORWARD: [Entry<params::NormSlabFwd>; 6] = [
    params::NORM_SLAB_FWD_BF16,
    params::NORM_SLAB_FWD_PLAIN_BF16,
    params::NORM_SLAB_FWD_SILU_BF16,
    params::NORM_SLAB_FWD_SILU_DROP_BF16,
    params::NORM_SLAB_FWD_SILU_DOWN_BF16,
    params::NORM_SLAB_FWD_SILU_UP_BF16,
];
const BACKWARD: [Entry<params::NormSlabBwd>; 6] = [
    params::NORM_SLAB_BWD_BF16,
    params::NORM_SLAB_BWD_PLAIN_BF16,
    params::NORM_SLAB_BWD_SILU_BF16,
    params::NORM_SLAB_BWD_SILU_DROP_BF16,
    params::NORM_SLAB_BWD_SILU_DOWN_BF16,
    params::NORM_SLAB_BWD_SILU_UP_BF16,
];

/// The one-pass kernel, forward or backward: one that is compiled for what this norm does and no more, where there is one.
fn in_one_pass<T>(
    op: &Norm,
    [_, h, w, _]: Shape,
    dtype: Dtype,
    float32: Entry<T>,
    [any, plain, silu, silu_drop, silu_down, silu_up]: [Entry<T>; 6],
) -> Entry<T> {
    let even = h.is_multiple_of(2) && w.is_multiple_of(2);
    match (dtype, op.silu, op.dropout.is_some(), op.resample) {
        (Dtype::F32, ..) => float32,
        (_, false, false, None) => plain,
        (_, true, false, None) => silu,
        (_, true, true, None) => silu_drop,
        (_, true, false, Some(Resampling::Down)) if even => silu_down,
        (_, true, false, Some(Resampling::Up)) => silu_up,
        _ => any,
    }
}

/// Channels of the second input, which need not be there.
fn c_of_second(io: &Io) -> usize {
    io.shapes.get(1).map_or(0, |s| s[3])
}

/// What all kernels of a norm read.
fn of_norm(op: &Norm, io: &Io) -> params::NormOf {
    let [n, h, w, c1] = io.shapes[0];
    let (threshold, layer) = op.dropout.map_or((0, 0), |(p, layer)| (keep_threshold(p), layer));
    params!(NormOf {
        x1: io.ins[0],
        x2: io.ins.get(1).copied(),
        gamma: io.params[0],
        beta: io.params[1],
        step: Ptr::Step,
        n,
        h,
        w,
        c1,
        c2: c_of_second(io),
        c: op.channels(&io.shapes),
        groups: op.groups,
        silu: op.silu,
        how: op.resample.map_or(0, |r| r.number()),
        first_image: Int::FirstImage,
        layer,
        threshold,
    })
}

pub(super) fn forward(op: &Norm, io: &Io) -> Vec<Kernel> {
    let [n, h, w, c1] = io.shapes[0];
    let (c, groups, [ho, wo]) = (op.channels(&io.shapes), op.groups, op.out_size(io.shapes[0]));
    let (x1, x2, stats, of) = (io.ins[0], io.ins.get(1).copied(), io.outs[1], of_norm(op, io));
    let (y, xr, dtype) = (io.outs[0], io.outs.get(2).copied(), x1.dtype);
    if let Some(Slab { channels: cb, bytes }) = Slab::new(op, io, 1) {
        let kernel = in_one_pass(op, io.shapes[0], dtype, params::NORM_SLAB_FWD, FORWARD);
        let arguments = params!(NormSlabFwd { y, xr, stats, of, cb });
        return vec![Kernel::new(kernel, [c / cb, n], arguments).shared(bytes)];
    }
    let grid = (n * (ho * wo * c).div_ceil(DRAWN_ELEMENTS)).div_ceil(BLOCK_THREADS);
    let c2 = c_of_second(io);
    let of_groups = params!(NormStats { stats, x1, x2, pixels: h * w, c1, c2, c, groups });
    let arguments = params!(NormFwd { y, xr, stats, of });
    let statistics = typed([params::NORM_STATS, params::NORM_STATS_BF16], dtype);
    let forward = typed([params::NORM_FWD, params::NORM_FWD_BF16], dtype);
    vec![Kernel::new(statistics, [groups, n], of_groups), Kernel::new(forward, grid, arguments)]
}

pub(super) fn backward(op: &Norm, io: &Io, grads: &Grads) -> Vec<Kernel> {
    let [n, h, w, _] = io.shapes[0];
    let (c, groups, dtype) = (op.channels(&io.shapes), op.groups, io.ins[0].dtype);
    let (stats, of) = (io.outs[1], of_norm(op, io));
    let dy = grads.outs[0].expect("norm's output has a gradient");
    let dxr = grads.outs.get(2).copied().flatten();
    let (sums, means) = (io.rows, io.temp);
    let sink = |i: usize| grads.ins.get(i).copied().flatten();
    let (dx1, dx2) = (sink(0), sink(1));
    let given = |i: usize| grads.in_sums.get(i).copied().flatten();
    let [dx1_sums, dx2_sums] = [0, 1].map(|i| given(i).map(|sums| sums.slot));
    let [dx1_sums_row, dx2_sums_row] = [0, 1].map(|i| given(i).map_or(0, |sums| sums.row));
    let (residual, residual_scale) = grads.residual.unzip();
    let [add1, add2] = [dx1, dx2].map(|s: Option<Sink>| s.is_some_and(|s| s.acc == Acc::Add));
    let mut list = Vec::new();
    if let Some(Slab { channels: cb, bytes }) = Slab::new(op, io, 2) {
        let kernel = in_one_pass(op, io.shapes[0], dtype, params::NORM_SLAB_BWD, BACKWARD);
        let arguments = params! { NormSlabBwd {
            dx1, dx2, sums, dx1_sums, dx2_sums, dy, dxr, residual, stats, of, dx1_sums_row, dx2_sums_row, cb, add1, add2,
            residual_scale: residual_scale.unwrap_or_default(),
        } };
        list.push(Kernel::new(kernel, [c / cb, n], arguments).shared(bytes));
    } else {
        assert!(dx1_sums.or(dx2_sums).or(residual).is_none(), "only slabs give sums");
        let of_sums = params!(NormBwdSums { sums, dy, stats, of });
        let gamma = io.params[0];
        let of_groups = params!(NormBwdGroups { means, sums, gamma, n, c, groups, pixels: h * w });
        let grid = (n * (h * w * c).div_ceil(DRAWN_ELEMENTS)).div_ceil(BLOCK_THREADS);
        let arguments = params!(NormBwd { dx1, dx2, dy, dxr, means, stats, of, add1, add2 });
        let of_channels = typed([params::NORM_BWD_SUMS, params::NORM_BWD_SUMS_BF16], dtype);
        let backward = typed([params::NORM_BWD, params::NORM_BWD_BF16], dtype);
        list.push(Kernel::new(of_channels, [c.div_ceil(32), n], of_sums));
        list.push(Kernel::new(
            params::NORM_BWD_GROUPS,
            (n * groups).div_ceil(BLOCK_THREADS),
            of_groups,
        ));
        list.push(Kernel::new(backward, grid, arguments));
    }
    list
}
