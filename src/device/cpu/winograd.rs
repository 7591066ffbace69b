//! 3×3 convolutions by Winograd's F(4×4, 3×3): 36 products of transformed 6×6 patches in place of 144 per 16
//! outputs. Interpolation points 0, ±2/3, ±3/2, ∞, whose product 1 keeps rounding near that of the direct sum.
//!
//! Images of any size, covered by 4×4 tiles that may reach past its end; channels in multiples of 16. "Plane" is one
//! of the 36 positions of the transformed domain; planes of a buffer lie `stride` words apart. Weights and inputs
//! that products take as rows lie in panels of [`PANEL`] columns (see [`TilePlace`]).
//! Source: Lavin & Gray 2016, arXiv:1509.09308.

// Loops over registers are plain: closures would be compiled without the features of the function around them.
#![allow(clippy::needless_range_loop)]

mod transforms;

use crate::simd::{LANES, Vector, lanes};
use transforms::{gradient_1d, input_1d, output_1d, taps_1d, weight_1d};

/// Positions of a transformed tile.
pub const PLANES: usize = 36;

/// Pixels along a side of a tile of outputs.
pub const TILE: usize = 4;

/// Columns of a panel: those that one pass of a product takes. The last panel may be narrower.
pub const PANEL: usize = 32;

/// Whether convolutions of c → o channels can go this way.
pub fn suits(c: usize, o: usize) -> bool {
    c.is_multiple_of(LANES) && o.is_multiple_of(LANES)
}

/// Words between planes of `rows`×`columns`: a few cache lines more than they need, so that the 36 do not fall
/// into one set of the cache.
pub fn plane_stride(rows: usize, columns: usize) -> usize {
    rows * columns + 5 * LANES
}

/// Where column `c` of row `r` lies in a plane of `rows`×`columns`.
#[derive(Debug, Clone, Copy)]
pub enum TilePlace {
    /// Row after row.
    Rows { columns: usize },
    /// Panel after panel, each row after row.
    Panels { rows: usize, columns: usize },
}

impl TilePlace {
    /// Of columns in whole vectors, `c` the first of one.
    #[inline(always)]
    fn at(self, r: usize, c: usize) -> usize {
        match self {
            TilePlace::Rows { columns } => r * columns + c,
            TilePlace::Panels { rows, columns } => {
                let first = c / PANEL * PANEL;
                let width = PANEL.min(columns - first);
                first * rows + r * width + c - first
            }
        }
    }
}

/// Element `i` of each of `columns`.
#[inline(always)]
fn across<V: Vector, const N: usize, const M: usize>(columns: &[[V; N]; M], i: usize) -> [V; M] {
    let mut row = [columns[0][i]; M];
    for j in 1..M {
        row[j] = columns[j][i];
    }
    row
}

/// Column `j` of the 6×6 planes at `from`.
///
/// # Safety
/// All six lie in memory.
#[inline(always)]
unsafe fn load_column<V: Vector>(from: *const f32, stride: usize, j: usize) -> [V; 6] {
    let mut column = [V::splat(0.0); 6];
    for i in 0..6 {
        // SAFETY: the caller's promise.
        column[i] = unsafe { V::load(from.add((i * 6 + j) * stride)) };
    }
    column
}

/// An image of `channels` and the tile (row, column) of it that a transform is about.
#[derive(Debug, Clone, Copy)]
pub struct Square {
    pub h: usize,
    pub w: usize,
    pub channels: usize,
    pub row: usize,
    pub column: usize,
}

impl Square {
    /// Word of channel 0 of the tile's pixel (i, j), if that lies in the image.
    #[inline(always)]
    fn pixel(&self, i: usize, j: usize) -> Option<usize> {
        let (y, x) = (self.row * TILE + i, self.column * TILE + j);
        let inside = y < self.h && x < self.w;
        if inside { Some((y * self.w + x) * self.channels) } else { None }
    }

    /// As [`Square::pixel`], of the 6×6 patch that begins a row and a column before the tile.
    #[inline(always)]
    fn patch(&self, i: usize, j: usize) -> Option<usize> {
        let (y, x) = (self.row * TILE + i, self.column * TILE + j);
        let inside = y > 0 && y <= self.h && x > 0 && x <= self.w;
        if inside { Some(((y - 1) * self.w + x - 1) * self.channels) } else { None }
    }

