//! How convolutions cut images into matrices: tiles of whole rows or whole images, and their patch rows.

/// A batch's pixels [n, h, w] cut into tiles for matrix products. A tile is some rows of one image, or
/// several whole small images; which depends on the image alone, so an image's bits don't depend on the batch.
#[derive(Debug, Clone, Copy)]
pub struct Tiles {
    n: usize,
    h: usize,
    w: usize,
    /// Images in a tile (1 if `rows < h`).
    images: usize,
    rows: usize,
}

/// One tile: `rows` rows from `row` of the images `image..image + present` (the rest of `images` is padding).
#[derive(Debug, Clone, Copy)]
pub struct Tile {
    pub image: usize,
    pub images: usize,
    pub present: usize,
    pub row: usize,
    pub rows: usize,
}

impl Tiles {
    /// Tiles whose patch matrix has about 64 Ki words at `depth` words per pixel, at least 32 pixels.
    pub fn new([n, h, w]: [usize; 3], depth: usize) -> Self {
        let pixels = (64 * 1024 / depth).clamp(32, 256);
        let images = (pixels.min(64) / (h * w)).max(1);
        let rows = if images > 1 { h } else { (pixels / w).clamp(1, h) };
        Tiles { n, h, w, images, rows }
    }

    /// Tiles of whole 4×4 squares, about 32 of them.
    pub fn of_squares([n, h, w]: [usize; 3]) -> Self {
        const SQUARES: usize = 32;
        let (down, across) = (h.div_ceil(4), w.div_ceil(4));
        // Squares that cover little of an image are many: a batch still gives several jobs.
        let images = (SQUARES / (down * across)).clamp(1, 8);
        let rows = if images > 1 { h } else { (SQUARES.div_ceil(across) * 4).min(h) };
        Tiles { n, h, w, images, rows }
    }

    /// Squares of the largest tile of [`Tiles::of_squares`].
    pub fn squares(&self) -> usize {
        self.images * self.rows.div_ceil(4) * self.w.div_ceil(4)
    }

    fn per_image(&self) -> usize {
        self.h.div_ceil(self.rows)
    }

    pub fn count(&self) -> usize {
        if self.images > 1 { self.n.div_ceil(self.images) } else { self.n * self.per_image() }
    }

    /// Images of the largest tile.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Pixels of the largest tile.
    pub fn pixels(&self) -> usize {
        self.images * self.rows * self.w
    }

    pub fn get(&self, t: usize) -> Tile {
        if self.images > 1 {
            let image = t * self.images;
            let present = self.images.min(self.n - image);
            Tile { image, images: self.images, present, row: 0, rows: self.h }
        } else {
            let (image, part) = (t / self.per_image(), t % self.per_image());
            let row = part * self.rows;
            Tile { image, images: 1, present: 1, row, rows: self.rows.min(self.h - row) }
        }
    }
}

impl Tile {
    /// The tile's first element in a tensor of images [h, w, c], and how many it covers.
    pub fn span(self, [h, w, c]: [usize; 3]) -> (usize, usize) {
        let rows = if self.images > 1 { self.present * h } else { self.rows };
        ((self.image * h + self.row) * w * c, rows * w * c)
    }
}

/// A square window sliding over an image.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub kernel: usize,
    pub stride: usize,
    /// Zeros before the first row and column.
    pub pad: isize,
}

/// Writes the patch rows [rows·w_out, kernel²·c] of output rows `row..row + rows`; outside the image is zero.
///
/// - `src`: one image [h, w, c].
pub fn patches(
    dst: &mut [f32],
    src: &[f32],
    [h, w, c]: [usize; 3],
    win: Window,
    (row, rows): (usize, usize),
    w_out: usize,
) {
    let k = win.kernel;
    let mut out = dst.chunks_exact_mut(k * c);
    for oh in row..row + rows {
        for ow in 0..w_out {
            let left = (ow * win.stride) as isize - win.pad;
            // Columns left..left+k of the image, clipped: `skip` of them lie before it.
            let skip = (-left).clamp(0, k as isize) as usize;
            let take = ((w as isize - left).clamp(0, k as isize) as usize).max(skip) - skip;
            for kh in 0..k {
                let Some(line) = out.next() else { return };
                let ih = (oh * win.stride + kh) as isize - win.pad;
                if ih < 0 || ih >= h as isize || take == 0 {
                    line.fill(0.0);
                    continue;
                }
                let from = (ih as usize * w + (left + skip as isize) as usize) * c;
                line[..skip * c].fill(0.0);
                line[skip * c..(skip + take) * c].copy_from_slice(&src[from..from + take * c]);
                line[(skip + take) * c..].fill(0.0);
            }
        }
    }
}

/// Spreads an image [h, w, c] with `stride − 1` zeros between its pixels.
pub fn dilate(dst: &mut [f32], src: &[f32], [h, w, c]: [usize; 3], stride: usize) {
    let wide = (w - 1) * stride + 1;
    dst[..((h - 1) * stride + 1) * wide * c].fill(0.0);
    for y in 0..h {
        for x in 0..w {
            dst[(y * stride * wide + x * stride) * c..][..c]
                .copy_from_slice(&src[(y * w + x) * c..][..c]);
        }
    }
}
