//! A small tape: ops are recorded once with their shapes, differentiated and planned once, run many times.

mod arena;
mod pieces;
mod plan;

pub use plan::{MemoryPlan, Mode, Part};

use crate::ops::{Op, Shape};
use anyhow::{Result, ensure};

/// A tensor on the tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Value(pub(crate) usize);

/// A parameter's place in the flat buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param {
    pub offset: usize,
    pub len: usize,
}

pub(crate) struct Node {
    pub op: Box<dyn Op>,
    pub ins: Vec<Value>,
    pub params: Vec<Param>,
    pub outs: Vec<Value>,
}

/// Ops in the order they were recorded.
#[derive(Default)]
pub struct Tape {
    pub(crate) nodes: Vec<Node>,
    pub(crate) shapes: Vec<Shape>,
    /// Whether a gradient flows to this value: it depends on a parameter or was declared so.
    pub(crate) differentiable: Vec<bool>,
    pub(crate) inputs: Vec<Value>,
    /// Images of the batch of which the recorded ones are a part; `None`: they are all.
    pub(crate) batch: Option<usize>,
}

impl Tape {
    pub fn new() -> Self {
        Self::default()
    }

    /// Of images that are a part of a batch of so many.
    pub fn of_batch(images: usize) -> Self {
        Tape { batch: Some(images), ..Self::default() }
    }

    /// A tensor that the host fills before each run; no gradient is computed for it.
    pub fn input(&mut self, shape: Shape) -> Value {
        self.add_input(shape, false)
    }

    /// An input whose gradient is wanted, as tests of ops do.
    pub fn leaf(&mut self, shape: Shape) -> Value {
        self.add_input(shape, true)
    }

    fn add_input(&mut self, shape: Shape, differentiable: bool) -> Value {
        let v = self.value(shape, differentiable);
        self.inputs.push(v);
        v
    }

    fn value(&mut self, shape: Shape, differentiable: bool) -> Value {
        self.shapes.push(shape);
        self.differentiable.push(differentiable);
        Value(self.shapes.len() - 1)
    }

    pub fn shape(&self, v: Value) -> Shape {
        self.shapes[v.0]
    }

    /// Records `op` and returns its outputs.
    ///
    /// # Errors
    /// If the op does not take these shapes or parameters; names the op and what it was given.
    pub fn push(
        &mut self,
        op: impl Op + 'static,
        ins: &[Value],
        params: &[Param],
    ) -> Result<Vec<Value>> {
        let shapes: Vec<Shape> = ins.iter().map(|&v| self.shape(v)).collect();
        let outs = op.outputs(&shapes)?;
        let (want, have) = (op.param_lens(&shapes), params.iter().map(|p| p.len));
        ensure!(
            want.iter().copied().eq(have.clone()),
            "{}: parameters of {want:?} values wanted for inputs {shapes:?}, {:?} given",
            op.name(),
            have.collect::<Vec<_>>()
        );
        let flows = !params.is_empty() || ins.iter().any(|v| self.differentiable[v.0]);
        let outs = outs.into_iter().map(|s| self.value(s, flows)).collect::<Vec<_>>();
        self.nodes.push(Node {
            op: Box::new(op),
            ins: ins.to_vec(),
            params: params.to_vec(),
            outs: outs.clone(),
        });
        Ok(outs)
    }

    /// As [`Tape::push`] for an op with one output.
    pub fn push1(
        &mut self,
        op: impl Op + 'static,
        ins: &[Value],
        params: &[Param],
    ) -> Result<Value> {
        Ok(self.push(op, ins, params)?[0])
    }
}
