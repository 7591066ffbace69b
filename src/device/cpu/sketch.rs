//! Short descriptions of images whose distances are never more than the images' own: what lies far apart in
//! them need not be compared pixel by pixel.
//!
//! A sketch holds the lowest frequencies (of the cosine transform of brightness and two colours: an orthonormal
//! basis) and, as one more coordinate, the length of the rest. Leaving coordinates out and taking a length shorten
//! distances, so ‖s(x) − s(y)‖ ≤ ‖x − y‖ for any two images; rounding the coordinates to integers adds at most
//! half a unit each. Natural images have most of their energy there, so most pairs are told apart.

use super::dots::{COLUMNS, DotForm, DotLanes, ROWS, Word};
use crate::simd::vectorized;
use bytemuck::Zeroable as _;
use rayon::prelude::*;

/// Coordinates of a sketch.
const COORDINATES: usize = 96;
/// Words of a sketch.
pub const WORDS: usize = COORDINATES / 2;
/// Frequencies of each colour of an RGB image.
const COLOUR_FREQUENCIES: usize = 16;
/// Brightness and colours of red, green and blue, each an orthonormal direction.
const COLOURS: [[f64; 3]; 3] = [
    [0.577_350_269_189_625_8; 3],
    [std::f64::consts::FRAC_1_SQRT_2, 0.0, -std::f64::consts::FRAC_1_SQRT_2],
    [0.408_248_290_463_863, -0.816_496_580_927_726, 0.408_248_290_463_863],
];
/// Pixels of images below this are as quickly compared themselves.
const MIN_LEN: usize = 768;
/// The middle of the pixels' range, taken off them.
const MIDDLE: f64 = 127.5;

/// How square images of one size are sketched.
#[derive(Debug)]
pub struct Sketcher {
    side: usize,
    channels: usize,
    /// `[frequency][position]`, as many frequencies as are used.
    waves: Vec<Vec<f64>>,
    /// (direction of colour, frequency down, frequency across) of each coordinate but the last.
    kept: Vec<(usize, usize, usize)>,
    /// Pixel units of one unit of a coordinate.
    step: f64,
}

impl Sketcher {
    /// For square images of `len` pixels, grey or RGB; `None` where a sketch would not pay.
    pub fn new(len: usize) -> Option<Self> {
        let (side, channels) = [1, 3].into_iter().find_map(|c| {
            let side = (len / c).isqrt();
            (side * side * c == len).then_some((side, c))
        })?;
        if len < MIN_LEN {
            return None;
        }
        let mut pairs: Vec<_> = (0..side.min(16))
            .flat_map(|u| (0..side.min(16)).map(move |v| (u * u + v * v, u, v)))
            .collect();
        pairs.sort();
        let colours = if channels == 3 { COLOUR_FREQUENCIES } else { 0 };
        let of = |colour: usize, count: usize| {
            pairs[..count].iter().map(move |&(_, u, v)| (colour, u, v)).collect::<Vec<_>>()
        };
        let kept = [of(0, COORDINATES - 1 - 2 * colours), of(1, colours), of(2, colours)].concat();
        let highest = kept.iter().map(|&(_, u, v)| u.max(v)).max().unwrap_or(0);
        let n = side as f64;
        let wave = |u: usize| -> Vec<f64> {
            let scale = if u == 0 { (1.0 / n).sqrt() } else { (2.0 / n).sqrt() };
            let angle = |i: usize| std::f64::consts::PI * (i as f64 + 0.5) * u as f64 / n;
            (0..side).map(|i| scale * angle(i).cos()).collect()
        };
        // (2·127.5)²·len/step² < 2³¹: squared distances fit 32 bits.
        let step = (len as f64 / 33_000.0).sqrt().max(1.0);
        Some(Sketcher { side, channels, waves: (0..=highest).map(wave).collect(), kept, step })
    }

    /// A squared distance that the sketches of no two images exceed which are at most √`squared` apart in pixel
    /// units.
    pub fn reach(&self, squared: f64) -> f64 {
        // Half a unit of rounding in each coordinate of each of two; the rest covers float64's.
        let rounded = (COORDINATES as f64).sqrt() + 0.01;
        (squared.sqrt() / self.step + rounded).powi(2)
    }

    /// The sketch of an image [H, W, C].
    pub fn draw(&self, image: &[u8]) -> [i16; COORDINATES] {
        let x: Vec<f64> = image.iter().map(|&u| u as f64 - MIDDLE).collect();
        let mut left: f64 = x.iter().map(|v| v * v).sum();
        let row = self.side * self.channels;
        let mut down = vec![0.0; self.waves.len() * row];
        transform_columns(&self.waves, &x, &mut down);
        let mut colours = vec![0.0; down.len()];
        for (from, to) in down.chunks_exact(row).zip(colours.chunks_exact_mut(row)) {
            self.mix(from, to);
        }
        let mut sketch = [0; COORDINATES];
        for (out, &(colour, u, v)) in sketch.iter_mut().zip(&self.kept) {
            let line = &colours[u * row + colour * self.side..][..self.side];
            let c = dot(line, &self.waves[v]);
            left -= c * c;
            *out = (c / self.step).round() as i16;
        }
        sketch[COORDINATES - 1] = (left.max(0.0).sqrt() / self.step).round() as i16;
        sketch
    }

