//! Kernels by name.

use super::slot::Dtype;
use std::marker::PhantomData;

/// What a kernel multiplies with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Unit {
    /// The fp32 pipes; whatever a CPU has.
    #[default]
    Fp32,
    TensorTf32,
    TensorBf16,
    TensorU8,
    /// Tensor cores by Hopper's products of warpgroups, which reach more of their peak.
    WgmmaBf16,
}

/// A kernel by name, which takes a `P`; `build.rs` makes these of `kernels/params`.
pub struct Entry<P> {
    pub name: &'static str,
    pub(super) unit: Unit,
    /// Where its pointers lie, in order, and how what they point at is stored.
    pub(super) stored: &'static [(usize, Dtype)],
    takes: PhantomData<fn(P)>,
}

impl<P> Entry<P> {
    /// `stored`: where its pointers lie, in order, and how what they point at is stored.
    ///
    /// # Safety
    /// What goes by that name takes a `P`, or nothing of its size.
    pub const unsafe fn new(
        name: &'static str,
        unit: Unit,
        stored: &'static [(usize, Dtype)],
    ) -> Self {
        Entry { name, unit, stored, takes: PhantomData }
    }
}

impl<P> Clone for Entry<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Entry<P> {}

/// Of two kernels the one for elements stored so: float32, bf16.
pub(crate) fn typed<P>([float, bf16]: [Entry<P>; 2], dtype: Dtype) -> Entry<P> {
    match dtype {
        Dtype::F32 => float,
        Dtype::Bf16 => bf16,
    }
}
