//! Loops compiled for AVX-512, AVX2 and plain x86-64, chosen at run time. Multiply-adds are explicit, so all three
//! give the same bits.

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

/// The x86-64 level (4: AVX-512, 3: AVX2 and FMA, 1: neither) that [`vectorized`] loops run at.
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
                let found = if v4 { 4 } else { 1 + 2 * v3 as u8 };
                LEVEL.store(found, Ordering::Relaxed);
                found
            }
            known => known,
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    1
}
