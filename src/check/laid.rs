//! A case's operands as an op finds them in memory, with everything around them NaN.

use super::cases::{Case, Operand, Ran};
use crate::device::{Acc, Dtype, Kernel, Precision, Sink, Slot, Space, Target};
use crate::ops::later::LaterWords;
use crate::ops::pack::{self, Job, Pack};
use crate::ops::{Direction, Grads, Io, Shape, words};
use anyhow::{Result, ensure};
use half::bf16;

/// NaN, and two of bf16.
const POISON: f32 = f32::from_bits(0x7fc0_7fc0);

/// Puts values into the words of a slot, rounded to nearest if it stores bf16.
fn store(words: &mut [f32], s: Slot, values: &[f32]) {
    assert_eq!(s.len, values.len(), "values for {s:?}");
    let words = &mut words[s.offset..s.offset + s.words()];
    match s.dtype {
        Dtype::F32 => words.copy_from_slice(values),
        Dtype::Bf16 => {
            let halves: &mut [bf16] = bytemuck::cast_slice_mut(words);
            halves.iter_mut().zip(values).for_each(|(h, &v)| *h = bf16::from_f32(v));
        }
    }
}

/// The values that the words of a slot hold.
fn load(words: &[f32], s: Slot) -> Vec<f32> {
    let words = &words[s.offset..s.offset + s.words()];
    match s.dtype {
        Dtype::F32 => words.to_vec(),
        Dtype::Bf16 => {
            bytemuck::cast_slice(words)[..s.len].iter().copied().map(bf16::to_f32).collect()
        }
    }
}

/// A case's operands in memory, three buffers in the order of [`Space`], with everything else NaN.
pub(super) struct Laid {
    pub(super) target: Target,
    pub(super) precision: Precision,
    pub(super) words: [Vec<f32>; 3],
    pub(super) shapes: Vec<Shape>,
    pub(super) ins: Vec<Slot>,
    pub(super) outs: Vec<Slot>,
    pub(super) d_ins: Vec<Slot>,
    pub(super) params: Vec<Slot>,
    pub(super) temps: [Slot; 2],
    /// Until the end of the backward, and of the batch.
    later: [Slot; 2],
    pub(super) packed: Vec<Slot>,
    /// What fills `packed`.
    pub(super) packs: Vec<Kernel>,
    pub(super) grad_slots: Grads,
}

/// What the gradient of input `i` is before an op gives it. Columns that the op does not take have no gradient from it, and
/// it has to leave them alone.
fn before(case: &Case, shapes: &[Shape], i: usize, len: usize, acc: Acc, start: f32) -> Vec<f32> {
    let (columns, row) = (case.op.columns(shapes, i), shapes[i][3]);
    let value = |at: usize| match acc {
        Acc::Add => start,
        Acc::Set if columns.contains(&(at % row)) => POISON,
        Acc::Set => 0.0,
    };
    (0..len).map(value).collect()
}

fn later_words(case: &Case, shapes: &[Shape], target: Target, precision: Precision) -> LaterWords {
    match target {
        Target::Cpu => LaterWords::default(),
        Target::Cuda(limits) => case.op.later_words(shapes, precision, limits, shapes[0][0]),
    }
}

/// The gradients of a case, from what it is given to where they go.
fn grads_of(case: &Case, d_outs: &[Slot], d_ins: &[Slot], params: &[Slot], acc: Acc) -> Grads {
    Grads {
        outs: d_outs.iter().zip(&case.d_outs).map(|(&s, d)| d.as_ref().map(|_| s)).collect(),
        ins: (d_ins.iter().zip(&case.ins))
            .map(|(&slot, o)| o.grad.as_ref().map(|_| Sink { slot, acc }))
            .collect(),
        params: (params.iter())
            .map(|p| Sink { slot: Slot { space: Space::Grads, ..*p }, acc })
            .collect(),
        out_sums: None,
        in_sums: vec![None; d_ins.len()],
        residual: None,
    }
}

