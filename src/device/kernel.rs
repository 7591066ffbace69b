//! One kernel of the CUDA device, ready to be launched on whatever addresses.

use super::arg::{Arg, Fields};
use super::entry::{Entry, Unit};
use super::params::{BLOCK_THREADS, LEAST_SHARED_BYTES, MMA_SHARED_BYTES};
use super::ptr::Ptr;
use super::slot::{Acc, Sink, Slot};
use serde::Serialize;

/// What a launch costs at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub struct Cost {
    /// 2 × multiply-adds of matrix work, as the direct algorithm needs them.
    pub flop: u64,
    /// Bytes to and from memory: all that it reads and writes once, a gradient that is added to twice.
    pub bytes: u64,
    /// Where the FLOP go.
    #[serde(skip)]
    pub unit: Unit,
}

/// One kernel of the CUDA device with its geometry, slots and scalars resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    pub name: &'static str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Each field of what it takes, and its offset in bytes; what is not there is zeros.
    pub(super) args: Vec<(usize, Arg)>,
    /// Bytes of what it takes.
    pub(super) args_bytes: usize,
    unit: Unit,
    flop: u64,
    /// Where the arguments do not tell them.
    bytes: Option<u64>,
}

const _: () = assert!(MMA_SHARED_BYTES <= LEAST_SHARED_BYTES);

impl Kernel {
    /// Blocks of [`BLOCK_THREADS`] without dynamic shared memory, as most kernels take.
    pub fn new<P: Fields>(entry: Entry<P>, grid: impl Into<Grid>, params: P) -> Self {
        let mut args = Vec::new();
        params.put(0, &mut args);
        for &(at, dtype) in entry.stored {
            // Of a job that there is not, nothing.
            let Some((_, arg)) = args.iter_mut().find(|(of, _)| *of == at) else { continue };
            let pointer = points(arg).expect("a pointer lies there");
            assert!(pointer.holds(dtype), "{}: {pointer:?} where {dtype:?} is stored", entry.name);
            if let Arg::Map(map) = arg {
                map.dtype = dtype;
            }
        }
        Kernel {
            name: entry.name,
            grid: grid.into().0,
            threads: BLOCK_THREADS as u32,
            shared_bytes: 0,
            args,
            args_bytes: P::BYTES,
            unit: entry.unit,
            flop: 0,
            bytes: None,
        }
    }

    /// With blocks of so many threads.
    pub fn threads(self, threads: usize) -> Self {
        Kernel { threads: threads as u32, ..self }
    }

    /// With so many bytes of dynamic shared memory a block.
    pub fn shared(self, shared_bytes: usize) -> Self {
        Kernel { shared_bytes: shared_bytes as u32, ..self }
    }

    /// With so much matrix work.
    pub fn flop(self, flop: usize) -> Self {
        Kernel { flop: flop as u64, ..self }
    }

    /// With so much traffic: for kernels that are given addresses, or slots of which they touch a part.
    pub fn moves(self, bytes: usize) -> Self {
        Kernel { bytes: Some(bytes as u64), ..self }
    }

    /// Of the whole grid.
    pub fn cost(&self) -> Cost {
        let added: usize = pointers(&self.args)
            .filter_map(|pointer| match pointer {
                Ptr::Sink(Sink { slot, acc: Acc::Add }) => Some(slot.bytes()),
                _ => None,
            })
            .sum();
        let bytes = || (bytes_of(pointers(&self.args).filter_map(Ptr::slot)) + added) as u64;
        Cost { flop: self.flop, bytes: self.bytes.unwrap_or_else(bytes), unit: self.unit }
    }
}

fn pointers(args: &[(usize, Arg)]) -> impl Iterator<Item = &Ptr> {
    args.iter().filter_map(|(_, arg)| points(arg))
}

/// What a field points at, itself or by a tensor map.
fn points(arg: &Arg) -> Option<&Ptr> {
    match arg {
        Arg::Ptr(pointer) => Some(pointer),
        Arg::Map(map) => Some(&map.at),
        _ => None,
    }
}

