//! The pieces of memory that a recording needs, each from one step to another: of values, of their gradients, of what ops
//! need beside. And who sets a gradient and who adds to it.

use super::arena::Life;
use super::{Node, Tape, Value};
use crate::device::{Acc, Dtype, Precision, Target};
use crate::ops::later::LaterWords;
use crate::ops::{Direction, Shape, words};
use std::collections::HashMap;
use std::ops::Range;

/// A tape, and what it is planned for.
#[derive(Clone, Copy)]
pub struct Recorded<'t> {
    pub tape: &'t Tape,
    pub target: Target,
    pub precision: Precision,
    pub training: bool,
}

impl Recorded<'_> {
    /// Shapes of a node's inputs.
    pub fn shapes(&self, node: &Node) -> Vec<Shape> {
        node.ins.iter().map(|&v| self.tape.shape(v)).collect()
    }

    /// Images of the whole batch, of some of which a node is.
    pub fn batch(&self, node: &Node) -> usize {
        self.tape.batch.unwrap_or_else(|| node.ins.first().map_or(1, |&v| self.tape.shape(v)[0]))
    }

    /// What node `k` keeps for sums that are made later.
    pub fn later_words(&self, k: usize) -> LaterWords {
        let node = &self.tape.nodes[k];
        let (shapes, batch) = (self.shapes(node), self.batch(node));
        match self.target {
            Target::Cuda(limits) if self.training => {
                node.op.later_words(&shapes, self.precision, limits, batch)
            }
            _ => LaterWords::default(),
        }
    }

    /// The forward step of node k is k; this is its backward step.
    fn bwd(&self, k: usize) -> usize {
        2 * self.tape.nodes.len() - 1 - k
    }

    fn steps(&self) -> usize {
        self.tape.nodes.len() * if self.training { 2 } else { 1 }
    }

    /// How each value and its gradient are stored.
    fn dtypes(&self) -> Vec<Dtype> {
        let mut dtypes = vec![Dtype::F32; self.tape.shapes.len()];
        for node in &self.tape.nodes {
            let stored = node.op.dtypes(self.precision, node.outs.len());
            node.outs.iter().zip(stored).for_each(|(v, dtype)| dtypes[v.0] = dtype);
        }
        dtypes
    }

    /// The last step that reads each value.
    fn last_uses(&self, outputs: &[Value]) -> HashMap<Value, usize> {
        let mut last_use: HashMap<Value, usize> =
            outputs.iter().map(|&v| (v, self.steps())).collect();
        let mut used = |v: Value, step: usize| {
            let last = last_use.entry(v).or_insert(step);
            *last = (*last).max(step);
        };
        for (k, node) in self.tape.nodes.iter().enumerate() {
            node.ins.iter().chain(&node.outs).for_each(|&v| used(v, k));
            if self.training {
                let reads = node.op.reads(&self.shapes(node));
                let kept = reads.ins.iter().map(|&i| node.ins[i]);
                let kept = kept.chain(reads.outs.iter().map(|&o| node.outs[o]));
                kept.for_each(|v| used(v, self.bwd(k)));
            }
        }
        last_use
    }
}

/// A piece of the arena: so many values of a type, for as long as they are needed.
pub struct Piece {
    pub len: usize,
    pub dtype: Dtype,
    pub life: Life,
}

/// Sums over pixels of a gradient: the node that gives them, and their piece.
pub struct Sums {
    pub giver: usize,
    pub piece: usize,
    /// Of a wider tensor, whose piece it is.
    pub columns: Option<Range<usize>>,
}

