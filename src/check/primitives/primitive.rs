//! What one kernel is given, must write, and wrote.

use super::super::Off;
use crate::device::cuda::Cuda;
use crate::device::params::WARP_THREADS;
use crate::device::{Entry, Kernel, Ptr, params};
use crate::rng::philox;
use anyhow::Result;

pub(super) const I32: i32 = -7;
pub(super) const I64: i64 = -(1 << 40) - 3;
pub(super) const F32: f32 = 0.1;
pub(super) const F64: f64 = 0.1;
pub(super) const U32: u32 = 0x8000_0005;
pub(super) const JOBS: [u32; 2] = [3, 1 << 30]; // of three

/// One kernel: what it reads, and what it must write.
pub(super) struct Primitive {
    pub(super) case: &'static str,
    pub(super) kernel: Takes,
    pub(super) grid: usize,
    pub(super) threads: usize,
    pub(super) input: Vec<u32>,
    pub(super) want: Words,
    /// Whether only GPUs of compute capability 9.0 run it.
    pub(super) hopper: bool,
}

pub(super) enum Takes {
    Words(Entry<params::Primitive>),
    /// `primitive_arguments`, which takes one of each kind.
    Each,
    /// What this makes of where the output and the input lie.
    Built(Box<dyn Fn(Ptr, Ptr) -> Kernel>),
}

pub(super) enum Words {
    Exact(Vec<u32>),
    /// Float64, as a library computes them: to [`ULPS`].
    Near(Vec<f64>),
    /// Float32, as approximated: values, and how far from each the result may be, which counts as right. Zero, infinity
    /// and NaN are exact.
    Within(Vec<(f64, f64)>),
}

/// Relative error of float64 functions: CUDA documents two units in the last place at most, and the host's have one.
const ULPS: f64 = 1e-15;

impl Primitive {
    pub(super) fn new(
        case: &'static str,
        kernel: Entry<params::Primitive>,
        input: Vec<u32>,
        want: Vec<u32>,
    ) -> Self {
        let (kernel, want) = (Takes::Words(kernel), Words::Exact(want));
        Primitive { case, kernel, grid: 1, threads: WARP_THREADS, input, want, hopper: false }
    }

    /// One that only Hopper's GPUs run, as `built` makes it of where output and input lie.
    pub(super) fn hopper(
        case: &'static str,
        threads: usize,
        built: Box<dyn Fn(Ptr, Ptr) -> Kernel>,
        input: Vec<u32>,
        want: Vec<u32>,
    ) -> Self {
        let (kernel, want) = (Takes::Built(built), Words::Exact(want));
        Primitive { case, kernel, grid: 1, threads, input, want, hopper: true }
    }

    pub(super) fn bar(&self) -> f64 {
        match self.want {
            Words::Exact(_) | Words::Within(_) => 0.0,
            Words::Near(_) => ULPS,
        }
    }

    pub(super) fn run(&self, cuda: &Cuda) -> Result<Off> {
        let input = cuda.buffer_of(bytemuck::cast_slice(&self.input))?;
        let words = match &self.want {
            Words::Exact(want) => want.len(),
            Words::Near(want) => 2 * want.len(),
            Words::Within(want) => want.len(),
        };
        let out = cuda.buffer_of(&vec![0xff; 4 * words])?;
        let (to, from) = (&out, &input);
        let kernel = match &self.kernel {
            Takes::Built(built) => built(to.into(), from.into()),
            Takes::Words(entry) => {
                Kernel::new(*entry, self.grid, params!(Primitive { out: to, input: from }))
            }
            Takes::Each => {
                let (i, f, l, d, u) = (I32, F32, I64, F64, U32);
                let jobs: Vec<_> = JOBS.map(|add| params!(PrimitiveJob { from, add })).into();
                let all = params!(PrimitiveArguments { out: to, i, l, f, d, u, input: from, jobs });
                Kernel::new(params::PRIMITIVE_ARGUMENTS, self.grid, all)
            }
        };
        cuda.run(&[kernel.threads(self.threads)])?;
        let got = out.read(0, words)?;
        Ok(self.compare(bytemuck::cast_slice(&got)))
    }

    /// How many words differ, or how far the farthest number is (where each has its own bound, in such), with the first or
    /// that one.
    pub(super) fn compare(&self, got: &[u32]) -> Off {
        let mut off = Off::default();
        match &self.want {
            Words::Exact(want) => {
                let mut differ = (0..want.len()).filter(|&i| got[i] != want[i]);
                if let Some(i) = differ.next() {
                    let at = format!("word {i} is {:#010x}, not {:#010x}", got[i], want[i]);
                    off.take((1 + differ.count()) as f64, &at);
                }
            }
            Words::Near(want) => {
                let got: Vec<f64> = bytemuck::pod_collect_to_vec(got);
                for (i, (g, w)) in got.iter().zip(want).enumerate() {
                    off.take(((g - w) / w).abs(), &format!("value {i} is {g:e}, not {w:e}"));
                }
            }
            Words::Within(want) => {
                for (i, (&g, &(w, far))) in got.iter().zip(want).enumerate() {
                    let g = f32::from_bits(g) as f64;
                    let same = g.to_bits() == w.to_bits() || g.is_nan() && w.is_nan();
                    let by = match w == 0.0 || !w.is_finite() {
                        true if same => 0.0,
                        true => f64::INFINITY,
                        false if (g - w).abs() <= far => 0.0,
                        false => (g - w).abs() / far,
                    };
                    off.take(by, &format!("value {i} is {g:e}, not {w:e}"));
                }
            }
        }
        off
    }
}

/// Numbers that look random, 0..n.
pub(super) fn numbers(count: usize, n: u32, salt: u32) -> Vec<u32> {
    (0..count as u32).map(|i| philox([i, salt, 0, 0], 1)[0] % n).collect()
}
