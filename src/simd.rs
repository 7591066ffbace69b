//! Loops compiled for AVX-512, AVX2 and plain x86-64, chosen at run time. Multiply-adds are explicit, so all three
//! give the same bits.

// Loops over registers are plain: closures would be compiled without the features of the function around them.
#![allow(clippy::needless_range_loop)]

/// Defines functions whose bodies are compiled once per instruction set and dispatched at run time.
macro_rules! vectorized {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                fn v4($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn v3($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                match $crate::simd::level() {
                    // SAFETY: the processor has the features, asked once by `level`.
                    4 => return unsafe { v4($($arg),*) },
                    // SAFETY: as above.
                    3 => return unsafe { v3($($arg),*) },
                    _ => {}
                }
            }
            body($($arg),*)
        }
    )*};
}
pub(crate) use vectorized;

/// The x86-64 level (4: AVX-512, 3: AVX2 and FMA, 1: neither) that `vectorized` loops run at: the processor's, or a
/// lower one that `EMM_X86_LEVEL` names, so that every machine can test what others compute with.
pub fn level() -> u8 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::sync::atomic::{AtomicU8, Ordering};
        static LEVEL: AtomicU8 = AtomicU8::new(0);
        match LEVEL.load(Ordering::Relaxed) {
            0 => {
                let v3 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
                let v4 = v3
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512bw");
                let asked =
                    std::env::var("EMM_X86_LEVEL").ok().and_then(|level| level.parse().ok());
                let found = match asked.unwrap_or(4) {
                    4.. if v4 => 4,
                    3.. if v3 => 3,
                    _ => 1,
                };
                LEVEL.store(found, Ordering::Relaxed);
                found
            }
            known => known,
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    1
}

/// Lanes that the compiler puts into whatever registers there are.
#[derive(Clone, Copy)]
pub struct Lanes([f32; LANES]);

impl Lanes {
    #[inline(always)]
    fn zip(self, o: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = [0.0; LANES];
        for i in 0..LANES {
            out[i] = f(self.0[i], o.0[i]);
        }
        Lanes(out)
    }
}

impl Vector for Lanes {
    #[inline(always)]
    fn splat(v: f32) -> Self {
        Lanes([v; LANES])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: 16 words, the caller's promise.
        Lanes(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> Self {
        // SAFETY: 16 bf16, the caller's promise.
        let halves = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        let mut lanes = [0.0; LANES];
        for i in 0..LANES {
            lanes[i] = f32::from_bits((halves[i] as u32) << 16);
        }
        Lanes(lanes)
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        let mut lanes = [0.0; LANES];
        // SAFETY: n words, the caller's promise; n ≤ 16 by the slice.
        unsafe { std::ptr::copy_nonoverlapping(from, lanes[..n].as_mut_ptr(), n) };
        Lanes(lanes)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: 16 words, the caller's promise.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) };
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        // SAFETY: n words, the caller's promise; n ≤ 16 by the slice.
        unsafe { std::ptr::copy_nonoverlapping(self.0[..n].as_ptr(), to, n) };
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        self.zip(o, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        self.zip(o, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        self.zip(o, |a, b| a * b)
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        let mut out = [0.0; LANES];
        for i in 0..LANES {
            out[i] = self.0[i].mul_add(a.0[i], b.0[i]);
        }
        Lanes(out)
    }
    #[inline(always)]
    fn transpose(rows: &mut [Self; LANES]) {
        let from = *rows;
        for i in 0..LANES {
            for j in 0..LANES {
                rows[j].0[i] = from[i].0[j];
            }
        }
    }
}

mod vector;
#[cfg(target_arch = "x86_64")]
mod zmm;

pub use vector::{LANES, Vector};
#[cfg(target_arch = "x86_64")]
pub use zmm::Zmm;

/// Defines functions over a [`Vector`] `V` that are compiled once per instruction set and dispatched at run time.
macro_rules! lanes {
    ($($(#[$meta:meta])* $vis:vis unsafe fn $name:ident<$v:ident $(, const $n:ident: usize)*>($($arg:ident: $ty:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        $vis unsafe fn $name<$(const $n: usize),*>($($arg: $ty),*) {
            #[inline(always)]
            unsafe fn body<$v: $crate::simd::Vector $(, const $n: usize)*>($($arg: $ty),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                unsafe fn v4<$(const $n: usize),*>($($arg: $ty),*) {
                    // SAFETY: the caller's promise.
                    unsafe { body::<$crate::simd::Zmm $(, $n)*>($($arg),*) }
                }
                #[target_feature(enable = "avx2,fma")]
                unsafe fn v3<$(const $n: usize),*>($($arg: $ty),*) {
                    // SAFETY: the caller's promise.
                    unsafe { body::<$crate::simd::Lanes $(, $n)*>($($arg),*) }
                }
                match $crate::simd::level() {
                    // SAFETY: the processor has the features, asked once by `level`; the caller's promise.
                    4 => return unsafe { v4::<$($n),*>($($arg),*) },
                    // SAFETY: as above.
                    3 => return unsafe { v3::<$($n),*>($($arg),*) },
                    _ => {}
                }
            }
            // SAFETY: the caller's promise.
            unsafe { body::<$crate::simd::Lanes $(, $n)*>($($arg),*) }
        }
    )*};
}
pub(crate) use lanes;
