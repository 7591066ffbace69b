//! The convolution on the CUDA device: on tensor cores where they take it (`mma`), else by
//! `kernels/conv2d_fwd.cu` and `conv2d_bwd.cu`; `sums.cu`.

use super::mma::{Algorithm, Algorithms, Role};
use super::product::{Epilogue, Product, general};
use super::shape::{Conv2d, Input};
use super::{hopper, tiles, weights};
use crate::device::params::TILE;
use crate::device::{Acc, GpuLimits, Kernel, Precision, Sink, Slot, params, typed};
use crate::ops::later::{ChainSum, LaterSums, LaterWords, RowSum};
use crate::ops::sums::scaled_add;
use crate::ops::{Direction, Grads, Io, Op, PixelSums, Shape, columns_of, words};

pub(super) fn temp_words(
    op: &Conv2d,
    ins: &[Shape],
    precision: Precision,
    direction: Direction,
) -> usize {
    let algorithms = Algorithms::new(op, precision);
    match direction {
        Direction::Fwd => algorithms.forward_words(ins),
        // Patches of x or of dy.
        Direction::Bwd => algorithms
            .backward_patches(ins[0])
            .map_or(0, |patches| algorithms.dtype().words(words(patches))),
    }
}

/// For the sums over pixels of dy, where nobody gives them, and the partial sums of the weights' gradients.
pub(super) fn later_words(
    op: &Conv2d,
    ins: &[Shape],
    precision: Precision,
    limits: GpuLimits,
    batch: usize,
) -> LaterWords {
    let chains = weights::words(&weights::all(op, ins, precision, limits, batch));
    LaterWords { rows: ins[0][0] * op.out_channels, chains }
}

pub(super) fn forward(op: &Conv2d, io: &Io) -> Vec<Kernel> {
    let (x, y) = (io.shapes[0], op.out_shape(io.shapes[0]));
    let [n, h, w, c] = x;
    let [_, ho, wo, o] = y;
    let slot = |which| op.input(which).map(|i| io.ins[i]);
    let emb = slot(Input::Emb).map(|s| (columns_of(s, n, op.emb_columns()), s.len / n));
    let channels = |which| op.input(which).map_or(0, |i| io.shapes[i][3]);
    let param = |i: usize| io.params.get(i).copied();
    let algorithms = Algorithms::new(op, io.precision);
    let algorithm = algorithms.forward(&io.shapes);
    if algorithm != Algorithm::General {
        let side = |which| op.input(which).map(|i| (io.ins[i], io.shapes[i][3]));
        let weight = |role, param| algorithms.weight(role, &io.shapes, &io.packed, param);
        let epilogue = Epilogue {
            bias: Some(io.params[1]),
            emb,
            residual: slot(Input::Residual),
            sides: [Input::S1, Input::S2].map(side),
            sweight: param(2).map(|p| weight(Role::Shortcut, p)),
            sbias: param(3),
            srow: algorithms.shortcut_row(&io.shapes),
        };
        let mut product = Product {
            y: Sink { slot: io.outs[0], acc: Acc::Set },
            y_shape: y,
            x: io.ins[0],
            x_shape: x,
            weight: weight(Role::Weight, io.params[0]),
            window: [op.kernel, op.stride, op.pad],
            scale: op.scale,
        };
        let mut list = Vec::new();
        if algorithm == Algorithm::PatchesOfX {
            let p = algorithms.patches_of_x(x);
            let patches = io.temp.stored(0, words(p), algorithms.dtype());
            list.push(algorithms.write_patches_of_x(patches, io.ins[0], x));
            product = Product { x: patches, x_shape: p, window: [1, 1, 0], ..product };
        }
        let flop = op.matrix_flop(&io.shapes) as usize;
        list.push(on_tensor_cores(&product, &epilogue, io.limits).flop(flop));
        return list;
    }
    let arguments = params!(Conv2d {
        y: io.outs[0],
        x: io.ins[0],
        weight: io.params[0],
        bias: io.params[1],
        emb: emb.map(|(slot, _)| slot),
        residual: slot(Input::Residual),
        s1: slot(Input::S1),
        s2: slot(Input::S2),
        sweight: param(2),
        sbias: param(3),
        n,
        h,
        w,
        c,
        ho,
        wo,
        o,
        kernel: op.kernel,
        stride: op.stride,
        pad: op.pad,
        c1: channels(Input::S1),
        c2: channels(Input::S2),
        srow: op.shortcut_channels(&io.shapes),
        emb_row: emb.map_or(0, |(_, row)| row),
        scale: op.scale,
        add: Acc::Set,
    });
    let kernels = [params::CONV2D_FWD, params::CONV2D_FWD_BF16, params::CONV2D_FWD_LAST];
    let grid = [(n * ho * wo).div_ceil(TILE), o.div_ceil(TILE)];
    let kernel = Kernel::new(general(kernels, io.ins[0], io.outs[0]), grid, arguments);
    vec![kernel.flop(op.matrix_flop(&io.shapes) as usize)]
}

