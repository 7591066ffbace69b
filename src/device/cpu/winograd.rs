//! 3×3 convolutions by Winograd's F(4×4, 3×3): 36 products of transformed 6×6 patches in place of 144 per 16
//! outputs. Interpolation points 0, ±2/3, ±3/2, ∞, whose product 1 keeps rounding near that of the direct sum.
//!
//! Images whose sides are multiples of 4, channels in multiples of 16. "Plane" is one of the 36 positions of the
//! transformed domain; planes of a buffer lie `stride` words apart. Source: Lavin & Gray 2016, arXiv:1509.09308.

use crate::simd::vectorized;

/// Positions of a transformed tile.
pub const PLANES: usize = 36;

/// Pixels along a side of a tile of outputs.
pub const TILE: usize = 4;

/// Channels that one vector holds.
pub const LANES: usize = 16;

type Lane = [f32; LANES];

const P: f32 = 2.0 / 3.0;
const Q: f32 = 3.0 / 2.0;
const P2: f32 = P * P;
const Q2: f32 = Q * Q;
/// Σ of the squared points.
const S: f32 = (4.0 / 9.0) + (9.0 / 4.0);
/// 1 / Π (x_j − x_k) over the other points, for ±2/3 and ±3/2.
const WEIGHT_P: f32 = (1.0 / (2.0 * (4.0 / 9.0) * (4.0 / 9.0 - 9.0 / 4.0))) as f32;
const WEIGHT_Q: f32 = (1.0 / (2.0 * (9.0 / 4.0) * (9.0 / 4.0 - 4.0 / 9.0))) as f32;

/// Smaller images or widths are faster direct: the transforms cost more than the products save. Measured.
const WORTH_IT: usize = 4096;

/// Whether h×w images of c → o channels can go this way, and are faster for it.
pub fn suits([h, w]: [usize; 2], c: usize, o: usize) -> bool {
    h.is_multiple_of(TILE)
        && w.is_multiple_of(TILE)
        && c.is_multiple_of(LANES)
        && o.is_multiple_of(LANES)
        && h * w * c.min(o) >= WORTH_IT
}

/// Words between planes of `rows`×`columns`: a few cache lines more than they need, so that the 36 do not fall
/// into one set of the cache.
pub fn plane_stride(rows: usize, columns: usize) -> usize {
    rows * columns + 5 * LANES
}

#[inline(always)]
fn load(from: &[f32]) -> Lane {
    let mut lane = [0.0; LANES];
    lane.copy_from_slice(&from[..LANES]);
    lane
}

#[inline(always)]
fn map2(a: Lane, b: Lane, f: impl Fn(f32, f32) -> f32) -> Lane {
    let mut out = [0.0; LANES];
    for i in 0..LANES {
        out[i] = f(a[i], b[i]);
    }
    out
}

#[inline(always)]
fn add(a: Lane, b: Lane) -> Lane {
    map2(a, b, |a, b| a + b)
}

#[inline(always)]
fn sub(a: Lane, b: Lane) -> Lane {
    map2(a, b, |a, b| a - b)
}

/// a + k·b.
#[inline(always)]
fn axpy(a: Lane, k: f32, b: Lane) -> Lane {
    map2(a, b, |a, b| k.mul_add(b, a))
}

#[inline(always)]
fn scale(k: f32, a: Lane) -> Lane {
    map2(a, a, |a, _| k * a)
}

/// Bᵀ: six input pixels to six planes.
#[inline(always)]
fn input_1d(d: [Lane; 6]) -> [Lane; 6] {
    let even_p = axpy(d[4], -Q2, d[2]);
    let odd_p = axpy(scale(P, d[3]), -Q, d[1]);
    let even_q = axpy(d[4], -P2, d[2]);
    let odd_q = axpy(scale(Q, d[3]), -P, d[1]);
    [
        axpy(add(d[0], d[4]), -S, d[2]),
        add(even_p, odd_p),
        sub(even_p, odd_p),
        add(even_q, odd_q),
        sub(even_q, odd_q),
        axpy(add(d[1], d[5]), -S, d[3]),
    ]
}

/// Aᵀ: six planes to four output pixels.
#[inline(always)]
fn output_1d(m: [Lane; 6]) -> [Lane; 4] {
    let (a, b) = (add(m[1], m[2]), sub(m[1], m[2]));
    let (c, d) = (add(m[3], m[4]), sub(m[3], m[4]));
    [
        add(add(m[0], a), c),
        axpy(scale(P, b), Q, d),
        axpy(scale(P2, a), Q2, c),
        axpy(axpy(m[5], P * P2, b), Q * Q2, d),
    ]
}

