//! adam_ema: one pass over the flat buffers: g += decay·w; Adam (Kingma & Ba 2015) with bias correction and eps
//! outside the root; EMA ← beta·EMA + (1 − beta)·w.

use crate::device::cpu::math::vectorized;
use crate::device::params::{BLOCK_ELEMENTS, Step};
use crate::device::{Buffer, Cpu, Kernel, Ptr, params};
use std::sync::atomic::{AtomicBool, Ordering};

/// What a training step is given: all in float64, rounded once by [`Rates::words`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Index of the step, from 0: position in every random stream, and one less than the updates that the bias correction
    /// counts.
    pub step: u64,
    /// Learning rate.
    pub lr: f64,
    /// Decay rate of Adam's second moment.
    pub beta2: f64,
    pub weight_decay: f64,
    /// EMA ← beta·EMA + (1 − beta)·w.
    pub ema_beta: f64,
}

const BETA1: f64 = 0.9;
const EPS: f64 = 1e-8;

impl Rates {
    /// Of step `step`, with Adam's usual second rate and without weight decay.
    pub fn new(step: u64, lr: f64, ema_beta: f64) -> Self {
        Rates { step, lr, beta2: 0.999, weight_decay: 0.0, ema_beta }
    }

    /// What the update reads on every device. `scrub`: replace NaN by 0 and ±inf by ±1e5 in the gradient.
    pub fn words(&self, seed: u64, scrub: bool) -> Step {
        let correction = |beta: f64| -(beta.ln() * (self.step + 1) as f64).exp_m1();
        Step {
            seed,
            step: self.step,
            decay: self.weight_decay as f32,
            rate: (self.lr / correction(BETA1)) as f32,
            beta2: self.beta2 as f32,
            beta2_rest: (1.0 - self.beta2) as f32,
            root: (1.0 / correction(self.beta2)) as f32,
            ema: self.ema_beta as f32,
            ema_rest: (1.0 - self.ema_beta) as f32,
            scrub: scrub as u32,
        }
    }
}

const CHUNK: usize = 16 * 1024;

/// Updates w, m, v and ema in place; all have the gradient's length.
pub fn adam_ema(
    cpu: &Cpu,
    step: &Step,
    w: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    ema: &mut [f32],
) {
    let moments = m.chunks_mut(CHUNK).zip(v.chunks_mut(CHUNK));
    let weights = w.chunks_mut(CHUNK).zip(ema.chunks_mut(CHUNK));
    let mut chunks: Vec<_> = weights.zip(moments).zip(g.chunks(CHUNK)).collect();
    cpu.each_mut(&mut chunks, |(((w, ema), (m, v)), g)| update(w, g, m, v, ema, step));
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

    fn update(w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], ema: &mut [f32], s: &Step) {
        let (b1, c1) = (BETA1 as f32, (1.0 - BETA1) as f32);
        let (b2, c2, scrub) = (s.beta2, s.beta2_rest, s.scrub != 0);
        for ((((w, &g), m), v), ema) in w.iter_mut().zip(g).zip(m).zip(v).zip(ema) {
            let g = if scrub && !g.is_finite() {
                if g.is_nan() { 0.0 } else { 1e5_f32.copysign(g) }
            } else {
                g
            };
            let g = s.decay.mul_add(*w, g);
            *m = b1.mul_add(*m, c1 * g);
            *v = b2.mul_add(*v, c2 * g * g);
            *w -= s.rate * *m / ((*v * s.root).sqrt() + EPS as f32);
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
    let evaluation = params!(CheckFinite { bad_step, g, loss, step, count, images: 1 });
    let evaluation =
        Kernel::new(params::CHECK_FINITE, blocks.min(1024), evaluation).moves(4 * count);
    vec![evaluation, update]
}
