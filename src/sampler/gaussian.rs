//! The linear denoiser that is optimal for a Gaussian of the training set's mean and covariance (Wang & Vastola 2024,
//! arXiv:2412.09726): D_G(x; σ) = μ + Σ (Σ + σ²I)⁻¹ (x − μ). What a network does as well as this, it does without knowing
//! any image.
//!
//! Its loss needs no draws of noise: over those of an image y it is, with λ the eigenvalues of Σ,
//! E‖D_G(y + σz) − y‖² = σ⁴ ‖(Σ + σ²I)⁻¹ (y − μ)‖² + σ² Σ_k (λ_k / (λ_k + σ²))². Σ is brought to a tridiagonal matrix once,
//! in whose basis each noise level takes a moment; of fewer images than pixels their Gram matrix is, which has the
//! same eigenvalues other than 0.

mod moments;
mod tridiagonal;

use crate::data::Dataset;
use crate::device::Device;
use moments::Moments;
use rayon::prelude::*;
use tridiagonal::Tridiagonal;

/// The Gaussian of a set's images in [−1, 1], whatever their labels.
pub struct Gaussian {
    moments: Moments,
    matrix: Tridiagonal,
    eigenvalues: Vec<f64>,
}

/// An image in the basis that [`Gaussian`] computes in.
pub struct Centred {
    /// ‖y − μ‖².
    squared: f64,
    values: Vec<f64>,
}

impl Gaussian {
    /// Of a set of at least one image. Time grows as the cube of its images or the pixels of one, whichever are
    /// fewer; `progress` is told how many of these are done and of how many.
    pub fn new(
        data: &Dataset,
        device: &Device,
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Self {
        device.host().run(|| {
            let (moments, matrix) = Moments::of(&data.pixels, data.image_len());
            let matrix = Tridiagonal::of(matrix, progress);
            let eigenvalues = matrix.eigenvalues();
            Gaussian { moments, matrix, eigenvalues }
        })
    }

    /// Bytes that [`Gaussian::new`] takes: the square of the images or the pixels of one, whichever are fewer.
    pub fn bytes(data: &Dataset) -> u64 {
        let side = data.len().min(data.image_len()) as u64;
        // The matrix, and the reflections that fill half as much.
        12 * side * side + data.pixels.len() as u64
    }

    /// Images of [N, H, W, C], ready for [`Gaussian::expected_loss`].
    pub fn centred(&self, pixels: &[u8], device: &Device) -> Vec<Centred> {
        let one = |image: &[u8]| {
            let (squared, mut values) = self.moments.centred(image);
            self.matrix.rotate(&mut values);
            Centred { squared, values }
        };
        device.host().run(|| pixels.par_chunks_exact(self.moments.image_len()).map(one).collect())
    }

    /// E‖D_G(y + σz) − y‖² over standard normal z, of an image y; σ > 0.
    pub fn expected_loss(&self, image: &Centred, sigma: f64) -> f64 {
        let s = sigma * sigma;
        let solved = self.matrix.solve(s, &image.values);
        let squared: f64 = solved.iter().map(|c| c * c).sum();
        let bias = match self.moments.is_gram() {
            false => s * s * squared,
            // With Σ = AAᵀ and G = AᵀA: σ²(Σ + σ²)⁻¹y = y − Ac, c = (G + σ²)⁻¹Aᵀy, whose square is ‖y‖² − yᵀAc − σ²‖c‖².
            true => {
                let product: f64 = solved.iter().zip(&image.values).map(|(c, b)| c * b).sum();
                (image.squared - product - s * squared).max(0.0)
            }
        };
        let passed = |&l: &f64| (l.max(0.0) / (l.max(0.0) + s)).powi(2);
        bias + s * self.eigenvalues.iter().map(passed).sum::<f64>()
    }
}
