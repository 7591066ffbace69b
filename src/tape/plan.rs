//! From a tape to a flat list of launches over one arena: lifetimes, offsets, and who sets or adds gradients.

use super::arena::place;
use super::pieces::{Piece, Pieces, Recorded, Sums};
use super::{Param, Tape, Value};
use crate::device::cuda::Addresses;
use crate::device::{
    Acc, Bound, Buffer, Cost, CpuLaunch, Device, Dtype, Kernel, Launch, Precision, Sink, Slot,
    Space, StepArgs, Target,
};
use crate::ops::later::{LaterSums, chain_kernels, row_kernels};
use crate::ops::{Direction, Grads, Io, PixelSums, Shape, cost, pack};
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
pub struct MemoryPlan {
    launches: Vec<Launch>,
    /// Private words that each thread of the CPU device needs.
    scratch_words: usize,
    /// Makes the working copies of the weights, which lie at the arena's beginning.
    packs: Vec<Kernel>,
    /// Makes the gradients of what was summed by chains of the batch's images.
    ends: Vec<Kernel>,
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

impl MemoryPlan {
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
        let recorded = Recorded { tape, target, precision, training: mode != Mode::Inference };
        let pieces = Pieces::of(&recorded, outputs);
        let packed = Packed::of(&recorded);
        let (offsets, words) = place(&pieces.all.iter().map(|p| p.life).collect::<Vec<_>>());
        let places = Places { recorded, pieces, packed, offsets };
        let mut plan = MemoryPlan {
            launches: Vec::new(),
            scratch_words: 0,
            packs: places.packed.packs.clone(),
            ends: Vec::new(),
            arena_words: places.packed.words + words,
            slots: places.pieces.values.iter().map(|(v, &p)| (*v, places.arena(p))).collect(),
            grad_slots: places.pieces.grads.iter().map(|(v, &p)| (*v, places.arena(p))).collect(),
            flop: 0,
            parts: Vec::new(),
        };
        plan.lower(&places, mode);
        plan
    }

    /// All launches: forward in order, backward in reverse.
    fn lower(&mut self, places: &Places, mode: Mode) {
        let nodes = || places.recorded.tape.nodes.iter().enumerate();
        for (k, node) in nodes() {
            let io = places.io(k, Direction::Fwd);
            self.flop += node.op.flop(&io.shapes);
            self.push(places, k, &io, None);
        }
        if places.recorded.training {
            let acc = if mode == Mode::Accumulating { Acc::Add } else { Acc::Set };
            let mut later = LaterSums::default();
            for (k, node) in nodes().rev() {
                if let Some(grads) = places.grads(k, acc) {
                    let io = places.io(k, Direction::Bwd);
                    self.push(places, k, &io, Some(&grads));
                    if let Target::Cuda(_) = places.recorded.target {
                        later.extend(node.op.sums(&io, &grads));
                    }
                }
            }
            self.push_sums(&later);
        }
        let scratch = self.launches.iter().filter_map(Launch::function).map(|f| f.scratch_words);
        self.scratch_words = scratch.max().unwrap_or(0).next_multiple_of(16);
    }

    /// Adds node `k`'s forward, or its backward where there are `grads`.
    fn push(&mut self, places: &Places, k: usize, io: &Io, grads: Option<&Grads>) {
        let Recorded { tape, target, .. } = places.recorded;
        let (node, first) = (&tape.nodes[k], self.launches.len());
        self.launches.extend(node.op.lower(target, io, grads));
        self.parts.push(Part {
            op: node.op.name(),
            backward: grads.is_some(),
            ins: io.shapes.clone(),
            out: tape.shape(node.outs[0]),
            param: node.params.first().copied(),
            cost: cost(&*node.op, io, grads),
            launches: first..self.launches.len(),
        });
    }

