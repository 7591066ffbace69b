//! The norm's attributes and sizes.

use crate::device::cpu::resample::Resampling;
use crate::ops::Shape;
use crate::ops::scratch::Layout;

#[derive(Debug, Clone, Copy)]
pub struct Norm {
    pub groups: usize,
    pub silu: bool,
    /// Probability of dropping and the layer's index in the random stream.
    pub dropout: Option<(f64, u32)>,
    pub resample: Option<Resampling>,
    pub off: usize,
}

impl Norm {
    pub(super) fn channels(&self, ins: &[Shape]) -> usize {
        ins.iter().map(|s| s[3]).sum::<usize>() + self.off
    }

    pub(super) fn out_size(&self, x: Shape) -> [usize; 2] {
        [1, 2].map(|i| self.resample.map_or(x[i], |r| r.out_len(x[i])))
    }

    /// What the backward sums of each image's channels: gradients of gamma, and of beta.
    pub(super) fn image_sums(&self, ins: &[Shape]) -> Layout<2> {
        Layout([ins[0][0] * self.channels(ins); 2])
    }
}

/// What 16 random bits must lie below to keep an element.
pub(super) fn keep_threshold(p: f64) -> u32 {
    ((1.0 - p) * 65536.0).round() as u32
}
