//! pack: working copies of weights as the tensor-core convolutions read them (`kernels/pack.cu`), made once after
//! each update.

use crate::device::params::{BLOCK_THREADS, PACK_COLUMNS, PACK_JOBS, PACK_PIECES, WARP_THREADS};
use crate::device::{Dtype, Kernel, Ptr, Slot, params, typed};

/// A working copy of one of an op's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pack {
    /// Index into the op's parameters.
    pub param: usize,
    pub dtype: Dtype,
    /// Elements of a row of the copy, whole 16 bytes; zeros beyond what the form says.
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

/// A working copy to be made: where, and of which parameter.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    pub pack: Pack,
    pub to: Slot,
    pub from: Slot,
}

impl Pack {
    /// Elements of the copy.
    pub fn elements(&self) -> usize {
        match self.form {
            Form::Rows { rows, .. } => rows * self.padded,
            Form::Transposed { c, .. } => c * self.padded,
        }
    }

    /// Elements of 16 bytes.
    fn piece(&self) -> usize {
        16 / self.dtype.bytes(1)
    }

    /// Blocks that make it.
    fn blocks(&self) -> usize {
        match self.form {
            Form::Rows { .. } => {
                self.elements().div_ceil(BLOCK_THREADS * PACK_PIECES * self.piece())
            }
            Form::Transposed { c, .. } => {
                self.padded.div_ceil(PACK_COLUMNS) * c.div_ceil(WARP_THREADS)
            }
        }
    }
}

/// What makes all these copies: as few launches as there are forms and types, unless there are more than [`PACK_JOBS`].
pub fn kernels(jobs: &[Job]) -> Vec<Kernel> {
    let mut list = Vec::new();
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let of_dtype = jobs.iter().filter(|job| job.pack.dtype == dtype);
        let (rows, transposed): (Vec<&Job>, Vec<&Job>) =
            of_dtype.partition(|job| matches!(job.pack.form, Form::Rows { .. }));
        let launches = rows.chunks(PACK_JOBS).chain(transposed.chunks(PACK_JOBS));
        list.extend(launches.map(|jobs| kernel(dtype, jobs)));
    }
    list
}

/// What makes copies of one form and type; a block finds its job by where each begins.
fn kernel(dtype: Dtype, jobs: &[&Job]) -> Kernel {
    let (mut of_rows, mut transposed, mut blocks) = (Vec::new(), Vec::new(), 0);
    for &&Job { pack, to, from } in jobs {
        let (padded, first_block) = (pack.padded, blocks);
        assert!(padded.is_multiple_of(pack.piece()), "rows of {padded} are no whole 16 bytes");
        match pack.form {
            Form::Rows { rows, width } => {
                of_rows.push(params!(PackRowsJob { to, from, rows, width, padded, first_block }))
            }
            Form::Transposed { o, taps, c, row_words, first } => {
                let w = Ptr::Element(from, first);
                transposed.push(params! {
                    PackTransposedJob { to, w, o, taps, c, row_words, padded, first_block }
                });
            }
        }
        blocks += pack.blocks();
    }
    let count = jobs.len();
    if transposed.is_empty() {
        let kernel = typed([params::PACK_ROWS, params::PACK_ROWS_BF16], dtype);
        Kernel::new(kernel, blocks, params!(PackRows { jobs: of_rows, count }))
    } else {
        let kernel = typed([params::PACK_TRANSPOSED, params::PACK_TRANSPOSED_BF16], dtype);
        Kernel::new(kernel, blocks, params!(PackTransposed { jobs: transposed, count }))
    }
}
