//! Lanczos resampling, bit for bit as Pillow's `resize((w, h), Image.LANCZOS)` does it on 8-bit images:
//! a horizontal pass, then a vertical one, in fixed point, rounded to 8 bits after each.

use super::Image;

/// Fractional bits of a weight: 32 less 8 for the pixel and 2 for what overshoots.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// Lobes of the kernel on either side.
const LOBES: f64 = 3.0;

/// The image at `side`×`side` pixels. An axis that has this length already is left alone.
pub fn lanczos(image: Image, side: usize) -> Image {
    let Image { width, height, channels, mut pixels } = image;
    if width != side {
        let taps = taps(width, side);
        let mut out = vec![0; side * height * channels];
        for (from, to) in
            pixels.chunks_exact(width * channels).zip(out.chunks_exact_mut(side * channels))
        {
            for (tap, to) in taps.iter().zip(to.chunks_exact_mut(channels)) {
                for (c, to) in to.iter_mut().enumerate() {
                    *to = tap.apply(|i| from[i * channels + c]);
                }
            }
        }
        pixels = out;
    }
    if height != side {
        let row = side * channels;
        let mut out = vec![0; side * row];
        for (tap, to) in taps(height, side).iter().zip(out.chunks_exact_mut(row)) {
            for (x, to) in to.iter_mut().enumerate() {
                *to = tap.apply(|i| pixels[i * row + x]);
            }
        }
        pixels = out;
    }
    Image { width: side, height: side, channels, pixels }
}

/// Weights of the input pixels `start..` that make one output pixel.
struct Tap {
    start: usize,
    weights: Vec<i32>,
}

impl Tap {
    fn apply(&self, pixel: impl Fn(usize) -> u8) -> u8 {
        let half = 1 << (PRECISION_BITS - 1);
        let sum = (self.weights.iter().zip(self.start..))
            .fold(half, |sum: i32, (&w, i)| sum + w * i32::from(pixel(i)));
        (sum >> PRECISION_BITS).clamp(0, 255) as u8
    }
}

/// The kernel at each of `to` output pixels over `from` input pixels; it widens when pixels get fewer.
fn taps(from: usize, to: usize) -> Vec<Tap> {
    let scale = from as f64 / to as f64;
    let filter_scale = scale.max(1.0);
    let support = LOBES * filter_scale;
    (0..to)
        .map(|x| {
            let center = (x as f64 + 0.5) * scale;
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let weights: Vec<f64> = (start..end)
                .map(|i| kernel((i as f64 - center + 0.5) * (1.0 / filter_scale)))
                .collect();
            let total: f64 = weights.iter().sum();
            let fixed = |w: f64| {
                let w = w / total * f64::from(1 << PRECISION_BITS);
                if w < 0.0 { (w - 0.5) as i32 } else { (w + 0.5) as i32 }
            };
            Tap { start, weights: weights.into_iter().map(fixed).collect() }
        })
        .collect()
}

fn kernel(x: f64) -> f64 {
    if (-LOBES..LOBES).contains(&x) { sinc(x) * sinc(x / LOBES) } else { 0.0 }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}
