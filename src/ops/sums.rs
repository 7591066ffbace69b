//! The small additions that gradients of several ops share, on the CPU and as kernels (`kernels/sums.cu`).

use super::{Shape, words};
use crate::device::cpu::math;
use crate::device::params::BLOCK_ELEMENTS;
use crate::device::{Acc, Bound, Kernel, Sink, Slot, params, typed};

/// dst (=|+=) src.
pub(super) fn store(dst: &mut [f32], acc: Acc, src: &[f32]) {
    match acc {
        Acc::Set => dst.copy_from_slice(src),
        Acc::Add => math::add(dst, src),
    }
}

/// dst (=|+=) the rows of `per_image` [N, dst.len()], one after another.
pub(super) fn sum_images(dst: &mut [f32], acc: Acc, per_image: &[f32]) {
    if acc == Acc::Set {
        dst.fill(0.0);
    }
    for row in per_image.chunks_exact(dst.len()) {
        math::add(dst, row);
    }
}

/// Sums over groups of images that are kept apart and added in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups {
    pub count: usize,
    /// Words of a group's sum.
    pub words: usize,
}

impl Groups {
    /// Sums kept at a time; where it is one, none is kept apart.
    pub(super) fn wave(&self) -> usize {
        const WORDS: usize = 1024 * 1024;
        (WORDS / self.words).clamp(1, 16).min(self.count)
    }

    pub(super) fn temp_words(&self) -> usize {
        if self.wave() == 1 { 0 } else { self.wave() * self.words }
    }

    /// dst (=|+=) the groups' sums, in order: `sum(to, group, job)` writes or adds what one of a group's jobs is for.
    ///
    /// - `work`: of a group.
    pub(super) fn sum(
        &self,
        b: &Bound,
        jobs: usize,
        work: usize,
        dst: Sink,
        temp: Slot,
        sum: impl Fn(Sink, usize, usize) + Sync,
    ) {
        const CHUNK: usize = 4096;
        let mut acc = dst.acc;
        for first in (0..self.count).step_by(self.wave()) {
            let wave = self.wave().min(self.count - first);
            b.each(wave * jobs, wave * work, |i| {
                let (group, job) = (i / jobs, i % jobs);
                let to = match self.wave() {
                    1 => Sink { slot: dst.slot, acc },
                    _ => Sink { slot: temp.part(group * self.words, self.words), acc: Acc::Set },
                };
                sum(to, first + group, job);
            });
            if self.wave() > 1 {
                b.each(self.words.div_ceil(CHUNK), wave * self.words, |job| {
                    let at = job * CHUNK;
                    let len = CHUNK.min(self.words - at);
                    let to = b.get_mut(dst.slot.part(at, len));
                    for i in 0..wave {
                        let acc = if i == 0 { acc } else { Acc::Add };
                        store(to, acc, b.get(temp.part(i * self.words + at, len)));
                    }
                });
            }
            acc = Acc::Add;
        }
    }
}

/// dst (=|+=) scale · src, stored alike.
pub(super) fn scaled_add(dst: Sink, src: Slot, scale: f32) -> Kernel {
    assert_eq!(dst.slot.dtype, src.dtype, "a residual and its output are stored alike");
    let kernel = typed([params::SCALED_ADD, params::SCALED_ADD_BF16], src.dtype);
    let arguments = params!(ScaledAdd { dst, src, n: src.len, scale, add: dst.acc });
    Kernel::new(kernel, src.len.div_ceil(BLOCK_ELEMENTS), arguments)
}

/// Words of all images of a shape, as the kernels over whole tensors take them.
pub(super) fn image_grid(shape: Shape) -> [usize; 2] {
    [(words(shape) / shape[0]).div_ceil(BLOCK_ELEMENTS), shape[0]]
}
