//! pack: working copies of weights as the tensor-core convolutions read them (`kernels/pack.cu`), made once after
//! each update.

use crate::device::params::{BLOCK_THREADS, WARP_THREADS};
use crate::device::{Dtype, Kernel, Slot, params, typed};

/// A working copy of one of an op's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pack {
    /// Index into the op's parameters.
    pub param: usize,
    pub dtype: Dtype,
    /// Elements of a row of the copy; zeros beyond what the form says.
    pub padded: usize,
    pub form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The parameter's rows.
    Rows { rows: usize, width: usize },
    /// Columns `first .. first + taps·c` of rows of `row_words` as [c, taps, o], taps reversed: the gradient of a
    /// stride-1 convolution's input is a convolution of dy with them.
    Transposed { o: usize, taps: usize, c: usize, row_words: usize, first: usize },
}

impl Pack {
    /// Elements of the copy.
    pub fn elements(&self) -> usize {
        match self.form {
            Form::Rows { rows, .. } => rows * self.padded,
            Form::Transposed { c, .. } => c * self.padded,
        }
    }

    /// What makes the copy `to` of the parameter `from`.
    pub fn kernel(&self, to: Slot, from: Slot) -> Kernel {
        let padded = self.padded;
        match self.form {
            Form::Rows { rows, width } => {
                let grid = self.elements().div_ceil(BLOCK_THREADS);
                let kernel = typed([params::PACK_ROWS, params::PACK_ROWS_BF16], self.dtype);
                Kernel::new(kernel, grid, params!(PackRows { to, from, rows, width, padded }))
            }
            Form::Transposed { o, taps, c, row_words, first } => {
                let grid = [o.div_ceil(WARP_THREADS), c.div_ceil(WARP_THREADS), taps];
                let both = [params::PACK_TRANSPOSED, params::PACK_TRANSPOSED_BF16];
                let arguments =
                    params!(PackTransposed { to, w: from, o, taps, c, row_words, first, padded });
                Kernel::new(typed(both, self.dtype), grid, arguments)
            }
        }
    }
}
