//! The convolution on the CUDA device: on tensor cores where they take it (`mma`), else by
//! `kernels/conv2d_fwd.cu` and `conv2d_bwd.cu`; `sums.cu`.

use super::mma::{self, Algorithm, Algorithms, Role};
use super::product::{Epilogue, Product, WeightProduct, chunk_images};
use super::shape::{Conv2d, Input};
use super::{hopper, tiles};
use crate::device::params::{BLOCK_THREADS, ROUNDED_IMAGES, TILE};
use crate::device::{Acc, Dtype, Entry, GpuLimits, Kernel, Precision, Sink, Slot, params, typed};
use crate::ops::scratch::Layout;
use crate::ops::sums::{scaled_add, sum_rows, zeros};
use crate::ops::{Direction, Grads, Io, Shape, columns_of, words};

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

pub(super) fn temp_words(
    op: &Conv2d,
    ins: &[Shape],
    precision: Precision,
    direction: Direction,
) -> usize {
    let algorithms = Algorithms::new(op, precision);
    match direction {
        Direction::Fwd => algorithms.forward_words(ins),
        Direction::Bwd => temps(op, ins, algorithms).words(),
    }
}

/// What the backward needs for itself, each from a whole line on: sums per image and channel, patches of x or of dy,
/// partial weight gradients.
fn temps(op: &Conv2d, ins: &[Shape], algorithms: Algorithms) -> Layout<3> {
    let (x, o) = (ins[0], op.out_channels);
    let patches = algorithms.backward_patches(x).map_or(0, |p| algorithms.dtype().words(words(p)));
    let of_sides = op.sides().map(|i| o * ins[i][3]).max().unwrap_or(0);
    // The least chunk is enough for all.
    let partials = x[0].div_ceil(ROUNDED_IMAGES) * of_sides.max(algorithms.partial_words(x));
    Layout([x[0] * o, patches, partials].map(|words| words.next_multiple_of(16)))
}

