//! A symmetric matrix as QTQᵀ with T tridiagonal, by Householder reflections (Golub & Van Loan, Matrix Computations, 8.3.1).

use crate::simd::vectorized;
use rayon::prelude::*;

/// T, and the reflections that Q is the product of.
pub struct Tridiagonal {
    diagonal: Vec<f64>,
    /// Beside the diagonal, one fewer.
    beside: Vec<f64>,
    /// Of each reflection its vector, which begins one row further down than that of the one before, with 2/‖v‖²
    /// as its factor.
    reflections: Vec<(f64, Vec<f64>)>,
}

impl Tridiagonal {
    /// Of a symmetric matrix, row by row; `progress` is told how many columns are done, and of how many.
    pub fn of(mut matrix: Vec<f64>, progress: &mut (dyn FnMut(usize, usize) + Send)) -> Self {
        let n = matrix.len().isqrt();
        let (mut diagonal, mut beside, mut reflections) = (Vec::new(), Vec::new(), Vec::new());
        for k in 0..n {
            diagonal.push(matrix[k * n + k]);
            if k + 1 == n {
                break;
            }
            let mut v = matrix[k * n + k + 1..][..n - k - 1].to_vec();
            let norm = dot(&v, &v).sqrt();
            // Whatever adds up rather than cancels.
            let first = if v[0] > 0.0 { -norm } else { norm };
            beside.push(if norm > 0.0 { first } else { 0.0 });
            v[0] -= first;
            let squared = dot(&v, &v);
            let factor = if squared > 0.0 { 2.0 / squared } else { 0.0 };
            if factor > 0.0 {
                reflect(&mut matrix[(k + 1) * n..], n, k + 1, &v, factor);
            }
            reflections.push((factor, v));
            progress(k + 1, n);
        }
        Tridiagonal { diagonal, beside, reflections }
    }

    /// b becomes Qᵀb.
    pub fn rotate(&self, b: &mut [f64]) {
        for (k, (factor, v)) in self.reflections.iter().enumerate() {
            let b = &mut b[k + 1..];
            let along = factor * dot(v, b);
            add_scaled(-along, v, b);
        }
    }

    /// (T + sI)⁻¹b of a T without negative eigenvalues and s > 0, by elimination without pivots.
    pub fn solve(&self, s: f64, b: &[f64]) -> Vec<f64> {
        let mut pivots = Vec::with_capacity(b.len());
        let mut solved = b.to_vec();
        for i in 0..b.len() {
            let mut pivot = self.diagonal[i] + s;
            if i > 0 {
                let ratio = self.beside[i - 1] / pivots[i - 1];
                pivot -= ratio * self.beside[i - 1];
                solved[i] -= ratio * solved[i - 1];
            }
            // Rounding may leave less than the s that is below every pivot.
            pivots.push(pivot.max(s));
        }
        for i in (0..b.len()).rev() {
            if i + 1 < b.len() {
                solved[i] -= self.beside[i] * solved[i + 1];
            }
            solved[i] /= pivots[i];
        }
        solved
    }

    /// All eigenvalues, in ascending order, each bisected to float64's rounding of the largest (Golub & Van Loan, 8.4.1).
    pub fn eigenvalues(&self) -> Vec<f64> {
        let n = self.diagonal.len();
        let side = |i: usize| self.beside.get(i).map_or(0.0, |b| b.abs());
        let radius = |i: usize| side(i) + if i > 0 { side(i - 1) } else { 0.0 };
        let bound = (0..n).map(|i| self.diagonal[i].abs() + radius(i)).fold(0.0, f64::max);
        let squares: Vec<f64> = self.beside.iter().map(|b| b * b).collect();
        // Signs of the pivots of T − xI count the eigenvalues below x.
        let below = |x: f64| {
            let (mut count, mut pivot) = (0, 1.0);
            for (i, d) in self.diagonal.iter().enumerate() {
                let square = if i > 0 { squares[i - 1] } else { 0.0 };
                pivot = d - x - square / pivot;
                if pivot == 0.0 {
                    pivot = f64::MIN_POSITIVE.sqrt();
                }
                count += (pivot < 0.0) as usize;
            }
            count
        };
        let nth = |k: usize| {
            let (mut low, mut high) = (-bound, bound);
            for _ in 0..56 {
                let middle = 0.5 * (low + high);
                if below(middle) > k { high = middle } else { low = middle }
            }
            0.5 * (low + high)
        };
        (0..n).into_par_iter().map(nth).collect()
    }
}

