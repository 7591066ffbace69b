//! Products of a convolution by `mma.sync`, on any GPU's tensor cores: their kernels (`kernels/conv2d_mma.cu`,
//! `conv2d_wgrad_mma.cu`) and tiles.

use super::product::{Epilogue, Product, WeightProduct};
use crate::device::params::{MMA_SHARED_BYTES, MMA_TILE, MMA_WIDE, MMA_WIDE_SHARED_BYTES};
use crate::device::{Dtype, Family, GpuLimits, Kernel, params};

/// Columns of a product's tiles, and the shared memory that a block takes for them.
struct Tile {
    columns: usize,
    shared_bytes: usize,
}

impl Tile {
    /// Wide, where the GPU has the room, no column is computed in vain that a narrow tile would spare, and every
    /// multiprocessor has a block. `blocks`: of one tile's columns.
    fn new(limits: GpuLimits, dtype: Dtype, columns: usize, blocks: usize) -> Tile {
        let wide = dtype == Dtype::Bf16
            && limits.has(Family::WideTiles)
            && columns.next_multiple_of(MMA_WIDE) == columns.next_multiple_of(MMA_TILE)
            && blocks * columns.div_ceil(MMA_WIDE) >= limits.multiprocessors;
        match wide {
            true => Tile { columns: MMA_WIDE, shared_bytes: MMA_WIDE_SHARED_BYTES },
            false => Tile { columns: MMA_TILE, shared_bytes: MMA_SHARED_BYTES },
        }
    }
}

/// Of any shape whose channels are whole 16 bytes.
pub(super) fn product(p: &Product, e: &Epilogue, limits: GpuLimits) -> Kernel {
    let Product { y, x, weight, window: [kernel, stride, pad], scale, .. } = *p;
    let ([n, h, w, c], [_, ho, wo, o]) = (p.x_shape, p.y_shape);
    let [c1, c2] = e.sides.map(|s| s.map_or(0, |(_, c)| c));
    let rows = (n * ho * wo).div_ceil(MMA_TILE);
    let tile = Tile::new(limits, y.slot.dtype, o, rows);
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

/// As [`product`].
pub(super) fn weight_product(p: &WeightProduct, limits: GpuLimits) -> Kernel {
    let WeightProduct { partials, dy, x, window: [kernel, stride, pad], chunk, .. } = *p;
    let ([n, h, w, c], [_, ho, wo, o]) = (p.x_shape, p.y_shape);
    let (rows, taps, chunks) = (o.div_ceil(MMA_TILE), kernel * kernel, n.div_ceil(chunk));
    let tile = Tile::new(limits, dy.dtype, c, rows * taps * chunks);
    let entry = match dy.dtype {
        Dtype::F32 => params::WGRAD_MMA_TF32,
        Dtype::Bf16 if tile.columns == MMA_WIDE => params::WGRAD_MMA_WIDE_BF16,
        Dtype::Bf16 => params::WGRAD_MMA_BF16,
    };
    let grid = [rows * c.div_ceil(tile.columns), taps, chunks];
    let arguments = params! { Conv2dWgrad {
        partials, dy, x, n, h, w, c, ho, wo, o, kernel, stride, pad, chunk,
    } };
    Kernel::new(entry, grid, arguments).shared(tile.shared_bytes)
}
