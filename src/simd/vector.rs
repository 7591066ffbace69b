//! What loops over registers are written with.

/// Lanes of a [`Vector`].
pub const LANES: usize = 16;

/// Sixteen f32 in registers. Kernels written over it are compiled by `lanes` for each
/// instruction set.
///
/// Pointers are unaligned; what they address is the caller's promise.
pub trait Vector: Copy {
    fn splat(v: f32) -> Self;
    /// # Safety
    /// `from` addresses 16 words.
    unsafe fn load(from: *const f32) -> Self;
    /// The values of 16 bf16.
    /// # Safety
    /// `from` addresses 16 bf16.
    unsafe fn load_half(from: *const u16) -> Self;
    /// The first `n` ≤ 16 words, zeros after them.
    /// # Safety
    /// `from` addresses `n` words.
    unsafe fn load_first(from: *const f32, n: usize) -> Self;
    /// # Safety
    /// `to` addresses 16 words that no one else uses.
    unsafe fn store(self, to: *mut f32);
    /// # Safety
    /// `to` addresses `n` ≤ 16 words that no one else uses.
    unsafe fn store_first(self, to: *mut f32, n: usize);
    fn add(self, o: Self) -> Self;
    fn sub(self, o: Self) -> Self;
    fn mul(self, o: Self) -> Self;
    /// self·a + b, rounded once.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// Lane j of vector i becomes lane i of vector j.
    fn transpose(rows: &mut [Self; LANES]);
}