pub(super) fn backward(op: &Conv2d, io: &Io, grads: &Grads) -> Vec<Kernel> {
    let (x, y) = (io.shapes[0], op.out_shape(io.shapes[0]));
    let dy = grads.outs[0].expect("conv2d has one output");
    let algorithms = Algorithms::new(op, io.precision);
    let sink = |which| op.input(which).and_then(|i| grads.ins[i]);

    let mut list = Vec::from_iter(sums_of_pixels(op, io, grads));
    if let Some(residual) = sink(Input::Residual) {
        list.push(scaled_add(residual, dy, op.scale));
    }
    let own = [algorithms.input_gradient(), algorithms.weight_gradient(x)];
    let wanted = if grads.ins[0].is_some() { &own[..] } else { &own[1..] };
    let is_patches = |a: &Algorithm| matches!(a, Algorithm::PatchesOfX | Algorithm::PatchesOfDy);
    let shape = algorithms.backward_patches(x).filter(|_| wanted.iter().any(is_patches));
    let patches = shape.map(|p| (io.temp.stored(0, words(p), algorithms.dtype()), p));
    if let Some((to, _)) = patches {
        list.push(match own[1] {
            Algorithm::PatchesOfX => algorithms.write_patches_of_x(to, io.ins[0], x),
            _ => algorithms.write_patches_of_dy(to, dy, x),
        });
    }
    let of_y = OfY { op, dy, y, patches, limits: io.limits };
    let weight = |role, param| algorithms.weight(role, &io.shapes, &io.packed, param);
    let all = weights::all(op, &io.shapes, io.precision, io.limits, io.batch);
    for of in &all {
        let (i, side) = (of.input, of.input > 0);
        if let Some(dx) = grads.ins[i] {
            let (algorithm, role, param) = match side {
                false => (own[0], Role::Back, io.params[0]),
                true => {
                    let of_input = algorithms.side_gradients(io.shapes[i][3])[0];
                    (of_input, Role::BackOf(i), io.params[2])
                }
            };
            let window = if side { [1, 1, 0] } else { [op.kernel, op.stride, op.pad] };
            let columns = Columns { shape: io.shapes[i], columns: of.columns, window };
            let packed = weight(role, param);
            list.push(of_y.input_gradient(algorithm, &columns, dx, param, packed));
        }
    }
    list.extend(weights::kernels(&all, io, dy, patches.map(|(slot, _)| slot)));
    list
}

/// The gradients of the weights, and of the biases by the sums over pixels of dy.
pub(super) fn sums(op: &Conv2d, io: &Io, grads: &Grads) -> LaterSums {
    let (n, o) = (io.shapes[0][0], op.out_channels);
    let all = weights::all(op, &io.shapes, io.precision, io.limits, io.batch);
    let mut chains: Vec<_> = all.iter().map(|of| of.sum(op, io, grads)).collect();
    if let Some(shortcut) = op.shortcut.filter(|s| s.off > 0) {
        let row_words = op.shortcut_channels(&io.shapes);
        let first = row_words - shortcut.off;
        chains.push(ChainSum::zeros(grads.params[2], o, shortcut.off, row_words, first));
    }
    // They come scaled where they are made here.
    let (PixelSums { slot: src, row: src_row }, scale) = match grads.out_sums {
        Some(given) if suffices(op, grads) => (given, op.scale),
        _ => (PixelSums { slot: io.rows.part(0, n * o), row: o }, 1.0),
    };
    let biases = [1, 3].iter().filter_map(|&i| grads.params.get(i));
    let rows =
        biases.map(|&dst| RowSum { dst, src, src_row, rows: n, columns: o, scale }).collect();
    LaterSums { rows, chains }
}

