//! What Hopper's barriers and tensor copies must give, by the PTX ISA 9.0 and the driver API's words on tensor maps.

use super::primitive::{Primitive, numbers};
use crate::device::params::{
    PRIMITIVE_MBARRIER, PRIMITIVE_NAMED_BARRIER, PRIMITIVE_REGISTERS, PRIMITIVE_TMA_LOAD,
    PRIMITIVE_TMA_STORE,
};
use crate::device::{Entry, Kernel, Map, Ptr, Swizzle, params};

/// Barriers in shared memory and by number, and registers that warpgroups hand each other.
pub(super) fn barriers() -> Vec<Primitive> {
    let of = |case, entry: Entry<params::PrimitiveHopper>, threads, input, want| {
        let built = move |out: Ptr, input: Ptr| {
            Kernel::new(entry, 1, params!(PrimitiveHopper { out, input }))
        };
        Primitive::hopper(case, threads, Box::new(built), input, want)
    };
    // Each of three laps, what one thread finds, and 10 more what the other does, which adds 100.
    let laps = vec![7, 17, 117, 127, 227, 237, 337];
    let input = numbers(128, 1000, 21);
    let halves = input.chunks(64).flat_map(|half| half.iter().rev().copied()).collect();
    let sums = numbers(384, 1000, 22);
    let more = (0..384).map(|i| sums[i] + if i < 128 { 1 } else { 2 }).collect();
    vec![
        of("mbarrier", PRIMITIVE_MBARRIER, 64, vec![7], laps),
        of("named barriers", PRIMITIVE_NAMED_BARRIER, 128, input, halves),
        of("registers of warpgroups", PRIMITIVE_REGISTERS, 384, sums, more),
    ]
}

/// A tensor of 16-bit elements, the box of it that is copied and where that begins.
struct Copy {
    case: &'static str,
    dims: [usize; 4],
    size: [usize; 4],
    steps: [usize; 4],
    first: [i32; 4],
    swizzle: Swizzle,
    rank: usize,
}

/// Within the tensor.
const PLAIN: Copy = Copy {
    case: "tma load",
    dims: [72, 5, 6, 3],
    size: [64, 4, 3, 2],
    steps: [1; 4],
    first: [8, 1, 2, 1],
    swizzle: Swizzle::Within128,
    rank: 4,
};

/// Beyond the tensor's end along each dimension, and before its beginning along two.
const OUTSIDE: [i32; 4] = [16, -2, 4, -1];

impl Copy {
    /// Elements along a dimension: each `step`-th of the box's.
    fn count(&self, axis: usize) -> usize {
        self.size[axis].div_ceil(self.steps[axis])
    }

    fn bytes(&self) -> usize {
        (0..4).map(|axis| self.count(axis)).product::<usize>() * 2
    }

    /// For each 16-bit element of shared memory in order of address, the index in the tensor of what is copied from or to
    /// there; none outside of the tensor.
    fn elements(&self) -> Vec<Option<usize>> {
        let mut found = vec![None; self.bytes() / 2];
        let counts: [usize; 4] = std::array::from_fn(|axis| self.count(axis));
        for (i, place) in (0..found.len()).map(|i| (i, self.place(i))) {
            let mut rest = i;
            let mut index = Some(0);
            let mut stride = 1;
            for (axis, &count) in counts.iter().enumerate() {
                let at = (rest % count * self.steps[axis]) as i64 + self.first[axis] as i64;
                rest /= count;
                let inside = (0..self.dims[axis] as i64).contains(&at);
                index = index.filter(|_| inside).map(|index| index + at as usize * stride);
                stride *= self.dims[axis];
            }
            found[place] = index;
        }
        found
    }

    /// Where element i of a box lies: the figures of the section on swizzling modes show 16-byte pieces in lines of 128
    /// bytes. Within 128 bytes, piece p of line l stands at p ^ (l % 8); within 64, it changes places with the others of
    /// its half, by l % 4; within 32, with its neighbour in every other line.
    fn place(&self, i: usize) -> usize {
        let (line, piece, within) = (i / 64, i % 64 / 8, i % 8);
        let to = match self.swizzle {
            Swizzle::None => piece,
            Swizzle::Within32 => piece / 2 * 2 + (piece % 2 + line % 2) % 2,
            Swizzle::Within64 => piece / 4 * 4 + ((piece % 4) ^ (line % 4)),
            Swizzle::Within128 => piece ^ (line % 8),
        };
        64 * line + 8 * to + within
    }

    fn map(&self, at: Ptr) -> Map {
        let three = |of: [usize; 4]| [of[0], of[1], of[2]];
        let map = match self.rank {
            3 => Map::new(at, three(self.dims), three(self.size)).steps(three(self.steps)),
            _ => Map::new(at, self.dims, self.size).steps(self.steps),
        };
        map.swizzle(self.swizzle)
    }

