//! The convolution on a Hopper GPU's own tensor cores (`kernels/conv2d_wgmma.cu`, `wgrad_wgmma.cu`): which products go so,
//! in which tiles, and the maps of their tensor copies.

use super::product::{Chains, Epilogue, Product, WeightProduct, WeightShape, chain_unit};
use crate::device::params::{
    ADDED_AFTER_SCALE, ADDED_BEFORE_SCALE, ADDED_NEVER, MMA_TILE, MMA_WIDE, WGMMA_IMAGES,
    WGMMA_THREADS,
};
use crate::device::{Acc, Dtype, Entry, GpuLimits, Int, Kernel, Map, Slot, params};
use crate::ops::Shape;

/// Channels of a tensor copy: 128 bytes of bf16, a row that its 16-byte pieces are XORed in.
const CHANNELS: usize = 64;
/// Pixels of a k-step of a weight's gradient.
const DEPTH: usize = 64;

/// A box of pixels: whole rows of an image, or whole images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PixelBox {
    rows: usize,
    images: usize,
}

impl PixelBox {
    /// The largest of at most `most` pixels whose images divide `unit`, and which still overlap the images when a tap
    /// shifts them by `pad`: what a copy of a box wholly outside of its tensor does is written down nowhere. `None` where
    /// there is none.
    fn new([_, h, w, _]: Shape, most: usize, unit: usize, pad: usize) -> Option<PixelBox> {
        let overlaps = |rows: &usize| rows.min(&((h - 1) % rows + 1)) > &pad;
        let rows = (1..=h.min(most / w)).rev().find(overlaps)?;
        let images = if rows == h { most / (h * w) } else { 1 };
        let images = (1..=images.min(unit)).rev().find(|n| unit.is_multiple_of(*n))?;
        (w > pad).then_some(PixelBox { rows, images })
    }

    /// The map of images [n, h, w, channels] in such boxes.
    fn map(self, slot: Slot, [n, h, w, c]: Shape) -> Map {
        Map::new(slot, [c, w, h, n], [CHANNELS, w, self.rows, self.images])
    }

    /// Boxes that cover images of a shape.
    fn count(self, [n, h, _, _]: Shape) -> usize {
        n.div_ceil(self.images) * h.div_ceil(self.rows)
    }
}

/// Tiles of a product's output channels: the kernel, how many each has, and the shared memory of a block.
struct Tile {
    entry: Entry<params::Conv2dHopper>,
    columns: usize,
    stages: usize,
}

const TILES: [Tile; 3] = [
    Tile { entry: params::CONV2D_WGMMA_256, columns: 256, stages: 3 },
    Tile { entry: params::CONV2D_WGMMA_192, columns: 192, stages: 4 },
    Tile { entry: params::CONV2D_WGMMA_128, columns: 128, stages: 5 },
];

impl Tile {
    /// Those that take the fewest columns one after another where every multiprocessor works. A tile costs some columns
    /// more, for its pixels are read for each and its sums are finished: a wide one is dropped only where it adds a round.
    fn new(limits: GpuLimits, boxes: usize, out: usize) -> &'static Tile {
        let rounds = |t: &Tile| (boxes * out.div_ceil(t.columns)).div_ceil(limits.multiprocessors);
        let cost = |t: &&Tile| rounds(t) * (t.columns + 32);
        TILES.iter().min_by_key(cost).expect("there are tiles")
    }

    fn shared_bytes(&self) -> usize {
        let stage = (MMA_TILE + self.columns) * 128;
        let barriers = 8 * (2 * self.stages + 1);
        let biases = 4 * WGMMA_IMAGES * self.columns;
        // From a multiple of 1,024 bytes on.
        self.stages * stage + MMA_TILE * self.columns * 2 + biases + barriers + 1024
    }
}