impl Laid {
    pub(super) fn new(
        case: &Case,
        target: Target,
        precision: Precision,
        acc: Acc,
        start: f32,
    ) -> Result<Self> {
        let shapes: Vec<Shape> = case.ins.iter().map(|i| i.shape).collect();
        let out_shapes = case.op.outputs(&shapes)?;
        let lens = case.op.param_lens(&shapes);
        ensure!(
            lens.iter().copied().eq(case.params.iter().map(|p| p.words.len())),
            "{}: parameters of other lengths",
            case.op.name()
        );
        let mut end = 0;
        let mut place = |space: Space, len: usize, dtype: Dtype| {
            let slot = Slot { space, offset: end, len, dtype };
            end = (end + slot.words() + 16).next_multiple_of(16);
            slot
        };
        // First of all, so that weights and gradients are buffers as short as these.
        let params: Vec<Slot> = (case.params.iter())
            .map(|p| place(Space::Weights, p.words.len(), Dtype::F32))
            .collect();
        let params_end = params.last().map_or(0, |p| p.offset + p.words() + 16);
        let in_dtypes: Vec<Dtype> = case.ins.iter().map(|o| o.dtype(precision)).collect();
        let out_dtypes = case.op.dtypes(precision, out_shapes.len());
        let mut all = |s: &[Shape], dtypes: &[Dtype]| -> Vec<Slot> {
            s.iter().zip(dtypes).map(|(&s, &d)| place(Space::Arena, words(s), d)).collect()
        };
        let (ins, outs) = (all(&shapes, &in_dtypes), all(&out_shapes, &out_dtypes));
        let (d_ins, d_outs) = (all(&shapes, &in_dtypes), all(&out_shapes, &out_dtypes));
        let temps = [Direction::Fwd, Direction::Bwd].map(|d| {
            let words = case.op.words_beside(target, &shapes, precision, d);
            place(Space::Arena, words, Dtype::F32)
        });
        let later = later_words(case, &shapes, target, precision);
        let later = [later.rows, later.chains].map(|words| place(Space::Arena, words, Dtype::F32));
        let job = |pack: Pack| {
            let to = place(Space::Arena, pack.elements(), pack.dtype);
            Job { pack, to, from: params[pack.param] }
        };
        let jobs: Vec<Job> = case.op.packs(&shapes, precision, true).into_iter().map(job).collect();
        let mut arena = vec![POISON; end];
        let mut weights = vec![POISON; params_end];
        let grads = vec![if acc == Acc::Add { start } else { POISON }; params_end];
        ins.iter().zip(&case.ins).for_each(|(&slot, o)| store(&mut arena, slot, &o.words));
        let param = |(&slot, o): (&Slot, &Operand)| store(&mut weights, slot, &o.words);
        params.iter().zip(&case.params).for_each(param);
        let given = d_outs.iter().zip(&case.d_outs);
        given.for_each(|(&slot, d)| d.iter().for_each(|d| store(&mut arena, slot, d)));
        for (i, &slot) in d_ins.iter().enumerate() {
            store(&mut arena, slot, &before(case, &shapes, i, slot.len, acc, start));
        }
        let grad_slots = grads_of(case, &d_outs, &d_ins, &params, acc);
        Ok(Laid {
            target,
            precision,
            words: [arena, weights, grads],
            shapes,
            ins,
            outs,
            d_ins,
            params,
            temps,
            later,
            packed: jobs.iter().map(|job| job.to).collect(),
            packs: pack::kernels(&jobs),
            grad_slots,
        })
    }

    pub(super) fn io(&self, direction: Direction) -> Io {
        Io {
            shapes: self.shapes.clone(),
            ins: self.ins.clone(),
            params: self.params.clone(),
            outs: self.outs.clone(),
            temp: self.temps[(direction == Direction::Bwd) as usize],
            packed: self.packed.clone(),
            rows: self.later[0],
            chains: self.later[1],
            batch: self.shapes[0][0],
            precision: self.precision,
            limits: self.target.limits(),
        }
    }

    pub(super) fn ran(&self, case: &Case) -> Ran {
        let read = |&s: &Slot, buffer: usize| load(&self.words[buffer], s);
        Ran {
            outs: self.outs.iter().map(|s| read(s, 0)).collect(),
            d_ins: (self.d_ins.iter().zip(&case.ins))
                .map(|(s, o)| o.grad.as_ref().map(|_| read(s, 0)))
                .collect(),
            d_params: self.params.iter().map(|s| read(s, 2)).collect(),
        }
    }
}
