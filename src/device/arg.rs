//! Arguments of kernels.

use super::{Acc, Buffer, Sink, Slot, cuda};

/// An argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// The address of a slot.
    Slot(Slot),
    /// The address of a gradient that the kernel sets or adds to; it is told which by an argument of its own.
    Sink(Sink),
    /// The address of an element of a slot.
    Element(Slot, usize),
    /// An address on the card.
    Address(u64),
    /// The address of the words that vary from step to step (`Step` in `kernels/prelude/types.cuh`).
    Step,
    /// Index in the whole batch of the recording's first image.
    FirstImage,
    Null,
    I32(i32),
    I64(i64),
    F32(f32),
    F64(f64),
}

impl Arg {
    /// The slot whose address this is.
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Arg::Slot(slot) | Arg::Element(slot, _) | Arg::Sink(Sink { slot, .. }) => Some(*slot),
            _ => None,
        }
    }
}

impl From<Sink> for Arg {
    fn from(s: Sink) -> Self {
        Arg::Sink(s)
    }
}

impl From<Option<Sink>> for Arg {
    fn from(s: Option<Sink>) -> Self {
        s.map_or(Arg::Null, Arg::Sink)
    }
}

impl From<Slot> for Arg {
    fn from(s: Slot) -> Self {
        Arg::Slot(s)
    }
}

impl From<&Buffer> for Arg {
    fn from(b: &Buffer) -> Self {
        Arg::Address(b.address())
    }
}

impl From<&cuda::Buffer> for Arg {
    fn from(b: &cuda::Buffer) -> Self {
        Arg::Address(b.address())
    }
}

impl From<Option<Slot>> for Arg {
    fn from(s: Option<Slot>) -> Self {
        s.map_or(Arg::Null, Arg::Slot)
    }
}

impl From<usize> for Arg {
    fn from(n: usize) -> Self {
        Arg::I32(i32::try_from(n).unwrap_or_else(|_| panic!("{n} as a kernel's argument")))
    }
}

impl From<f32> for Arg {
    fn from(v: f32) -> Self {
        Arg::F32(v)
    }
}

impl From<bool> for Arg {
    fn from(v: bool) -> Self {
        Arg::I32(v as i32)
    }
}

impl From<Acc> for Arg {
    fn from(acc: Acc) -> Self {
        (acc == Acc::Add).into()
    }
}
