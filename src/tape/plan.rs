//! From a tape to a flat list of launches over one arena: lifetimes, offsets, and who sets or adds gradients.

use super::arena::{Life, place};
use super::{Param, Tape, Value};
use crate::device::cuda::Addresses;
use crate::device::{
    Acc, Bound, Buffer, Cost, CpuLaunch, Device, Dtype, Kernel, Launch, Precision, Sink, Slot, Space,
    StepArgs, Target,
};
use crate::ops::{Direction, Grads, Io, Shape, cost, words};
use anyhow::Result;
use std::collections::HashMap;
use std::ops::Range;

/// What a plan computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Forward only.
    Inference,
    /// Forward and the gradient of the last op's first output (seeded by the op itself); parameter gradients
    /// are written.
    Training,
    /// As `Training`, but parameter gradients are added: a micro-batch after the first.
    Accumulating,
}

/// A flat list of launches and the layout of the arena they run in.
pub struct Plan {
    launches: Vec<Launch>,
    /// Private words that each thread of the CPU device needs.
    scratch_words: usize,
    /// Makes the working copies of the weights, which lie at the arena's beginning.
    packs: Vec<Kernel>,
    /// Words of the arena, per-thread scratch not counted.
    arena_words: usize,
    slots: HashMap<Value, Slot>,
    grad_slots: HashMap<Value, Slot>,
    flop: u64,
    parts: Vec<Part>,
}

/// One direction of a recorded op, and which launches it is.
#[derive(Debug, Clone)]
pub struct Part {
    pub op: &'static str,
    pub backward: bool,
    /// Shapes of its inputs and of its first output.
    pub ins: Vec<Shape>,
    pub out: Shape,
    /// Its first parameter, which names the layer.
    pub param: Option<Param>,
    pub cost: Cost,
    pub launches: Range<usize>,
}

/// A piece of the arena: so many values of a type, for as long as they are needed.
struct Piece {
    len: usize,
    dtype: Dtype,
    life: Life,
}

