//! Vectors as registers of AVX-512.

// Loops over registers are plain: closures would be compiled without the features of the function around them.
#![allow(clippy::needless_range_loop)]

use super::vector::Vector;
use std::arch::x86_64::*;

/// A register of AVX-512; exists only in functions that `super::lanes` compiles for it.
#[derive(Clone, Copy)]
pub struct Zmm(__m512);

// SAFETY of all blocks below: reached only from functions compiled for AVX-512, which `level` has found;
// addresses are the caller's promise.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Vector for Zmm {
    #[inline(always)]
    fn splat(v: f32) -> Self {
        Zmm(unsafe { _mm512_set1_ps(v) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Zmm(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> Self {
        unsafe {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Zmm(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(words)))
        }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        Zmm(unsafe { _mm512_maskz_loadu_ps(first(n), from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        unsafe { _mm512_mask_storeu_ps(to, first(n), self.0) }
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        Zmm(unsafe { _mm512_add_ps(self.0, o.0) })
    }
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        Zmm(unsafe { _mm512_sub_ps(self.0, o.0) })
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        Zmm(unsafe { _mm512_mul_ps(self.0, o.0) })
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        Zmm(unsafe { _mm512_fmadd_ps(self.0, a.0, b.0) })
    }
    #[inline(always)]
    fn transpose(rows: &mut [Self; 16]) {
        unsafe {
            // 2×2 blocks of words, then of pairs; then the four quarters of registers.
            let mut a = [_mm512_setzero_pd(); 16];
            for i in 0..8 {
                let (x, y) = (rows[2 * i].0, rows[2 * i + 1].0);
                a[2 * i] = _mm512_castps_pd(_mm512_unpacklo_ps(x, y));
                a[2 * i + 1] = _mm512_castps_pd(_mm512_unpackhi_ps(x, y));
            }
            let mut b = a;
            for i in 0..4 {
                for j in 0..2 {
                    let (x, y) = (a[4 * i + j], a[4 * i + 2 + j]);
                    b[4 * i + 2 * j] = _mm512_unpacklo_pd(x, y);
                    b[4 * i + 2 * j + 1] = _mm512_unpackhi_pd(x, y);
                }
            }
            for j in 0..4 {
                let q = [b[j], b[4 + j], b[8 + j], b[12 + j]];
                let low = _mm512_shuffle_f64x2::<0x88>(q[0], q[1]);
                let high = _mm512_shuffle_f64x2::<0xdd>(q[0], q[1]);
                let low2 = _mm512_shuffle_f64x2::<0x88>(q[2], q[3]);
                let high2 = _mm512_shuffle_f64x2::<0xdd>(q[2], q[3]);
                rows[j] = Zmm(_mm512_castpd_ps(_mm512_shuffle_f64x2::<0x88>(low, low2)));
                rows[8 + j] = Zmm(_mm512_castpd_ps(_mm512_shuffle_f64x2::<0xdd>(low, low2)));
                rows[4 + j] = Zmm(_mm512_castpd_ps(_mm512_shuffle_f64x2::<0x88>(high, high2)));
                rows[12 + j] = Zmm(_mm512_castpd_ps(_mm512_shuffle_f64x2::<0xdd>(high, high2)));
            }
        }
    }
}

#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}
