//! F(4×4, 3×3) along one axis, for values in registers.

use crate::simd::Vector;

const P: f32 = 2.0 / 3.0;
const Q: f32 = 3.0 / 2.0;
const P2: f32 = P * P;
const Q2: f32 = Q * Q;
/// Σ of the squared points.
const S: f32 = (4.0 / 9.0) + (9.0 / 4.0);
/// 1 / Π (x_j − x_k) over the other points, for ±2/3 and ±3/2.
const WEIGHT_P: f32 = (1.0 / (2.0 * (4.0 / 9.0) * (4.0 / 9.0 - 9.0 / 4.0))) as f32;
const WEIGHT_Q: f32 = (1.0 / (2.0 * (9.0 / 4.0) * (9.0 / 4.0 - 4.0 / 9.0))) as f32;

/// a + k·b.
#[inline(always)]
fn axpy<V: Vector>(a: V, k: f32, b: V) -> V {
    b.mul_add(V::splat(k), a)
}

#[inline(always)]
fn scale<V: Vector>(k: f32, a: V) -> V {
    V::splat(k).mul(a)
}

/// Bᵀ: six input pixels to six planes.
#[inline(always)]
pub fn input_1d<V: Vector>(d: [V; 6]) -> [V; 6] {
    let even_p = axpy(d[4], -Q2, d[2]);
    let odd_p = axpy(scale(P, d[3]), -Q, d[1]);
    let even_q = axpy(d[4], -P2, d[2]);
    let odd_q = axpy(scale(Q, d[3]), -P, d[1]);
    [
        axpy(d[0].add(d[4]), -S, d[2]),
        even_p.add(odd_p),
        even_p.sub(odd_p),
        even_q.add(odd_q),
        even_q.sub(odd_q),
        axpy(d[1].add(d[5]), -S, d[3]),
    ]
}

/// Aᵀ: six planes to four output pixels.
#[inline(always)]
pub fn output_1d<V: Vector>(m: [V; 6]) -> [V; 4] {
    let (a, b) = (m[1].add(m[2]), m[1].sub(m[2]));
    let (c, d) = (m[3].add(m[4]), m[3].sub(m[4]));
    [
        m[0].add(a).add(c),
        axpy(scale(P, b), Q, d),
        axpy(scale(P2, a), Q2, c),
        axpy(axpy(m[5], P * P2, b), Q * Q2, d),
    ]
}

/// A: four gradients of output pixels to six planes.
#[inline(always)]
pub fn gradient_1d<V: Vector>(y: [V; 4]) -> [V; 6] {
    let (even_p, even_q) = (axpy(y[0], P2, y[2]), axpy(y[0], Q2, y[2]));
    let (odd_p, odd_q) = (scale(P, axpy(y[1], P2, y[3])), scale(Q, axpy(y[1], Q2, y[3])));
    [y[0], even_p.add(odd_p), even_p.sub(odd_p), even_q.add(odd_q), even_q.sub(odd_q), y[3]]
}

/// G: three taps to six planes.
#[inline(always)]
pub fn weight_1d<V: Vector>(g: [V; 3]) -> [V; 6] {
    let even_p = scale(WEIGHT_P, axpy(g[0], P2, g[2]));
    let even_q = scale(WEIGHT_Q, axpy(g[0], Q2, g[2]));
    let (odd_p, odd_q) = (scale(WEIGHT_P * P, g[1]), scale(WEIGHT_Q * Q, g[1]));
    [g[0], even_p.add(odd_p), even_p.sub(odd_p), even_q.add(odd_q), even_q.sub(odd_q), g[2]]
}

/// Gᵀ: six planes to three taps.
#[inline(always)]
pub fn taps_1d<V: Vector>(u: [V; 6]) -> [V; 3] {
    let sum_p = scale(WEIGHT_P, u[1].add(u[2]));
    let sum_q = scale(WEIGHT_Q, u[3].add(u[4]));
    [
        u[0].add(sum_p).add(sum_q),
        axpy(scale(WEIGHT_P * P, u[1].sub(u[2])), WEIGHT_Q * Q, u[3].sub(u[4])),
        axpy(axpy(u[5], P2, sum_p), Q2, sum_q),
    ]
}