impl Plan {
    /// Plans `tape`; `outputs` stay readable after a run, as do inputs and, in training, the gradients of
    /// leaves. Inputs are float32, other values as their ops store them.
    ///
    /// # Panics
    /// The CPU device has no [`Precision::Tf32`]: callers have refused it.
    pub fn new(
        tape: &Tape,
        target: impl Into<Target>,
        precision: Precision,
        mode: Mode,
        outputs: &[Value],
    ) -> Self {
        let target = target.into();
        assert!(
            (target, precision) != (Target::Cpu, Precision::Tf32),
            "the CPU device computes float32 or bf16, tf32 asked"
        );
        let training = mode != Mode::Inference;
        let n = tape.nodes.len();
        let steps = if training { 2 * n } else { n };
        let mut pieces: Vec<Piece> = Vec::new();
        let mut piece = |len: usize, dtype: Dtype, first: usize, last: usize| {
            let len = len.max(1);
            pieces.push(Piece { len, dtype, life: Life { words: dtype.words(len), first, last } });
            pieces.len() - 1
        };
        let mut dtypes = vec![Dtype::F32; tape.shapes.len()];
        for node in &tape.nodes {
            for (v, dtype) in node.outs.iter().zip(node.op.dtypes(precision, node.outs.len())) {
                dtypes[v.0] = dtype;
            }
        }

        // Forward step of node k is k, its backward step is 2n − 1 − k.
        let bwd = |k: usize| 2 * n - 1 - k;
        let mut value_piece = HashMap::new();
        for &v in &tape.inputs {
            value_piece.insert(v, piece(words(tape.shape(v)), Dtype::F32, 0, steps));
        }
        let mut last_use: HashMap<Value, usize> = outputs.iter().map(|&v| (v, steps)).collect();
        for (k, node) in tape.nodes.iter().enumerate() {
            for &v in node.ins.iter().chain(&node.outs) {
                let last = last_use.entry(v).or_insert(k);
                *last = (*last).max(k);
            }
            if training {
                let shapes: Vec<_> = node.ins.iter().map(|&v| tape.shape(v)).collect();
                let reads = node.op.reads(&shapes);
                let kept = reads.ins.iter().map(|&i| node.ins[i]);
                for v in kept.chain(reads.outs.iter().map(|&o| node.outs[o])) {
                    let last = last_use.entry(v).or_insert(bwd(k));
                    *last = (*last).max(bwd(k));
                }
            }
        }
        for (k, node) in tape.nodes.iter().enumerate() {
            for &v in &node.outs {
                value_piece.insert(v, piece(words(tape.shape(v)), dtypes[v.0], k, last_use[&v]));
            }
        }

        // Gradients: the last op seeds itself, the rest follow in reverse; first writer sets, others add. Of a value
        // that ops share by columns, each set is the first's of its columns.
        let mut grad_piece: HashMap<Value, usize> = HashMap::new();
        let mut set: HashMap<Value, Vec<Range<usize>>> = HashMap::new();
        let mut ins_acc: Vec<Vec<Option<Acc>>> = vec![Vec::new(); n];
        let mut producer_step: HashMap<Value, usize> = HashMap::new();
        for (k, node) in tape.nodes.iter().enumerate() {
            for &v in &node.outs {
                producer_step.insert(v, bwd_or(training, || bwd(k)));
            }
        }
        if training {
            for (k, node) in tape.nodes.iter().enumerate().rev() {
                let reached = k + 1 == n || node.outs.iter().any(|v| grad_piece.contains_key(v));
                let shapes: Vec<_> = node.ins.iter().map(|&v| tape.shape(v)).collect();
                for (i, &v) in node.ins.iter().enumerate() {
                    let wanted = reached && tape.differentiable[v.0];
                    let acc =
                        wanted.then(|| first_or_add(&mut set, v, node.op.columns(&shapes, i)));
                    ins_acc[k].push(acc);
                    if wanted && !grad_piece.contains_key(&v) {
                        let last = producer_step.get(&v).copied().unwrap_or(steps);
                        grad_piece.insert(v, piece(words(shapes[i]), dtypes[v.0], bwd(k), last));
                    }
                }
            }
            for (v, set) in set {
                let (columns, all) = (set.iter().map(Range::len).sum::<usize>(), tape.shape(v)[3]);
                assert!(columns == all, "columns {set:?} of {all} have a gradient");
            }
        }
        let temps: Vec<[usize; 2]> = (tape.nodes.iter().enumerate())
            .map(|(k, node)| {
                let shapes: Vec<_> = node.ins.iter().map(|&v| tape.shape(v)).collect();
                let temp = node.op.words_beside(target, &shapes, precision, Direction::Fwd);
                let fwd = piece(temp, Dtype::F32, k, k);
                let at = bwd_or(training, || bwd(k));
                let words = match training {
                    true => node.op.words_beside(target, &shapes, precision, Direction::Bwd),
                    false => 0,
                };
                [fwd, piece(words, Dtype::F32, at.min(steps), at.min(steps))]
            })
            .collect();

        // First the working copies: in one place in all recordings of a network, so that one pack serves them.
        let (mut packs, mut packed, mut packed_words) = (Vec::new(), Vec::new(), 0);
        for node in &tape.nodes {
            let shapes: Vec<_> = node.ins.iter().map(|&v| tape.shape(v)).collect();
            let wanted = match target {
                Target::Cpu => vec![],
                Target::Cuda { .. } => node.op.packs(&shapes, precision, training),
            };
            let mut slots = Vec::new();
            for pack in wanted {
                let (offset, len, dtype) = (packed_words, pack.elements(), pack.dtype);
                let slot = Slot { space: Space::Arena, offset, len, dtype };
                packed_words += slot.words().next_multiple_of(16);
                packs.push(pack.kernel(slot, in_space(&node.params[pack.param], Space::Weights)));
                slots.push(slot);
            }
            packed.push(slots);
        }
        let (offsets, words_of_pieces) = place(&pieces.iter().map(|p| p.life).collect::<Vec<_>>());
        let arena_words = packed_words + words_of_pieces;
        let arena = |p: usize| {
            let Piece { len, dtype, .. } = pieces[p];
            Slot { space: Space::Arena, offset: packed_words + offsets[p], len, dtype }
        };
        let slot = |v: &Value| arena(value_piece[v]);

        let mut launches: Vec<Launch> = Vec::with_capacity(steps);
        let (mut flop, mut parts) = (0, Vec::with_capacity(steps));
        let io = |k: usize, direction: Direction| {
            let node = &tape.nodes[k];
            Io {
                shapes: node.ins.iter().map(|&v| tape.shape(v)).collect(),
                ins: node.ins.iter().map(&slot).collect(),
                params: node.params.iter().map(|p| in_space(p, Space::Weights)).collect(),
                outs: node.outs.iter().map(&slot).collect(),
                temp: arena(temps[k][(direction == Direction::Bwd) as usize]),
                packed: packed[k].clone(),
                precision,
                shared_bytes: target.shared_bytes(),
            }
        };
        for (k, node) in tape.nodes.iter().enumerate() {
            let io = io(k, Direction::Fwd);
            flop += node.op.flop(&io.shapes);
            let first = launches.len();
            launches.extend(node.op.lower(target, &io, None));
            parts.push(part(tape, k, &io, None, first..launches.len()));
        }
        if training {
            let acc = if mode == Mode::Accumulating { Acc::Add } else { Acc::Set };
            for (k, node) in tape.nodes.iter().enumerate().rev() {
                let outs: Vec<_> =
                    node.outs.iter().map(|v| grad_piece.get(v).map(|&p| arena(p))).collect();
                if k + 1 < n && outs.iter().all(Option::is_none) {
                    continue;
                }
                let sink = |(v, acc): (&Value, &Option<Acc>)| {
                    acc.map(|acc| Sink { slot: arena(grad_piece[v]), acc })
                };
                let grads = Grads {
                    outs,
                    ins: node.ins.iter().zip(&ins_acc[k]).map(sink).collect(),
                    params: (node.params.iter())
                        .map(|p| Sink { slot: in_space(p, Space::Grads), acc })
                        .collect(),
                };
                let (io, first) = (io(k, Direction::Bwd), launches.len());
                launches.extend(node.op.lower(target, &io, Some(&grads)));
                parts.push(part(tape, k, &io, Some(&grads), first..launches.len()));
            }
        }
        let scratch = launches.iter().filter_map(Launch::function).map(|f| f.scratch_words);
        Plan {
            scratch_words: scratch.max().unwrap_or(0).next_multiple_of(16),
            launches,
            packs,
            arena_words,
            slots: value_piece.keys().map(|v| (*v, slot(v))).collect(),
            grad_slots: grad_piece.iter().map(|(v, &p)| (*v, arena(p))).collect(),
            flop,
            parts,
        }
    }

