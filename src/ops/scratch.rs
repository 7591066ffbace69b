//! Regions of memory that an op uses for itself: one declaration gives both their words and themselves.

use crate::device::Slot;

/// Lengths in words of regions that follow each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout<const N: usize>(pub [usize; N]);

impl<const N: usize> Layout<N> {
    pub(super) fn words(&self) -> usize {
        self.0.iter().sum()
    }

    /// The regions at the beginning of `words`, and what is left.
    pub(super) fn cut<'a>(&self, words: &'a mut [f32]) -> ([&'a mut [f32]; N], &'a mut [f32]) {
        let mut rest = words;
        let regions = self.0.map(|len| {
            let (region, after) = std::mem::take(&mut rest).split_at_mut(len);
            rest = after;
            region
        });
        (regions, rest)
    }

    /// The same of a float32 slot.
    pub(super) fn slots(&self, slot: Slot) -> [Slot; N] {
        let mut start = 0;
        self.0.map(|len| {
            start += len;
            slot.part(start - len, len)
        })
    }
}

/// The memory of a thread that makes `ready` before its first job, and then works on jobs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prepared<const R: usize, const J: usize> {
    pub ready: Layout<R>,
    pub job: Layout<J>,
}

impl<const R: usize, const J: usize> Prepared<R, J> {
    /// `beside`: words that making `ready` takes for itself.
    pub(super) fn words(&self, beside: usize) -> usize {
        self.ready.words() + self.job.words().max(beside)
    }

    /// What is ready, and a job's regions.
    pub(super) fn cut<'a>(&self, words: &'a mut [f32]) -> ([&'a mut [f32]; R], [&'a mut [f32]; J]) {
        let (ready, rest) = self.ready.cut(words);
        (ready, self.job.cut(rest).0)
    }
}
