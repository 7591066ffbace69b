//! Products of a convolution by `mma.sync`, on any GPU's tensor cores: their kernels (`kernels/conv2d_mma.cu`,
//! `conv2d_wgrad_mma.cu`) and tiles.

use super::product::{Chains, Epilogue, Product, WeightProduct, WeightShape};
use crate::device::params::{MMA_SHARED_BYTES, MMA_TILE, MMA_WIDE, MMA_WIDE_SHARED_BYTES};
use crate::device::{Dtype, Family, GpuLimits, Int, Kernel, params};

/// Columns of a product's tiles, and the shared memory that a block takes for them.
struct Tile {
    columns: usize,
    shared_bytes: usize,
}

impl Tile {
    const WIDE: Tile = Tile { columns: MMA_WIDE, shared_bytes: MMA_WIDE_SHARED_BYTES };
    const NARROW: Tile = Tile { columns: MMA_TILE, shared_bytes: MMA_SHARED_BYTES };

    /// Wide, where the GPU has the room and no column is computed in vain that a narrow tile would spare.
    fn new(limits: GpuLimits, dtype: Dtype, columns: usize) -> Tile {
        let wide = dtype == Dtype::Bf16
            && limits.has(Family::WideTiles)
            && columns.next_multiple_of(MMA_WIDE) == columns.next_multiple_of(MMA_TILE);
        if wide { Self::WIDE } else { Self::NARROW }
    }

    /// Of a weight's product, by the widest of its inputs.
    fn of_weight(p: &WeightShape, limits: GpuLimits) -> Tile {
        let widest = p.sides.into_iter().flatten().fold(p.x[3], usize::max);
        Self::new(limits, p.dtype, widest)
    }

    /// As [`Tile::new`], where every multiprocessor has a block. `blocks`: of one tile's columns.
    fn of_blocks(limits: GpuLimits, dtype: Dtype, columns: usize, blocks: usize) -> Tile {
        match blocks * columns.div_ceil(MMA_WIDE) >= limits.multiprocessors {
            true => Self::new(limits, dtype, columns),
            false => Self::NARROW,
        }
    }
}

/// Of any shape whose channels are whole 16 bytes.
pub(super) fn product(p: &Product, e: &Epilogue, limits: GpuLimits) -> Kernel {
    let Product { y, x, weight, window: [kernel, stride, pad], scale, .. } = *p;
    let ([n, h, w, c], [_, ho, wo, o]) = (p.x_shape, p.y_shape);
    let [c1, c2] = e.sides.map(|s| s.map_or(0, |(_, c)| c));
    let rows = (n * ho * wo).div_ceil(MMA_TILE);
    let tile = Tile::of_blocks(limits, y.slot.dtype, o, rows);
    let entry = match (x.dtype, y.slot.dtype) {
        (Dtype::F32, _) => params::CONV2D_MMA_TF32,
        (Dtype::Bf16, Dtype::F32) => params::CONV2D_MMA_LAST,
        (Dtype::Bf16, Dtype::Bf16) if tile.columns == MMA_WIDE => params::CONV2D_MMA_WIDE_BF16,
        (Dtype::Bf16, Dtype::Bf16) => params::CONV2D_MMA_BF16,
    };
    let (emb, emb_row) = (e.emb.map(|(slot, _)| slot), e.emb.map_or(0, |(_, row)| row));
    let [s1, s2] = e.sides.map(|s| s.map(|(slot, _)| slot));
    let Epilogue { bias, residual, sweight, sbias, srow, .. } = *e;
    let grid = [rows, o.div_ceil(tile.columns)];
    let arguments = params! { Conv2d {
        y, x, weight, bias, emb, residual, s1, s2, sweight, sbias, n, h, w, c, ho, wo, o, kernel, stride, pad, c1,
        c2, srow, emb_row, scale, add: y.acc,
    } };
    Kernel::new(entry, grid, arguments).shared(tile.shared_bytes)
}

/// How a weight's product of such a shape is cut into chains.
pub(super) fn chains(p: &WeightShape, limits: GpuLimits) -> Chains {
    let tile = Tile::of_weight(p, limits);
    let blocks = p.blocks(MMA_TILE, tile.columns);
    // A block of wide tiles has a multiprocessor for itself.
    let together =
        if tile.columns == MMA_WIDE { 1 } else { limits.blocks_of(tile.shared_bytes).min(2) };
    let step = 128 / p.dtype.bytes(1);
    Chains::new(p.batch, [p.y[1] * p.y[2], step], blocks, limits.multiprocessors * together)
}

/// As [`product`].
pub(super) fn weight_product(p: &WeightProduct, limits: GpuLimits) -> Kernel {
    let WeightShape { x: [n, h, w, c], y: [_, ho, wo, o], window, .. } = p.shape;
    let ([x, s1, s2], [partials, partials1, partials2]) = (p.inputs(), p.partials());
    let ([kernel, stride, pad], [c1, c2]) = (window, p.side_channels());
    let tile = Tile::of_weight(&p.shape, limits);
    let entry = match p.shape.dtype {
        Dtype::F32 => params::WGRAD_MMA_TF32,
        Dtype::Bf16 if tile.columns == MMA_WIDE => params::WGRAD_MMA_WIDE_BF16,
        Dtype::Bf16 => params::WGRAD_MMA_BF16,
    };
    let grid = [p.shape.blocks(MMA_TILE, tile.columns), 1, p.chains.count];
    let (dy, chain, first_image) = (p.dy, p.chains.images, Int::FirstImage);
    let arguments = params! { Conv2dWgrad {
        partials, partials1, partials2, dy, x, s1, s2, n, h, w, c, ho, wo, o, kernel, stride, pad, c1, c2, chain,
        first_image,
    } };
    Kernel::new(entry, grid, arguments).shared(tile.shared_bytes)
}
