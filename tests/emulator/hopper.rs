//! Hopper's own instructions: a product of matrices that is right under every schedule and has nothing to fear from the
//! checker, bugs planted in it, and what the driver refuses of tensor maps.

use super::{
    Gpu, LIBRARY, SCHEDULES, Schedule, alone, config, gpu, in_check_build, is_check_build,
    last_error, must_pass, on_hopper, recover, run_child, set_schedule,
};
use crate::kernels::gpu_device;
use cudarc::driver::sys::{
    self, CUfunction_attribute, CUresult, CUtensorMap, CUtensorMapDataType,
    CUtensorMapFloatOOBfill, CUtensorMapInterleave, CUtensorMapL2promotion, CUtensorMapSwizzle,
};
use cudarc::driver::{DevicePtr, DeviceRepr, DriverError, LaunchConfig, PushKernelArg};
use emm::device::cuda::Repeated;
use emm::device::params::{PRIMITIVE_TMA_LOAD, PRIMITIVE_TMA_STORE, PrimitiveCopy};
use emm::device::{Int, Kernel, Map, Ptr};
use half::bf16;
use std::path::Path;

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Encoded(CUtensorMap);
// SAFETY: the driver's own plain data, as a kernel takes it.
unsafe impl DeviceRepr for Encoded {}

/// What is given to cuTensorMapEncodeTiled, of bf16.
#[derive(Clone)]
struct Tiled {
    at: u64,
    dims: Vec<u64>,
    /// Bytes.
    strides: Vec<u64>,
    size: Vec<u32>,
    steps: Vec<u32>,
    swizzle: CUtensorMapSwizzle,
}

impl Tiled {
    fn new(at: u64, dims: &[u64], size: &[u32]) -> Self {
        let strides = (1..dims.len()).map(|i| 2 * dims[..i].iter().product::<u64>()).collect();
        let swizzle = CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B;
        let (dims, size, steps) = (dims.to_vec(), size.to_vec(), vec![1; dims.len()]);
        Tiled { at, dims, strides, size, steps, swizzle }
    }

    fn encode(&self) -> Result<Encoded, DriverError> {
        let mut map = Encoded(CUtensorMap { opaque: [0; 16] });
        // SAFETY: the arrays are as long as the rank says, the strides one less.
        let told = unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map.0,
                CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                self.dims.len() as u32,
                self.at as *mut _,
                self.dims.as_ptr(),
                self.strides.as_ptr(),
                self.size.as_ptr(),
                self.steps.as_ptr(),
                CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                self.swizzle,
                CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_NONE,
                CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        if told == CUresult::CUDA_SUCCESS { Ok(map) } else { Err(DriverError(told)) }
    }
}

/// The kernels: operands in rows of depths, in rows of lines, in rows of depths and added to what the result holds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Deep,
    Side,
    Add,
}
use Way::{Add, Deep, Side};

const WAYS: [Way; 3] = [Deep, Side, Add];

/// c[m][n] = Σ_k a[m][k] b[n][k] of small whole numbers, rounded once.
struct Product {
    m: usize,
    n: usize,
    k: usize,
    a: Vec<i32>,
    b: Vec<i32>,
}

impl Product {
    fn new(m: usize, n: usize, k: usize) -> Self {
        let a = (0..m * k).map(|i| (i * 7919 % 17) as i32 - 8).collect();
        let b = (0..n * k).map(|i| (i * 104_729 % 13) as i32 - 6).collect();
        Product { m, n, k, a, b }
    }

    /// What the result holds before.
    fn old(&self) -> Vec<u16> {
        (0..self.m * self.n).map(|i| bf16::from_f32((i * 31 % 64) as f32).to_bits()).collect()
    }