/// A product of `conv2d_mma.cu` on a Hopper GPU, where it can go by tensor copies: of bf16, stride 1, y of x's size, rows of
/// at most 64 pixels, not too many images in a tile.
pub(super) fn product(p: &Product, e: &Epilogue, limits: GpuLimits) -> Option<Kernel> {
    let ([n, h, w, c], [kernel, stride, pad]) = (p.x_shape, p.window);
    let (y, o) = (p.y_shape, p.y_shape[3]);
    let same = [p.x_shape[1], p.x_shape[2]] == [y[1], y[2]] && stride == 1 && 2 * pad + 1 == kernel;
    let bf16 = p.x.dtype == Dtype::Bf16 && p.y.slot.dtype == Dtype::Bf16;
    if !limits.hopper || !bf16 || !same || w > 64 || !o.is_multiple_of(8) {
        return None;
    }
    let pixels = PixelBox::new(y, MMA_TILE, WGMMA_IMAGES, pad)?;
    let boxes = pixels.count(y);
    let tile = Tile::new(limits, boxes, o);
    let (tiles_o, [c1, c2]) = (o.div_ceil(tile.columns), e.sides.map(|s| s.map_or(0, |(_, c)| c)));
    let side = |i: usize| e.sides[i].map(|(slot, c)| pixels.map(slot, [n, h, w, c]));
    let weights = |slot, width, taps| Map::new(slot, [width, taps, o], [CHANNELS, 1, tile.columns]);
    let (added, add) = match (e.residual, p.y.acc) {
        (Some(residual), Acc::Set) => (ADDED_BEFORE_SCALE, Some(residual)),
        (None, Acc::Add) => (ADDED_AFTER_SCALE, Some(p.y.slot)),
        (None, Acc::Set) => (ADDED_NEVER, None),
        (Some(_), Acc::Add) => return None,
    };
    let arguments = params! { Conv2dHopper {
        x: pixels.map(p.x, p.x_shape),
        s1: side(0),
        s2: side(1),
        weight: weights(p.weight, c, kernel * kernel),
        sweight: e.sweight.map(|slot| weights(slot, e.srow, 1)),
        add: add.map(|slot| pixels.map(slot, y)),
        y: pixels.map(p.y.slot, y),
        bias: e.bias,
        sbias: e.sides[0].and(e.sbias),
        emb: e.emb.map(|(slot, _)| slot),
        n, h, w, c, o, kernel, pad, c1, c2,
        rows: pixels.rows,
        images: pixels.images,
        tiles: boxes * tiles_o,
        tiles_o,
        emb_row: e.emb.map_or(0, |(_, row)| row),
        added,
        scale: p.scale,
    } };
    let blocks = limits.multiprocessors.min(boxes * tiles_o);
    let kernel = Kernel::new(tile.entry, blocks, arguments).threads(WGMMA_THREADS);
    Some(kernel.shared(tile.shared_bytes()))
}

/// The boxes of a weight's product of `conv2d_wgrad_mma.cu` on a Hopper GPU, where it can go by tensor copies, as [`product`].
fn weight_box(p: &WeightShape, limits: GpuLimits) -> Option<PixelBox> {
    let ([_, h, w, _], [kernel, stride, pad]) = (p.x, p.window);
    let same = [h, w] == [p.y[1], p.y[2]] && stride == 1 && 2 * pad + 1 == kernel;
    if !limits.hopper || p.dtype != Dtype::Bf16 || !same || w > 64 {
        return None;
    }
    PixelBox::new(p.y, DEPTH, chain_unit(h * w), pad)
}

/// How a weight's product of such a shape is cut into chains; `None` where it goes otherwise.
pub(super) fn chains(p: &WeightShape, limits: GpuLimits) -> Option<Chains> {
    weight_box(p, limits)?;
    let blocks = p.blocks(MMA_TILE, MMA_WIDE);
    Some(Chains::new(p.batch, [p.y[1] * p.y[2], DEPTH], blocks, limits.multiprocessors))
}

/// A weight's product, where it can go so.
pub(super) fn weight_product(p: &WeightProduct, limits: GpuLimits) -> Option<Kernel> {
    let pixels = weight_box(&p.shape, limits)?;
    let WeightShape { x: [n, h, w, c], y, window: [kernel, _, pad], sides, .. } = p.shape;
    let ([x, s1, s2], [partials, partials1, partials2]) = (p.inputs(), p.partials());
    let [c1, c2] = p.side_channels();
    let map = |slot: Option<Slot>, c: Option<usize>| Some(pixels.map(slot?, [n, h, w, c?]));
    let arguments = params! { WgradHopper {
        dy: pixels.map(p.dy, y),
        x: map(x, Some(c)),
        s1: map(s1, sides[0]),
        s2: map(s2, sides[1]),
        partials, partials1, partials2, n, h, w, c,
        o: y[3],
        kernel, pad, c1, c2,
        rows: pixels.rows,
        images: pixels.images,
        chain: p.chains.images,
        first_image: Int::FirstImage,
    } };
    let grid = [p.shape.blocks(MMA_TILE, MMA_WIDE), 1, p.chains.count];
    let kernel = Kernel::new(params::WGRAD_WGMMA, grid, arguments).threads(WGMMA_THREADS);
    Some(kernel.shared(WGRAD_SHARED_BYTES))
}

/// Four stages of 64 pixels of 128 and 256 channels with two barriers each, from a multiple of 1,024 bytes on.
const WGRAD_SHARED_BYTES: usize = 4 * (DEPTH * (MMA_TILE + MMA_WIDE) * 2 + 16) + 1024;