/// A ← HAH of the rows and columns from `k` on, with H = I − factor·vvᵀ; `rows` are those from `k` on, `n` values each.
fn reflect(rows: &mut [f64], n: usize, k: usize, v: &[f64], factor: f64) {
    let product = |row: &[f64]| factor * dot(&row[k..], v);
    let mut p: Vec<f64> = rows.par_chunks_exact(n).map(product).collect();
    let along = 0.5 * factor * dot(&p, v);
    add_scaled(-along, v, &mut p);
    rows.par_chunks_exact_mut(n).zip(v.par_iter().zip(&p)).for_each(|(row, (&a, &b))| {
        add_scaled(-a, &p, &mut row[k..]);
        add_scaled(-b, v, &mut row[k..]);
    });
}

vectorized! {
    /// Σ a·b.
    fn dot(a: &[f64], b: &[f64]) -> f64 {
        const LANES: usize = 32;
        let mut sums = [0.0f64; LANES];
        let (left, right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        let mut sum = 0.0;
        for (a, b) in left.remainder().iter().zip(right.remainder()) {
            sum += a * b;
        }
        for (a, b) in left.zip(right) {
            for l in 0..LANES {
                sums[l] = a[l].mul_add(b[l], sums[l]);
            }
        }
        for s in sums {
            sum += s;
        }
        sum
    }

    /// b ← b + w·a.
    fn add_scaled(w: f64, a: &[f64], b: &mut [f64]) {
        for (b, &a) in b.iter_mut().zip(a) {
            *b = w.mul_add(a, *b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// QTQᵀ is the matrix, its eigenvalues are those that it was made of, and systems are solved.
    #[test]
    fn a_matrix_of_known_eigenvalues() {
        let n = 40;
        let given: Vec<f64> =
            (0..n).map(|i| if i < 7 { 0.0 } else { (i as f64 * 0.17).exp() }).collect();
        // Rotated by reflections of vectors that are anything.
        let mut matrix = vec![0.0; n * n];
        (0..n).for_each(|i| matrix[i * n + i] = given[i]);
        for seed in 1..4 {
            let v: Vec<f64> = (0..n).map(|i| ((i * i + seed * 13) as f64).sin()).collect();
            let factor = 2.0 / dot(&v, &v);
            reflect(&mut matrix, n, 0, &v, factor);
        }
        let told = &mut |_, _| ();
        let reduced = Tridiagonal::of(matrix.clone(), told);
        let most = given[n - 1];
        for (a, b) in reduced.eigenvalues().iter().zip(&given) {
            assert!((a - b).abs() < 1e-12 * most, "{a} for {b}");
        }
        let b: Vec<f64> = (0..n).map(|i| (i as f64).cos()).collect();
        let (mut rotated, s) = (b.clone(), 0.3);
        reduced.rotate(&mut rotated);
        assert!((dot(&rotated, &rotated) / dot(&b, &b) - 1.0).abs() < 1e-12);
        // ‖(A + s)⁻¹b‖ does not depend on the basis; the solution in ours by (A + s)·x = b.
        let solved = reduced.solve(s, &rotated);
        let mut back = solved.clone();
        for (k, (factor, v)) in reduced.reflections.iter().enumerate().rev() {
            let along = factor * dot(v, &back[k + 1..]);
            add_scaled(-along, v, &mut back[k + 1..]);
        }
        for i in 0..n {
            let got = dot(&matrix[i * n..][..n], &back) + s * back[i];
            assert!((got - b[i]).abs() < 1e-9, "{got} for {}", b[i]);
        }
    }
}
