//! The small additions that gradients of several ops share, on the CPU and as kernels (`kernels/sums.cu`).

use super::{Shape, words};
use crate::device::cpu::math;
use crate::device::params::{BLOCK_ELEMENTS, BLOCK_THREADS};
use crate::device::{Acc, Kernel, Ptr, Sink, Slot, params, typed};

/// dst (=|+=) src.
pub(super) fn store(dst: &mut [f32], acc: Acc, src: &[f32]) {
    match acc {
        Acc::Set => dst.copy_from_slice(src),
        Acc::Add => math::add(dst, src),
    }
}

/// dst (=|+=) the rows of `per_image` [N, dst.len()], one after another.
pub(super) fn sum_images(dst: &mut [f32], acc: Acc, per_image: &[f32]) {
    if acc == Acc::Set {
        dst.fill(0.0);
    }
    for row in per_image.chunks_exact(dst.len()) {
        math::add(dst, row);
    }
}

/// dst `[columns]` (=|+=) the sum over rows of src `[rows, columns]`, in order.
pub(super) fn sum_rows(dst: Sink, src: Slot, rows: usize, columns: usize) -> Kernel {
    let arguments = params!(SumRows { dst, src, rows, columns, add: dst.acc });
    Kernel::new(params::SUM_ROWS, columns.div_ceil(BLOCK_THREADS), arguments)
}

/// dst (=|+=) scale · src, stored alike.
pub(super) fn scaled_add(dst: Sink, src: Slot, scale: f32) -> Kernel {
    assert_eq!(dst.slot.dtype, src.dtype, "a residual and its output are stored alike");
    let kernel = typed([params::SCALED_ADD, params::SCALED_ADD_BF16], src.dtype);
    let arguments = params!(ScaledAdd { dst, src, n: src.len, scale, add: dst.acc });
    Kernel::new(kernel, src.len.div_ceil(BLOCK_ELEMENTS), arguments)
}

/// dst [rows, row_words], columns `first .. first + width` = 0 where it is set; nothing where it is added to.
pub(super) fn zeros(
    dst: Sink,
    rows: usize,
    width: usize,
    row_words: usize,
    first: usize,
) -> Kernel {
    let arguments = params!(WgradReduce {
        dw: dst,
        partials: Ptr::Null,
        o: rows,
        width,
        partial_words: width,
        row_words,
        first,
        chunks: 0,
        scale: 1.0_f32,
        add: dst.acc,
    });
    Kernel::new(params::WGRAD_REDUCE, (rows * width).div_ceil(BLOCK_THREADS), arguments)
}

/// Words of all images of a shape, as the kernels over whole tensors take them.
pub(super) fn image_grid(shape: Shape) -> [usize; 2] {
    [(words(shape) / shape[0]).div_ceil(BLOCK_ELEMENTS), shape[0]]
}
