//! Pointers that kernels take, before a launch knows the addresses.

use super::slot::{Dtype, Sink, Slot};

/// A pointer.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Ptr {
    #[default]
    Null,
    /// The address of a slot.
    Slot(Slot),
    /// The address of a gradient that the kernel sets or adds to; it is told which by a field of its own.
    Sink(Sink),
    /// The address of an element of a slot.
    Element(Slot, usize),
    /// An address on the GPU.
    Address(u64),
    /// The address of the words that vary from step to step ([`super::params::Step`]).
    Step,
}

impl Ptr {
    /// The slot whose address this is.
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Ptr::Slot(slot) | Ptr::Element(slot, _) | Ptr::Sink(Sink { slot, .. }) => Some(*slot),
            Ptr::Null | Ptr::Address(_) | Ptr::Step => None,
        }
    }

    /// Whether elements stored so can lie there.
    pub(super) fn holds(&self, dtype: Dtype) -> bool {
        self.slot().is_none_or(|slot| slot.dtype == dtype)
    }
}

impl From<Slot> for Ptr {
    fn from(s: Slot) -> Self {
        Ptr::Slot(s)
    }
}

impl From<Sink> for Ptr {
    fn from(s: Sink) -> Self {
        Ptr::Sink(s)
    }
}

impl<T: Into<Ptr>> From<Option<T>> for Ptr {
    fn from(pointer: Option<T>) -> Self {
        pointer.map_or(Ptr::Null, Into::into)
    }
}