/// All pieces, and which is whose.
#[derive(Default)]
pub struct Pieces {
    pub all: Vec<Piece>,
    pub values: HashMap<Value, usize>,
    pub grads: HashMap<Value, usize>,
    /// Sums over pixels of gradients, where who makes the value takes them and who writes its gradient last gives them.
    pub sums: HashMap<Value, Sums>,
    /// How each op writes the gradients of its inputs; `None` where nobody asks.
    pub ins_acc: Vec<Vec<Option<Acc>>>,
    /// Of nodes that take a residual's gradient: the piece of the gradient that it is a part of, and how much.
    pub residuals: HashMap<usize, (usize, f32)>,
    /// What each op needs beside, forward and backward.
    pub temps: Vec<[usize; 2]>,
    /// What each op keeps until the end of the backward for sums.
    pub rows: Vec<usize>,
}

impl Pieces {
    /// `outputs` stay to the end, as do inputs and, in training, the gradients of leaves.
    pub fn of(recorded: &Recorded, outputs: &[Value]) -> Pieces {
        let mut pieces = Pieces::default();
        let (tape, dtypes) = (recorded.tape, recorded.dtypes());
        for &v in &tape.inputs {
            let piece = pieces.add(words(tape.shape(v)), Dtype::F32, 0, recorded.steps());
            pieces.values.insert(v, piece);
        }
        let last_use = recorded.last_uses(outputs);
        for (k, node) in tape.nodes.iter().enumerate() {
            for &v in &node.outs {
                let piece = pieces.add(words(tape.shape(v)), dtypes[v.0], k, last_use[&v]);
                pieces.values.insert(v, piece);
            }
        }
        pieces.ins_acc = vec![Vec::new(); tape.nodes.len()];
        if recorded.training {
            pieces.add_gradients(recorded, &dtypes);
            pieces.add_sums(recorded);
        }
        pieces.add_temporaries(recorded);
        pieces.add_rows(recorded);
        pieces
    }

    fn add(&mut self, len: usize, dtype: Dtype, first: usize, last: usize) -> usize {
        let len = len.max(1);
        self.all.push(Piece { len, dtype, life: Life { words: dtype.words(len), first, last } });
        self.all.len() - 1
    }

    /// The last op seeds itself, the rest follow in reverse; the first writer sets, others add. Of a value that ops share
    /// by columns, each set is the first's of its columns.
    fn add_gradients(&mut self, recorded: &Recorded, dtypes: &[Dtype]) {
        let nodes = &recorded.tape.nodes;
        let mut set: HashMap<Value, Vec<Range<usize>>> = HashMap::new();
        let mut producer_step: HashMap<Value, usize> = HashMap::new();
        for (k, node) in nodes.iter().enumerate() {
            node.outs.iter().for_each(|&v| _ = producer_step.insert(v, recorded.bwd(k)));
        }
        for (k, node) in nodes.iter().enumerate().rev() {
            let reached =
                k + 1 == nodes.len() || node.outs.iter().any(|v| self.grads.contains_key(v));
            let shapes = recorded.shapes(node);
            for (i, &v) in node.ins.iter().enumerate() {
                let wanted = reached && recorded.tape.differentiable[v.0];
                let wanted = wanted && !self.leave_residual(recorded, dtypes, k, i);
                let acc = wanted.then(|| first_or_add(&mut set, v, node.op.columns(&shapes, i)));
                self.ins_acc[k].push(acc);
                if wanted && !self.grads.contains_key(&v) {
                    let last = producer_step.get(&v).copied().unwrap_or(recorded.steps());
                    let piece = self.add(words(shapes[i]), dtypes[v.0], recorded.bwd(k), last);
                    self.grads.insert(v, piece);
                }
            }
        }
        assert!(self.residuals.keys().all(|&k| self.ins_acc[k][0].is_some()), "a residual is lost");
        for (v, set) in set {
            let columns = set.iter().map(Range::len).sum::<usize>();
            let all = recorded.tape.shape(v)[3];
            assert!(columns == all, "columns {set:?} of {all} have a gradient");
        }
    }

