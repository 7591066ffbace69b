//! Attention on the CUDA device: with the scores on chip (`kernels/attention_mma.cu`) where a block's tile holds an image's
//! keys, else as products (`kernels/matmul.cu`, `matmul_mma.cu`) and softmaxes (`attention.cu`) one behind the other.

use crate::device::params::{
    BLOCK_WARPS, MMA_OPERAND, MMA_SHARED_BYTES, MMA_TILE, MMA_WIDE, MMA_WIDE_SHARED_BYTES, TILE,
};
use crate::device::{
    Acc, Dtype, Entry, Family, GpuLimits, Kernel, Precision, Ptr, Sink, Slot, params,
};
use crate::ops::{Direction, Grads, Io, Shape};

/// Images, pixels of each, channels.
pub(super) fn sizes(ins: &[Shape]) -> (usize, usize, usize) {
    (ins[0][0], ins[0][1] * ins[0][2], ins[0][3] / 3)
}

/// Attention on chip: sizes, and the stages of its kernels' rings.
struct OnChip {
    n: usize,
    t: usize,
    c: usize,
    stages: usize,
}

impl OnChip {
    /// Of at most [`MMA_WIDE`] pixels stored in bf16, in rows of whole 16-byte pieces.
    fn new((n, t, c): (usize, usize, usize), dtype: Dtype, limits: GpuLimits) -> Option<OnChip> {
        let whole = t.is_multiple_of(8) && c.is_multiple_of(8);
        let fits = dtype == Dtype::Bf16 && whole && t <= MMA_WIDE;
        let stages = if limits.shared_bytes >= MMA_WIDE_SHARED_BYTES { 3 } else { 2 };
        (limits.has(Family::Attention) && fits).then_some(OnChip { n, t, c, stages })
    }

    fn scale(&self) -> f32 {
        1.0 / (self.c as f32).sqrt()
    }

    /// Two products, and what moves of an image's parts of `channels` and of its weights: so many of each.
    fn kernel(&self, kernel: Kernel, channels: usize, weights: usize) -> Kernel {
        let OnChip { n, t, c, stages } = *self;
        let elements = n * t * (channels * c + weights * t);
        kernel
            .shared(stages * 3 * MMA_OPERAND)
            .flop(4 * n * t * t * c)
            .moves(Dtype::Bf16.bytes(elements))
    }

    fn forward(&self, io: &Io) -> Kernel {
        let OnChip { n, t, c, stages } = *self;
        let (y, w, qkv, scale) = (io.outs[0], io.outs[1], io.ins[0], self.scale());
        let arguments = params!(AttentionFwd { y, w, qkv, t, c, stages, scale });
        let kernel = Kernel::new(params::ATTENTION_MMA_FWD, [t.div_ceil(MMA_TILE), n], arguments);
        self.kernel(kernel, 4, 1)
    }

    fn backward(&self, io: &Io, dy: Slot, dqkv: Sink) -> Vec<Kernel> {
        let OnChip { n, t, c, stages } = *self;
        let (w, qkv, scale, add) = (io.outs[1], io.ins[0], self.scale(), dqkv.acc);
        let ds = io.temp.stored(0, n * t * t, w.dtype);
        let read = (add == Acc::Add) as usize;
        let arguments =
            params!(AttentionBwdQueries { dqkv, ds, qkv, w, dy, t, c, stages, scale, add });
        let grid = [t.div_ceil(MMA_TILE), n];
        let of_queries = Kernel::new(params::ATTENTION_MMA_BWD_QUERIES, grid, arguments);
        let arguments =
            params!(AttentionBwdKeys { dqkv, qkv, w, ds, dy, t, c, stages, scale, add });
        let grid = [t.div_ceil(MMA_TILE), c.div_ceil(MMA_WIDE), 2 * n];
        let of_keys = Kernel::new(params::ATTENTION_MMA_BWD_KEYS, grid, arguments);
        vec![self.kernel(of_queries, 4 + read, 2), self.kernel(of_keys, 4 + 2 * read, 2)]
    }
}

pub(super) fn temp_words(
    (n, t, c): (usize, usize, usize),
    precision: Precision,
    direction: Direction,
    limits: GpuLimits,
) -> usize {
    let dtype = precision.storage();
    let (float32, stored) = (n * t * t, dtype.words(n * t * t));
    let on_chip = OnChip::new((n, t, c), dtype, limits).is_some();
    match (dtype, direction) {
        (_, Direction::Fwd) if on_chip => 0,
        (_, Direction::Bwd) if on_chip => stored,
        // The weights themselves hold the scores.
        (Dtype::F32, Direction::Fwd) => 0,
        (Dtype::F32, Direction::Bwd) | (Dtype::Bf16, Direction::Fwd) => float32,
        (Dtype::Bf16, Direction::Bwd) => float32.next_multiple_of(16) + stored,
    }
}

/// A matrix per image: its address, elements from row to row and from image to image.
type View = (Ptr, usize, usize);

/// Part 0, 1 or 2 of qkv, or of its gradient.
fn part(slot: Slot, which: usize, (_, t, c): (usize, usize, usize)) -> View {
    (Ptr::Element(slot, which * c), 3 * c, 3 * t * c)
}

fn narrow(slot: Slot, (_, t, c): (usize, usize, usize)) -> View {
    (Ptr::Slot(slot), c, t * c)
}

fn square(slot: Slot, (_, t, _): (usize, usize, usize)) -> View {
    (Ptr::Slot(slot), t, t * t)
}

