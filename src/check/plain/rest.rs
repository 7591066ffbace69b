//! What works on each element, or on few: the network's ends, embeddings, the loss, NCSN++'s filter.

use super::super::cases::Case;
use super::sample::{Of, Sample, d_out, in_rows, sigmas, some};
use crate::ops::label_embed::LabelEmbed;
use crate::ops::loss::Loss;
use crate::ops::noise_embed::NoiseEmbed;
use crate::ops::precondition::Precond;

fn all(n: usize) -> Vec<usize> {
    (0..n).collect()
}

/// c_in · (y + σ · noise).
pub(super) fn noisy(precond: Precond, case: &Case) -> Vec<Sample> {
    let [y, noise, sigma] = [0, 1, 2].map(|i| &case.ins[i]);
    let (sigma, per) = (sigmas(sigma), y.words.len() / y.shape[0]);
    vec![Sample::new(Of::Out(0), all(y.words.len()), |at| {
        let sigma = sigma[at / per];
        let c = precond.coefficients(sigma);
        c.input * (y.words[at] as f64 + sigma * noise.words[at] as f64)
    })]
}

/// c_skip · x + c_out · F.
pub(super) fn denoised(precond: Precond, case: &Case) -> Vec<Sample> {
    let [x, f, sigma] = [0, 1, 2].map(|i| &case.ins[i]);
    let (sigma, per) = (sigmas(sigma), x.words.len() / x.shape[0]);
    vec![Sample::new(Of::Out(0), all(x.words.len()), |at| {
        let c = precond.coefficients(sigma[at / per]);
        c.skip * x.words[at] as f64 + c.out * f.words[at] as f64
    })]
}

/// weight · ‖D(y + σ · noise) − y‖² of each image, and its mean's gradient by F.
pub(super) fn loss(op: &Loss, case: &Case) -> Vec<Sample> {
    let [f, y, noise] = [0, 1, 2].map(|i| &case.ins[i].words);
    let (sigma, n) = (sigmas(&case.ins[3]), case.ins[0].shape[0]);
    let per = f.len() / n;
    let gap = |at: usize| {
        let sigma = sigma[at / per];
        let c = op.precond.coefficients(sigma);
        let x = y[at] as f64 + sigma * noise[at] as f64;
        c.skip * x + c.out * f[at] as f64 - y[at] as f64
    };
    vec![
        Sample::new(Of::Out(0), all(n), |n| {
            let squared = (n * per..(n + 1) * per).map(|at| gap(at).powi(2)).sum::<f64>();
            op.precond.weight(sigma[n]) * squared
        }),
        Sample::new(Of::In(0), all(f.len()), |at| {
            let sigma = sigma[at / per];
            let c_out = op.precond.coefficients(sigma).out;
            2.0 * op.precond.weight(sigma) * c_out * gap(at) / op.batch as f64
        }),
    ]
}

/// (sin, cos) of the noise level times frequencies from 1 down to 1e-4, or random ones.
pub(super) fn noise_embed(op: &NoiseEmbed, case: &Case) -> Vec<Sample> {
    let (sigma, half) = (sigmas(&case.ins[0]), op.channels / 2);
    vec![Sample::new(Of::Out(0), all(sigma.len() * op.channels), |at| {
        let (n, i) = (at / op.channels, at % op.channels);
        let noise = op.precond.coefficients(sigma[n]).noise;
        let angle = match case.ins.get(1) {
            Some(freqs) => std::f64::consts::TAU * freqs.words[i % half] as f64 * noise,
            None => noise * 1e-4_f64.powf((i % half) as f64 / (half - 1) as f64),
        };
        if i < half { angle.sin() } else { angle.cos() }
    })]
}

/// e + `table[label]` · √L + bias.
pub(super) fn label_embed(op: &LabelEmbed, case: &Case) -> Vec<Sample> {
    let [n, _, _, d] = case.ins[0].shape;
    let (e, labels) = (&case.ins[0].words, &case.ins[1].words);
    let label = |n: usize| labels[n].to_bits() as usize;
    let (table, b) = (&case.params[0].words, &case.params[1].words);
    let (dy, root) = (d_out(case, 0), (op.label_dim as f64).sqrt());
    vec![
        Sample::new(Of::Out(0), all(n * d), |at| {
            let row = label(at / d) * d;
            e[at] as f64 + root * table[row + at % d] as f64 + b[at % d] as f64
        }),
        Sample::new(Of::In(0), all(n * d), |at| dy[at] as f64),
        Sample::new(Of::Param(0), all(op.label_dim * d), |at| {
            let of = (0..n).filter(|&n| label(n) == at / d);
            root * of.map(|n| dy[n * d + at % d] as f64).sum::<f64>()
        }),
        Sample::new(Of::Param(1), all(d), |i| (0..n).map(|n| dy[n * d + i] as f64).sum()),
    ]
}

/// [1, 3, 3, 1] / 8 along both axes, two pixels of zeros around the image.
pub(super) fn fir(case: &Case) -> Vec<Sample> {
    const TAPS: [f64; 4] = [0.125, 0.375, 0.375, 0.125];
    let [n, h, w, c] = case.ins[0].shape;
    let (x, dy) = (&case.ins[0].words, d_out(case, 0));
    let taps = || (0..16).map(|t| (t / 4, t % 4, TAPS[t / 4] * TAPS[t % 4]));
    // Output pixel p sums pixels p - 2 .. p + 2.
    let seen = |p: usize, t: usize, size: usize| (p + t).checked_sub(2).filter(|&i| i < size);
    let seeing = |i: usize, t: usize, size: usize| (i + 2).checked_sub(t).filter(|&p| p < size);
    let value = |at: usize| {
        let (p, j) = (at / c, at % c);
        let (n, row, column) = (p / ((h + 1) * (w + 1)), p / (w + 1) % (h + 1), p % (w + 1));
        let of = |(ky, kx, weight)| {
            let (i, k) = (seen(row, ky, h)?, seen(column, kx, w)?);
            Some(weight * x[((n * h + i) * w + k) * c + j] as f64)
        };
        taps().filter_map(of).sum()
    };
    let gradient = |at: usize| {
        let (p, j) = (at / c, at % c);
        let (n, row, column) = (p / (h * w), p / w % h, p % w);
        let of = |(ky, kx, weight)| {
            let (i, k) = (seeing(row, ky, h + 1)?, seeing(column, kx, w + 1)?);
            Some(weight * dy[((n * (h + 1) + i) * (w + 1) + k) * c + j] as f64)
        };
        taps().filter_map(of).sum()
    };
    vec![
        Sample::new(Of::Out(0), in_rows(&some(64, n * (h + 1) * (w + 1)), c), value),
        Sample::new(Of::In(0), in_rows(&some(64, n * h * w), c), gradient),
    ]
}
