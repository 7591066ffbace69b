//! The norm on the CUDA device: in one pass over slabs of channels (`kernels/norm_slab.cu`) where an image's slab fits in
//! the shared memory that the card gives a block, else by `kernels/norm.cu`.

use super::norm::{Norm, keep_threshold};
use super::sums::sum_rows;
use super::{Direction, Grads, Io, Shape};
use crate::device::{Acc, Arg, Kernel, Sink, args, typed};

/// Words that the backward needs for itself: sums of an image's channels, and means of its groups.
pub(super) fn temp_words(op: &Norm, ins: &[Shape], direction: Direction) -> usize {
    match direction {
        Direction::Fwd => 0,
        Direction::Bwd => 2 * ins[0][0] * (op.channels(ins) + op.groups),
    }
}

/// Channels that a block of the one-pass kernels takes, and the shared memory it needs for them.
struct Slab {
    channels: usize,
    bytes: u32,
}

impl Slab {
    /// `copies`: tensors of the slab that are kept: x, and backward the gradient too.
    fn new(op: &Norm, io: &Io, copies: usize) -> Option<Slab> {
        let (ins, dtype) = (&io.shapes, io.ins[0].dtype);
        let (c, pixels) = (op.channels(ins), ins[0][1] * ins[0][2]);
        let (size, piece) = (dtype.bytes(1), 16 / dtype.bytes(1));
        let whole = |channels: usize| channels.is_multiple_of(piece);
        if !whole(c) || !ins.iter().all(|s| whole(s[3])) {
            return None;
        }
        let bytes = |channels: usize| copies * pixels * channels * size + 8192 + 40 * channels;
        let fits = |&n: &usize| {
            let per = c / op.groups;
            c.is_multiple_of(n) && n.is_multiple_of(per) && whole(n) && bytes(n) <= io.shared_bytes
        };
        let all: Vec<usize> = (piece..=c.min(512)).step_by(piece).filter(fits).collect();
        // Whole sectors of memory and work for every thread; more blocks rather than larger ones.
        let busy = |n: &&usize| *n * size >= 32 && pixels * (*n / piece) >= 256;
        let channels = *all.iter().find(busy).or(all.last())?;
        Some(Slab { channels, bytes: bytes(channels) as u32 })
    }
}

pub(super) fn kernels(op: &Norm, io: &Io, grads: Option<&Grads>) -> Vec<Kernel> {
    let [n, h, w, c1] = io.shapes[0];
    let (c, groups) = (op.channels(&io.shapes), op.groups);
    let c2 = io.shapes.get(1).map_or(0, |s| s[3]);
    let [ho, wo] = op.out_size(io.shapes[0]);
    let (x1, x2, stats) = (io.ins[0], io.ins.get(1).copied(), io.outs[1]);
    let [gamma, beta] = [io.params[0], io.params[1]];
    let (threshold, layer) = match op.dropout {
        Some((p, layer)) => (keep_threshold(p) as usize, layer as usize),
        None => (0, 0),
    };
    let (how, dtype) = (op.resample.map_or(0, |r| r.number()), x1.dtype);
    let sizes = args![n, h, w, c1, c2, c, groups, op.silu, how];
    let random = args![Arg::Step, Arg::FirstImage, layer, threshold];
    let of_slab = |first: Vec<Arg>, slab: &Slab, last: Vec<Arg>| {
        let inputs = args![x1, x2, gamma, beta];
        [first, inputs, sizes.clone(), random.clone(), args![slab.channels], last].concat()
    };
    let of_general = |first: Vec<Arg>, last: Vec<Arg>| {
        let inputs = args![x1, x2, stats, gamma, beta];
        [first, inputs, sizes.clone(), random.clone(), last].concat()
    };
    let Some(grads) = grads else {
        let xr = io.outs.get(2).copied();
        if let Some(slab) = Slab::new(op, io, 1) {
            let arguments = of_slab(args![io.outs[0], xr, stats], &slab, vec![]);
            let kernel =
                Kernel::new(typed!("norm_slab_fwd", dtype), [c / slab.channels, n], arguments);
            return vec![kernel.shared(slab.bytes)];
        }
        let grid = (n * (ho * wo * c).div_ceil(8)).div_ceil(256);
        let of_groups = args![stats, x1, x2, h * w, c1, c2, c, groups];
        let arguments = of_general(args![io.outs[0], xr], vec![]);
        return vec![
            Kernel::new(typed!("norm_stats", dtype), [groups, n], of_groups),
            Kernel::new(typed!("norm_fwd", dtype), grid, arguments),
        ];
    };
    let dy = grads.outs[0].expect("norm's output has a gradient");
    let dxr = grads.outs.get(2).copied().flatten();
    let (sums, means) = (io.temp.part(0, 2 * n * c), io.temp.part(2 * n * c, 2 * n * groups));
    let sink = |i: usize| grads.ins.get(i).copied().flatten();
    let (dx1, dx2) = (sink(0), sink(1));
    let [add1, add2] = [dx1, dx2].map(|s: Option<Sink>| s.is_some_and(|s| s.acc == Acc::Add));
    let mut list = Vec::new();
    if let Some(slab) = Slab::new(op, io, 2) {
        let first = args![dx1, dx2, sums, dy, dxr, stats];
        let arguments = of_slab(first, &slab, args![add1, add2]);
        let kernel = Kernel::new(typed!("norm_slab_bwd", dtype), [c / slab.channels, n], arguments);
        list.push(kernel.shared(slab.bytes));
    } else {
        let of_sums = of_general(args![sums, dy], vec![]);
        let of_groups = args![means, sums, gamma, n, c, groups, h * w];
        let grid = (n * (h * w * c).div_ceil(8)).div_ceil(256);
        let arguments = of_general(args![dx1, dx2, dy, dxr, means], args![add1, add2]);
        list.push(Kernel::new(typed!("norm_bwd_sums", dtype), [c.div_ceil(32), n], of_sums));
        list.push(Kernel::new("norm_bwd_groups", (n * groups).div_ceil(256), of_groups));
        list.push(Kernel::new(typed!("norm_bwd", dtype), grid, arguments));
    }
    list.push(sum_rows(grads.params[0], sums.part(0, n * c), n, c));
    list.push(sum_rows(grads.params[1], sums.part(n * c, n * c), n, c));
    list
}