    /// Adds what sums rows as the last part, and keeps what sums chains for the batch's end.
    fn push_sums(&mut self, later: &LaterSums) {
        self.ends = chain_kernels(&later.chains);
        let rows = row_kernels(&later.rows);
        if rows.is_empty() {
            return;
        }
        let first = self.launches.len();
        let bytes = rows.iter().map(|kernel| kernel.cost().bytes).sum();
        self.launches.extend(rows.into_iter().map(Launch::Gpu));
        self.parts.push(Part {
            op: "sums",
            backward: true,
            ins: vec![],
            out: [0; 4],
            param: None,
            cost: Cost { bytes, ..Cost::default() },
            launches: first..self.launches.len(),
        });
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

    /// What makes the working copies, on a GPU.
    pub fn packs(&self) -> &[Kernel] {
        &self.packs
    }

    /// What makes gradients of the sums over chains, on a GPU.
    pub fn ends(&self) -> &[Kernel] {
        &self.ends
    }

    /// Ends a batch whose images have all been run: makes the gradients that are summed over chains of them. Plans of
    /// one network and batch keep those sums in the same place; the first one's sets the gradients.
    ///
    /// # Errors
    /// Device (exit 4): a kernel that does not launch.
    pub fn end_batch(
        &self,
        device: &Device,
        memory: &mut Buffer,
        grads: &mut Buffer,
    ) -> Result<()> {
        let Device::Cuda { cuda, .. } = device else { return Ok(()) };
        let addresses = [memory.address(), 0, grads.address(), 0];
        cuda.launch(&self.ends, &Addresses::new(addresses, 0))
    }

    /// Runs all launches.
    ///
    /// - `memory`: at least [`MemoryPlan::memory_words`], with the weights packed. `grads`: the flat gradient, of training plans.
    /// - `step`: a GPU's `Step` words, which plans with dropout read.
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

    /// As [`MemoryPlan::run`] on the CPU device, handing each launch to `each` with its index (to time them).
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

/// What lies in one place in all recordings of a network: the working copies of weights that kernels read, so that one pack
/// serves them, and the partial sums over chains of a batch's images.
struct Packed {
    packs: Vec<Kernel>,
    /// Of each op.
    slots: Vec<Vec<Slot>>,
    /// Of each op.
    chains: Vec<Slot>,
    words: usize,
}

impl Packed {
    fn of(recorded: &Recorded) -> Packed {
        let (mut slots_of_all, mut jobs, mut end) = (Vec::new(), Vec::new(), 0);
        for node in &recorded.tape.nodes {
            let shapes = recorded.shapes(node);
            let wanted = match recorded.target {
                Target::Cpu => vec![],
                Target::Cuda(_) => node.op.packs(&shapes, recorded.precision, recorded.training),
            };
            let mut slots = Vec::new();
            for pack in wanted {
                let (offset, len, dtype) = (end, pack.elements(), pack.dtype);
                let to = Slot { space: Space::Arena, offset, len, dtype };
                end += to.words().next_multiple_of(16);
                let from = in_space(&node.params[pack.param], Space::Weights);
                jobs.push(pack::Job { pack, to, from });
                slots.push(to);
            }
            slots_of_all.push(slots);
        }
        let mut chains = Vec::new();
        for k in 0..recorded.tape.nodes.len() {
            let (offset, len) = (end, recorded.later_words(k).chains);
            chains.push(Slot { space: Space::Arena, offset, len, dtype: Dtype::F32 });
            end += len.next_multiple_of(16);
        }
        Packed { packs: pack::kernels(&jobs), slots: slots_of_all, chains, words: end }
    }
}

/// Where everything lies: the working copies and chains, then the pieces.
struct Places<'t> {
    recorded: Recorded<'t>,
    pieces: Pieces,
    packed: Packed,
    /// Of the pieces.
    offsets: Vec<usize>,
}

impl Places<'_> {
    fn arena(&self, piece: usize) -> Slot {
        let Piece { len, dtype, .. } = self.pieces.all[piece];
        let offset = self.packed.words + self.offsets[piece];
        Slot { space: Space::Arena, offset, len, dtype }
    }

    fn io(&self, k: usize, direction: Direction) -> Io {
        let Recorded { tape, target, precision, .. } = self.recorded;
        let node = &tape.nodes[k];
        let slot = |v: &Value| self.arena(self.pieces.values[v]);
        Io {
            shapes: self.recorded.shapes(node),
            ins: node.ins.iter().map(slot).collect(),
            params: node.params.iter().map(|p| in_space(p, Space::Weights)).collect(),
            outs: node.outs.iter().map(slot).collect(),
            temp: self.arena(self.pieces.temps[k][(direction == Direction::Bwd) as usize]),
            packed: self.packed.slots[k].clone(),
            rows: self.arena(self.pieces.rows[k]),
            chains: self.packed.chains[k],
            batch: self.recorded.batch(node),
            precision,
            limits: target.limits(),
        }
    }

    /// The gradients that reach node `k` and that it gives; `None` if none reach it. `acc`: of its parameters'.
    fn grads(&self, k: usize, acc: Acc) -> Option<Grads> {
        let (nodes, pieces) = (&self.recorded.tape.nodes, &self.pieces);
        let node = &nodes[k];
        let outs: Vec<_> =
            node.outs.iter().map(|v| pieces.grads.get(v).map(|&p| self.arena(p))).collect();
        if k + 1 < nodes.len() && outs.iter().all(Option::is_none) {
            return None;
        }
        let sink = |(v, acc): (&Value, &Option<Acc>)| {
            acc.map(|acc| Sink { slot: self.arena(pieces.grads[v]), acc })
        };
        let param = |p| Sink { slot: in_space(p, Space::Grads), acc };
        let given = |v: &Value| pieces.sums.get(v);
        let pixel_sums = |v: &Value, sums: &Sums| {
            let ([n, _, _, c], slot) = (self.recorded.tape.shape(*v), self.arena(sums.piece));
            match &sums.columns {
                Some(columns) => PixelSums::columns(slot, n, columns.clone()),
                None => PixelSums { slot, row: c },
            }
        };
        let in_sums = |v| given(v).filter(|s| s.giver == k).map(|s| pixel_sums(v, s));
        Some(Grads {
            out_sums: given(&node.outs[0]).map(|s| pixel_sums(&node.outs[0], s)),
            in_sums: node.ins.iter().map(in_sums).collect(),
            residual: pieces.residuals.get(&k).map(|&(dy, scale)| (self.arena(dy), scale)),
            outs,
            ins: node.ins.iter().zip(&pieces.ins_acc[k]).map(sink).collect(),
            params: node.params.iter().map(param).collect(),
        })
    }
}

fn in_space(p: &Param, space: Space) -> Slot {
    Slot { space, offset: p.offset, len: p.len, dtype: Dtype::F32 }
}