    /// A tensor's elements, two a word.
    fn tensor(&self) -> Vec<u32> {
        let elements = self.dims.iter().product::<usize>();
        (0..elements as u32 / 2).map(|i| (2 * i + 1) | (2 * i + 2) << 16).collect()
    }

    /// The kernel that takes the map of what `of` chooses among output and input.
    fn built(
        self,
        entry: Entry<params::PrimitiveCopy>,
        of: fn(Ptr, Ptr) -> Ptr,
    ) -> Box<dyn Fn(Ptr, Ptr) -> Kernel> {
        let bytes = self.bytes();
        Box::new(move |out, input| {
            let [c0, c1, c2, c3] = self.first;
            let (map, rank) = (self.map(of(out, input)), self.rank);
            let given = params!(PrimitiveCopy { map, out, input, rank, c0, c1, c2, c3, bytes });
            Kernel::new(entry, 1, given).shared(bytes + 1024)
        })
    }

    /// Into shared memory, zeros where there is no tensor.
    fn load(self) -> Primitive {
        let (case, input) = (self.case, self.tensor());
        let halves: Vec<u16> = bytemuck::pod_collect_to_vec(&input);
        let found = self.elements().into_iter().map(|index| index.map_or(0, |i| halves[i]));
        let want = bytemuck::pod_collect_to_vec(&found.collect::<Vec<u16>>());
        let built = self.built(PRIMITIVE_TMA_LOAD, |_, input| input);
        Primitive::hopper(case, 32, built, input, want)
    }

    /// Out of shared memory, nothing where there is no tensor.
    fn store(self) -> Primitive {
        let (case, input) = (self.case, numbers(self.bytes() / 4, u32::MAX, 23));
        let halves: Vec<u16> = bytemuck::pod_collect_to_vec(&input);
        let mut want = vec![0xffff_u16; self.dims.iter().product()];
        for (half, index) in halves.iter().zip(self.elements()) {
            if let Some(index) = index {
                want[index] = *half;
            }
        }
        let want = bytemuck::pod_collect_to_vec(&want);
        let built = self.built(PRIMITIVE_TMA_STORE, |out, _| out);
        Primitive::hopper(case, 64, built, input, want)
    }
}

/// Copies of boxes that lie within their tensor and beyond it, in each swizzle.
pub(super) fn copies() -> Vec<Primitive> {
    let narrow = |case, channels, swizzle| Copy {
        case,
        dims: [channels, 5, 6, 3],
        size: [channels, 4, 3, 2],
        first: [0, -1, 4, 1],
        swizzle,
        ..PLAIN
    };
    let three = |copy: Copy| {
        let ([a, b, c, _], [d, e, f, _]) = (copy.dims, copy.size);
        let [g, h, i, _] = copy.first;
        Copy { dims: [a, b, c, 1], size: [d, e, f, 1], first: [g, h, i, 0], rank: 3, ..copy }
    };
    vec![
        PLAIN.load(),
        Copy { case: "tma load of zeros outside", first: OUTSIDE, ..PLAIN }.load(),
        three(Copy { case: "tma load of 3 dimensions", first: OUTSIDE, ..PLAIN }).load(),
        Copy {
            case: "tma load of every other",
            steps: [1, 2, 1, 2],
            first: [0, -1, 1, 0],
            ..PLAIN
        }
        .load(),
        Copy { case: "tma load, no swizzle", swizzle: Swizzle::None, ..PLAIN }.load(),
        narrow("tma load, swizzle of 64 bytes", 32, Swizzle::Within64).load(),
        narrow("tma load, swizzle of 32 bytes", 16, Swizzle::Within32).load(),
        Copy { case: "tma store", ..PLAIN }.store(),
        Copy { case: "tma store, clipped", first: [16, 3, 4, 2], ..PLAIN }.store(),
        Copy { case: "tma store, no swizzle", swizzle: Swizzle::None, ..PLAIN }.store(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each element of a box stands in one place, whatever the swizzle.
    #[test]
    fn boxes_cover_their_shared_memory() {
        for swizzle in [Swizzle::None, Swizzle::Within32, Swizzle::Within64, Swizzle::Within128] {
            let copy = Copy { swizzle, ..PLAIN };
            let mut places: Vec<usize> = (0..copy.bytes() / 2).map(|i| copy.place(i)).collect();
            places.sort();
            assert!(places.iter().enumerate().all(|(i, &place)| i == place), "{swizzle:?}");
        }
    }

    #[test]
    fn what_lies_outside_has_no_element() {
        let outside = Copy { first: OUTSIDE, ..PLAIN }.elements();
        let inside = outside.iter().flatten().count();
        // 56 of 64 channels, 2 of 4 columns, 2 of 3 rows, 1 of 2 images.
        assert_eq!(inside, 56 * 2 * 2);
        assert_eq!(PLAIN.elements().iter().flatten().count(), PLAIN.bytes() / 2);
    }
}
