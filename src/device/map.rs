//! Tensors of which kernels copy boxes, as the GPU's tensor copies (compute capability 9.0) want them described.

use super::ptr::Ptr;
use super::slot::Dtype;
use std::fmt;

/// How the 16-byte pieces of a box's rows change places in shared memory: within so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swizzle {
    None,
    Within32,
    Within64,
    Within128,
}

/// A tensor and the box of it that one copy moves, the dimension whose elements are neighbours first. What a driver makes
/// of it is made once the addresses are known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Map {
    /// Its first element. Null: there is no tensor, and the kernel copies nothing of it.
    pub at: Ptr,
    /// Dimensions, 3 or 4; what follows has so many values, [`Map::strides`] one less.
    pub(super) rank: usize,
    pub(super) dims: [usize; 4],
    /// Elements from one to the next of each dimension but the first.
    pub(super) strides: [usize; 3],
    /// Elements of the box.
    pub(super) size: [usize; 4],
    /// Elements from one that is copied to the next.
    pub(super) steps: [usize; 4],
    pub(super) swizzle: Swizzle,
    /// How its elements are stored, and the field that it fills, by the kernel's declaration.
    pub(super) dtype: Dtype,
    pub(super) field: &'static str,
}

impl Map {
    /// A tensor without gaps, of 3 or 4 dimensions, and a box of it, whose pieces change places within 128 bytes.
    pub fn new<const R: usize>(at: impl Into<Ptr>, dims: [usize; R], size: [usize; R]) -> Self {
        const { assert!(R == 3 || R == 4, "tensors of 3 or 4 dimensions") };
        let four = |of: [usize; R]| std::array::from_fn(|i| if i < R { of[i] } else { 1 });
        let (dims, size) = (four(dims), four(size));
        let strides = [dims[0], dims[0] * dims[1], dims[0] * dims[1] * dims[2]];
        let at = at.into();
        Map { at, rank: R, dims, strides, size, ..Map::default() }
    }

    /// With so many elements from one to the next of each dimension but the first.
    pub fn strides<const S: usize>(self, strides: [usize; S]) -> Self {
        assert_eq!(S + 1, self.rank, "strides of {} dimensions", self.rank);
        Map { strides: std::array::from_fn(|i| if i < S { strides[i] } else { 0 }), ..self }
    }

    /// With boxes that take one of so many elements along each dimension.
    pub fn steps<const R: usize>(self, steps: [usize; R]) -> Self {
        assert_eq!(R, self.rank, "steps of {} dimensions", self.rank);
        Map { steps: std::array::from_fn(|i| if i < R { steps[i] } else { 1 }), ..self }
    }

    /// With another swizzle.
    pub fn swizzle(self, swizzle: Swizzle) -> Self {
        Map { swizzle, ..self }
    }

    /// As the field that a kernel knows it by.
    pub(super) fn named(self, field: &'static str) -> Self {
        Map { field, ..self }
    }
}

impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Map { rank, field, .. } = *self;
        let (size, dims) = (&self.size[..rank], &self.dims[..rank]);
        let strides = &self.strides[..rank - 1];
        write!(f, "{field}: a map of boxes {size:?} of a tensor {dims:?} with strides {strides:?}")
    }
}

/// No tensor.
impl Default for Map {
    fn default() -> Self {
        Map {
            at: Ptr::Null,
            rank: 3,
            dims: [1; 4],
            strides: [1; 3],
            size: [1; 4],
            steps: [1; 4],
            swizzle: Swizzle::Within128,
            dtype: Dtype::Bf16,
            field: "",
        }
    }
}

impl From<Option<Map>> for Map {
    fn from(map: Option<Map>) -> Self {
        map.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_without_gaps_is_described_by_its_dimensions() {
        let map = Map::new(Ptr::Address(16), [64, 5, 4, 3], [64, 5, 2, 1]);
        assert_eq!((map.rank, map.strides), (4, [64, 320, 1280]));
        let map = Map::new(Ptr::Address(16), [64, 9, 32], [64, 1, 32]).strides([72, 648]);
        assert_eq!((map.rank, map.dims, map.size), (3, [64, 9, 32, 1], [64, 1, 32, 1]));
        assert_eq!(map.strides, [72, 648, 0]);
        assert_eq!(Map::from(None::<Map>).at, Ptr::Null);
    }

    #[test]
    #[should_panic(expected = "strides of 3 dimensions")]
    fn strides_of_another_number_of_dimensions_are_refused() {
        let _ = Map::new(Ptr::Address(16), [8, 8, 8], [8, 8, 8]).strides([8, 64, 512]);
    }
}