    fn words(&self) -> usize {
        self.h * self.w * self.channels
    }
}

/// An image as a transform reads it.
#[derive(Clone, Copy)]
pub enum TilePixels<'a> {
    Words(&'a [f32]),
    /// Bits of bf16.
    Halves(&'a [u16]),
}

impl TilePixels<'_> {
    fn len(&self) -> usize {
        match self {
            TilePixels::Words(p) => p.len(),
            TilePixels::Halves(p) => p.len(),
        }
    }
}

/// Planes that a transform writes: word `place.at(row, c)` of each.
pub struct Planes<'a> {
    pub words: &'a mut [f32],
    pub stride: usize,
    pub place: TilePlace,
}

impl Planes<'_> {
    fn check(&self, row: usize, channels: usize) {
        let last = self.place.at(row, channels - LANES);
        assert!((PLANES - 1) * self.stride + last + LANES <= self.words.len());
    }
}

/// V: the 6×6 patch (zero outside the image) around a tile into row `at` of the planes, channels `first` to `end`
/// as columns 0 and on.
pub fn input(
    planes: &mut Planes,
    at: usize,
    image: TilePixels,
    square: Square,
    channels: [usize; 2],
) {
    let [first, end] = channels;
    assert!(image.len() >= square.words() && end <= square.channels);
    planes.check(at, end - first);
    // SAFETY: image and planes are as long as the checks above say.
    unsafe {
        match image {
            TilePixels::Words(p) => {
                input_lanes::<0>(planes, at, p.as_ptr().cast(), square, channels)
            }
            TilePixels::Halves(p) => {
                input_lanes::<1>(planes, at, p.as_ptr().cast(), square, channels)
            }
        }
    }
}

/// Z: the 4×4 gradients of a tile (zero outside the image) into row `at` of the planes, channels `first` to `end`
/// as columns 0 and on.
pub fn gradient(
    planes: &mut Planes,
    at: usize,
    image: TilePixels,
    square: Square,
    channels: [usize; 2],
) {
    let [first, end] = channels;
    assert!(image.len() >= square.words() && end <= square.channels);
    planes.check(at, end - first);
    // SAFETY: image and planes are as long as the checks above say.
    unsafe {
        match image {
            TilePixels::Words(p) => {
                gradient_lanes::<0>(planes, at, p.as_ptr().cast(), square, channels)
            }
            TilePixels::Halves(p) => {
                gradient_lanes::<1>(planes, at, p.as_ptr().cast(), square, channels)
            }
        }
    }
}

/// Planes of a product [.., block], read back.
#[derive(Clone, Copy)]
pub struct TileProduct<'a> {
    pub words: &'a [f32],
    pub stride: usize,
    pub block: usize,
}

impl TileProduct<'_> {
    fn check(&self, row: usize) {
        assert!((PLANES - 1) * self.stride + (row + 1) * self.block <= self.words.len());
    }
}

/// What becomes of outputs v: y (=|+=) factor · (v + bias + residual).
#[derive(Clone, Copy)]
pub struct Finish<'a> {
    pub add: bool,
    pub factor: f32,
    /// A value per channel.
    pub bias: Option<&'a [f32]>,
    /// Values beside y.
    pub residual: Option<&'a [f32]>,
}

/// The 4×4 outputs of a tile, from row `at` of the planes, into y.
pub fn output(y: &mut [f32], planes: TileProduct, at: usize, square: Square, finish: Finish) {
    assert!(y.len() >= square.words() && planes.block == square.channels);
    assert!(finish.bias.is_none_or(|b| b.len() >= planes.block));
    assert!(finish.residual.is_none_or(|r| r.len() >= square.words()));
    planes.check(at);
    // SAFETY: images, bias and planes are as long as the checks above say.
    unsafe { output_lanes(y, planes, at, square, finish) }
}