pub(super) fn forward(io: &Io) -> Vec<Kernel> {
    let (of, qkv, w) = (sizes(&io.shapes), io.ins[0], io.outs[1]);
    if let Some(on_chip) = OnChip::new(of, w.dtype, io.limits) {
        return vec![on_chip.forward(io)];
    }
    let (n, t, c) = of;
    let products = Products::new(w.dtype, of);
    let (rows, blocks) = (n * t, (n * t).div_ceil(BLOCK_WARPS));
    let (scores, softmax) = match w.dtype {
        Dtype::F32 => {
            let arguments = params!(SoftmaxFwd { w, rows, t });
            (w, Kernel::new(params::SOFTMAX_FWD, blocks, arguments))
        }
        Dtype::Bf16 => {
            let scores = io.temp.part(0, n * t * t);
            let arguments = params!(SoftmaxFwdBf16 { w, scores, rows, t });
            (scores, Kernel::new(params::SOFTMAX_FWD_BF16, blocks, arguments))
        }
    };
    let [q, k, v] = [0, 1, 2].map(|which| part(qkv, which, of));
    let (y, scale) = (narrow(io.outs[0], of), 1.0 / (c as f32).sqrt());
    vec![
        products.kernel(Form::Nt, square(scores, of), q, k, scale, Acc::Set),
        softmax,
        products.kernel(Form::Nn, y, square(w, of), v, 1.0, Acc::Set),
    ]
}

pub(super) fn backward(io: &Io, grads: &Grads) -> Vec<Kernel> {
    let (of, qkv, w) = (sizes(&io.shapes), io.ins[0], io.outs[1]);
    let dy = grads.outs[0].expect("attention's output has a gradient");
    let Some(sink @ Sink { slot, acc }) = grads.ins[0] else { return vec![] };
    if let Some(on_chip) = OnChip::new(of, w.dtype, io.limits) {
        return on_chip.backward(io, dy, sink);
    }
    let (n, t, c) = of;
    let products = Products::new(w.dtype, of);
    let (rows, blocks) = (n * t, (n * t).div_ceil(BLOCK_WARPS));
    let ds32 = io.temp.part(0, n * t * t);
    let (ds, softmax) = match w.dtype {
        Dtype::F32 => {
            let arguments = params!(SoftmaxBwd { ds: ds32, w, rows, t });
            (ds32, Kernel::new(params::SOFTMAX_BWD, blocks, arguments))
        }
        Dtype::Bf16 => {
            let ds = io.temp.stored((n * t * t).next_multiple_of(16), n * t * t, w.dtype);
            let arguments = params!(SoftmaxBwdBf16 { ds16: ds, ds: ds32, w, rows, t });
            (ds, Kernel::new(params::SOFTMAX_BWD_BF16, blocks, arguments))
        }
    };
    let [q, k, v] = [0, 1, 2].map(|which| part(qkv, which, of));
    let [dq, dk, dv] = [0, 1, 2].map(|which| part(slot, which, of));
    let (dy, w, scale) = (narrow(dy, of), square(w, of), 1.0 / (c as f32).sqrt());
    vec![
        products.kernel(Form::Nt, square(ds32, of), dy, v, 1.0, Acc::Set),
        softmax,
        products.kernel(Form::Tn, dv, w, dy, 1.0, acc),
        products.kernel(Form::Nn, dq, square(ds, of), k, scale, acc),
        products.kernel(Form::Tn, dk, square(ds, of), q, scale, acc),
    ]
}

/// Which of `kernels/matmul.cu`'s products: the first writes [t, t] over c, the others [t, c] over t.
enum Form {
    Nt,
    Nn,
    Tn,
}

/// The batched products of one size, by the fastest kernels that take it.
struct Products {
    /// Of [`Form`]'s three.
    kernels: [Entry<params::Matmul>; 3],
    mma: bool,
    n: usize,
    t: usize,
    c: usize,
}

impl Products {
    fn new(dtype: Dtype, (n, t, c): (usize, usize, usize)) -> Self {
        let mma = dtype == Dtype::Bf16 && t.is_multiple_of(8) && c.is_multiple_of(8);
        use params::*;
        let kernels = match (mma, dtype) {
            (true, _) => [MATMUL_MMA_NT, MATMUL_MMA_NN, MATMUL_MMA_TN],
            (_, Dtype::Bf16) => [MATMUL_NT_BF16, MATMUL_NN_BF16, MATMUL_TN_BF16],
            (_, Dtype::F32) => [MATMUL_NT, MATMUL_NN, MATMUL_TN],
        };
        Products { kernels, mma, n, t, c }
    }

    fn kernel(&self, form: Form, to: View, a: View, b: View, alpha: f32, acc: Acc) -> Kernel {
        let (t, c) = (self.t, self.c);
        let (cols, depth) = if let Form::Nt = form { (t, c) } else { (c, t) };
        let arguments = params!(Matmul {
            c: to.0,
            a: a.0,
            b: b.0,
            batch_a: a.2,
            batch_b: b.2,
            batch_c: to.2,
            m: t,
            n: cols,
            k: depth,
            lda: a.1,
            ldb: b.1,
            ldc: to.1,
            alpha,
            add: acc,
        });
        let tile = if self.mma { MMA_TILE } else { TILE };
        let grid = [t.div_ceil(tile), cols.div_ceil(tile), self.n];
        let shared = if self.mma { MMA_SHARED_BYTES } else { 0 };
        // Of qkv a product touches every third channel.
        let bytes = |v: View, words: usize| v.0.slot().map_or(0, |s| s.dtype.bytes(self.n * words));
        let written = bytes(to, t * cols) * if acc == Acc::Add { 2 } else { 1 };
        Kernel::new(self.kernels[form as usize], grid, arguments)
            .shared(shared)
            .flop(2 * self.n * t * cols * depth)
            .moves(written + bytes(a, t * depth) + bytes(b, depth * cols))
    }
}
