//! The exact search on whichever device: on the CPU by [`References`], on a GPU by `kernels/nearest*.cu`, with the
//! references resident there. Integers on both, so the answers are equal.

use super::{Nearest, Neighbour, References, Repeats};
use crate::device::cuda::{self, Cuda};
use crate::device::params::{
    BLOCK_THREADS, BLOCK_WARPS, MMA_SHARED_BYTES, MMA_TILE, NEAREST_MMA_LONGEST, TILE,
};
use crate::device::{Device, Kernel, Pixels, Ptr, params};
use anyhow::Result;
use std::borrow::Cow;

/// Training images on a device, ready to be searched. Of images that the set holds several times one is searched.
///
/// ```
/// use emm::data::Dataset;
/// use emm::device::{Cpu, Device, Pixels};
/// use emm::memorization::Search;
///
/// # fn main() -> anyhow::Result<()> {
/// let digits = Dataset::digits();
/// let device = Device::Cpu(Cpu::new(1)?);
/// let mut search = Search::new(&device, &digits.pixels, digits.image_len())?;
/// let found = search.nearest(&Pixels::Host(digits.image(7).into()))?;
/// assert_eq!((found[0].index[0], found[0].squared[0]), (7, 0)); // itself
/// # Ok(())
/// # }
/// ```
pub struct Search<'a> {
    engine: Engine<'a>,
    repeats: Option<Repeats>,
}

enum Engine<'a> {
    Cpu(Box<References<'a>>, Device),
    Gpu(Box<Gpu>),
}

impl<'a> Search<'a> {
    /// `pixels`: [N, H, W, C], `image_len` = H·W·C bytes each, N ≥ 2.
    ///
    /// # Errors
    /// Device (exit 4): a GPU out of memory.
    pub fn new(device: &Device, pixels: &'a [u8], image_len: usize) -> Result<Self> {
        let repeats = device.host().run(|| Repeats::of(pixels, image_len));
        let distinct: Cow<[u8]> = match &repeats {
            Some(repeats) => repeats.distinct(pixels, image_len).into(),
            None => pixels.into(),
        };
        let engine = match device {
            Device::Cpu(_) => {
                Engine::Cpu(Box::new(References::new(distinct, image_len)), device.clone())
            }
            Device::Cuda { cuda, .. } => {
                Engine::Gpu(Box::new(Gpu::new(cuda, &distinct, image_len)?))
            }
        };
        Ok(Search { engine, repeats })
    }

    /// Of references that all differ, or that are to be searched as if they did, on the CPU device.
    pub fn prepared(references: References<'a>, device: &Device) -> Self {
        Search { engine: Engine::Cpu(Box::new(references), device.clone()), repeats: None }
    }

    /// Images that repeat an earlier one.
    pub fn repeats(&self) -> usize {
        self.repeats.as_ref().map_or(0, Repeats::count)
    }

    /// Bytes that a search of so many images of `image_len` bytes reserves on a GPU.
    pub fn gpu_bytes(images: usize, image_len: usize) -> usize {
        // The results of all splits are small beside them.
        (images + QUERIES) * (image_len + 8) + (8 << 20)
    }

    /// The two nearest references of each query, [S, H, W, C].
    ///
    /// # Errors
    /// Device (exit 4): what the driver says.
    pub fn nearest(&mut self, queries: &Pixels) -> Result<Vec<Nearest>> {
        let found = match &mut self.engine {
            Engine::Cpu(references, device) => {
                let found = references.nearest_k(&queries.to_host()?, 2, device);
                let pair = |n: &[Neighbour]| [n[0], n.get(1).copied().unwrap_or(Neighbour::NONE)];
                found.chunks_exact(references.len().min(2)).map(pair).collect()
            }
            Engine::Gpu(gpu) => gpu.nearest(queries)?,
        };
        let told = |pair: [Neighbour; 2]| match &self.repeats {
            Some(repeats) => repeats.nearest(pair),
            None => Nearest::new(pair, pair[1]),
        };
        Ok(found.into_iter().map(told).collect())
    }
}

/// Queries of one search.
const QUERIES: usize = 2048;

/// References resident on a GPU, and room for a batch of queries.
struct Gpu {
    cuda: Cuda,
    image_len: usize,
    count: usize,
    references: cuda::Buffer,
    reference_norms: cuda::Buffer,
    queries: cuda::Buffer,
    query_norms: cuda::Buffer,
    /// Two best of each query in each split of the references: u64 distances, u32 indices.
    split_squared: cuda::Buffer,
    split_index: cuda::Buffer,
    /// Two best of each query.
    squared: cuda::Buffer,
    index: cuda::Buffer,
    /// Blocks that fill the GPU.
    blocks: usize,
}

