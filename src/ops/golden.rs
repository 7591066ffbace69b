//! How a case of an op's golden file becomes the op and its operands: each op says it for itself.

use super::Op;
use crate::device::StepArgs;
use serde_json::Value;

/// A case of a golden file: its attributes, and which tensors it has.
pub struct Described<'a> {
    pub attributes: &'a Value,
    /// Shape of a tensor, as the file has it.
    pub shape: &'a dyn Fn(&str) -> Option<Vec<usize>>,
}

impl Described<'_> {
    pub(super) fn has(&self, tensor: &str) -> bool {
        (self.shape)(tensor).is_some()
    }

    /// 0 where the case does not tell.
    pub(super) fn number(&self, key: &str) -> u64 {
        self.attributes[key].as_u64().unwrap_or(0)
    }

    pub(super) fn size(&self, key: &str) -> usize {
        self.number(key) as usize
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.attributes[key].as_bool().unwrap_or(false)
    }
}

/// A tensor that an op takes. The gradient of `x` is `dx`, where the case has that.
#[derive(Clone, Copy)]
pub enum GoldenIn {
    /// Stored as the precision stores activations.
    Activation(&'static str),
    Float32(&'static str),
    /// The noise levels, float64.
    Sigma,
    /// 32-bit integers.
    Int32(&'static str),
}

/// A tensor that an op gives.
#[derive(Clone, Copy)]
pub enum GoldenOut {
    /// With the gradient `dy` of a `y`.
    Differentiated(&'static str),
    Alone(&'static str),
    /// For the backward; the case does not have it.
    Kept,
}

/// An op with the names of its tensors.
pub struct GoldenCase {
    pub op: Box<dyn Op>,
    pub ins: Vec<GoldenIn>,
    pub params: Vec<&'static str>,
    pub outs: Vec<GoldenOut>,
    pub args: StepArgs,
}

impl GoldenCase {
    pub(super) fn new(
        op: impl Op + 'static,
        ins: &[GoldenIn],
        params: &[&'static str],
        outs: &[GoldenOut],
    ) -> Self {
        let (ins, params, outs) = (ins.to_vec(), params.to_vec(), outs.to_vec());
        GoldenCase { op: Box::new(op), ins, params, outs, args: StepArgs::default() }
    }
}
