//! The fields of what kernels take: what they hold until a launch knows the addresses.

use super::map::Map;
use super::ptr::Ptr;
use super::slot::Acc;

/// What a kernel takes as its one parameter; `build.rs` makes these of the structs of `kernels/params`.
pub trait Fields {
    /// As C lays the struct out.
    const BYTES: usize;

    /// Adds each field and its offset, in their order, for a struct that lies at `at`.
    fn put(self, at: usize, to: &mut Vec<(usize, Arg)>);
}

/// Adds the fields of the structs of an array of `places` that lies at `at`. Those that are not given stay zeros.
pub(super) fn put_each<P: Fields>(
    all: Vec<P>,
    places: usize,
    at: usize,
    field: &str,
    to: &mut Vec<(usize, Arg)>,
) {
    let given = all.len();
    assert!(given <= places, "{field}: {given} given, {places} at most");
    all.into_iter().enumerate().for_each(|(i, one)| one.put(at + i * P::BYTES, to));
}

/// A number, pointer or tensor map of a launch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    Ptr(Ptr),
    Map(Map),
    I32(i32),
    U32(u32),
    I64(i64),
    F32(f32),
    F64(f64),
    /// 32 bits: index in the whole batch of the recording's first image.
    FirstImage,
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