    fn want(&self, way: Way) -> Vec<u16> {
        let old = self.old();
        let before = |i: usize| if way == Add { bf16::from_bits(old[i]).to_f32() } else { 0.0 };
        let sum = |i: usize| -> i32 {
            let (a, b) = (&self.a[i / self.n * self.k..], &self.b[i % self.n * self.k..]);
            (0..self.k).map(|k| a[k] * b[k]).sum()
        };
        let rounded = |i: usize| bf16::from_f32(sum(i) as f32 + before(i)).to_bits();
        (0..self.m * self.n).map(rounded).collect()
    }

    /// A matrix in rows of depths, or of lines.
    fn laid(&self, values: &[i32], side: bool) -> Vec<u16> {
        let (k, lines) = (self.k, values.len() / self.k);
        let value = |i: usize| if side { values[i % lines * k + i / lines] } else { values[i] };
        (0..values.len()).map(|i| bf16::from_f32(value(i) as f32).to_bits()).collect()
    }

    /// Whether a kernel with a bug gives the product.
    fn run(&self, gpu: &Gpu, way: Way, bug: i32) -> Result<bool, DriverError> {
        let (m, n, k) = (self.m as u64, self.n as u64, self.k as u64);
        let s = &gpu.stream;
        let a = gpu.upload(&self.laid(&self.a, way == Side))?;
        let b = gpu.upload(&self.laid(&self.b, way == Side))?;
        let c = gpu.upload(&self.old())?;
        let operand = |at: u64, lines: u64| match way {
            Deep | Add => Tiled::new(at, &[k, lines, 1], &[64, 128, 1]),
            Side => Tiled::new(at, &[lines, k, 1], &[64, 64, 1]),
        };
        let rows = if bug == 87 { m.next_multiple_of(128) } else { m };
        let of_a = operand(a.device_ptr(s).0, m).encode()?;
        let of_b = operand(b.device_ptr(s).0, n).encode()?;
        let of_c = Tiled::new(c.device_ptr(s).0, &[n, rows, 1, 1], &[64, 64, 1, 1]).encode()?;
        let f = gpu.kernel(match way {
            Deep => "emu_gemm",
            Side => "emu_gemm_side",
            Add => "emu_gemm_add",
        });
        let shared = 3 * 32_768 + 32_768 + 1024;
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        f.set_attribute(attribute, shared as i32)?;
        let [rows, columns] = [m, n].map(|lines| lines.div_ceil(128) as i32);
        let steps = (k / 64) as i32;
        let mut launch = s.launch_builder(&f);
        launch.arg(&of_a).arg(&of_b).arg(&of_c).arg(&rows).arg(&columns).arg(&steps).arg(&bug);
        let grid = LaunchConfig { shared_mem_bytes: shared, ..config(2, (384, 1)) };
        // SAFETY: the arguments are the kernel's.
        unsafe { launch.launch(grid) }?;
        Ok(gpu.read(&c)? == self.want(way))
    }
}

