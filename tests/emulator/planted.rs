//! Bugs planted in small kernels: each is caught by at least one schedule (by a wrong result or an error) or by the
//! checker, and the right kernels pass all of them.

use super::{
    Gpu, SCHEDULES, Schedule, alone, config, gpu, in_check_build, last_error, passes_patched,
    recover, set_schedule,
};
use cudarc::driver::{DriverError, LaunchConfig, PushKernelArg};

/// What became of a run.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    Right,
    Wrong,
    /// The launch failed, with this message.
    Error(String),
}

struct Kernel {
    name: &'static str,
    run: fn(&Gpu, i32) -> Result<bool, DriverError>,
}

/// A kernel, the number and the name of its bug, and a word of the checker's (or the runtime's) report.
struct Bug(&'static Kernel, i32, &'static str, &'static str);

const BUGS: [Bug; 36] = [
    Bug(&NORMALIZE, 1, "no barrier after the partial sums", "race"),
    Bug(&NORMALIZE, 2, "two barriers in two branches", "divergent __syncthreads"),
    Bug(&NORMALIZE, 3, "no barrier before the total is read", "race"),
    Bug(&NORMALIZE, 4, "the total is overwritten while others read it", "race"),
    Bug(&NORMALIZE, 5, "one shared element too many is read", "outside a shared array"),
    Bug(&NORMALIZE, 6, "one write behind the output", "outside an allocation"),
    Bug(&NORMALIZE, 7, "one output is never written", ""),
    Bug(
        &PIPELINE,
        10,
        "the wait is too weak, and nothing drains",
        "without waiting for its cp.async",
    ),
    Bug(&PIPELINE, 11, "the wait is too weak, drained at the end", "in flight"),
    Bug(&PIPELINE, 12, "no wait before a thread reads its own copy", "in flight"),
    Bug(&PIPELINE, 13, "no barrier after the wait", "race"),
    Bug(&PIPELINE, 14, "the copy goes into the stage in use", "in flight"),
    Bug(&PIPELINE, 15, "no barrier before the stage is used again", "race"),
    Bug(&PRODUCT, 20, "no barrier after the tile was used", "race"),
    Bug(&PRODUCT, 21, "one row of the tile is never written", "nobody wrote"),
    Bug(&PRODUCT, 22, "one row is written behind the tile", "outside a shared array"),
    Bug(&COUNT, 30, "blocks add without an atomic", "race between blocks"),
    Bug(&LAST_BLOCK, 31, "no fence before the ticket is taken", "race between blocks"),
    Bug(&REVERSE, 40, "no __syncwarp before the other lanes' values are read", "race"),
    Bug(&REVERSE, 41, "no __syncwarp before the row is used again", "race"),
    Bug(&DIVERGE, 50, "half a warp in a shuffle, half at the barrier", "deadlock"),
    Bug(&DIVERGE, 51, "lanes exit before a shuffle that names them", "exit"),
    Bug(&DIVERGE, 52, "two shuffles in two branches", "divergent warp"),
    Bug(&DIVERGE, 53, "lanes call a shuffle that leaves them out", "not in the mask"),
    Bug(&DIVERGE, 54, "a shuffle from a lane outside the mask", "not in mask"),
    Bug(&DIVERGE, 55, "one lane at the barrier, its warp in a shuffle", "deadlock"),
    Bug(&ROWS, 60, "no __syncwarp before ldmatrix", "race"),
    Bug(&ROWS, 61, "a row of ldmatrix is not aligned", "not on 16 bytes"),
    Bug(&ROWS, 62, "a row of ldmatrix lies outside the array", "not in shared memory"),
    Bug(&QUADS, 70, "float4s are loaded from an odd float on", "misaligned"),
    Bug(&QUADS, 71, "float4s are stored from an odd float on", "misaligned"),
    Bug(&QUADS, 72, "a float4 of shared memory stands at an odd float", "misaligned"),
    Bug(&SCALE, 1, "the output is what a const __restrict__ argument reads", "const __restrict__"),
    Bug(
        &SCALE,
        2,
        "the output begins within what a const __restrict__ argument reads",
        "const __restrict__",
    ),
    Bug(&PARTIAL_GRID, 1, "one block too few", ""),
    Bug(&PARTIAL_GRID, 2, "a length too long", "outside an allocation"),
];

const KERNELS: [&Kernel; 11] = [
    &NORMALIZE,
    &PIPELINE,
    &PRODUCT,
    &COUNT,
    &LAST_BLOCK,
    &REVERSE,
    &DIVERGE,
    &ROWS,
    &QUADS,
    &SCALE,
    &PARTIAL_GRID,
];

static NORMALIZE: Kernel = Kernel {
    name: "emu_normalize",
    run: |gpu, bug| {
        let x: Vec<f32> = (0..256).map(|i| (i * 37 % 256) as f32).collect();
        let most = x.iter().map(|v| (v - 127.5).abs()).fold(0.0, f32::max);
        let want: Vec<f32> = x.iter().map(|v| (v - 127.5) / most).collect();
        let s = &gpu.stream;
        let x = gpu.upload(&x)?;
        // SAFETY: the kernel writes it.
        let mut y = unsafe { s.alloc::<f32>(256) }?;
        let f = gpu.kernel("emu_normalize");
        // SAFETY: the arguments are the kernel's.
        unsafe { s.launch_builder(&f).arg(&mut y).arg(&x).arg(&bug).launch(config(1, (256, 1))) }?;
        Ok(gpu.read(&y)? == want)
    },
};

static PIPELINE: Kernel = Kernel {
    name: "emu_pipeline",
    run: |gpu, bug| {
        let steps = 5i32;
        let input: Vec<f32> = (0..steps * 256).map(|i| (i * 31 % 101) as f32).collect();
        let want: Vec<f32> = (0..64usize)
            .map(|t| {
                let own = |step: usize| &input[(step * 64 + 63 - t) * 4..][..4];
                (0..steps as usize).flat_map(own).sum()
            })
            .collect();
        let s = &gpu.stream;
        let input = gpu.upload(&input)?;
        // SAFETY: the kernel writes it.
        let mut out = unsafe { s.alloc::<f32>(64) }?;
        let f = gpu.kernel("emu_pipeline");
        let mut launch = s.launch_builder(&f);
        launch.arg(&mut out).arg(&input).arg(&steps).arg(&bug);
        // SAFETY: the arguments are the kernel's.
        unsafe { launch.launch(config(1, (64, 1))) }?;
        Ok(gpu.read(&out)? == want)
    },
};

static PRODUCT: Kernel = Kernel {
    name: "emu_product",
    run: |gpu, bug| {
        let k = 48usize;
        let a: Vec<f32> = (0..16 * k).map(|i| (i * 13 % 9) as f32).collect();
        let b: Vec<f32> = (0..16 * k).map(|i| (i * 17 % 11) as f32).collect();
        let want: Vec<f32> = (0..256)
            .map(|i| (0..k).map(|x| a[i / 16 * k + x] * b[x * 16 + i % 16]).sum())
            .collect();
        let s = &gpu.stream;
        let (a, b) = (gpu.upload(&a)?, gpu.upload(&b)?);
        // SAFETY: the kernel writes it.
        let mut c = unsafe { s.alloc::<f32>(256) }?;
        let (f, k) = (gpu.kernel("emu_product"), k as i32);
        let mut launch = s.launch_builder(&f);
        launch.arg(&mut c).arg(&a).arg(&b).arg(&k).arg(&bug);
        // SAFETY: the arguments are the kernel's.
        unsafe { launch.launch(config(1, (16, 16))) }?;
        Ok(gpu.read(&c)? == want)
    },
};

static COUNT: Kernel = Kernel {
    name: "emu_count",
    run: |gpu, bug| {
        let x: Vec<i32> = (0..40).map(|i| i * i).collect();
        let mut want = vec![0i32; 8];
        x.iter().for_each(|v| want[*v as usize % 8] += 1);
        let s = &gpu.stream;
        let x = gpu.upload(&x)?;
        let mut counts = s.alloc_zeros::<i32>(8)?;
        let f = gpu.kernel("emu_count");
        let mut launch = s.launch_builder(&f);
        launch.arg(&mut counts).arg(&x).arg(&bug);
        // SAFETY: the arguments are the kernel's.
        unsafe { launch.launch(config(40, (32, 1))) }?;
        Ok(gpu.read(&counts)? == want)
    },
};

static LAST_BLOCK: Kernel = Kernel {
    name: "emu_last_block",
    run: |gpu, bug| {
        let want: Vec<f32> = (0..32).map(|t| (0..6).map(|b| (b + t) as f32).sum()).collect();
        let s = &gpu.stream;
        let mut total = s.alloc_zeros::<f32>(32)?;
        // SAFETY: the kernel writes it before it reads it.
        let mut partial = unsafe { s.alloc::<f32>(6 * 32) }?;
        let mut ticket = s.alloc_zeros::<i32>(1)?;
        let f = gpu.kernel("emu_last_block");
        let mut launch = s.launch_builder(&f);
        launch.arg(&mut total).arg(&mut partial).arg(&mut ticket).arg(&bug);
        // SAFETY: the arguments are the kernel's.
        unsafe { launch.launch(config(6, (32, 1))) }?;
        Ok(gpu.read(&total)? == want)
    },
};

/// Runs a kernel of `out, bug` in one block and compares.
fn with_output(
    gpu: &Gpu,
    name: &str,
    bug: i32,
    threads: u32,
    want: &[i32],
) -> Result<bool, DriverError> {
    let s = &gpu.stream;
    let mut out = s.alloc_zeros::<i32>(want.len())?;
    let f = gpu.kernel(name);
    // SAFETY: the arguments are the kernel's.
    unsafe { s.launch_builder(&f).arg(&mut out).arg(&bug).launch(config(1, (threads, 1))) }?;
    Ok(gpu.read(&out)? == want)
}

static REVERSE: Kernel = Kernel {
    name: "emu_reverse",
    run: |gpu, bug| {
        let value = |t: i32| ((t / 32 * 32 + 31 - t % 32 + 3) as f32).to_bits() as i32;
        with_output(gpu, "emu_reverse", bug, 64, &(0..64).map(value).collect::<Vec<i32>>())
    },
};

static DIVERGE: Kernel = Kernel {
    name: "emu_diverge",
    run: |gpu, bug| {
        let want: Vec<i32> = (0..64).map(|t| (t % 32) ^ 1).collect();
        with_output(gpu, "emu_diverge", bug, 64, &want)
    },
};

static ROWS: Kernel = Kernel {
    name: "emu_rows",
    run: |gpu, bug| {
        let rows: Vec<u16> = (0..256).collect();
        // Register m of lane l holds elements 2 (l % 4) and the next of matrix m's row l / 4, which is row 8 (m + 1) + l / 4.
        let want: Vec<u32> = (0..128u32)
            .map(|i| {
                let first = ((i / 32 + 1) % 4 * 8 + i % 32 / 4) * 8 + i % 4 * 2;
                first | (first + 1) << 16
            })
            .collect();
        let s = &gpu.stream;
        let input = gpu.upload(&rows)?;
        let mut out = s.alloc_zeros::<u32>(128)?;
        let f = gpu.kernel("emu_rows");
        let mut launch = s.launch_builder(&f);
        launch.arg(&mut out).arg(&input).arg(&bug);
        // SAFETY: the arguments are the kernel's.
        unsafe { launch.launch(config(1, (32, 1))) }?;
        Ok(gpu.read(&out)? == want)
    },
};

/// The host's mistakes: floats that begin where no float4 may. The result is right all the same.
static QUADS: Kernel = Kernel {
    name: "emu_quads",
    run: |gpu, bug| {
        let s = &gpu.stream;
        let (skipped_in, skipped_out) = ((bug == 70) as usize, (bug == 71) as usize);
        let data: Vec<f32> = (0..132).map(|i| i as f32).collect();
        let want: Vec<f32> = data[skipped_in..][..128].iter().map(|v| v + 1.0).collect();
        let (x, mut y) = (gpu.upload(&data)?, s.alloc_zeros::<f32>(132)?);
        let f = gpu.kernel("emu_quads");
        let (x, mut to) = (x.slice(skipped_in..), y.slice_mut(skipped_out..));
        // SAFETY: the arguments are the kernel's.
        unsafe { s.launch_builder(&f).arg(&mut to).arg(&x).arg(&bug).launch(config(1, (32, 1))) }?;
        Ok(gpu.read(&y)?[skipped_out..][..128] == want)
    },
};

/// The host's mistakes: one buffer for what is read and what is written.
static SCALE: Kernel = Kernel {
    name: "emu_scale",
    run: |gpu, bug| {
        let s = &gpu.stream;
        let x = gpu.upload(&(0..192).map(|i| i as f32).collect::<Vec<f32>>())?;
        let apart = s.alloc_zeros::<f32>(192)?;
        let from = x.leak();
        let to = match bug {
            1 => from,
            2 => from + 4 * 63,
            _ => apart.leak(),
        };
        let f = gpu.kernel("emu_scale");
        // SAFETY: the arguments are the kernel's; that they overlap is the point.
        unsafe { s.launch_builder(&f).arg(&to).arg(&from).arg(&64i32).launch(config(1, (64, 1))) }?;
        // SAFETY: the pointer is that of a leaked slice, or of a part of one.
        let y = unsafe { s.upgrade_device_ptr::<f32>(to, 64) };
        let got = gpu.read(&y)?;
        let _ = y.leak();
        Ok(got == (0..64).map(|i| 2.0 * i as f32).collect::<Vec<f32>>())
    },
};

/// The host's mistakes: a grid too small, a length too long.
static PARTIAL_GRID: Kernel = Kernel {
    name: "emu_fill",
    run: |gpu, bug| {
        let s = &gpu.stream;
        // SAFETY: the kernel writes it.
        let mut out = unsafe { s.alloc::<f32>(100) }?;
        let n = if bug == 2 { 101i32 } else { 100 };
        let f = gpu.kernel("emu_fill");
        let grid =
            LaunchConfig { grid_dim: (if bug == 1 { 3 } else { 4 }, 1, 1), ..config(1, (32, 1)) };
        // SAFETY: the arguments are the kernel's; the length is wrong on purpose.
        unsafe { s.launch_builder(&f).arg(&mut out).arg(&2.5f32).arg(&n).launch(grid) }?;
        Ok(gpu.read(&out)? == vec![2.5; 100])
    },
};

fn outcome(gpu: &Gpu, kernel: &Kernel, bug: i32, schedule: Schedule) -> Outcome {
    set_schedule(schedule);
    match (kernel.run)(gpu, bug) {
        Ok(true) => Outcome::Right,
        Ok(false) => Outcome::Wrong,
        Err(_) => {
            let why = last_error();
            recover(gpu);
            Outcome::Error(why)
        }
    }
}

/// Bugs that no wrong result or runtime error gives away: only the checker sees them.
const CHECKER_ONLY: [(&str, i32); 6] = [
    ("emu_normalize", 5),
    ("emu_count", 30),
    ("emu_last_block", 31),
    ("emu_rows", 60),
    ("emu_scale", 1),
    ("emu_fill", 2),
];

#[test]
fn right_kernels_pass_every_schedule() {
    let gpu = gpu();
    for kernel in KERNELS {
        for schedule in SCHEDULES {
            assert_eq!(outcome(&gpu, kernel, 0, schedule), Outcome::Right, "{}", kernel.name);
        }
    }
}

#[test]
fn right_kernels_pass_the_checker_under_every_schedule() {
    in_check_build(
        "emulator::planted::right_kernels_pass_the_checker_under_every_schedule",
        right_kernels_pass_every_schedule,
    );
}

#[test]
fn schedules_catch_planted_bugs() {
    alone("emulator::planted::schedules_catch_planted_bugs", schedules_catch);
}

fn schedules_catch() {
    let gpu = gpu();
    for Bug(kernel, bug, name, _) in BUGS {
        let outcomes = SCHEDULES.map(|schedule| outcome(&gpu, kernel, bug, schedule));
        let marks = outcomes.iter().map(|o| match o {
            Outcome::Right => "-",
            Outcome::Wrong => "result",
            Outcome::Error(_) => "error",
        });
        println!("{:14} {bug:2} {name}: {}", kernel.name, marks.collect::<Vec<_>>().join(" "));
        if !CHECKER_ONLY.contains(&(kernel.name, bug)) {
            assert!(outcomes.iter().any(|o| *o != Outcome::Right), "{}: {name}", kernel.name);
        }
    }
}

#[test]
fn the_checker_catches_planted_bugs_in_one_run() {
    in_check_build("emulator::planted::the_checker_catches_planted_bugs_in_one_run", || {
        let gpu = gpu();
        for Bug(kernel, bug, name, word) in BUGS {
            let got = outcome(&gpu, kernel, bug, SCHEDULES[0]);
            println!("{:14} {bug:2} {name}: {got:?}", kernel.name);
            match got {
                Outcome::Right => panic!("{}: {name}: not caught", kernel.name),
                Outcome::Wrong => assert!(word.is_empty(), "{}: {name}", kernel.name),
                Outcome::Error(message) => {
                    assert!(!word.is_empty() && message.contains(word), "{name}: {message}");
                    assert!(message.starts_with(kernel.name), "{message}");
                }
            }
        }
    });
}

/// A report names where both sides stand.
#[test]
fn reports_name_both_places() {
    alone("emulator::planted::reports_name_both_places", || {
        let gpu = gpu();
        let places = |message: &str| message.matches("planted.cu:").count();
        for (kernel, bug) in [(&NORMALIZE, 2), (&DIVERGE, 50), (&DIVERGE, 52)] {
            match outcome(&gpu, kernel, bug, SCHEDULES[0]) {
                Outcome::Error(message) => assert_eq!(places(&message), 2, "{message}"),
                other => panic!("{} {bug}: {other:?}", kernel.name),
            }
        }
    });
}

#[test]
fn the_checker_names_both_places_of_a_race() {
    in_check_build("emulator::planted::the_checker_names_both_places_of_a_race", || {
        let gpu = gpu();
        for (kernel, bug) in [(&NORMALIZE, 1), (&PRODUCT, 20), (&COUNT, 30), (&PIPELINE, 15)] {
            match outcome(&gpu, kernel, bug, SCHEDULES[0]) {
                Outcome::Error(message) => {
                    let race = message.lines().find(|line| line.contains("race")).unwrap();
                    assert_eq!(race.matches("planted.cu:").count(), 2, "{message}");
                }
                other => panic!("{} {bug}: {other:?}", kernel.name),
            }
        }
    });
}

#[test]
fn a_bug_put_into_a_kernel_file_turns_its_test_red() {
    let passes = |find, replace| {
        let test = "emulator::planted::right_kernels_pass_every_schedule";
        passes_patched(test, "kernels/emulator/tests/planted.cu", find, replace)
    };
    assert!(passes("sum += left[y][i] * right[i][x]", "sum += right[i][x] * left[y][i]"));
    assert!(!passes("sum += left[y][i] * right[i][x]", "sum = left[y][i] * right[i][x]"));
}
