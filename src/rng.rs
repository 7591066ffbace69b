//! Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011), the same bits on every device.
//!
//! key = seed; counter = (block of elements in the image's H,W,C order, the image's index in the whole
//! batch, step, stream << 16 | layer). There is no state: position in the stream is the counter.

use crate::simd::vectorized;

/// What a random number is for: the high half of the counter's last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// Initial weights; layer = index of the parameter.
    Init = 1,
    /// Noise levels of a training batch.
    Sigma = 2,
    /// Noise added to a training batch.
    Noise = 3,
    /// Dropout; layer = index of the norm that drops.
    Dropout = 4,
    /// A sampler's starting latents (key = the image's own seed).
    Latent = 5,
    /// Labels drawn for generated images (key = the image's own seed).
    Label = 6,
    /// Noise of the stochastic sampler; step = the sampler's step.
    Churn = 7,
    /// Data order: round keys of the permutation.
    Order = 8,
    /// Draws of `gap`, benches and other diagnostics.
    Diagnostic = 9,
    /// Images of a subset chosen at random.
    Subset = 10,
}

/// Last word of the counter.
pub const fn tag(stream: Stream, layer: u32) -> u32 {
    (stream as u32) << 16 | layer
}

/// Philox4x32-10: four random words from a counter and a key.
#[inline(always)]
pub fn philox(mut c: [u32; 4], seed: u64) -> [u32; 4] {
    let (mut k0, mut k1) = (seed as u32, (seed >> 32) as u32);
    let mut round = 0;
    while round < 10 {
        let a = 0xD251_1F53_u64 * c[0] as u64;
        let b = 0xCD9E_8D57_u64 * c[2] as u64;
        c = [(b >> 32) as u32 ^ c[1] ^ k0, b as u32, (a >> 32) as u32 ^ c[3] ^ k1, a as u32];
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
        round += 1;
    }
    c
}

/// A uniform number in (0, 1) with 32 random bits, in float64.
#[inline(always)]
pub fn unit(word: u32) -> f64 {
    (word as f64 + 0.5) / 4_294_967_296.0
}

/// Eight standard normals: elements 8·block .. 8·block + 8 of one image.
///
/// Two Philox blocks (first counter word 2·block and 2·block + 1), then Box-Muller on each pair of words.
/// Only IEEE additions, multiplications, fused multiply-adds and a square root, so every device gets the same
/// bits. Fast where fused multiply-add is an instruction: call it inside a function that has the feature, as
/// [`fill_normals`] does, else each falls back to a slow routine (with the same bits).
#[inline(always)]
pub fn normals8(block: u32, image: u32, step: u32, tag: u32, seed: u64) -> [f32; 8] {
    let a = philox([2 * block, image, step, tag], seed);
    let b = philox([2 * block + 1, image, step, tag], seed);
    let ((z0, z1), (z2, z3)) = (box_muller(a[0], a[1]), box_muller(a[2], a[3]));
    let ((z4, z5), (z6, z7)) = (box_muller(b[0], b[1]), box_muller(b[2], b[3]));
    [z0, z1, z2, z3, z4, z5, z6, z7]
}

vectorized! {
    /// Fills `out`, one image in H,W,C order, with the standard normals of [`normals8`].
    pub fn fill_normals(out: &mut [f32], image: u32, step: u32, tag: u32, seed: u64) {
        for (block, chunk) in out.chunks_mut(8).enumerate() {
            let z = normals8(block as u32, image, step, tag, seed);
            chunk.copy_from_slice(&z[..chunk.len()]);
        }
    }
}