/// A: four gradients of output pixels to six planes.
#[inline(always)]
fn gradient_1d(y: [Lane; 4]) -> [Lane; 6] {
    let even = |x2: f32| axpy(y[0], x2, y[2]);
    let odd = |x: f32, x2: f32| scale(x, axpy(y[1], x2, y[3]));
    let (even_p, odd_p, even_q, odd_q) = (even(P2), odd(P, P2), even(Q2), odd(Q, Q2));
    [y[0], add(even_p, odd_p), sub(even_p, odd_p), add(even_q, odd_q), sub(even_q, odd_q), y[3]]
}

/// G: three taps to six planes.
#[inline(always)]
fn weight_1d(g: [Lane; 3]) -> [Lane; 6] {
    let even_p = scale(WEIGHT_P, axpy(g[0], P2, g[2]));
    let even_q = scale(WEIGHT_Q, axpy(g[0], Q2, g[2]));
    let (odd_p, odd_q) = (scale(WEIGHT_P * P, g[1]), scale(WEIGHT_Q * Q, g[1]));
    [g[0], add(even_p, odd_p), sub(even_p, odd_p), add(even_q, odd_q), sub(even_q, odd_q), g[2]]
}

/// Gᵀ: six planes to three taps.
#[inline(always)]
fn taps_1d(u: [Lane; 6]) -> [Lane; 3] {
    let sum_p = scale(WEIGHT_P, add(u[1], u[2]));
    let sum_q = scale(WEIGHT_Q, add(u[3], u[4]));
    [
        add(add(u[0], sum_p), sum_q),
        axpy(scale(WEIGHT_P * P, sub(u[1], u[2])), WEIGHT_Q * Q, sub(u[3], u[4])),
        axpy(axpy(u[5], P2, sum_p), Q2, sum_q),
    ]
}

