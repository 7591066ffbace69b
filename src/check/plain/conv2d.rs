//! y = (conv(x) + bias + emb + residual + shortcut) · scale, and its gradients.

use super::super::cases::Case;
use super::sample::{Of, Sample, d_out, in_rows, some};
use crate::ops::conv2d::Conv2d;
use std::ops::Range;

/// One of a shortcut's inputs.
struct Side<'a> {
    index: usize,
    words: &'a [f32],
    channels: usize,
    /// The first of its columns of the weight.
    first: usize,
}

/// A case by its parts.
struct Parts<'a> {
    op: &'a Conv2d,
    x_shape: [usize; 4],
    y_shape: [usize; 4],
    /// Channels of x and y, and pixels of the window.
    c: usize,
    o: usize,
    taps: usize,
    x: &'a [f32],
    w: &'a [f32],
    b: &'a [f32],
    dy: &'a [f32],
    /// The input, its words, the length of its rows and the first column that is this convolution's.
    emb: Option<(usize, &'a [f32], usize, usize)>,
    residual: Option<(usize, &'a [f32])>,
    sides: Vec<Side<'a>>,
    /// Weight and bias of the shortcut, and the length of the weight's rows.
    sw: &'a [f32],
    sb: &'a [f32],
    srow: usize,
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| a as f64 * b as f64).sum()
}

impl<'a> Parts<'a> {
    fn new(op: &'a Conv2d, case: &'a Case) -> Self {
        let shapes: Vec<_> = case.ins.iter().map(|i| i.shape).collect();
        let y_shape = case.op.outputs(&shapes).expect("a case of this op")[0];
        let words = |index: usize| &case.ins[index].words[..];
        let mut next = 1;
        let mut input = |there: bool| {
            next += there as usize;
            there.then_some(next - 1)
        };
        let emb = input(op.emb.is_some())
            .map(|index| (index, words(index), shapes[index][3], op.emb.unwrap_or(0)));
        let residual = input(op.residual).map(|index| (index, words(index)));
        let two = op.shortcut.is_some_and(|shortcut| shortcut.two);
        let mut sides: Vec<Side> = Vec::new();
        for index in [input(op.shortcut.is_some()), input(two)].into_iter().flatten() {
            let first = sides.iter().map(|side| side.channels).sum();
            sides.push(Side { index, words: words(index), channels: shapes[index][3], first });
        }
        let off = op.shortcut.map_or(0, |shortcut| shortcut.off);
        let param = |i: usize| case.params.get(i).map_or(&[][..], |p| &p.words[..]);
        Parts {
            op,
            x_shape: shapes[0],
            y_shape,
            c: shapes[0][3],
            o: y_shape[3],
            taps: op.kernel * op.kernel,
            x: words(0),
            w: param(0),
            b: param(1),
            dy: d_out(case, 0),
            emb,
            residual,
            srow: sides.iter().map(|side| side.channels).sum::<usize>() + off,
            sides,
            sw: param(2),
            sb: param(3),
        }
    }

    fn pixels(&self) -> usize {
        self.y_shape[..3].iter().product()
    }

    fn per_image(&self) -> usize {
        self.y_shape[1] * self.y_shape[2]
    }

    fn scale(&self) -> f64 {
        self.op.scale as f64
    }

    /// The pixel of x that output pixel `p` sees through a tap.
    fn seen(&self, p: usize, tap: usize) -> Option<usize> {
        let ([_, h, w, _], [_, ho, wo, _]) = (self.x_shape, self.y_shape);
        let (n, i, j) = (p / (ho * wo), p / wo % ho, p % wo);
        let along = |o: usize, t: usize, size: usize| {
            (o * self.op.stride + t).checked_sub(self.op.pad).filter(|&at| at < size)
        };
        let (row, column) =
            (along(i, tap / self.op.kernel, h)?, along(j, tap % self.op.kernel, w)?);
        Some((n * h + row) * w + column)
    }

    /// The output pixel that sees pixel `q` of x through a tap.
    fn seeing(&self, q: usize, tap: usize) -> Option<usize> {
        let ([_, h, w, _], [_, ho, wo, _]) = (self.x_shape, self.y_shape);
        let (n, i, j) = (q / (h * w), q / w % h, q % w);
        let stride = self.op.stride;
        let along = |at: usize, t: usize, size: usize| {
            let from = (at + self.op.pad).checked_sub(t)?;
            (from.is_multiple_of(stride) && from / stride < size).then_some(from / stride)
        };
        let (row, column) =
            (along(i, tap / self.op.kernel, ho)?, along(j, tap % self.op.kernel, wo)?);
        Some((n * ho + row) * wo + column)
    }