    /// Forward FLOP of the recorded batch (see [`crate::ops::Op::flop`]).
    pub fn flop(&self) -> u64 {
        self.flop
    }

    /// What it runs, in order.
    pub fn launches(&self) -> &[Launch] {
        &self.launches
    }

    /// The recorded ops in the order they run.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The kernels in order; none on the CPU device.
    pub fn kernels(&self) -> impl Iterator<Item = &Kernel> {
        self.launches.iter().filter_map(Launch::kernel)
    }

    pub fn slot(&self, v: Value) -> Slot {
        self.slots[&v]
    }

    /// The gradient of a leaf or an intermediate that still holds it.
    pub fn grad_slot(&self, v: Value) -> Option<Slot> {
        self.grad_slots.get(&v).copied()
    }

    /// Bytes of activations, their gradients and temporaries; per-thread scratch not counted.
    pub fn arena_bytes(&self) -> usize {
        4 * self.arena_words.next_multiple_of(16)
    }

    /// Words that a run needs on `device`, which it was planned for: arena and scratch of all threads.
    pub fn memory_words(&self, device: &Device) -> usize {
        let arena = self.arena_words.next_multiple_of(16);
        arena + self.scratch_words * device.host().threads()
    }

    /// Makes the working copies of `weights` in `memory`: once after each change of them, before the next run. Plans
    /// of one network that are for training, whatever their images, find them in the same place.
    ///
    /// # Errors
    /// Device (exit 4): a kernel that does not launch.
    pub fn pack(&self, device: &Device, memory: &mut Buffer, weights: &Buffer) -> Result<()> {
        let Device::Cuda { cuda, .. } = device else { return Ok(()) };
        let addresses = [memory.address(), weights.address(), 0, 0];
        cuda.launch(&self.packs, &Addresses::new(addresses, 0))
    }

