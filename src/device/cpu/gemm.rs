//! Matrix products on one thread, through the `gemm` crate. Its bits depend on the shape, so callers pass
//! shapes that depend on the network alone: tiles of fixed size, padded with zeros where images run out.

use super::super::Acc;

/// A matrix in a slice: element (i, j) at `i·row + j·col`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    pub data: &'a [f32],
    pub row: usize,
    pub col: usize,
}

impl<'a> Mat<'a> {
    /// Row-major with rows `stride` apart.
    pub fn rows(data: &'a [f32], stride: usize) -> Self {
        Mat { data, row: stride, col: 1 }
    }

    /// The transpose of a row-major matrix with rows `stride` apart.
    pub fn cols(data: &'a [f32], stride: usize) -> Self {
        Mat { data, row: 1, col: stride }
    }

    fn reach(&self, m: usize, n: usize) -> usize {
        (m - 1) * self.row + (n - 1) * self.col + 1
    }
}

/// c = alpha·a·b or c += alpha·a·b: a [m, k], b [k, n], c [m, n] row-major with rows `c_stride` apart.
pub fn gemm(
    [m, n, k]: [usize; 3],
    c: &mut [f32],
    c_stride: usize,
    acc: Acc,
    alpha: f32,
    a: Mat,
    b: Mat,
) {
    assert!(m > 0 && n > 0 && k > 0, "gemm of {m}×{n}×{k}");
    assert!(a.reach(m, k) <= a.data.len() && b.reach(k, n) <= b.data.len());
    assert!(n <= c_stride && (m - 1) * c_stride + n <= c.len());
    // SAFETY: every element addressed lies in its slice by the checks above; c is exclusive.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            c_stride as isize,
            acc == Acc::Add,
            a.data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.col as isize,
            b.row as isize,
            1.0,
            alpha,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
