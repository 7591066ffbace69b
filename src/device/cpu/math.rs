//! Elementwise building blocks that vectorise. Loops are compiled for AVX-512, AVX2 and plain x86-64 and
//! chosen at run time; multiply-adds are explicit, so all three give the same bits.

pub(crate) use crate::simd::vectorized;

/// e^x to about 1 ulp for |x| ≤ 87; clamped outside.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 87.0);
    // 1.5·2^23 rounds x/ln 2 to an integer that lands in the low bits of the sum.
    const MAGIC: f32 = 12_582_912.0;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    // ln 2 in two parts, so that r is exact to the last bits.
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    let y = (p * r).mul_add(r, r) + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    y * scale
}

/// 1 / (1 + e^−x).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The bits of bf16 nearest to x, ties to even; NaN stays NaN.
#[inline(always)]
pub fn to_half(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    // Of NaN a set bit is kept, which rounding could carry away.
    (if x.is_nan() { bits >> 16 | 0x40 } else { rounded }) as u16
}

/// The value of a bf16.
#[inline(always)]
pub fn from_half(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

vectorized! {
    /// Values of bf16.
    pub fn widen(to: &mut [f32], from: &[u16]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = from_half(from);
        }
    }

    /// Values rounded to bf16.
    pub fn narrow(to: &mut [u16], from: &[f32]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = to_half(from);
        }
    }

    /// Values rounded to bf16, widened again.
    pub fn round_to_half(to: &mut [f32], from: &[f32]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = from_half(to_half(from));
        }
    }

    /// y ← x·sigmoid(x) in place.
    pub fn silu(y: &mut [f32]) {
        for v in y {
            *v *= sigmoid(*v);
        }
    }

    /// dx = dy · d silu(z)/dz.
    pub fn silu_bwd(dx: &mut [f32], z: &[f32], dy: &[f32]) {
        for ((dx, &z), &dy) in dx.iter_mut().zip(z).zip(dy) {
            let s = sigmoid(z);
            *dx = dy * s * (z * (1.0 - s) + 1.0);
        }
    }

    /// y += x.
    pub fn add(y: &mut [f32], x: &[f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }

    /// y ← alpha·x.
    pub fn scaled(y: &mut [f32], alpha: f32, x: &[f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = alpha * x;
        }
    }

    /// y += alpha·x.
    pub fn add_scaled(y: &mut [f32], alpha: f32, x: &[f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = alpha.mul_add(x, *y);
        }
    }

    /// sum ← sum of the rows of x [rows, sum.len()], in order.
    pub fn sum_rows(sum: &mut [f32], x: &[f32]) {
        sum.fill(0.0);
        for row in x.chunks_exact(sum.len()) {
            for (s, &v) in sum.iter_mut().zip(row) {
                *s += v;
            }
        }
    }
}