/// U for the forward: weights [o, 9, c] of output channels `o0..o0+16`, all c, to panels of [c, o].
pub fn weights(planes: &mut [f32], stride: usize, w: &[f32], o0: usize, [o, c]: [usize; 2]) {
    let place = TilePlace::Panels { rows: c, columns: o };
    assert!(w.len() >= (o0 + LANES) * 9 * c);
    let planes = &mut Planes { words: planes, stride, place };
    planes.check(c - 1, o);
    // SAFETY: weights and planes are as long as the checks above say.
    unsafe { weights_lanes(planes, w, o0, c) }
}

/// U for the gradient of the input: flipped weights of output channel `k`, all c, to panels of [o, c].
pub fn flipped_weights(planes: &mut [f32], stride: usize, w: &[f32], k: usize, [o, c]: [usize; 2]) {
    let place = TilePlace::Panels { rows: o, columns: c };
    assert!(w.len() >= (k + 1) * 9 * c);
    let planes = &mut Planes { words: planes, stride, place };
    planes.check(o - 1, c);
    // SAFETY: weights and planes are as long as the checks above say.
    unsafe { flipped_lanes(planes, w, k, c) }
}

/// dw (=|+=) factor · Gᵀ·dU·G of one output channel: nine taps of `block` words, `tap_stride` apart, from row `at`
/// of the planes.
pub fn weight_gradient(
    dw: &mut [f32],
    tap_stride: usize,
    add_to: bool,
    factor: f32,
    planes: TileProduct,
    at: usize,
) {
    assert_eq!(dw.len(), 8 * tap_stride + planes.block);
    planes.check(at);
    // SAFETY: dw and planes are as long as the checks above say.
    unsafe { taps_lanes(dw, tap_stride, add_to, factor, planes, at) }
}

