//! The driver through unmodified cudarc: memory, launches, events, limits, capture and replay.

use super::{Gpu, alone, config, gpu, last_error, launches, recover};
use cudarc::driver::result::{malloc_sync, memcpy_htod_async, memcpy_htod_sync};
use cudarc::driver::sys::{
    CUdevice_attribute as Attribute, CUevent_flags, CUfunction_attribute, CUgraphInstantiate_flags,
    CUresult, CUstreamCaptureMode as Mode, CUstreamCaptureStatus as Status,
};
use cudarc::driver::{CudaContext, CudaSlice, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use emm::device::cuda::IMAGES;

fn fill(gpu: &Gpu, out: &mut CudaSlice<f32>, value: f32) -> Result<(), DriverError> {
    let (f, n) = (gpu.kernel("emu_fill"), out.len() as i32);
    let grid = config((n as u32).div_ceil(64), (64, 1));
    // SAFETY: the arguments are the kernel's.
    unsafe { gpu.stream.launch_builder(&f).arg(out).arg(&value).arg(&n).launch(grid) }?;
    Ok(())
}

/// y += a x
fn axpy(
    gpu: &Gpu,
    y: &mut CudaSlice<f32>,
    x: &CudaSlice<f32>,
    a: &CudaSlice<f32>,
) -> Result<(), DriverError> {
    let (f, n) = (gpu.kernel("emu_axpy"), y.len() as i32);
    let grid = config((n as u32).div_ceil(64), (64, 1));
    // SAFETY: the arguments are the kernel's.
    unsafe { gpu.stream.launch_builder(&f).arg(y).arg(x).arg(a).arg(&n).launch(grid) }?;
    Ok(())
}

fn error(result: Result<(), DriverError>) -> CUresult {
    result.expect_err("an error").0
}

#[test]
fn a_device_is_described() {
    let gpu = gpu();
    assert_eq!(CudaContext::device_count().unwrap(), 1);
    assert_eq!(gpu.context.name().unwrap(), "CPU emulator");
    assert_eq!(gpu.context.compute_capability().unwrap(), (8, 6));
    let limit = Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    assert_eq!(gpu.context.attribute(limit).unwrap(), 99 << 10);
    let (free, total) = gpu.context.mem_get_info().unwrap();
    assert!(free <= total && total == gpu.context.total_mem().unwrap());
    assert!(gpu.context.has_async_alloc());
}

#[test]
fn memory_is_poisoned_copied_and_set() {
    let gpu = gpu();
    let s = &gpu.stream;
    // SAFETY: reading the poison is the point.
    let fresh = unsafe { s.alloc::<f32>(100) }.unwrap();
    assert!(gpu.read(&fresh).unwrap().iter().all(|x| x.is_nan()));
    let data: Vec<u32> = (0..1000).collect();
    let a = gpu.upload(&data).unwrap();
    let mut b = s.alloc_zeros::<u32>(1000).unwrap();
    assert_eq!(gpu.read(&b).unwrap(), vec![0; 1000]);
    s.memcpy_dtod(&a.slice(10..20), &mut b.slice_mut(500..510)).unwrap();
    s.synchronize().unwrap();
    let got = gpu.read(&b).unwrap();
    assert_eq!(got[500..510], data[10..20]);
    assert_eq!((got[499], got[510]), (0, 0));
}

#[test]
fn too_much_memory_is_an_error_that_names_the_bytes() {
    let gpu = gpu();
    // SAFETY: never used.
    let refused = unsafe { gpu.stream.alloc::<u8>(1 << 40) };
    assert_eq!(refused.err().unwrap().0, CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    assert!(last_error().starts_with("1099511627776 bytes wanted"), "{}", last_error());
}

#[test]
fn event_tracking_on_two_streams_works() {
    super::gpu();
    let context = CudaContext::new(0).unwrap(); // tracks events
    let gpu = Gpu { stream: context.new_stream().unwrap(), ..super::gpu() };
    let other = context.new_stream().unwrap();
    let mut x = gpu.stream.alloc_zeros::<f32>(100).unwrap();
    fill(&gpu, &mut x, 3.0).unwrap();
    let mut read = vec![0.0; 100];
    other.memcpy_dtoh(&x, &mut read).unwrap(); // waits for the event behind the kernel
    gpu.stream.join(&other).unwrap();
    context.synchronize().unwrap();
    assert_eq!(read, vec![3.0; 100]);
}

#[test]
fn events_time_the_work_between_them() {
    let gpu = gpu();
    let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
    let mut x = gpu.stream.alloc_zeros::<f32>(100_000).unwrap();
    let start = gpu.stream.record_event(timed).unwrap();
    fill(&gpu, &mut x, 1.0).unwrap();
    let end = gpu.stream.record_event(timed).unwrap();
    // SAFETY: live events.
    let early = unsafe { cudarc::driver::result::event::elapsed(start.cu_event(), end.cu_event()) };
    assert_eq!(error(early.map(|_| ())), CUresult::CUDA_ERROR_NOT_READY);
    start.synchronize().unwrap();
    let clock = std::time::Instant::now();
    end.synchronize().unwrap();
    let elapsed_ms = clock.elapsed().as_secs_f32() * 1e3;
    let event_ms = start.elapsed_ms(&end).unwrap();
    assert!(event_ms > 0.0 && event_ms < elapsed_ms + 1e3);
    let untimed = gpu.stream.record_event(None).unwrap();
    assert_eq!(error(start.elapsed_ms(&untimed).map(|_| ())), CUresult::CUDA_ERROR_INVALID_HANDLE);
}

#[test]
fn a_missing_kernel_is_not_found() {
    let gpu = gpu();
    assert_eq!(
        gpu.module.load_function("emu_nowhere").err().unwrap().0,
        CUresult::CUDA_ERROR_NOT_FOUND
    );
    assert_eq!(last_error(), "no kernel emu_nowhere");
}

#[test]
fn arguments_in_the_wrong_order_are_refused() {
    alone("emulator::driver::arguments_in_the_wrong_order_are_refused", || {
        let gpu = gpu();
        let mut out = gpu.stream.alloc_zeros::<f32>(64).unwrap();
        let f = gpu.kernel("emu_fill");
        let n = 64u64;
        let mut launch = gpu.stream.launch_builder(&f);
        launch.arg(&n).arg(&1.0f32).arg(&mut out);
        // SAFETY: the wrong order is the point; the first argument is read as a pointer and not followed.
        unsafe { launch.launch(config(1, (64, 1))) }.unwrap();
        assert_eq!(error(gpu.stream.synchronize()), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        assert!(last_error().contains("argument 0 is a pointer"), "{}", last_error());
    });
}

#[test]
fn a_pointer_that_its_type_does_not_allow_is_refused() {
    alone("emulator::driver::a_pointer_that_its_type_does_not_allow_is_refused", || {
        let gpu = gpu();
        let bytes = gpu.stream.alloc_zeros::<u8>(257).unwrap();
        let out = bytes.leak() + 1;
        let f = gpu.kernel("emu_fill");
        let mut launch = gpu.stream.launch_builder(&f);
        launch.arg(&out).arg(&1.0f32).arg(&64i32);
        // SAFETY: the memory is there; the emulator refuses the address before the kernel runs.
        unsafe { launch.launch(config(1, (64, 1))) }.unwrap();
        assert_eq!(error(gpu.stream.synchronize()), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        assert!(last_error().contains("not a multiple of 4"), "{}", last_error());
    });
}

#[test]
fn freed_memory_is_refused() {
    alone("emulator::driver::freed_memory_is_refused", || {
        let gpu = gpu();
        let out = gpu.stream.alloc_zeros::<f32>(64).unwrap();
        let stale = out.leak();
        let f = gpu.kernel("emu_fill");
        let run = || {
            let mut launch = gpu.stream.launch_builder(&f);
            launch.arg(&stale).arg(&1.0f32).arg(&64i32);
            // SAFETY: the arguments are the kernel's; the pointer may be stale, which is the point.
            unsafe { launch.launch(config(1, (64, 1))) }.unwrap();
        };
        run();
        // SAFETY: the pointer is that of a leaked slice of 64 floats.
        drop(unsafe { gpu.stream.upgrade_device_ptr::<f32>(stale, 64) });
        gpu.stream.synchronize().unwrap(); // freed only behind the kernel
        run();
        assert_eq!(error(gpu.stream.synchronize()), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        assert!(last_error().contains("freed allocation"), "{}", last_error());
    });
}

/// What goes wrong is told by a later call, and by every one from then on.
#[test]
fn errors_come_late_and_stay() {
    alone("emulator::driver::errors_come_late_and_stay", || {
        let gpu = gpu();
        let s = &gpu.stream;
        let mut x = s.alloc_zeros::<i32>(64).unwrap();
        let f = gpu.kernel("emu_diverge");
        let mut launch = s.launch_builder(&f);
        launch.arg(&mut x).arg(&50i32);
        // SAFETY: the arguments are the kernel's; its deadlock is the point.
        unsafe { launch.launch(config(1, (64, 1))) }.unwrap();
        let mut read = vec![0i32; 64];
        s.memcpy_dtoh(&x, &mut read).unwrap();
        let failed = CUresult::CUDA_ERROR_LAUNCH_FAILED;
        assert_eq!(error(s.synchronize()), failed);
        assert!(last_error().starts_with("emu_diverge: deadlock"), "{}", last_error());
        assert_eq!(read, [-1; 64], "what a copy did not fill is poisoned");
        assert_eq!(error(s.synchronize()), failed);
        assert_eq!(error(gpu.module.load_function("emu_fill").map(|_| ())), failed);
        assert_eq!(error(gpu.context.new_stream().map(|_| ())), failed);
        assert_eq!(error(CudaContext::new(0).unwrap().synchronize()), failed);
        recover(&gpu);
        s.synchronize().unwrap();
    });
}

/// An asynchronous copy reads the host's memory when the stream comes to it, and writes it no sooner.
#[test]
fn the_hosts_memory_belongs_to_a_copy_until_the_stream_is_waited_for() {
    let gpu = gpu();
    let s = &gpu.stream;
    let mut x = s.alloc_zeros::<f32>(4).unwrap();
    let mut staging = vec![1.0f32; 4];
    s.memcpy_htod(&staging, &mut x).unwrap();
    staging.fill(2.0); // the bug
    assert_eq!(gpu.read(&x).unwrap(), [2.0; 4]);
    s.memcpy_htod(&staging, &mut x).unwrap();
    s.synchronize().unwrap();
    staging.fill(3.0);
    assert_eq!(gpu.read(&x).unwrap(), [2.0; 4]);

    s.memcpy_dtoh(&x, &mut staging).unwrap();
    assert!(staging.iter().all(|v| v.is_nan()), "read too early");
    s.synchronize().unwrap();
    assert_eq!(staging, [2.0; 4]);
}

/// Work waits for what it was queued behind, and for nothing else.
#[test]
fn streams_run_when_they_are_waited_for() {
    let gpu = gpu();
    let (s, other) = (&gpu.stream, gpu.context.new_stream().unwrap());
    let mut x = s.alloc_zeros::<f32>(64).unwrap();
    s.synchronize().unwrap();
    let mut read = vec![0.0f32; 64];
    fill(&gpu, &mut x, 1.0).unwrap();
    other.memcpy_dtoh(&x, &mut read).unwrap();
    other.synchronize().unwrap();
    assert_eq!(read, [0.0; 64], "nothing orders the copy behind the kernel");
    other.wait(&s.record_event(None).unwrap()).unwrap();
    other.memcpy_dtoh(&x, &mut read).unwrap();
    other.synchronize().unwrap();
    assert_eq!(read, [1.0; 64]);
}

/// Driver calls need a context that is current on their thread, which is not so in a new one.
#[test]
fn a_thread_without_a_context_is_refused() {
    let gpu = gpu();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let none = CUresult::CUDA_ERROR_INVALID_CONTEXT;
            assert_eq!(error(gpu.module.load_function("emu_fill").map(|_| ())), none);
            // SAFETY: refused before anything is reserved.
            assert_eq!(error(unsafe { malloc_sync(64) }.map(|_| ())), none);
            assert!(last_error().starts_with("no context is current"), "{}", last_error());
            gpu.context.bind_to_thread().unwrap();
            gpu.module.load_function("emu_fill").unwrap();
        });
    });
}

/// A module is a fatbin with something for the GPU.
#[test]
fn an_image_that_a_gpu_would_refuse_is_refused() {
    let gpu = gpu();
    let load = |change: fn(&mut Vec<u8>)| {
        let mut image = IMAGES[0].to_vec();
        change(&mut image);
        gpu.context.load_module(Ptx::from_binary(image)).map(|_| ())
    };
    load(|_| ()).unwrap();
    let invalid = CUresult::CUDA_ERROR_INVALID_IMAGE;
    assert_eq!(error(load(|image| image[0] = 0x7f)), invalid);
    assert_eq!(error(load(|image| image[24] = 0xff)), invalid); // an entry longer than all
    let none = CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU;
    assert_eq!(error(load(|image| image[16 + 28] = 90)), none); // newer than sm_86
    assert_eq!(error(load(|image| (image[16], image[16 + 28]) = (2, 75))), none); // code, older
    load(|image| (image[16], image[16 + 28]) = (2, 80)).unwrap();
    load(|image| image[16 + 28] = 75).unwrap(); // PTX serves what is newer
}

#[test]
fn dynamic_shared_memory_needs_the_opt_in_and_has_a_limit() {
    let gpu = gpu();
    let f = gpu.kernel("emu_dynamic_shared");
    let mut out = gpu.stream.alloc_zeros::<u32>(256).unwrap();
    let mut run = |bytes: u32| {
        let grid = LaunchConfig { shared_mem_bytes: bytes, ..config(1, (256, 1)) };
        // SAFETY: the arguments are the kernel's.
        unsafe { gpu.stream.launch_builder(&f).arg(&mut out).arg(&(bytes as i32)).launch(grid) }
            .map(|_| ())
    };
    let opt_in = |bytes: i32| {
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        f.set_attribute(attribute, bytes)
    };
    run(47 << 10).unwrap();
    assert_eq!(error(run(60 << 10)), CUresult::CUDA_ERROR_INVALID_VALUE);
    opt_in(98 << 10).unwrap();
    run(98 << 10).unwrap();
    assert_eq!(error(opt_in(100 << 10)), CUresult::CUDA_ERROR_INVALID_VALUE);
    assert!(last_error().contains("the limit is 101376"), "{}", last_error());
    assert_eq!(gpu.read(&out).unwrap(), vec![18; 256]);
}

#[test]
fn bad_launches_and_copies_are_refused() {
    let gpu = gpu();
    let mut out = gpu.stream.alloc_zeros::<f32>(64).unwrap();
    let f = gpu.kernel("emu_fill");
    let mut run = |grid: LaunchConfig| {
        // SAFETY: the arguments are the kernel's.
        unsafe { gpu.stream.launch_builder(&f).arg(&mut out).arg(&1f32).arg(&64i32).launch(grid) }
            .map(|_| ())
    };
    assert_eq!(error(run(config(0, (64, 1)))), CUresult::CUDA_ERROR_INVALID_VALUE);
    assert_eq!(error(run(config(1, (64, 32)))), CUresult::CUDA_ERROR_INVALID_VALUE);
    let pointer = out.leak();
    // SAFETY: the emulator checks the range before it copies.
    let copy = unsafe { memcpy_htod_sync(pointer, &[0f32; 65]) };
    assert_eq!(error(copy), CUresult::CUDA_ERROR_INVALID_VALUE);
    assert!(last_error().contains("of 256 bytes, at +0"), "{}", last_error());
}

/// Ten steps of y += a x, where every step also raises a on the device.
#[test]
fn a_replayed_graph_equals_launch_by_launch() {
    let gpu = gpu();
    let s = &gpu.stream;
    let x = gpu.upload(&(0..1000).map(|i| (i as f32).sin()).collect::<Vec<f32>>()).unwrap();
    let mut staging = vec![0.0f32; 1000];
    let mut run = |captured: bool| -> Vec<f32> {
        let mut y = s.alloc_zeros::<f32>(1000).unwrap();
        let mut copy = s.alloc_zeros::<f32>(1000).unwrap();
        let mut a = gpu.upload(&[1.0f32]).unwrap();
        let half = gpu.upload(&[0.5f32]).unwrap();
        let mut step = || {
            axpy(&gpu, &mut y, &x, &a).unwrap();
            s.memcpy_dtod(&y, &mut copy).unwrap();
            let f = gpu.kernel("emu_axpy");
            let mut launch = s.launch_builder(&f);
            launch.arg(&mut a).arg(&half).arg(&half).arg(&1i32);
            // SAFETY: the arguments are the kernel's.
            unsafe { launch.launch(config(1, (64, 1))) }.unwrap();
        };
        if captured {
            s.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
            assert_eq!(s.capture_status().unwrap(), Status::CU_STREAM_CAPTURE_STATUS_ACTIVE);
            step();
            let graph = s.end_capture(CUgraphInstantiate_flags(0)).unwrap().unwrap();
            assert_eq!(s.capture_status().unwrap(), Status::CU_STREAM_CAPTURE_STATUS_NONE);
            graph.upload().unwrap();
            (0..10).for_each(|_| graph.launch().unwrap());
        } else {
            (0..10).for_each(|_| step());
        }
        s.memcpy_dtoh(&copy, &mut staging).unwrap();
        s.synchronize().unwrap();
        assert_eq!(staging, gpu.read(&y).unwrap());
        staging.clone()
    };
    let before = launches();
    let (one_by_one, replayed) = (run(false), run(true));
    assert_eq!(one_by_one, replayed);
    assert!(launches() - before >= 40);
    assert!(one_by_one[1] > 2.0);
}

#[test]
fn capturing_runs_nothing_and_keeps_the_argument_values() {
    let gpu = gpu();
    let s = &gpu.stream;
    let mut x = s.alloc_zeros::<f32>(100).unwrap();
    s.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    for value in [1.0, 2.0] {
        fill(&gpu, &mut x, value).unwrap();
    }
    let graph = s.end_capture(CUgraphInstantiate_flags(0)).unwrap().unwrap();
    assert_eq!(gpu.read(&x).unwrap(), vec![0.0; 100]);
    graph.launch().unwrap();
    assert_eq!(gpu.read(&x).unwrap(), vec![2.0; 100]);
    s.memset_zeros(&mut x).unwrap();
    graph.launch().unwrap();
    assert_eq!(gpu.read(&x).unwrap(), vec![2.0; 100]);
}

#[test]
fn what_a_capture_does_not_allow_spoils_it() {
    let gpu = gpu();
    let s = &gpu.stream;
    let mode = Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    let outside = s.record_event(None).unwrap();
    let somewhere = s.alloc_zeros::<u8>(4).unwrap().leak();
    let calls = [
        ("synchronize", CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED),
        ("allocate", CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED),
        ("wait", CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION),
        ("use the default stream", CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT),
    ];
    for (name, expected) in calls {
        s.begin_capture(mode).unwrap();
        let called = match name {
            "synchronize" => s.synchronize(),
            // SAFETY: never read.
            "allocate" => unsafe { s.alloc::<f32>(8) }.map(|_| ()),
            "wait" => s.wait(&outside),
            // SAFETY: refused before anything is copied.
            _ => unsafe { memcpy_htod_async(somewhere, &[0u8; 4], std::ptr::null_mut()) },
        };
        assert_eq!(error(called), expected, "{name}");
        assert_eq!(
            s.capture_status().unwrap(),
            Status::CU_STREAM_CAPTURE_STATUS_INVALIDATED,
            "{name}"
        );
        let ended = s.end_capture(CUgraphInstantiate_flags(0)).map(|_| ());
        assert_eq!(error(ended), CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "{name}");
        s.synchronize().unwrap();
    }
}

/// A program that knows nothing of the emulator runs on it where LD_LIBRARY_PATH names its folder.
#[test]
fn the_command_line_finds_the_emulator() {
    let doctor = std::process::Command::new(env!("CARGO_BIN_EXE_emm"))
        .arg("doctor")
        .env("LD_LIBRARY_PATH", env!("EMM_EMULATOR_DIR"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&doctor.stdout);
    assert!(told.contains("CPU emulator"), "{told}");
}
