//! The images of one set among themselves: which repeat another, and how far each is from its nearest others.

use super::{Nearest, Neighbour, References, Repeats, Threshold};
use crate::device::Device;

/// Of each image of a set its nearest other ones.
pub struct Within {
    repeats: Option<Repeats>,
    /// The images that differ, as indices into the set, with their two nearest others of these.
    distinct: Vec<(u32, [Neighbour; 2])>,
    /// Of each image which of those it is.
    place: Vec<u32>,
}

impl Within {
    /// `pixels`: [N, H, W, C], `image_len` = H·W·C bytes each. `progress`: told how many images are done.
    pub fn new(
        pixels: &[u8],
        image_len: usize,
        device: &Device,
        progress: &mut dyn FnMut(usize),
    ) -> Within {
        const BATCH: usize = 2048;
        let repeats = device.host().run(|| Repeats::of(pixels, image_len));
        let images = pixels.len() / image_len;
        let each = || (0..images as u32).collect::<Vec<u32>>();
        let (place, firsts) = match &repeats {
            Some(repeats) => (repeats.places().to_vec(), repeats.firsts().to_vec()),
            None => (each(), each()),
        };
        let of_repeats = repeats.as_ref().map(|r| r.distinct(pixels, image_len));
        let all: &[u8] = of_repeats.as_deref().unwrap_or(pixels);
        let references = References::new(all, image_len);
        let (k, mut distinct) = (references.len().min(3), Vec::with_capacity(references.len()));
        for batch in all.chunks(BATCH * image_len) {
            for found in references.nearest_k(batch, 3, device).chunks_exact(k) {
                let own = distinct.len() as u32;
                let others = found.iter().filter(|n| n.index != own);
                let of_set = |n: &Neighbour| Neighbour { index: firsts[n.index as usize], ..*n };
                let mut two = others.map(of_set).chain([Neighbour::NONE; 2]);
                let mut next = || two.next().unwrap_or(Neighbour::NONE);
                distinct.push((firsts[own as usize], [next(), next()]));
            }
            progress(distinct.len().min(images));
        }
        Within { repeats, distinct, place }
    }

    /// Images that repeat an earlier one.
    pub fn repeats(&self) -> usize {
        self.repeats.as_ref().map_or(0, Repeats::count)
    }

    /// Whether an image is there more than once.
    pub fn repeated(&self, image: usize) -> bool {
        self.repeats.as_ref().is_some_and(|r| r.is_repeated(self.place[image] as usize))
    }

    /// Of the images that are alike the first.
    pub fn first(&self, image: usize) -> usize {
        self.distinct[self.place[image] as usize].0 as usize
    }

    /// The two nearest of the images that differ from this one; [`Neighbour::NONE`] where there are none.
    pub fn others(&self, image: usize) -> [Neighbour; 2] {
        self.distinct[self.place[image] as usize].1
    }

    /// Squared distance of an image to its nearest other one, which may be its repetition; none of a single image.
    pub fn squared_to_other(&self, image: usize) -> Option<u64> {
        let [one, _] = self.others(image);
        match self.repeated(image) {
            true => Some(0),
            false => (one != Neighbour::NONE).then_some(one.squared),
        }
    }

    /// Of images that differ, those that would count as copies of their nearest other one: `(image, its others)`.
    pub fn near(&self, threshold: Threshold) -> impl Iterator<Item = (usize, Nearest)> {
        let as_found = |&(image, others): &(u32, [Neighbour; 2])| {
            (image as usize, Nearest::new(others, others[1]))
        };
        let near = move |(_, n): &(usize, Nearest)| threshold.memorized_distinct(n);
        self.distinct.iter().map(as_found).filter(near)
    }

    /// Whether an image has another that is the same or would count as its copy.
    pub fn has_like(&self, image: usize, threshold: Threshold) -> bool {
        let [one, two] = self.others(image);
        self.repeated(image) || threshold.memorized_distinct(&Nearest::new([one, two], two))
    }
}