lanes! {
    unsafe fn input_lanes<V, const HALF: usize>(
        planes: &mut Planes,
        at: usize,
        image: *const u8,
        square: Square,
        channels: [usize; 2],
    ) {
        // SAFETY: pixels lie in the image, places in the planes, the caller's promise.
        unsafe {
            let zero = V::splat(0.0);
            for c0 in (channels[0]..channels[1]).step_by(LANES) {
                let mut columns = [[zero; 6]; 6];
                for j in 0..6 {
                    let mut d = [zero; 6];
                    for i in 0..6 {
                        if let Some(pixel) = square.patch(i, j) {
                            d[i] = match HALF {
                                0 => V::load(image.cast::<f32>().add(pixel + c0)),
                                _ => V::load_half(image.cast::<u16>().add(pixel + c0)),
                            };
                        }
                    }
                    columns[j] = input_1d(d);
                }
                let to = planes.words.as_mut_ptr().add(planes.place.at(at, c0 - channels[0]));
                for i in 0..6 {
                    let row = input_1d(across(&columns, i));
                    for j in 0..6 {
                        row[j].store(to.add((i * 6 + j) * planes.stride));
                    }
                }
            }
        }
    }

    unsafe fn gradient_lanes<V, const HALF: usize>(
        planes: &mut Planes,
        at: usize,
        image: *const u8,
        square: Square,
        channels: [usize; 2],
    ) {
        // SAFETY: pixels lie in the image, places in the planes, the caller's promise.
        unsafe {
            let zero = V::splat(0.0);
            for c0 in (channels[0]..channels[1]).step_by(LANES) {
                let mut columns = [[zero; 6]; 4];
                for j in 0..4 {
                    let mut d = [zero; 4];
                    for i in 0..4 {
                        if let Some(pixel) = square.pixel(i, j) {
                            d[i] = match HALF {
                                0 => V::load(image.cast::<f32>().add(pixel + c0)),
                                _ => V::load_half(image.cast::<u16>().add(pixel + c0)),
                            };
                        }
                    }
                    columns[j] = gradient_1d(d);
                }
                let place = planes.place.at(at, c0 - channels[0]);
                let to = planes.words.as_mut_ptr().add(place);
                for i in 0..6 {
                    let row = gradient_1d(across(&columns, i));
                    for j in 0..6 {
                        row[j].store(to.add((i * 6 + j) * planes.stride));
                    }
                }
            }
        }
    }

    unsafe fn output_lanes<V>(
        y: &mut [f32],
        planes: TileProduct,
        at: usize,
        square: Square,
        finish: Finish,
    ) {
        // SAFETY: pixels lie in the images, places in the planes, the caller's promise.
        unsafe {
            let (zero, factor) = (V::splat(0.0), V::splat(finish.factor));
            for c0 in (0..planes.block).step_by(LANES) {
                let from = planes.words.as_ptr().add(at * planes.block + c0);
                let mut columns = [[zero; 4]; 6];
                for j in 0..6 {
                    columns[j] = output_1d(load_column(from, planes.stride, j));
                }
                let bias = match finish.bias {
                    Some(bias) => V::load(bias.as_ptr().add(c0)),
                    None => zero,
                };
                for i in 0..4 {
                    let row = output_1d(across(&columns, i));
                    for j in 0..4 {
                        if let Some(pixel) = square.pixel(i, j) {
                            let to = y.as_mut_ptr().add(pixel + c0);
                            let mut v = row[j].add(bias);
                            if let Some(residual) = finish.residual {
                                v = v.add(V::load(residual.as_ptr().add(pixel + c0)));
                            }
                            let v = match finish.add {
                                true => factor.mul_add(v, V::load(to)),
                                false => factor.mul(v),
                            };
                            v.store(to);
                        }
                    }
                }
            }
        }
    }

    unsafe fn weights_lanes<V>(planes: &mut Planes, w: &[f32], o0: usize, c: usize) {
        // SAFETY: taps lie in the weights, places in the planes, the caller's promise.
        unsafe {
            for c0 in (0..c).step_by(LANES) {
                let mut taps = [[V::splat(0.0); LANES]; 9];
                for t in 0..9 {
                    for i in 0..LANES {
                        taps[t][i] = V::load(w.as_ptr().add(((o0 + i) * 9 + t) * c + c0));
                    }
                    V::transpose(&mut taps[t]);
                }
                for i in 0..LANES {
                    store_weights(planes, c0 + i, o0, across(&taps, i));
                }
            }
        }
    }

    unsafe fn flipped_lanes<V>(planes: &mut Planes, w: &[f32], k: usize, c: usize) {
        // SAFETY: taps lie in the weights, places in the planes, the caller's promise.
        unsafe {
            for c0 in (0..c).step_by(LANES) {
                let mut taps = [V::splat(0.0); 9];
                for t in 0..9 {
                    taps[8 - t] = V::load(w.as_ptr().add((k * 9 + t) * c + c0));
                }
                store_weights(planes, k, c0, taps);
            }
        }
    }

    unsafe fn taps_lanes<V>(
        dw: &mut [f32],
        tap_stride: usize,
        add_to: bool,
        factor: f32,
        planes: TileProduct,
        at: usize,
    ) {
        // SAFETY: taps lie in dw, places in the planes, the caller's promise.
        unsafe {
            let (zero, factor, c) = (V::splat(0.0), V::splat(factor), planes.block);
            for c0 in (0..c).step_by(LANES) {
                let from = planes.words.as_ptr().add(at * c + c0);
                let mut columns = [[zero; 3]; 6];
                for j in 0..6 {
                    columns[j] = taps_1d(load_column(from, planes.stride, j));
                }
                for i in 0..3 {
                    let row = taps_1d(across(&columns, i));
                    for j in 0..3 {
                        let to = dw.as_mut_ptr().add((i * 3 + j) * tap_stride + c0);
                        let v = factor.mul(row[j]);
                        // Rounded before it is added, as where sums are kept apart.
                        (if add_to { v.add(V::load(to)) } else { v }).store(to);
                    }
                }
            }
        }
    }
}

/// G·taps·Gᵀ at row `r` and column `c` of the planes.
///
/// # Safety
/// They lie in the planes.
#[inline(always)]
unsafe fn store_weights<V: Vector>(planes: &mut Planes, r: usize, c: usize, taps: [V; 9]) {
    let mut columns = [[taps[0]; 6]; 3];
    for j in 0..3 {
        columns[j] = weight_1d([taps[j], taps[3 + j], taps[6 + j]]);
    }
    for i in 0..6 {
        let row = weight_1d(across(&columns, i));
        for j in 0..6 {
            // SAFETY: the caller's promise.
            unsafe {
                let place = (i * 6 + j) * planes.stride + planes.place.at(r, c);
                row[j].store(planes.words.as_mut_ptr().add(place));
            }
        }
    }
}