/// Bytes of the union of some slots.
pub fn bytes_of(slots: impl Iterator<Item = Slot>) -> usize {
    let mut slots: Vec<Slot> = slots.collect();
    slots.sort_by_key(|s| (s.space as u8, s.offset));
    let mut sum = 0;
    let mut last: Option<Slot> = None;
    for s in slots {
        let end = s.offset + s.words();
        let covered = last.filter(|l| l.space == s.space).map_or(0, |l| l.offset + l.words());
        if end > covered {
            sum += end - s.offset.max(covered);
            last = Some(s);
        }
    }
    4 * sum
}

/// Blocks along one, two or three axes.
pub struct Grid([u32; 3]);

fn blocks(n: usize) -> u32 {
    u32::try_from(n).unwrap_or_else(|_| panic!("a grid of {n} blocks")).max(1)
}

impl From<usize> for Grid {
    fn from(x: usize) -> Self {
        Grid([blocks(x), 1, 1])
    }
}

impl From<[usize; 2]> for Grid {
    fn from([x, y]: [usize; 2]) -> Self {
        Grid([blocks(x), blocks(y), 1])
    }
}

impl From<[usize; 3]> for Grid {
    fn from(n: [usize; 3]) -> Self {
        Grid(n.map(blocks))
    }
}

/// A struct of [`mod@super::params`], each field converted: `params!(SumRows { dst, src, rows, columns, add: dst.acc })`.
macro_rules! params {
    ($name:ident { $($field:ident $(: $value:expr)?),* $(,)? }) => {
        $crate::device::params::$name { $($field: params!(@ $field $($value)?)),* }
    };
    (@ $field:ident $value:expr) => { ::core::convert::Into::into($value) };
    (@ $field:ident) => { ::core::convert::Into::into($field) };
}
pub(crate) use params;

#[cfg(test)]
mod tests {
    use super::super::map::Map;
    use super::super::params::{
        PRIMITIVE_ARGUMENTS, PRIMITIVE_JOBS, PRIMITIVE_TMA_LOAD, PrimitiveJob, SCALED_ADD_BF16,
        SUM_ROWS,
    };
    use super::super::slot::{Dtype, Space};
    use super::*;

    fn slot(space: Space, offset: usize, len: usize) -> Slot {
        Slot { space, offset, len, dtype: Dtype::F32 }
    }

    fn sum_rows(dst: Sink, src: Slot, rows: usize) -> Kernel {
        let (columns, first_block, scale, add) = (1, 0, 1.0_f32, dst.acc);
        let src_row = columns;
        let job = params!(SumRowsJob { dst, src, first_block, rows, columns, src_row, scale, add });
        Kernel::new(SUM_ROWS, 1, params!(SumRows { jobs: vec![job], count: 1 }))
    }

    #[test]
    fn fields_lie_where_c_puts_them() {
        let [out, input] = [Ptr::Address(1), Ptr::Step];
        let all = params! { PrimitiveArguments {
            out, i: 2, l: 3_i64, f: 4.0_f32, d: 5.0_f64, u: 6_u32, input, jobs: jobs(2),
        } };
        let kernel = Kernel::new(PRIMITIVE_ARGUMENTS, 1, all);
        let want = [
            (0, Arg::Ptr(out)),
            (8, Arg::I32(2)),
            (16, Arg::I64(3)),
            (24, Arg::F32(4.0)),
            (32, Arg::F64(5.0)),
            (40, Arg::U32(6)),
            (48, Arg::Ptr(input)),
            (56, Arg::Ptr(Ptr::Slot(job_slot(0)))),
            (64, Arg::U32(0)),
            (72, Arg::Ptr(Ptr::Slot(job_slot(1)))),
            (80, Arg::U32(1)),
        ];
        assert_eq!((&kernel.args[..], kernel.args_bytes), (&want[..], 56 + 16 * PRIMITIVE_JOBS));
        // Those of jobs too.
        assert_eq!(kernel.cost().bytes, 2 * 4 * 8);
    }

    fn job_slot(i: usize) -> Slot {
        slot(Space::Arena, 100 * i, 8)
    }

    fn jobs(count: usize) -> Vec<PrimitiveJob> {
        let job = |i| params!(PrimitiveJob { from: job_slot(i), add: i });
        (0..count).map(job).collect()
    }

