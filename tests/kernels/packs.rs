//! More working copies of weights than a launch makes, of all forms and sizes, in memory that is NaN elsewhere.

use super::cuda;
use crate::emulator::{for_each_schedule, in_check_build};
use crate::ops::fresh_seed;
use emm::device::cuda::{Addresses, Cuda};
use emm::device::params::PACK_JOBS;
use emm::device::{Dtype, Slot, Space};
use emm::ops::pack::{self, Form, Job, Pack};
use emm::rng::fill_normals;
use half::bf16;

/// The form, and elements of a row of the copy. Rows of weights begin where four can be read at once, or not.
fn form(i: usize, piece: usize) -> (Form, usize) {
    let pick = |of: &[usize], by: usize| of[i / by % of.len()];
    if i.is_multiple_of(2) {
        let (rows, width) = (pick(&[3, 40, 128], 2), pick(&[27, 64, 32, 36, 1152], 6));
        return (Form::Rows { rows, width }, width.next_multiple_of(piece));
    }
    let (o, c) = (pick(&[64, 3, 40, 8], 2), pick(&[32, 20, 65, 3], 8));
    let (taps, first) = if i.is_multiple_of(3) { (9, 0) } else { (1, pick(&[0, 4, 7], 2)) };
    let row_words = first + taps * c + pick(&[0, 5], 2);
    (Form::Transposed { o, taps, c, row_words, first }, (taps * o).next_multiple_of(piece))
}

/// Words of the parameter.
fn words(form: Form) -> usize {
    match form {
        Form::Rows { rows, width } => rows * width,
        Form::Transposed { o, row_words, .. } => o * row_words,
    }
}

/// The copy as it reads: its element (row, column).
fn element(form: Form, weights: &[f32], row: usize, column: usize) -> f32 {
    match form {
        Form::Rows { width, .. } if column < width => weights[row * width + column],
        Form::Transposed { o, taps, c, row_words, first } if column < taps * o => {
            let (tap, out) = (column / o, column % o);
            weights[out * row_words + first + (taps - 1 - tap) * c + row]
        }
        _ => 0.0,
    }
}

fn stored(dtype: Dtype, values: impl Iterator<Item = f32>) -> Vec<u32> {
    match dtype {
        Dtype::F32 => values.map(f32::to_bits).collect(),
        Dtype::Bf16 => {
            let bits: Vec<u16> = values.map(|v| bf16::from_f32(v).to_bits()).collect();
            bits.chunks(2).map(|two| two[0] as u32 | (two[1] as u32) << 16).collect()
        }
    }
}

/// Makes so many copies of each form in `dtype`, and compares all memory with what it should be.
fn check(cuda: &Cuda, dtype: Dtype, each: usize) {
    let (mut jobs, mut params, mut end) = (Vec::new(), 0, 0);
    for i in 0..2 * each {
        let (form, padded) = form(i, 16 / dtype.bytes(1));
        let pack = Pack { param: 0, dtype, padded, form };
        let to = Slot { space: Space::Arena, offset: end, len: pack.elements(), dtype };
        end = (end + to.words() + 1).next_multiple_of(16);
        // One in five begins off 16 bytes.
        let offset = params + (i % 5 == 4) as usize;
        let from = Slot { space: Space::Weights, offset, len: words(form), dtype: Dtype::F32 };
        params = (offset + from.len).next_multiple_of(16);
        jobs.push(Job { pack, to, from });
    }
    let mut weights = vec![0.0; params];
    fill_normals(&mut weights, 0, 0, 0, fresh_seed());
    let mut want = vec![u32::MAX; end];
    for Job { pack, to, from } in &jobs {
        let w = &weights[from.offset..][..from.len];
        let at = |i: usize| element(pack.form, w, i / pack.padded, i % pack.padded);
        let copy = stored(dtype, (0..to.len).map(at));
        want[to.offset..][..copy.len()].copy_from_slice(&copy);
    }
    let kernels = pack::kernels(&jobs);
    assert_eq!(kernels.len(), 2 * each.div_ceil(PACK_JOBS));
    let arena = cuda.buffer_of(&vec![0xff; 4 * end]).unwrap();
    let source = cuda.buffer_of(bytemuck::cast_slice(&weights)).unwrap();
    let addresses = Addresses::new([arena.address(), source.address(), 0, 0], 0);
    cuda.launch(&kernels, &addresses).unwrap();
    let got = arena.read(0, end).unwrap();
    let got: Vec<u32> = got.iter().map(|v| v.to_bits()).collect();
    if let Some(at) = (0..end).find(|&i| got[i] != want[i]) {
        let of = jobs.iter().rfind(|job| job.to.offset <= at);
        panic!("word {at} is {:#x}, not {:#x}: {of:?}", got[at], want[at]);
    }
}

#[test]
fn copies_of_any_form_are_made_by_few_launches() {
    let cuda = cuda();
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for_each_schedule(|_| check(&cuda, dtype, 1));
        check(&cuda, dtype, PACK_JOBS);
        check(&cuda, dtype, PACK_JOBS + 14);
    }
}

#[test]
fn the_checker_has_nothing_to_say_of_copies() {
    in_check_build("kernels::packs::the_checker_has_nothing_to_say_of_copies", || {
        let cuda = cuda();
        [Dtype::F32, Dtype::Bf16].into_iter().for_each(|dtype| check(&cuda, dtype, PACK_JOBS));
    });
}