    fn y(&self, at: usize) -> f64 {
        let (c, (p, q)) = (self.c, (at / self.o, at % self.o));
        let of_tap = |tap: usize| {
            let from = self.seen(p, tap)?;
            Some(dot(&self.x[from * c..][..c], &self.w[(q * self.taps + tap) * c..][..c]))
        };
        let mut sum = self.b[q] as f64 + (0..self.taps).filter_map(of_tap).sum::<f64>();
        if let Some((_, emb, row, first)) = self.emb {
            sum += emb[p / self.per_image() * row + first + q] as f64;
        }
        sum += self.residual.map_or(0.0, |(_, words)| words[at] as f64);
        for side in &self.sides {
            let row = &self.sw[q * self.srow + side.first..][..side.channels];
            sum += dot(&side.words[p * side.channels..][..side.channels], row);
        }
        (sum + self.sb.get(q).map_or(0.0, |&v| v as f64)) * self.scale()
    }

    fn dx(&self, at: usize) -> f64 {
        let (o, c, (p, j)) = (self.o, self.c, (at / self.c, at % self.c));
        let of_tap = |tap: usize| {
            let from = self.seeing(p, tap)?;
            let product =
                |q| self.dy[from * o + q] as f64 * self.w[(q * self.taps + tap) * c + j] as f64;
            Some((0..o).map(product).sum::<f64>())
        };
        self.scale() * (0..self.taps).filter_map(of_tap).sum::<f64>()
    }

    fn dw(&self, at: usize) -> f64 {
        let (c, taps) = (self.c, self.taps);
        let (q, tap, j) = (at / (taps * c), at / c % taps, at % c);
        let product = |p: usize| {
            let from = self.seen(p, tap)?;
            Some(self.dy[p * self.o + q] as f64 * self.x[from * c + j] as f64)
        };
        self.scale() * (0..self.pixels()).filter_map(product).sum::<f64>()
    }

    /// Of dy's channel `q` over some pixels.
    fn sum(&self, pixels: Range<usize>, q: usize) -> f64 {
        self.scale() * pixels.map(|p| self.dy[p * self.o + q] as f64).sum::<f64>()
    }

    fn ds(&self, side: &Side, at: usize) -> f64 {
        let (p, j) = (at / side.channels, side.first + at % side.channels);
        let product = |q| self.dy[p * self.o + q] as f64 * self.sw[q * self.srow + j] as f64;
        self.scale() * (0..self.o).map(product).sum::<f64>()
    }

    fn dsw(&self, side: &Side, at: usize) -> f64 {
        let (q, j) = (at / self.srow, at % self.srow - side.first);
        let product = |p| self.dy[p * self.o + q] as f64 * side.words[p * side.channels + j] as f64;
        self.scale() * (0..self.pixels()).map(product).sum::<f64>()
    }

    /// Of what is added to the product.
    fn addends(&self, pixels: &[usize]) -> Vec<Sample> {
        let (o, mut all) = (self.o, Vec::new());
        if let Some((index, _, row, first)) = self.emb {
            let at = some(64, self.y_shape[0] * o).into_iter();
            let at = at.map(|at| at / o * row + first + at % o).collect();
            all.push(Sample::new(Of::In(index), at, |at| {
                let (image, per) = (at / row, self.per_image());
                self.sum(image * per..(image + 1) * per, at % row - first)
            }));
        }
        if let Some((index, _)) = self.residual {
            let value = |at| self.scale() * self.dy[at] as f64;
            all.push(Sample::new(Of::In(index), in_rows(pixels, o), value));
        }
        for side in &self.sides {
            let at = in_rows(pixels, side.channels);
            all.push(Sample::new(Of::In(side.index), at, |at| self.ds(side, at)));
            let at = some(64, o * side.channels).into_iter();
            let column = |at: usize| side.first + at % side.channels;
            let at = at.map(|at| at / side.channels * self.srow + column(at)).collect();
            all.push(Sample::new(Of::Param(2), at, |at| self.dsw(side, at)));
        }
        if self.op.shortcut.is_some() {
            let sum = |q| self.sum(0..self.pixels(), q);
            all.push(Sample::new(Of::Param(3), some(16, o), sum));
        }
        all
    }
}

pub(super) fn samples(op: &Conv2d, case: &Case) -> Vec<Sample> {
    let parts = Parts::new(op, case);
    let (c, o) = (parts.c, parts.o);
    let pixels = some(8, parts.pixels());
    let in_pixels = some(8, parts.x_shape[..3].iter().product());
    let mut all = vec![
        Sample::new(Of::Out(0), in_rows(&pixels, o), |at| parts.y(at)),
        Sample::new(Of::In(0), in_rows(&in_pixels, c), |at| parts.dx(at)),
        Sample::new(Of::Param(0), some(64, o * parts.taps * c), |at| parts.dw(at)),
        Sample::new(Of::Param(1), some(16, o), |q| parts.sum(0..parts.pixels(), q)),
    ];
    all.extend(parts.addends(&pixels));
    all
}