    fn with_jobs(jobs: Vec<PrimitiveJob>) -> Kernel {
        let all = params! { PrimitiveArguments {
            out: Ptr::Null, i: 0, l: 0, f: 0.0_f32, d: 0.0_f64, u: 0, input: Ptr::Null, jobs,
        } };
        Kernel::new(PRIMITIVE_ARGUMENTS, 1, all)
    }

    #[test]
    #[should_panic(expected = "PrimitiveArguments.jobs: 4 given, 3 at most")]
    fn more_jobs_than_a_kernel_takes_are_told_by_the_field() {
        with_jobs(jobs(PRIMITIVE_JOBS + 1));
    }

    #[test]
    #[should_panic(expected = "primitive_arguments: Slot")]
    fn a_jobs_slot_that_is_stored_otherwise_is_refused() {
        let mut all = jobs(3);
        all[2].from = Slot { dtype: Dtype::Bf16, ..job_slot(2) }.into();
        with_jobs(all);
    }

    #[test]
    #[should_panic(expected = "SumRowsJob.rows: 4294967297 is too large for a kernel")]
    fn a_number_that_a_field_does_not_hold_is_told_by_the_field() {
        let dst = Sink::set(slot(Space::Grads, 0, 1));
        sum_rows(dst, slot(Space::Arena, 0, 1), (1 << 32) + 1);
    }

    #[test]
    #[should_panic(expected = "scaled_add_bf16: Slot")]
    fn a_slot_that_is_stored_otherwise_is_refused() {
        let s = slot(Space::Arena, 0, 8);
        let arguments = params!(ScaledAdd { dst: s, src: s, n: 8, scale: 1.0_f32, add: false });
        Kernel::new(SCALED_ADD_BF16, 1, arguments);
    }

    fn copied(slot: Slot) -> Kernel {
        let map = Map::new(slot, [64, 4, 2], [64, 4, 1]);
        let (out, input) = (Ptr::Address(1), Ptr::Null);
        let [rank, bytes, c] = [3, 512, 0];
        let given = params! { PrimitiveCopy {
            map, out, input, rank, c0: c, c1: c, c2: c, c3: c, bytes,
        } };
        Kernel::new(PRIMITIVE_TMA_LOAD, 1, given)
    }

    #[test]
    fn a_map_counts_like_a_pointer() {
        let stored = Slot { dtype: Dtype::Bf16, ..slot(Space::Arena, 32, 512) };
        let kernel = copied(stored);
        assert_eq!(kernel.args_bytes, 192);
        let (at, Arg::Map(map)) = kernel.args[0] else { panic!("{:?}", kernel.args[0]) };
        assert_eq!((at, map.at, map.dtype), (0, Ptr::Slot(stored), Dtype::Bf16));
        assert_eq!(map.field, "PrimitiveCopy.map");
        assert_eq!(kernel.args[1], (128, Arg::Ptr(Ptr::Address(1))));
        assert_eq!(kernel.cost().bytes, 1024);
    }

    #[test]
    #[should_panic(expected = "primitive_tma_load: Slot")]
    fn a_map_of_what_is_stored_otherwise_is_refused() {
        copied(slot(Space::Arena, 32, 512));
    }

    #[test]
    fn traffic_counts_each_word_once_and_an_added_gradient_twice() {
        let (whole, part) = (slot(Space::Arena, 32, 64), slot(Space::Arena, 48, 16));
        let beyond = slot(Space::Arena, 80, 32);
        assert_eq!(bytes_of([part, whole, part].into_iter()), 4 * 64);
        assert_eq!(bytes_of([beyond, whole].into_iter()), 4 * 80);
        assert_eq!(bytes_of([whole, slot(Space::Grads, 32, 64)].into_iter()), 4 * 128);
        let kernel = |acc| {
            let sink = Sink { slot: slot(Space::Grads, 0, 10), acc };
            sum_rows(sink, whole, 1).flop(9)
        };
        let unit = Unit::Fp32;
        assert_eq!(kernel(Acc::Set).cost(), Cost { flop: 9, bytes: 4 * (10 + 64), unit });
        assert_eq!(kernel(Acc::Add).cost().bytes, 4 * (20 + 64));
        assert_eq!(kernel(Acc::Add).moves(7).cost().bytes, 7);
    }
}
