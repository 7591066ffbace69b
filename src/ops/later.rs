//! Sums that a GPU makes for all ops in a few launches (`kernels/sums.cu`): over rows, one an image, when a micro-batch's
//! backward has ended; over the chains of a batch's images when the batch has.

use crate::device::params::{
    BLOCK_ELEMENTS, SUM_CHAINS_JOBS, SUM_ROWS_JOBS, SumChainsJob, SumRowsJob, WARP_THREADS,
};
use crate::device::{Acc, Kernel, Sink, Slot, params};

/// Words that an op keeps for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaterWords {
    /// Until the micro-batch's backward has ended.
    pub rows: usize,
    /// Until the batch has; they depend on neither the number of images at a time nor what else the network has.
    pub chains: usize,
}

/// What is to be summed for an op.
#[derive(Debug, Clone, Default)]
pub struct LaterSums {
    pub rows: Vec<RowSum>,
    pub chains: Vec<ChainSum>,
}

impl LaterSums {
    pub fn extend(&mut self, others: LaterSums) {
        self.rows.extend(others.rows);
        self.chains.extend(others.chains);
    }
}

/// dst `[columns]` (=|+=) scale · the sum over rows of the first columns of src `[rows, src_row]`, by groups of rows in order.
#[derive(Debug, Clone, Copy)]
pub struct RowSum {
    pub dst: Sink,
    pub src: Slot,
    /// Words from row to row of src.
    pub src_row: usize,
    pub rows: usize,
    pub columns: usize,
    pub scale: f32,
}

impl RowSum {
    fn blocks(&self) -> usize {
        self.columns.div_ceil(WARP_THREADS)
    }

    fn job(&self, first_block: usize) -> SumRowsJob {
        let RowSum { dst, src, src_row, rows, columns, scale } = *self;
        let add = dst.acc;
        params!(SumRowsJob { dst, src, first_block, rows, columns, src_row, scale, add })
    }
}

/// dw `[rows, row_words]`, columns `first .. first + width` (=|+=) scale · the sum over chains, in order, of partials.
#[derive(Debug, Clone, Copy)]
pub struct ChainSum {
    pub dw: Sink,
    /// `None`: dw is set to zeros, or left alone.
    pub partials: Option<Slot>,
    pub rows: usize,
    pub width: usize,
    pub row_words: usize,
    pub first: usize,
    /// Of a row of partials.
    pub partial_words: usize,
    /// Of a chain's partials.
    pub chain_words: usize,
    /// Rows of dw are [rows / taps, taps], those of partials [taps in reverse, rows / taps]; 1 where they are alike.
    pub taps: usize,
    pub chains: usize,
    pub scale: f32,
}

impl ChainSum {
    /// Of partials of the form of dw `[rows, width]` itself.
    pub fn alike(dw: Sink, partials: Slot, [rows, width, chains]: [usize; 3], scale: f32) -> Self {
        ChainSum {
            dw,
            partials: Some(partials),
            rows,
            width,
            row_words: width,
            first: 0,
            partial_words: width,
            chain_words: rows * width,
            taps: 1,
            chains,
            scale,
        }
    }

    /// dw `[rows, row_words]`, columns `first .. first + width` = 0 where it is set; nothing where it is added to.
    pub fn zeros(dw: Sink, rows: usize, width: usize, row_words: usize, first: usize) -> Self {
        let none = ChainSum::alike(dw, dw.slot, [rows, width, 0], 1.0);
        ChainSum { partials: None, row_words, first, ..none }
    }

    fn blocks(&self) -> usize {
        (self.rows * self.width).div_ceil(BLOCK_ELEMENTS)
    }

    fn job(&self, first_block: usize) -> SumChainsJob {
        let ChainSum { dw, partials, rows, width, row_words, first, .. } = *self;
        let ChainSum { partial_words, chain_words, taps, chains, scale, .. } = *self;
        params!(SumChainsJob {
            dw,
            partials,
            first_block,
            rows,
            width,
            row_words,
            first,
            partial_words,
            chain_words,
            taps,
            chains,
            scale,
            add: dw.acc,
        })
    }

    /// Bytes that it reads and writes.
    fn bytes(&self) -> usize {
        let written = if self.dw.acc == Acc::Add { 2 } else { 1 };
        4 * self.rows * self.width * (self.chains + written)
    }
}

/// What makes the sums over rows.
pub fn row_kernels(sums: &[RowSum]) -> Vec<Kernel> {
    let launch = |sums: &[RowSum]| {
        let (jobs, blocks) = jobs_of(sums, RowSum::blocks, RowSum::job);
        let count = jobs.len();
        Kernel::new(params::SUM_ROWS, blocks, params!(SumRows { jobs, count }))
    };
    sums.chunks(SUM_ROWS_JOBS).map(launch).collect()
}

/// What makes the sums over chains.
pub fn chain_kernels(sums: &[ChainSum]) -> Vec<Kernel> {
    let launch = |sums: &[ChainSum]| {
        let (jobs, blocks) = jobs_of(sums, ChainSum::blocks, ChainSum::job);
        let count = jobs.len();
        let kernel = Kernel::new(params::SUM_CHAINS, blocks, params!(SumChains { jobs, count }));
        kernel.moves(sums.iter().map(ChainSum::bytes).sum())
    };
    sums.chunks(SUM_CHAINS_JOBS).map(launch).collect()
}

/// Each job told its first block, and the blocks of all.
fn jobs_of<S, J>(
    sums: &[S],
    blocks: impl Fn(&S) -> usize,
    job: impl Fn(&S, usize) -> J,
) -> (Vec<J>, usize) {
    let mut first = 0;
    let next = |sum: &S| {
        let made = job(sum, first);
        first += blocks(sum);
        made
    };
    let jobs = sums.iter().map(next).collect();
    (jobs, first)
}