/// Which of a general kernel's three, [float32, bf16, the last layer's], takes x or its gradient and y or its gradient.
fn general<P>(kernels: [Entry<P>; 3], x: Slot, y: Slot) -> Entry<P> {
    match (x.dtype, y.dtype) {
        (Dtype::F32, Dtype::F32) => kernels[0],
        (Dtype::Bf16, Dtype::Bf16) => kernels[1],
        (Dtype::Bf16, Dtype::F32) => kernels[2],
        (Dtype::F32, Dtype::Bf16) => panic!("no convolution stores float32 {x:?} in bf16 {y:?}"),
    }
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
    let (n, o) = (y[0], y[3]);
    let dy = grads.outs[0].expect("conv2d has one output");
    let algorithms = Algorithms::new(op, io.precision);
    let [sums, patches, partials] = temps(op, &io.shapes, algorithms).slots(io.temp);
    let sums = sums.part(0, n * o);
    let sink = |which| op.input(which).and_then(|i| grads.ins[i]);

    let mut list = bias_gradients(op, io, grads, sums);
    if let Some(residual) = sink(Input::Residual) {
        list.push(scaled_add(residual, dy, op.scale));
    }
    let own = [algorithms.input_gradient(), algorithms.weight_gradient(x)];
    let wanted = if grads.ins[0].is_some() { &own[..] } else { &own[1..] };
    let is_patches = |a: &Algorithm| matches!(a, Algorithm::PatchesOfX | Algorithm::PatchesOfDy);
    let shape = algorithms.backward_patches(x).filter(|_| wanted.iter().any(is_patches));
    let patches = shape.map(|p| (patches.stored(0, words(p), algorithms.dtype()), p));
    if let Some((to, _)) = patches {
        list.push(match own[1] {
            Algorithm::PatchesOfX => algorithms.write_patches_of_x(to, io.ins[0], x),
            _ => algorithms.write_patches_of_dy(to, dy, x),
        });
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
    let of_y = OfY { op, dy, y, patches, partials, limits: io.limits };
    let weight = |role, param| algorithms.weight(role, &io.shapes, &io.packed, param);
    if let Some(dx) = grads.ins[0] {
        let packed = weight(Role::Back, io.params[0]);
        list.push(of_y.input_gradient(own[0], &main, dx, io.params[0], packed));
    }
    list.extend(of_y.weight_gradient(own[1], &main, grads.params[0]));

    let Some(shortcut) = op.shortcut else { return list };
    let row_words = op.shortcut_channels(&io.shapes);
    let mut first = 0;
    for i in op.sides() {
        let shape = io.shapes[i];
        let side =
            Columns { input: io.ins[i], shape, first, row_words, kernel: 1, stride: 1, pad: 0 };
        let [of_input, of_weight] = algorithms.side_gradients(shape[3]);
        if let Some(dx) = grads.ins[i] {
            let packed = weight(Role::BackOf(i), io.params[2]);
            list.push(of_y.input_gradient(of_input, &side, dx, io.params[2], packed));
        }
        list.extend(of_y.weight_gradient(of_weight, &side, grads.params[2]));
        first += shape[3];
    }
    if shortcut.off > 0 {
        list.push(zeros(grads.params[2], o, shortcut.off, row_words, first));
    }
    list
}

/// The fastest kernel that this GPU has for a product.
fn on_tensor_cores(p: &Product, e: &Epilogue, limits: GpuLimits) -> Kernel {
    hopper::product(p, e, limits).unwrap_or_else(|| tiles::product(p, e, limits))
}

/// As [`on_tensor_cores`].
fn weight_on_tensor_cores(p: &WeightProduct, limits: GpuLimits) -> Kernel {
    hopper::weight_product(p, limits).unwrap_or_else(|| tiles::weight_product(p, limits))
}

/// The gradients of the biases and of the rows that an embedding adds, by the sums over pixels of dy, which whoever wrote dy
/// may have given. `sums`: room for them.
fn bias_gradients(op: &Conv2d, io: &Io, grads: &Grads, sums: Slot) -> Vec<Kernel> {
    let [n, h, w, o] = op.out_shape(io.shapes[0]);
    let dy = grads.outs[0].expect("conv2d has one output");
    let demb = op.input(Input::Emb).and_then(|i| grads.ins[i]);
    let (x, pixels) = grads.out_sums.map_or((dy, h * w), |given| (given, 1));
    let mut list = Vec::new();
    let mut of_images = (x, op.scale);
    if grads.out_sums.is_none() || demb.is_some() {
        let (add, emb_row) = demb.map_or((Acc::Set, 0), |s| (s.acc, s.slot.len / n));
        let emb = demb.map(|s| Sink { slot: columns_of(s.slot, n, op.emb_columns()), ..s });
        let scale = op.scale;
        let arguments =
            params! { SumPixels { sums, emb, x, pixels, channels: o, emb_row, scale, add } };
        let kernel = typed([params::SUM_PIXELS, params::SUM_PIXELS_BF16], x.dtype);
        list.push(Kernel::new(kernel, [o.div_ceil(32), n], arguments));
        of_images = (sums, 1.0);
    }
    let biases = [1, 3].iter().filter_map(|&i| Some((*grads.params.get(i)?, of_images.0)));
    list.push(sum_rows(&biases.collect::<Vec<_>>(), n, o, of_images.1));
    list
}

/// What the gradients of a convolution's inputs and weights share.
struct OfY<'a> {
    op: &'a Conv2d,
    dy: Slot,
    y: Shape,
    patches: Option<(Slot, Shape)>,
    partials: Slot,
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
        let Columns { shape, first, row_words, kernel, stride, pad, .. } = *columns;
        let ([n, h, w, c], [_, ho, wo, o]) = (shape, self.y);
        let flop = 2 * n * ho * wo * o * columns.width();
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

    /// The gradient of one input's columns of the weight.
    fn weight_gradient(&self, algorithm: Algorithm, columns: &Columns, dw: Sink) -> [Kernel; 2] {
        let Columns { input, shape, first, row_words, kernel, stride, pad } = *columns;
        let ([n, h, w, c], [_, ho, wo, o]) = (shape, self.y);
        let (width, scale) = (columns.width(), self.op.scale);
        let chunk = chunk_images(self.y, c);
        let chunks = n.div_ceil(chunk);
        let flop = 2 * n * ho * wo * o * width;
        let partials = |row: usize, words: usize| self.partials.part(0, chunks * row * words);
        let reduce = |partials: Slot, words: usize| {
            let add = dw.acc;
            let arguments = params! { WgradReduce {
                dw, partials, o, width, partial_words: words, row_words, first, chunks, scale, add,
            } };
            Kernel::new(params::WGRAD_REDUCE, (o * width).div_ceil(BLOCK_THREADS), arguments)
        };
        let product = |partials, x, x_shape, window| WeightProduct {
            partials,
            dy: self.dy,
            y_shape: self.y,
            x,
            x_shape,
            window,
            chunk,
        };
        match (algorithm, self.patches) {
            (Algorithm::Tensor, _) => {
                let partials = partials(o, width);
                let product = product(partials, input, shape, [kernel, stride, pad]);
                [weight_on_tensor_cores(&product, self.limits).flop(flop), reduce(partials, width)]
            }
            (Algorithm::PatchesOfX, Some((patches, p))) => {
                let partials = partials(o, p[3]);
                let product = product(partials, patches, p, [1, 1, 0]);
                [weight_on_tensor_cores(&product, self.limits).flop(flop), reduce(partials, p[3])]
            }
            (Algorithm::PatchesOfDy, Some((patches, p))) => {
                let partials = partials(p[3], c);
                let product = product(partials, input, shape, [1, 1, 0]);
                let product = WeightProduct { dy: patches, y_shape: p, ..product };
                let sizes = [o, kernel * kernel, c, p[3], chunks];
                let reduce = mma::reduce_reversed(dw, partials, sizes, scale);
                [weight_on_tensor_cores(&product, self.limits).flop(flop), reduce]
            }
            _ => {
                let partials = partials(o, width);
                let grid = [o.div_ceil(TILE) * c.div_ceil(TILE), kernel * kernel, chunks];
                let (dy, x) = (self.dy, input);
                let arguments = params! { Conv2dWgrad {
                    partials, dy, x, n, h, w, c, ho, wo, o, kernel, stride, pad, chunk,
                } };
                use params::{CONV2D_WGRAD, CONV2D_WGRAD_BF16, CONV2D_WGRAD_LAST};
                let kernels = [CONV2D_WGRAD, CONV2D_WGRAD_BF16, CONV2D_WGRAD_LAST];
                let product = Kernel::new(general(kernels, x, dy), grid, arguments);
                [product.flop(flop), reduce(partials, width)]
            }
        }
    }
}