    /// Whether what reaches node `k`'s input `i` as its residual is left to who writes that value's gradient next. That one
    /// reads k's output's gradient then, which is kept so long: a pass over the value's gradient less.
    fn leave_residual(
        &mut self,
        recorded: &Recorded,
        dtypes: &[Dtype],
        k: usize,
        i: usize,
    ) -> bool {
        let nodes = &recorded.tape.nodes;
        let (v, y) = (nodes[k].ins[i], nodes[k].outs[0]);
        let residual = nodes[k].op.residual().filter(|(of, _)| *of == i);
        let (Some((_, scale)), Some(&dy)) = (residual, self.grads.get(&y)) else { return false };
        let next = (0..k).rev().find(|&j| nodes[j].ins.contains(&v));
        let (Target::Cuda(limits), Some(next)) = (recorded.target, next) else { return false };
        let (Node { op, ins, .. }, shapes) = (&nodes[next], recorded.shapes(&nodes[next]));
        let once = ins.iter().filter(|i| **i == v).count() == 1 && ins[0] == v;
        let takes = once && op.takes_residual(&shapes, recorded.precision, limits);
        if !takes || dtypes[v.0] != dtypes[y.0] || self.residuals.contains_key(&next) {
            return false;
        }
        self.all[dy].life.last = recorded.bwd(next);
        self.residuals.insert(next, (dy, scale));
        true
    }

    fn add_sums(&mut self, recorded: &Recorded) {
        let Recorded { tape, target, precision, .. } = *recorded;
        for (k, node) in tape.nodes.iter().enumerate().filter(|(_, node)| node.op.takes_sums()) {
            let (v, reads_it) = (node.outs[0], |n: &Node| n.ins.contains(&node.outs[0]));
            // Backward, the first to read it writes its gradient last.
            let Some(giver) = tape.nodes.iter().position(reads_it) else { continue };
            let last = &tape.nodes[giver];
            let inputs = || last.ins.iter().zip(&self.ins_acc[giver]).filter(|(i, _)| **i == v);
            let writes_once = inputs().count() == 1 && inputs().all(|(_, acc)| acc.is_some());
            let shapes = recorded.shapes(last);
            if writes_once && last.op.gives_sums(&shapes, precision, target.limits()) {
                let [n, _, _, c] = tape.shape(v);
                let (given, end) = (recorded.bwd(giver), recorded.steps());
                let of = node.op.sums_are_gradient_of();
                let sums = match of.filter(|&i| self.ins_acc[k][i] == Some(Acc::Set)) {
                    Some(i) => {
                        let piece = self.grads[&node.ins[i]];
                        let life = &mut self.all[piece].life;
                        (life.first, life.last) = (life.first.min(given), end);
                        let columns = Some(node.op.columns(&recorded.shapes(node), i));
                        Sums { giver, piece, columns }
                    }
                    None => {
                        let piece = self.add(n * c, Dtype::F32, given, end);
                        Sums { giver, piece, columns: None }
                    }
                };
                self.sums.insert(v, sums);
            }
        }
    }

    fn add_rows(&mut self, recorded: &Recorded) {
        for k in 0..recorded.tape.nodes.len() {
            let (words, end) = (recorded.later_words(k).rows, recorded.steps());
            let first = if recorded.training { recorded.bwd(k) } else { end };
            let piece = self.add(words, Dtype::F32, first, end);
            self.rows.push(piece);
        }
    }

    fn add_temporaries(&mut self, recorded: &Recorded) {
        let Recorded { target, precision, training, .. } = *recorded;
        for (k, node) in recorded.tape.nodes.iter().enumerate() {
            let shapes = recorded.shapes(node);
            let words = |direction| node.op.words_beside(target, &shapes, precision, direction);
            let fwd = self.add(words(Direction::Fwd), Dtype::F32, k, k);
            let (at, words) = match training {
                true => (recorded.bwd(k), words(Direction::Bwd)),
                false => (0, 0),
            };
            let bwd = self.add(words, Dtype::F32, at, at);
            self.temps.push([fwd, bwd]);
        }
    }
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