/// (r cos 2πv, r sin 2πv) with r = √(−2 ln u), u = unit(a), v = unit(b): within 1e-6 of float64.
#[inline(always)]
fn box_muller(a: u32, b: u32) -> (f32, f32) {
    const TO_UNIT: f32 = 1.0 / 4_294_967_296.0;

    // u = m · 2^e with m in [√½, √2). Near u = 1 the mantissa has lost u − 1: take it from the complement of a.
    const SQRT_HALF: u32 = 0x3F35_04F3;
    const ONE: u32 = 0x3F80_0000;
    let bits = (a as f32 + 0.5).to_bits() + (ONE - SQRT_HALF);
    let e = (bits >> 23) as i32 - (127 + 32);
    let m = f32::from_bits((bits & 0x007F_FFFF) + SQRT_HALF);
    let f = if e == 0 { (!a as f32 + 0.5) * -TO_UNIT } else { m - 1.0 };
    let ln_u = (e as f32).mul_add(std::f32::consts::LN_2, ln_1p(f));
    let r = (-2.0 * ln_u).sqrt();

    // v = quarter / 4 + y with y in [−1/8, 1/8] turns.
    let quarter = b.wrapping_add(1 << 29) >> 30;
    let y = (b.wrapping_sub(quarter << 30) as i32 as f32 + 0.5) * TO_UNIT;
    let (sin, cos) = sin_cos_turns(y);
    let (c, s) = if quarter & 1 == 0 { (cos, sin) } else { (sin, cos) };
    let c = if (quarter + 1) & 2 == 0 { c } else { -c };
    let s = if quarter & 2 == 0 { s } else { -s };
    (r * c, r * s)
}

/// Evaluates a polynomial, lowest coefficient first.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut p = c[N - 1];
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        p = p.mul_add(x, c[i]);
    }
    p
}

/// ln(1 + f) for f in [√½ − 1, √2 − 1]: f − f²/2 + f³ p(f), p minimax in relative error.
#[inline(always)]
fn ln_1p(f: f32) -> f32 {
    const P: [f32; 9] = [
        0.333_333_13,
        -0.250_000_1,
        0.200_021_2,
        -0.166_679_96,
        0.142_195_52,
        -0.124_055_89,
        0.118_881_63,
        -0.116_756_51,
        0.067_466_386,
    ];
    let square = f * f;
    (square * f).mul_add(polynomial(f, P), square.mul_add(-0.5, f))
}

/// (sin 2πy, cos 2πy) for y in [−1/8, 1/8], minimax polynomials in y².
#[inline(always)]
fn sin_cos_turns(y: f32) -> (f32, f32) {
    const SIN: [f32; 4] = [std::f32::consts::TAU, -41.341_663, 81.592_55, -75.402_07];
    const COS: [f32; 5] = [1.0, -19.739_208, 64.939_32, -85.443_74, 59.245_964];
    let square = y * y;
    (y * polynomial(square, SIN), polynomial(square, COS))
}

/// The label of the generated image with this seed, uniform in 0..label_dim (0 where there are no labels).
pub fn uniform_label(seed: u64, label_dim: u32) -> u32 {
    let word = philox([0, 0, 0, tag(Stream::Label, 0)], seed)[0];
    ((word as u64 * label_dim as u64) >> 32) as u32
}

/// Where position `i` of `0..n` goes in the shuffle of this epoch: a bijection of `0..n` keyed by (key, epoch).
///
/// A balanced Feistel network over the smallest even number of bits that holds n, its rounds Philox words;
/// what falls outside `0..n` walks on until it is inside.
///
/// # Panics
/// If `i >= n`.
pub fn permute(i: u64, n: u64, key: u64, epoch: u64) -> u64 {
    assert!(i < n, "permute: position {i} is outside 0..{n}");
    const ROUNDS: u32 = 8;
    let half = (64 - (n - 1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1u64 << half) - 1;
    let mut x = i;
    loop {
        let (mut left, mut right) = (x >> half, x & mask);
        for round in 0..ROUNDS {
            let counter =
                [right as u32, epoch as u32, (epoch >> 32) as u32, tag(Stream::Order, round)];
            (left, right) = (right, left ^ (philox(counter, key)[0] as u64 & mask));
        }
        x = left << half | right;
        if x < n {
            return x;
        }
    }
}
