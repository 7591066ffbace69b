//! adam_ema: one pass over the flat buffers: g += decay·w; Adam (Kingma & Ba 2015) with bias correction and eps
//! outside the root; EMA ← beta·EMA + (1 − beta)·w.

use crate::device::cpu::math::vectorized;
use crate::device::params::{BLOCK_ELEMENTS, Step};
use crate::device::{Buffer, Cpu, Kernel, Ptr, params};
use std::sync::atomic::{AtomicBool, Ordering};

/// Scalars of one update, computed in float64 and rounded once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    pub lr: f64,
    pub weight_decay: f64,
    pub ema_beta: f64,
    /// Updates including this one, for the bias correction.
    pub count: u64,
    /// Replace NaN by 0 and ±inf by ±1e5 in the gradient.
    pub scrub: bool,
}

pub const BETA1: f64 = 0.9;
pub const BETA2: f64 = 0.999;
pub const EPS: f64 = 1e-8;

/// An update's scalars as the loops take them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scalars {
    pub decay: f32,
    /// lr / (1 − beta1^count).
    pub step: f32,
    /// 1 / (1 − beta2^count).
    pub root: f32,
    pub ema: f32,
    pub ema_rest: f32,
    pub scrub: bool,
}

impl Update {
    pub fn scalars(&self) -> Scalars {
        let correction = |beta: f64| -(beta.ln() * self.count as f64).exp_m1();
        Scalars {
            decay: self.weight_decay as f32,
            step: (self.lr / correction(BETA1)) as f32,
            root: (1.0 / correction(BETA2)) as f32,
            ema: self.ema_beta as f32,
            ema_rest: (1.0 - self.ema_beta) as f32,
            scrub: self.scrub,
        }
    }

    /// What a card's kernels read of training step `step`.
    pub fn words(&self, seed: u64, step: u64) -> Step {
        let s = self.scalars();
        Step {
            seed,
            step,
            decay: s.decay,
            rate: s.step,
            root: s.root,
            ema: s.ema,
            ema_rest: s.ema_rest,
            scrub: s.scrub as u32,
        }
    }
}

const CHUNK: usize = 16 * 1024;

/// Updates w, m, v and ema in place; all have the gradient's length.
pub fn adam_ema(
    cpu: &Cpu,
    u: Update,
    w: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    ema: &mut [f32],
) {
    let s = u.scalars();
    let moments = m.chunks_mut(CHUNK).zip(v.chunks_mut(CHUNK));
    let weights = w.chunks_mut(CHUNK).zip(ema.chunks_mut(CHUNK));
    let mut chunks: Vec<_> = weights.zip(moments).zip(g.chunks(CHUNK)).collect();
    cpu.each_mut(&mut chunks, |(((w, ema), (m, v)), g)| update(w, g, m, v, ema, s));
}

/// Whether every value is finite.
pub fn all_finite(cpu: &Cpu, g: &[f32]) -> bool {
    let all = AtomicBool::new(true);
    let mut chunks: Vec<_> = g.chunks(CHUNK).collect();
    cpu.each_mut(&mut chunks, |g| _ = finite(g) || all.swap(false, Ordering::Relaxed));
    all.into_inner()
}

vectorized! {
    fn finite(g: &[f32]) -> bool {
        // A sum of zeros unless something is NaN or infinite.
        let mut sums = [0.0_f32; 16];
        for chunk in g.chunks(16) {
            for (s, &v) in sums.iter_mut().zip(chunk) {
                *s += v * 0.0;
            }
        }
        sums.iter().sum::<f32>() == 0.0
    }

    fn update(w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], ema: &mut [f32], s: Scalars) {
        let (b1, b2) = (BETA1 as f32, BETA2 as f32);
        let (c1, c2) = ((1.0 - BETA1) as f32, (1.0 - BETA2) as f32);
        for ((((w, &g), m), v), ema) in w.iter_mut().zip(g).zip(m).zip(v).zip(ema) {
            let g = if s.scrub && !g.is_finite() {
                if g.is_nan() { 0.0 } else { 1e5_f32.copysign(g) }
            } else {
                g
            };
            let g = s.decay.mul_add(*w, g);
            *m = b1.mul_add(*m, c1 * g);
            *v = b2.mul_add(*v, c2 * g * g);
            *w -= s.step * *m / ((*v * s.root).sqrt() + EPS as f32);
            *ema = s.ema.mul_add(*ema, s.ema_rest * *w);
        }
    }
}

/// The CUDA device's first kernel of a step: `step` = the words of `table` at `cursor`, which moves on by one.
pub fn next_step(step: &Buffer, table: Ptr, cursor: Ptr) -> Kernel {
    let arguments = params!(StepNext { step, table, cursor });
    Kernel::new(params::STEP_NEXT, 1, arguments).threads(params::WARP_THREADS)
}

/// The CUDA device's update; nothing happens from the first step on whose gradient is not finite, which `bad_step`
/// then holds. `loss`: look for one first, and at this sum of losses.
pub fn kernels(
    [w, g, m, v, ema]: [&Buffer; 5],
    count: usize,
    bad_step: Ptr,
    loss: Option<Ptr>,
) -> Vec<Kernel> {
    let (step, blocks) = (Ptr::Step, count.div_ceil(BLOCK_ELEMENTS));
    let update = params!(AdamEma { w, g, m, v, ema, step, bad_step, count });
    let update = Kernel::new(params::ADAM_EMA, blocks, update).moves(36 * count);
    let Some(loss) = loss else { return vec![update] };
    let look = params!(CheckFinite { bad_step, g, loss, step, count, images: 1 });
    let look = Kernel::new(params::CHECK_FINITE, blocks.min(1024), look).moves(4 * count);
    vec![look, update]
}
