//! Separable linear maps between image sizes: the U-Net's down- and upsampling, its filters, their transposes.

use super::super::slot::Acc;
use super::math::add_scaled;

/// What a resampling does to an image. Filters are `[1,1]`/2 or `[1,3,3,1]`/8 per axis (Song et al. 2021).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resampling {
    /// 2×2 mean.
    Down,
    /// Nearest ×2.
    Up,
    /// `[1,3,3,1]` filter, every second pixel.
    FirDown,
    /// ×2 by the same filter.
    FirUp,
    /// `[1,3,3,1]` filter at every position of the zero-extended image: size + 1. A stride-2 3×3 convolution of
    /// it without padding equals NCSN++'s padded convolution followed by the filter with stride 2.
    FirPad,
}

const BOX: [f32; 2] = [0.5, 0.5];
const FIR: [f32; 4] = [0.125, 0.375, 0.375, 0.125];

impl Resampling {
    /// Its number in `kernels/prelude/resample.cuh`, where 0 is none.
    pub fn number(self) -> usize {
        self as usize + 1
    }

    /// Length of an axis of `n` pixels afterwards.
    pub fn out_len(self, n: usize) -> usize {
        match self {
            Resampling::Down | Resampling::FirDown => n / 2,
            Resampling::Up | Resampling::FirUp => 2 * n,
            Resampling::FirPad => n + 1,
        }
    }

    /// Weight of input `i` in output `o` along one axis.
    fn weight(self, o: usize, i: usize) -> f32 {
        let (o, i) = (o as isize, i as isize);
        let tap = |f: &[f32], m: isize| usize::try_from(m).ok().and_then(|m| f.get(m)).copied();
        match self {
            Resampling::Down => tap(&BOX, i - 2 * o),
            Resampling::FirDown => tap(&FIR, i - 2 * o + 1),
            Resampling::Up => tap(&BOX, o - 2 * i).map(|w| 2.0 * w),
            Resampling::FirUp => tap(&FIR, o - 2 * i + 1).map(|w| 2.0 * w),
            Resampling::FirPad => tap(&FIR, i - o + 2),
        }
        .unwrap_or(0.0)
    }
}

/// For each output position of an axis the input positions that it sums, with weights.
#[derive(Debug, Clone)]
struct ResampleAxis(Vec<Vec<(usize, f32)>>);

impl ResampleAxis {
    fn new(outs: usize, ins: usize, weight: impl Fn(usize, usize) -> f32) -> Self {
        let taps = |o| (0..ins).map(|i| (i, weight(o, i))).filter(|t| t.1 != 0.0).collect();
        ResampleAxis((0..outs).map(taps).collect())
    }
}

/// A resampling of h×w images, or its transpose, with its weights resolved.
#[derive(Debug, Clone)]
pub struct Resampler {
    rows: ResampleAxis,
    cols: ResampleAxis,
    in_w: usize,
}

impl Resampler {
    pub fn new(how: Resampling, [h, w]: [usize; 2]) -> Self {
        let axis = |n| ResampleAxis::new(how.out_len(n), n, |o, i| how.weight(o, i));
        Resampler { rows: axis(h), cols: axis(w), in_w: w }
    }

    /// The transpose: from a gradient of the output of `new(how, [h, w])` to one of its input.
    pub fn transposed(how: Resampling, [h, w]: [usize; 2]) -> Self {
        let axis = |n| ResampleAxis::new(n, how.out_len(n), |o, i| how.weight(i, o));
        Resampler { rows: axis(h), cols: axis(w), in_w: how.out_len(w) }
    }

    /// dst (=|+=) the resampled src; both [.., .., c].
    pub fn apply(&self, dst: &mut [f32], acc: Acc, src: &[f32], c: usize) {
        if acc == Acc::Set {
            dst.fill(0.0);
        }
        let mut pixels = dst.chunks_exact_mut(c);
        for row in &self.rows.0 {
            for col in &self.cols.0 {
                let Some(pixel) = pixels.next() else { return };
                for &(ih, wh) in row {
                    for &(iw, ww) in col {
                        add_scaled(pixel, wh * ww, &src[(ih * self.in_w + iw) * c..][..c]);
                    }
                }
            }
        }
    }
}