    /// Pixels to brightness and colours, one after the other.
    fn mix(&self, pixels: &[f64], out: &mut [f64]) {
        if self.channels == 1 {
            return out.copy_from_slice(pixels);
        }
        for (direction, out) in COLOURS.iter().zip(out.chunks_exact_mut(self.side)) {
            for (out, p) in out.iter_mut().zip(pixels.chunks_exact(3)) {
                *out = direction[0] * p[0] + direction[1] * p[1] + direction[2] * p[2];
            }
        }
    }

    /// The sketches of up to 32 images as a panel's columns, and their squared lengths.
    fn columns(&self, images: &[u8], panel: &mut [DotLanes]) -> DotLanes {
        let mut squared = DotLanes::zeroed();
        for (c, image) in images.chunks_exact(self.side * self.side * self.channels).enumerate() {
            let sketch = self.draw(image);
            for (lanes, pair) in panel.iter_mut().zip(sketch.chunks_exact(2)) {
                lanes.0[c] = DotForm::Pairs.word(&[pair[0] as i32, pair[1] as i32]);
            }
            squared.0[c] = squared_length(&sketch);
        }
        squared
    }

    /// The sketches of images, in panels.
    pub fn panels(&self, images: &[u8]) -> Panels {
        let len = self.side * self.side * self.channels;
        let count = images.len().div_ceil(len * COLUMNS);
        let mut panels = Panels {
            words: vec![DotLanes::zeroed(); count * WORDS],
            squared: vec![DotLanes::zeroed(); count],
        };
        panels
            .words
            .par_chunks_mut(WORDS)
            .zip(&mut panels.squared)
            .zip(images.par_chunks(COLUMNS * len))
            .for_each(|((panel, squared), images)| *squared = self.columns(images, panel));
        panels
    }

    /// Sketches as rows of tiles, `[tile][word]`, and their squared lengths.
    pub fn rows(sketches: &[[i16; COORDINATES]]) -> (Vec<Word>, Vec<i32>) {
        let mut rows = vec![[0; ROWS]; sketches.len().div_ceil(ROWS) * WORDS];
        for (i, sketch) in sketches.iter().enumerate() {
            let tile = &mut rows[i / ROWS * WORDS..][..WORDS];
            for (word, pair) in tile.iter_mut().zip(sketch.chunks_exact(2)) {
                word[i % ROWS] = DotForm::Pairs.word(&[pair[0] as i32, pair[1] as i32]);
            }
        }
        (rows, sketches.iter().map(squared_length).collect())
    }
}

/// Sketches packed as columns.
pub struct Panels {
    /// `[panel][word]`.
    words: Vec<DotLanes>,
    squared: Vec<DotLanes>,
}

impl Panels {
    /// Number of panels.
    pub fn len(&self) -> usize {
        self.squared.len()
    }

    pub fn is_empty(&self) -> bool {
        self.squared.is_empty()
    }

    /// Words of panel `p`, and the squared length of each column.
    pub fn get(&self, p: usize) -> (&[DotLanes], &DotLanes) {
        (&self.words[p * WORDS..][..WORDS], &self.squared[p])
    }
}

fn squared_length(sketch: &[i16; COORDINATES]) -> i32 {
    sketch.iter().map(|&c| c as i32 * c as i32).sum()
}

vectorized! {
    fn dot(a: &[f64], b: &[f64]) -> f64 {
        const LANES: usize = 8;
        let mut sums = [0.0f64; LANES];
        let (a_rest, b_rest) = (a.chunks_exact(LANES).remainder(), b.chunks_exact(LANES).remainder());
        let mut sum: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
        for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
            for i in 0..LANES {
                sums[i] = a[i].mul_add(b[i], sums[i]);
            }
        }
        for s in sums {
            sum += s;
        }
        sum
    }

    /// `out[u][i]` = Σ_y `waves[u][y]`·`x[y][i]`.
    fn transform_columns(waves: &[Vec<f64>], x: &[f64], out: &mut [f64]) {
        const BLOCK: usize = 32;
        let row = out.len() / waves.len();
        for (wave, out) in waves.iter().zip(out.chunks_exact_mut(row)) {
            for start in (0..row).step_by(BLOCK) {
                let width = BLOCK.min(row - start);
                let mut sums = [0.0f64; BLOCK];
                for (&w, x) in wave.iter().zip(x.chunks_exact(row)) {
                    let x = &x[start..start + width];
                    match <&[f64; BLOCK]>::try_from(x) {
                        Ok(x) => for i in 0..BLOCK { sums[i] = w.mul_add(x[i], sums[i]); }
                        Err(_) => for i in 0..width { sums[i] = w.mul_add(x[i], sums[i]); }
                    }
                }
                out[start..start + width].copy_from_slice(&sums[..width]);
            }
        }
    }
}
