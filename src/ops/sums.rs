//! The small additions that gradients of several ops share, on the CPU and as kernels (`kernels/sums.cu`).

use super::{Shape, words};
use crate::device::cpu::math;
use crate::device::{Acc, Arg, Kernel, Sink, Slot, args, typed};

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
    let grid = columns.div_ceil(256);
    Kernel::new("sum_rows", grid, args![dst, src, rows, columns, dst.acc])
}

/// dst (=|+=) scale · src, stored alike.
pub(super) fn scaled_add(dst: Sink, src: Slot, scale: f32) -> Kernel {
    let n = Arg::I64(src.len as i64);
    assert_eq!(dst.slot.dtype, src.dtype, "a residual and its output are stored alike");
    Kernel::new(
        typed!("scaled_add", src.dtype),
        src.len.div_ceil(1024),
        args![dst, src, n, scale, dst.acc],
    )
}

/// dst [rows, row_words], columns `first .. first + width` = 0 where it is set; nothing where it is added to.
pub(super) fn zeros(
    dst: Sink,
    rows: usize,
    width: usize,
    row_words: usize,
    first: usize,
) -> Kernel {
    let none: Option<Slot> = None;
    let arguments = args![dst, none, rows, width, width, row_words, first, 0usize, 1.0f32, dst.acc];
    Kernel::new("wgrad_reduce", (rows * width).div_ceil(256), arguments)
}

/// Words of all images of a shape, as the kernels over whole tensors take them.
pub(super) fn image_grid(shape: Shape) -> [usize; 2] {
    [(words(shape) / shape[0]).div_ceil(1024), shape[0]]
}