vectorized! {
    /// V: the 6×6 patch (zero outside the image) around tile (row, col) of an image [h, w, c], all channels,
    /// into row `at` of each plane.
    pub fn input(
        planes: &mut [f32],
        stride: usize,
        at: usize,
        image: &[f32],
        size: [usize; 3],
        tile: [usize; 2],
    ) {
        let [h, w, c] = size;
        for c0 in (0..c).step_by(LANES) {
            let mut columns = [[[0.0; LANES]; 6]; 6];
            for (j, column) in columns.iter_mut().enumerate() {
                let x = tile[1] * TILE + j;
                if x == 0 || x > w {
                    continue;
                }
                let mut d = [[0.0; LANES]; 6];
                for (i, d) in d.iter_mut().enumerate() {
                    let y = tile[0] * TILE + i;
                    if y > 0 && y <= h {
                        *d = load(&image[((y - 1) * w + x - 1) * c + c0..]);
                    }
                }
                *column = input_1d(d);
            }
            for i in 0..6 {
                let row = input_1d([0, 1, 2, 3, 4, 5].map(|j| columns[j][i]));
                for (j, lane) in row.iter().enumerate() {
                    planes[(i * 6 + j) * stride + at * c + c0..][..LANES].copy_from_slice(lane);
                }
            }
        }
    }

    /// Z: the 4×4 gradients of tile (row, col) of an image [h, w, o] into row `at` of each plane.
    pub fn gradient(
        planes: &mut [f32],
        stride: usize,
        at: usize,
        image: &[f32],
        size: [usize; 3],
        tile: [usize; 2],
    ) {
        let [_, w, o] = size;
        for o0 in (0..o).step_by(LANES) {
            let mut columns = [[[0.0; LANES]; 6]; 4];
            for (j, column) in columns.iter_mut().enumerate() {
                let pixel = |i: usize| ((tile[0] * TILE + i) * w + tile[1] * TILE + j) * o + o0;
                *column = gradient_1d([0, 1, 2, 3].map(|i| load(&image[pixel(i)..])));
            }
            for i in 0..6 {
                let row = gradient_1d([0, 1, 2, 3].map(|j| columns[j][i]));
                for (j, lane) in row.iter().enumerate() {
                    planes[(i * 6 + j) * stride + at * o + o0..][..LANES].copy_from_slice(lane);
                }
            }
        }
    }

    /// y (=|+=) factor · the 4×4 outputs of tile (row, col), from row `at` of each plane of `block` channels.
    /// `y`: an image [h, w, o] from channel `first` on.
    pub fn output(
        y: &mut [f32],
        add_to: bool,
        factor: f32,
        planes: &[f32],
        stride: usize,
        at: usize,
        block: usize,
        first: usize,
        size: [usize; 3],
        tile: [usize; 2],
    ) {
        let [_, w, o] = size;
        for b0 in (0..block).step_by(LANES) {
            let mut columns = [[[0.0; LANES]; 4]; 6];
            for (j, column) in columns.iter_mut().enumerate() {
                let plane = |i: usize| (i * 6 + j) * stride + at * block + b0;
                *column = output_1d([0, 1, 2, 3, 4, 5].map(|i| load(&planes[plane(i)..])));
            }
            let [a, b, c, d, e, f] = columns;
            for i in 0..4 {
                let row = output_1d([a[i], b[i], c[i], d[i], e[i], f[i]]);
                for (j, lane) in row.iter().enumerate() {
                    let from = ((tile[0] * TILE + i) * w + tile[1] * TILE + j) * o + first + b0;
                    let to = &mut y[from..][..LANES];
                    let base = if add_to { load(to) } else { [0.0; LANES] };
                    to.copy_from_slice(&axpy(base, factor, *lane));
                }
            }
        }
    }

    /// U for the forward: weights [o, 9, c] of output channels `o0..o0+16`, all c, to planes [c, o].
    pub fn weights(planes: &mut [f32], stride: usize, w: &[f32], o0: usize, sizes: [usize; 2]) {
        let [o, c] = sizes;
        for ch in 0..c {
            let mut taps = [[0.0; LANES]; 9];
            for (t, lane) in taps.iter_mut().enumerate() {
                for (i, v) in lane.iter_mut().enumerate() {
                    *v = w[((o0 + i) * 9 + t) * c + ch];
                }
            }
            store_weights(planes, stride, ch * o + o0, taps);
        }
    }

    /// U for the gradient of the input: flipped weights of output channel `k`, all c, to planes [o, c].
    pub fn flipped_weights(planes: &mut [f32], stride: usize, w: &[f32], k: usize, c: usize) {
        for c0 in (0..c).step_by(LANES) {
            let mut taps = [[0.0; LANES]; 9];
            for (t, lane) in taps.iter_mut().enumerate() {
                *lane = load(&w[(k * 9 + 8 - t) * c + c0..]);
            }
            store_weights(planes, stride, k * c + c0, taps);
        }
    }

    /// dw (=|+=) factor · Gᵀ·dU·G of output channel `k`: dw [9, c], planes [o, c].
    pub fn weight_gradient(
        dw: &mut [f32],
        add_to: bool,
        factor: f32,
        planes: &[f32],
        stride: usize,
        k: usize,
    ) {
        let c = dw.len() / 9;
        for c0 in (0..c).step_by(LANES) {
            let mut columns = [[[0.0; LANES]; 3]; 6];
            for (j, column) in columns.iter_mut().enumerate() {
                let plane = |i: usize| (i * 6 + j) * stride + k * c + c0;
                *column = taps_1d([0, 1, 2, 3, 4, 5].map(|i| load(&planes[plane(i)..])));
            }
            for i in 0..3 {
                let row = taps_1d([0, 1, 2, 3, 4, 5].map(|j| columns[j][i]));
                for (j, lane) in row.iter().enumerate() {
                    let to = &mut dw[(i * 3 + j) * c + c0..][..LANES];
                    let base = if add_to { load(to) } else { [0.0; LANES] };
                    to.copy_from_slice(&axpy(base, factor, *lane));
                }
            }
        }
    }
}

/// G·taps·Gᵀ at place `at` of each plane.
#[inline(always)]
fn store_weights(planes: &mut [f32], stride: usize, at: usize, taps: [Lane; 9]) {
    let mut columns = [[[0.0; LANES]; 6]; 3];
    for (j, column) in columns.iter_mut().enumerate() {
        *column = weight_1d([taps[j], taps[3 + j], taps[6 + j]]);
    }
    for i in 0..6 {
        let row = weight_1d([columns[0][i], columns[1][i], columns[2][i]]);
        for (j, lane) in row.iter().enumerate() {
            planes[(i * 6 + j) * stride + at..][..LANES].copy_from_slice(lane);
        }
    }
}
