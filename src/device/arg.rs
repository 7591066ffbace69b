//! The fields of what kernels take: what they hold until a launch knows the addresses.

use super::slot::{Acc, Dtype, Sink, Slot};

/// What a kernel takes as its one parameter; `build.rs` makes these of the structs of `kernels/params`.
pub trait Fields {
    /// As C lays the struct out.
    const BYTES: usize;

    /// Adds each field and its offset, for a struct that lies at `at`.
    fn put(self, at: usize, to: &mut Vec<(usize, Arg)>);
}

/// A number or pointer of a launch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    Ptr(Ptr),
    I32(i32),
    U32(u32),
    I64(i64),
    F32(f32),
    F64(f64),
    /// 32 bits: index in the whole batch of the recording's first image.
    FirstImage,
}

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

/// A whole number, of as many bits as the kernel's field turns out to have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Int {
    Of(i64),
    /// Index in the whole batch of the recording's first image, which a launch knows.
    FirstImage,
}

impl Int {
    fn checked<T: TryFrom<i64>>(self, field: &str, wrap: impl Fn(T) -> Arg) -> Arg {
        match self {
            Int::FirstImage => Arg::FirstImage,
            Int::Of(n) => match T::try_from(n) {
                Ok(n) => wrap(n),
                Err(_) => panic!("{field}: {n} is too large for a kernel"),
            },
        }
    }

    pub(super) fn int(self, field: &str) -> Arg {
        self.checked(field, Arg::I32)
    }

    pub(super) fn u32(self, field: &str) -> Arg {
        self.checked(field, Arg::U32)
    }

    pub(super) fn i64(self, field: &str) -> Arg {
        self.checked(field, Arg::I64)
    }
}

impl From<usize> for Int {
    fn from(n: usize) -> Self {
        Int::Of(i64::try_from(n).unwrap_or_else(|_| panic!("{n} as a kernel's parameter")))
    }
}

impl From<i64> for Int {
    fn from(n: i64) -> Self {
        Int::Of(n)
    }
}

impl From<i32> for Int {
    fn from(n: i32) -> Self {
        Int::Of(n.into())
    }
}

impl From<u32> for Int {
    fn from(n: u32) -> Self {
        Int::Of(n.into())
    }
}

impl From<bool> for Int {
    fn from(v: bool) -> Self {
        Int::Of(v.into())
    }
}

impl From<Acc> for Int {
    fn from(acc: Acc) -> Self {
        (acc == Acc::Add).into()
    }
}
