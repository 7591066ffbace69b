//! Training images that a set holds several times. By the paper's rule such an image hides its copies: a sample close to
//! it has d1 = d2. So the search runs over the images that differ, and what it finds is told both ways.

use super::{Nearest, Neighbour};
use rayon::prelude::*;

/// Which images of a set repeat an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeats {
    /// Of each distinct image, in the set's order, where it comes first.
    first: Vec<u32>,
    /// and where it comes again, or [`NEVER`].
    second: Vec<u32>,
    /// Of each image of the set which of the distinct ones it is.
    place: Vec<u32>,
}

const NEVER: u32 = u32::MAX;
/// Bytes of an image that are looked at before all of them are.
const LOOKED_AT: usize = 24;

impl Repeats {
    /// `pixels`: [N, H, W, C], `image_len` = H·W·C bytes each; `None` if all images differ.
    pub fn of(pixels: &[u8], image_len: usize) -> Option<Repeats> {
        let image = |i: u32| &pixels[i as usize * image_len..][..image_len];
        let stride = image_len.div_ceil(LOOKED_AT);
        let key = |image: &[u8]| {
            let bytes = image.iter().step_by(stride);
            bytes.fold(0u64, |key, &b| (key ^ b as u64).wrapping_mul(0x100_0000_01b3))
        };
        let images = pixels.len() / image_len;
        let keys = pixels.par_chunks_exact(image_len).map(key).zip(0..images as u32);
        let mut order: Vec<(u64, u32)> = keys.collect();
        order.par_sort_unstable_by(|a, b| {
            a.0.cmp(&b.0).then_with(|| image(a.1).cmp(image(b.1))).then(a.1.cmp(&b.1))
        });
        let same = |a: &(u64, u32), b: &(u64, u32)| a.0 == b.0 && image(a.1) == image(b.1);
        let mut alike: Vec<&[(u64, u32)]> = order.chunk_by(same).collect();
        if alike.len() == images {
            return None;
        }
        alike.sort_unstable_by_key(|group| group[0].1);
        let mut place = vec![0; images];
        for (p, group) in (0..).zip(&alike) {
            group.iter().for_each(|&(_, i)| place[i as usize] = p);
        }
        let first = alike.iter().map(|group| group[0].1).collect();
        let second = alike.iter().map(|g| g.get(1).map_or(NEVER, |again| again.1)).collect();
        Some(Repeats { first, second, place })
    }

    /// Images that repeat an earlier one.
    pub fn count(&self) -> usize {
        self.place.len() - self.first.len()
    }

    /// Of each image of the set which of the distinct ones it is.
    pub fn places(&self) -> &[u32] {
        &self.place
    }

    /// Of each distinct image, in the set's order, where it comes first.
    pub fn firsts(&self) -> &[u32] {
        &self.first
    }

    /// Whether a distinct image comes again.
    pub fn is_repeated(&self, distinct: usize) -> bool {
        self.second[distinct] != NEVER
    }

    /// The images that differ, in the set's order.
    pub fn distinct(&self, pixels: &[u8], image_len: usize) -> Vec<u8> {
        let mut distinct = Vec::with_capacity(self.first.len() * image_len);
        for &i in &self.first {
            distinct.extend_from_slice(&pixels[i as usize * image_len..][..image_len]);
        }
        distinct
    }

    /// What the nearest two of the distinct images, the second of which may be [`Neighbour::NONE`], say of the whole set.
    pub(super) fn nearest(&self, [one, two]: [Neighbour; 2]) -> Nearest {
        let of_set = |n: Neighbour| match n {
            Neighbour::NONE => n,
            n => Neighbour { index: self.first[n.index as usize], ..n },
        };
        let again = match self.second[one.index as usize] {
            NEVER => Neighbour::NONE,
            index => Neighbour { index, ..one },
        };
        let (one, two) = (of_set(one), of_set(two));
        // Ties go to the lowest index, whether the tie is of one image with itself or of two.
        Nearest::new([one, two.min(again)], two)
    }
}