    /// Runs all launches.
    ///
    /// - `memory`: at least [`Plan::memory_words`], with the weights packed. `grads`: the flat gradient, of training plans.
    /// - `step`: a card's `Step` words, which plans with dropout read.
    ///
    /// # Errors
    /// Device (exit 4): a kernel that does not launch. What goes wrong in one shows at the next read.
    pub fn run(
        &self,
        device: &Device,
        memory: &mut Buffer,
        weights: &Buffer,
        grads: Option<&mut Buffer>,
        step: Option<&Buffer>,
        args: StepArgs,
    ) -> Result<()> {
        match device {
            Device::Cpu(_) => {
                self.run_each(device, memory, weights, grads, args, |_, launch, bound| {
                    (launch.run)(bound);
                });
                Ok(())
            }
            Device::Cuda { cuda, .. } => {
                let grads = grads.map_or(0, |g| g.address());
                let step = step.map_or(0, Buffer::address);
                let addresses = [memory.address(), weights.address(), grads, step];
                cuda.launch(self.kernels(), &Addresses::new(addresses, args.first_image))
            }
        }
    }

    /// As [`Plan::run`] on the CPU device, handing each launch to `each` with its index (to time them).
    pub fn run_each(
        &self,
        device: &Device,
        memory: &mut Buffer,
        weights: &Buffer,
        grads: Option<&mut Buffer>,
        args: StepArgs,
        mut each: impl FnMut(usize, &CpuLaunch, &Bound) + Send,
    ) {
        let (cpu, stride) = (device.host(), self.scratch_words);
        let split = self.arena_words.next_multiple_of(16);
        let (arena, scratch) = memory.cpu_mut().split_at_mut(split);
        assert!(scratch.len() >= stride * cpu.threads(), "memory of another plan");
        let grads = grads.map_or(&mut [][..], Buffer::cpu_mut);
        let bound = Bound::new(cpu, arena, weights.cpu(), grads, scratch, stride, args);
        for (i, launch) in self.launches.iter().filter_map(Launch::function).enumerate() {
            each(i, launch, &bound);
        }
    }
}

/// What node `k` of `tape` costs forward, or backward where there are `grads`.
fn part(tape: &Tape, k: usize, io: &Io, grads: Option<&Grads>, launches: Range<usize>) -> Part {
    let node = &tape.nodes[k];
    Part {
        op: node.op.name(),
        backward: grads.is_some(),
        ins: io.shapes.clone(),
        out: tape.shape(node.outs[0]),
        param: node.params.first().copied(),
        cost: cost(&*node.op, io, grads),
        launches,
    }
}

fn bwd_or(training: bool, step: impl Fn() -> usize) -> usize {
    if training { step() } else { 0 }
}

/// How an op's gradient of columns of `v` is written, `set` being what earlier ones set.
fn first_or_add(
    set: &mut HashMap<Value, Vec<Range<usize>>>,
    v: Value,
    columns: Range<usize>,
) -> Acc {
    let set = set.entry(v).or_default();
    if set.contains(&columns) {
        return Acc::Add;
    }
    let apart = |s: &Range<usize>| s.end <= columns.start || columns.end <= s.start;
    assert!(set.iter().all(apart), "columns {columns:?} overlap others: {set:?}");
    set.push(columns);
    Acc::Set
}

fn in_space(p: &Param, space: Space) -> Slot {
    Slot { space, offset: p.offset, len: p.len, dtype: Dtype::F32 }
}