impl Gpu {
    fn new(cuda: &Cuda, pixels: &[u8], image_len: usize) -> Result<Self> {
        assert!(image_len > 0 && pixels.len().is_multiple_of(image_len), "nearest: ragged images");
        let count = pixels.len() / image_len;
        assert!(count >= 1, "nearest: no reference images");
        // A block takes a whole multiprocessor; twice as many even out their ends.
        let blocks = 2 * cuda.limits().multiprocessors;
        let split_results = 2 * MMA_TILE * (blocks + QUERIES / MMA_TILE);
        let gpu = Gpu {
            cuda: cuda.clone(),
            image_len,
            count,
            references: cuda.buffer_of(pixels)?,
            reference_norms: cuda.buffer(2 * count)?,
            queries: cuda.buffer((QUERIES * image_len).div_ceil(4))?,
            query_norms: cuda.buffer(2 * QUERIES)?,
            split_squared: cuda.buffer(2 * split_results)?,
            split_index: cuda.buffer(split_results)?,
            squared: cuda.buffer(4 * QUERIES)?,
            index: cuda.buffer(2 * QUERIES)?,
            blocks,
        };
        cuda.run(&[gpu.norms(&gpu.reference_norms, (&gpu.references).into(), count)])?;
        Ok(gpu)
    }

    /// The two nearest of each query; [`Neighbour::NONE`] where there is but one image.
    fn nearest(&mut self, queries: &Pixels) -> Result<Vec<[Neighbour; 2]>> {
        let total = queries.len() / self.image_len;
        assert!(queries.len().is_multiple_of(self.image_len), "nearest: ragged queries");
        let mut found = Vec::with_capacity(total);
        for first in (0..total).step_by(QUERIES) {
            let count = QUERIES.min(total - first);
            let (from, to) = (first * self.image_len, (first + count) * self.image_len);
            let address = match queries {
                Pixels::Host(pixels) => {
                    self.queries.write_bytes(&pixels[from..to])?;
                    self.queries.address()
                }
                Pixels::Gpu { buffer, .. } => buffer.address() + from as u64,
            };
            self.cuda.run(&self.kernels(address, count))?;
            let squared: Vec<u64> = bytemuck::pod_collect_to_vec(&self.squared.read(0, 4 * count)?);
            let index: Vec<u32> = bytemuck::cast_vec(self.index.read(0, 2 * count)?);
            let pairs = index.as_chunks::<2>().0.iter().zip(squared.as_chunks::<2>().0);
            let pair = |(index, squared): (&[u32; 2], &[u64; 2])| {
                [0, 1].map(|k| Neighbour { squared: squared[k], index: index[k] })
            };
            found.extend(pairs.map(pair));
        }
        Ok(found)
    }

    fn norms(&self, norms: &cuda::Buffer, pixels: Ptr, count: usize) -> Kernel {
        let arguments = params!(NearestNorms { norms, pixels, words: self.image_len, count });
        Kernel::new(params::NEAREST_NORMS, count.div_ceil(BLOCK_WARPS), arguments)
    }

    /// The search of `count` queries at an address.
    fn kernels(&self, queries: u64, count: usize) -> Vec<Kernel> {
        let mma = self.image_len.is_multiple_of(16)
            && self.image_len <= NEAREST_MMA_LONGEST
            && queries.is_multiple_of(16);
        let wanted = self.blocks.div_ceil(count.div_ceil(MMA_TILE));
        let per_split = self.count.div_ceil(wanted).next_multiple_of(MMA_TILE);
        let splits = self.count.div_ceil(per_split);
        let arguments = params!(NearestSearch {
            squared: &self.split_squared,
            index: &self.split_index,
            queries: Ptr::Address(queries),
            references: &self.references,
            query_norms: &self.query_norms,
            reference_norms: &self.reference_norms,
            s: count,
            count: self.count,
            words: self.image_len,
            per_split,
        });
        let search = match mma {
            true => {
                let grid = [count.div_ceil(MMA_TILE), splits];
                Kernel::new(params::NEAREST_MMA, grid, arguments).shared(MMA_SHARED_BYTES)
            }
            false => Kernel::new(params::NEAREST_SEARCH, [count.div_ceil(TILE), splits], arguments),
        };
        let merge = params!(NearestMerge {
            out_squared: &self.squared,
            out_index: &self.index,
            squared: &self.split_squared,
            index: &self.split_index,
            s: count,
            splits,
        });
        vec![
            self.norms(&self.query_norms, Ptr::Address(queries), count),
            search,
            Kernel::new(params::NEAREST_MERGE, count.div_ceil(BLOCK_THREADS), merge),
        ]
    }
}
