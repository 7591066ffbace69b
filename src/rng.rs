//! Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011), the same bits on every device.
//!
//! key = seed; counter = (block of elements in the image's H,W,C order, the image's index in the whole
//! batch, step, stream << 16 | layer). There is no state: position in the stream is the counter.

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