/// A bug: its number, its name, the kernels that have it, and a word of the check build's report under the first schedule;
/// none where the result is wrong.
struct Bug(i32, &'static str, &'static [Way], &'static str);

const BOTH: &[Way] = &[Deep, Side];
const BUGS: [Bug; 29] = [
    Bug(80, "the consumer's parity is wrong", BOTH, "more threads arrive than were announced"),
    Bug(81, "half the bytes are expected", BOTH, "too few were expected"),
    Bug(82, "more bytes are expected than come", BOTH, "and 16 bytes"),
    Bug(83, "a stage is released before its product was waited for", BOTH, "in flight reads"),
    Bug(84, "no fence_async before tma_store", BOTH, "no fence_async between a write"),
    Bug(85, "a descriptor's stride is wrong", &[Deep], ""),
    Bug(86, "a descriptor's lead is wrong", &[Side], ""),
    Bug(87, "the map of the result is larger than the tensor", BOTH, "not within one allocation"),
    Bug(88, "the producer waits for no stage", BOTH, "more threads arrive than were announced"),
    Bug(89, "sums are read before wgmma_wait", BOTH, "access of accumulators in flight"),
    Bug(90, "no wgmma_fence", BOTH, "no wgmma_fence before"),
    Bug(91, "no bulk_wait_read before the staging is written again", BOTH, "in flight reads"),
    Bug(92, "one warp issues no wgmma", BOTH, "did not issue the wgmma of its warpgroup"),
    Bug(93, "a named barrier of too few threads", BOTH, "is waited at by"),
    Bug(94, "no mbar_fence_init", BOTH, "no mbar_fence_init"),
    Bug(95, "the consumer does not wait for the copies", BOTH, "of a tensor copy in flight"),
    Bug(96, "stages are not on 1,024 bytes", BOTH, "is not on 1024 bytes"),
    Bug(97, "two lanes of a warp release a stage", BOTH, "more threads arrive than were announced"),
    Bug(98, "more registers than the block has", BOTH, "240 registers a thread"),
    Bug(99, "two counts at one named barrier", BOTH, "is waited at by 256 threads"),
    Bug(100, "no barrier between the staging's writes and its copy", BOTH, "race"),
    Bug(101, "no barrier between bulk_wait_read and the staging's writes", BOTH, "race"),
    Bug(102, "no bulk_commit", BOTH, "without committing its tma_store"),
    Bug(103, "a barrier that nobody made", BOTH, "no barrier was made"),
    Bug(104, "a barrier that is written over", BOTH, "something was written over the barrier"),
    Bug(105, "no __syncthreads behind the making of barriers", BOTH, "nothing orders it after"),
    Bug(106, "a stage is read by threads after its release", BOTH, "race, tensor copy after read"),
    Bug(107, "a copy comes into the staging before bulk_wait_read", &[Add], "in flight reads"),
    Bug(108, "the copy into the staging is not waited for", &[Add], "against a tensor copy"),
];

/// What only the check build sees.
const CHECKER_ONLY: [i32; 2] = [84, 106];

/// `Ok` whether the result is right, or why the launch failed.
fn outcome(
    gpu: &Gpu,
    product: &Product,
    way: Way,
    bug: i32,
    schedule: Schedule,
) -> Result<bool, String> {
    set_schedule(schedule);
    product.run(gpu, way, bug).map_err(|_| {
        let why = last_error();
        recover(gpu);
        why
    })
}

/// Tiles beyond the rows' end, more of them than blocks, more steps than stages.
fn small() -> Product {
    Product::new(200, 256, 320)
}

#[test]
fn right_products_pass_every_schedule() {
    on_hopper("emulator::hopper::right_products_pass_every_schedule", || {
        let (gpu, product) = (gpu(), small());
        for way in WAYS {
            for schedule in SCHEDULES {
                let told = outcome(&gpu, &product, way, 0, schedule);
                assert_eq!(told, Ok(true), "{way:?} {schedule:?}");
            }
        }
    });
}

#[test]
fn right_products_pass_the_checker_under_every_schedule() {
    let name = "emulator::hopper::right_products_pass_the_checker_under_every_schedule";
    on_hopper(name, || in_check_build(name, right_products_pass_every_schedule));
}

#[test]
fn schedules_catch_planted_bugs() {
    on_hopper("emulator::hopper::schedules_catch_planted_bugs", || {
        let (gpu, product) = (gpu(), small());
        for Bug(bug, name, ways, _) in BUGS {
            for &way in ways {
                let outcomes =
                    SCHEDULES.map(|schedule| outcome(&gpu, &product, way, bug, schedule));
                let caught = outcomes.iter().any(|o| *o != Ok(true));
                assert!(caught != CHECKER_ONLY.contains(&bug), "{bug} {name}: {outcomes:?}");
            }
        }
    });
}

#[test]
fn the_checker_catches_planted_bugs_in_one_run() {
    let name = "emulator::hopper::the_checker_catches_planted_bugs_in_one_run";
    let catch = || {
        let (gpu, product) = (gpu(), small());
        for Bug(bug, name, ways, word) in BUGS {
            for &way in ways {
                match outcome(&gpu, &product, way, bug, SCHEDULES[0]) {
                    Ok(right) => assert!(!right && word.is_empty(), "{bug} {name}: {right}"),
                    Err(why) => {
                        assert!(!word.is_empty() && why.contains(word), "{bug} {name}: {why}");
                        assert!(why.contains("hopper.cu:"), "{why}");
                    }
                }
            }
        }
    };
    on_hopper(name, || in_check_build(name, catch));
}

/// The kernels of a GPU that is none of Hopper's do not run, and it takes no tensor map.
#[test]
fn other_gpus_have_no_such_instructions() {
    let test = "emulator::hopper::other_gpus_have_no_such_instructions";
    alone(test, || {
        let gpu = gpu();
        assert!(!gpu_device().cuda().unwrap().limits().hopper);
        let map = Tiled::new(1 << 20, &[64, 64, 1], &[64, 64, 1]).encode();
        assert_eq!(map.err().unwrap().0, CUresult::CUDA_ERROR_INVALID_VALUE);
        assert!(last_error().contains("compute capability 9.0"), "{}", last_error());
        let f = gpu.kernel("primitive_mbarrier");
        let out = gpu.stream.alloc_zeros::<u64>(8).unwrap();
        let addresses = [out.device_ptr(&gpu.stream).0; 2];
        let mut launch = gpu.stream.launch_builder(&f);
        launch.arg(&addresses);
        // SAFETY: the argument is laid out as the kernel's.
        unsafe { launch.launch(config(1, (64, 1))) }.unwrap();
        assert!(gpu.stream.synchronize().is_err());
        assert!(last_error().contains("capability is below 9.0"), "{}", last_error());
    });
}

#[test]
fn tensor_maps_that_a_driver_refuses_are_refused() {
    on_hopper("emulator::hopper::tensor_maps_that_a_driver_refuses_are_refused", || {
        let gpu = gpu();
        assert_eq!(gpu.context.compute_capability().unwrap(), (9, 0));
        assert!(gpu_device().cuda().unwrap().limits().hopper);
        let right = Tiled::new(1 << 20, &[72, 9, 40], &[64, 3, 16]);
        right.encode().unwrap();
        type Change = fn(&mut Tiled);
        let ways: [(&str, Change); 14] = [
            ("address", |t| t.at += 8),
            ("6 dimensions", |t| *t = Tiled::new(t.at, &[64; 6], &[8; 6])),
            ("size 0 of dimension 2", |t| t.dims[2] = 0),
            ("size 4294967297", |t| t.dims[2] = (1 << 32) + 1),
            ("not a multiple of 16", |t| t.strides[0] += 8),
            ("below 2^40", |t| t.strides[1] = 1 << 40),
            ("does not cover the 144 bytes", |t| t.strides[0] = 128),
            ("does not cover the 1296 bytes", |t| t.strides[1] = 1280),
            ("box 0 of dimension 1", |t| t.size[1] = 0),
            ("box 257 of dimension 2", |t| t.size[2] = 257),
            ("longer than the swizzle's", |t| t.size[0] = 72),
            ("rows of 120 bytes", |t| t.size[0] = 60),
            ("element stride 0", |t| t.steps[1] = 0),
            ("element stride 9", |t| t.steps[1] = 9),
        ];
        for (word, change) in ways {
            let mut wrong = right.clone();
            change(&mut wrong);
            assert_eq!(wrong.encode().err().unwrap().0, CUresult::CUDA_ERROR_INVALID_VALUE);
            assert!(last_error().contains(word), "{word}: {}", last_error());
        }
    });
}

/// A kernel that copies the box at (0, 0, image) of a tensor of `channels` x 8 x 2.
fn load(out: Ptr, tensor: Ptr, channels: usize, image: i64) -> Kernel {
    let map = Map::new(tensor, [channels, 8, 2], [64, 8, 1]);
    let [rank, c, image, bytes] = [3, 0, image, 1024].map(Int::Of);
    let given =
        PrimitiveCopy { map, out, input: Ptr::Null, rank, c0: c, c1: c, c2: image, c3: c, bytes };
    Kernel::new(PRIMITIVE_TMA_LOAD, 1, given).shared(2048)
}

/// The engine fills maps with addresses, launch by launch and in a graph; what the driver refuses is told by kernel and
/// field.
#[test]
fn maps_are_filled_when_addresses_are_known() {
    on_hopper("emulator::hopper::maps_are_filled_when_addresses_are_known", || {
        let device = gpu_device();
        let cuda = device.cuda().unwrap();
        let words: Vec<u32> = (0..512).collect();
        let tensor = cuda.buffer_of(bytemuck::cast_slice(&words)).unwrap();
        let mut out = cuda.buffer(256).unwrap();
        // Row r of 8 pieces of 16 bytes, piece p at p ^ r.
        let want: Vec<u32> =
            (0..256).map(|i| i / 32 * 32 + ((i % 32 / 4) ^ (i / 32 % 8)) * 4 + i % 4).collect();
        let kernels = [load((&out).into(), (&tensor).into(), 64, 0)];
        let mut repeated = Repeated::default();
        for _ in 0..3 {
            out.clear().unwrap();
            repeated.run(cuda, || cuda.run(&kernels)).unwrap();
            let got: Vec<u32> = bytemuck::cast_vec(out.read(0, 256).unwrap());
            assert_eq!(got, want);
        }
        let refused = cuda.run(&[load((&out).into(), (&tensor).into(), 60, 0)]).unwrap_err();
        let told = format!("{refused:#}");
        for word in ["primitive_tma_load: PrimitiveCopy.map: ", "[60, 8, 2]", "multiple of 16"] {
            assert!(told.contains(word), "{told}");
        }
    });
}

/// A box of which nothing lies in the tensor is zeros, which only the checker minds: no word of documentation says so.
#[test]
fn boxes_wholly_outside_of_their_tensor_are_told() {
    let name = "emulator::hopper::boxes_wholly_outside_of_their_tensor_are_told";
    let outside = |image: i64| {
        let device = gpu_device();
        let cuda = device.cuda().unwrap();
        let tensor = cuda.buffer_of(&[1; 2048]).unwrap();
        let out = cuda.buffer(256).unwrap();
        cuda.run(&[load((&out).into(), (&tensor).into(), 64, image)]).unwrap();
        out.read(0, 256).map(|got| got.iter().all(|&v| v == 0.0))
    };
    on_hopper(name, || {
        if is_check_build() {
            assert!(outside(2).is_err());
            let told = last_error();
            return assert!(told.contains("tma_load of a box wholly outside"), "{told}");
        }
        assert!(outside(-1).unwrap() && outside(2).unwrap() && !outside(1).unwrap());
        let library = Path::new(env!("EMM_EMULATOR_CHECK_DIR")).join("libcuda.so");
        must_pass(&run_child(name, LIBRARY, library));
    });
}

/// What has no place before the tensor's beginning is not stored.
#[test]
fn stores_before_the_beginning_are_refused() {
    on_hopper("emulator::hopper::stores_before_the_beginning_are_refused", || {
        let device = gpu_device();
        let cuda = device.cuda().unwrap();
        let (input, tensor) = (cuda.buffer_of(&[1; 1024]).unwrap(), cuda.buffer(1024).unwrap());
        let map = Map::new(&tensor, [64, 8, 2, 2], [64, 8, 1, 1]);
        let [rank, c, before, bytes] = [4, 0, -1, 1024].map(Int::Of);
        let (out, input) = (Ptr::Null, (&input).into());
        let given = PrimitiveCopy { map, out, input, rank, c0: c, c1: before, c2: c, c3: c, bytes };
        cuda.run(&[Kernel::new(PRIMITIVE_TMA_STORE, 1, given).shared(2048)]).unwrap();
        assert!(cuda.wait().is_err());
        assert!(last_error().contains("tma_store: coordinate 1 is -1"), "{}", last_error());
    });
}