/// Whether the sums over pixels that are given are all that is wanted of them: no embedding has a gradient, or they lie where
/// it goes.
fn suffices(op: &Conv2d, grads: &Grads) -> bool {
    let demb = op.input(Input::Emb).and_then(|i| grads.ins[i]);
    demb.is_none_or(|sink| sink.acc == Acc::Set && op.sums_are_gradient_of().is_some())
}

/// The fastest kernel that this GPU has for a product.
fn on_tensor_cores(p: &Product, e: &Epilogue, limits: GpuLimits) -> Kernel {
    hopper::product(p, e, limits).unwrap_or_else(|| tiles::product(p, e, limits))
}

/// The sums over pixels of dy, which whoever wrote dy may have given, and of them the gradient of the rows that an embedding
/// adds.
fn sums_of_pixels(op: &Conv2d, io: &Io, grads: &Grads) -> Option<Kernel> {
    if grads.out_sums.is_some() && suffices(op, grads) {
        return None;
    }
    let [n, h, w, o] = op.out_shape(io.shapes[0]);
    let dy = grads.outs[0].expect("conv2d has one output");
    let demb = op.input(Input::Emb).and_then(|i| grads.ins[i]);
    let (x, pixels) = grads.out_sums.map_or((dy, h * w), |given| (given.slot, 1));
    let (add, emb_row) = demb.map_or((Acc::Set, 0), |s| (s.acc, s.slot.len / n));
    let emb = demb.map(|s| Sink { slot: columns_of(s.slot, n, op.emb_columns()), ..s });
    let (sums, scale) = (io.rows.part(0, n * o), op.scale);
    let arguments =
        params! { SumPixels { sums, emb, x, pixels, channels: o, emb_row, scale, add } };
    let kernel = typed([params::SUM_PIXELS, params::SUM_PIXELS_BF16], x.dtype);
    Some(Kernel::new(kernel, [o.div_ceil(32), n], arguments))
}

/// Of a weight's rows the columns that meet one input.
struct Columns {
    /// Of the input.
    shape: Shape,
    /// First column in the rows, and words of a row.
    columns: [usize; 2],
    window: [usize; 3],
}

/// What the gradients of a convolution's inputs share.
struct OfY<'a> {
    op: &'a Conv2d,
    dy: Slot,
    y: Shape,
    patches: Option<(Slot, Shape)>,
    limits: GpuLimits,
}

impl OfY<'_> {
    /// The gradient of one input, of a weight as it is or of its working copy.
    fn input_gradient(
        &self,
        algorithm: Algorithm,
        columns: &Columns,
        dx: Sink,
        weight: Slot,
        packed: Slot,
    ) -> Kernel {
        let Columns { shape, columns: [first, row_words], window } = *columns;
        let [kernel, stride, pad] = window;
        let ([n, h, w, c], [_, ho, wo, o]) = (shape, self.y);
        let flop = 2 * n * ho * wo * o * kernel * kernel * c;
        let window = [kernel, 1, kernel - 1 - pad.min(kernel - 1)];
        let scale = self.op.scale;
        let (dy, y) = (self.dy, self.y);
        let product = |x, x_shape, window| {
            let product =
                Product { y: dx, y_shape: shape, x, x_shape, weight: packed, window, scale };
            on_tensor_cores(&product, &Epilogue::default(), self.limits).flop(flop)
        };
        match (algorithm, self.patches) {
            (Algorithm::PatchesOfDy, Some((patches, p))) => product(patches, p, [1, 1, 0]),
            (Algorithm::Tensor, _) => product(dy, y, window),
            _ => {
                let grid = [(n * h * w).div_ceil(TILE), c.div_ceil(TILE)];
                let add = dx.acc;
                let arguments = params! { Conv2dDgrad {
                    dx, dy, weight, n, h, w, c, ho, wo, o, kernel, stride, pad, row_words, first, scale, add,
                } };
                use params::{CONV2D_DGRAD, CONV2D_DGRAD_BF16, CONV2D_DGRAD_LAST};
                let kernels = [CONV2D_DGRAD, CONV2D_DGRAD_BF16, CONV2D_DGRAD_LAST];
                Kernel::new(general(kernels, dx.slot, dy), grid, arguments).flop(flop)
            }
        }
    }
}
