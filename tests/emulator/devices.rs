//! Several emulated GPUs: each has memory, streams, kernels and errors of its own.

use super::{Gpu, alone, config, gpu_at, last_error, must_pass, run_child};
use cudarc::driver::result::memcpy_dtoh_sync;
use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DriverError, PushKernelArg};
use emm::device::cuda::{Cuda, IMAGES};
use std::fmt::Debug;

const DEVICES: &str = "EMM_EMULATOR_DEVICES";

/// Runs `body` on two GPUs: at once in the child process, where this is called again, which runs the test `name`.
fn on_two(name: &str, body: impl FnOnce([Gpu; 2])) {
    match std::env::var_os(DEVICES) {
        Some(_) => body([0, 1].map(gpu_at)),
        None => must_pass(&run_child(name, DEVICES, "2")),
    }
}

#[track_caller]
fn fails<T: Debug>(got: Result<T, DriverError>, error: CUresult, why: &str) {
    assert_eq!(got.expect_err("an error").0, error);
    assert!(last_error().contains(why), "{}", last_error());
}

/// Launches a kernel of `gpu` that fills `out`, on `stream`.
fn fill(gpu: &Gpu, stream: &CudaStream, out: &CudaSlice<f32>) -> Result<(), DriverError> {
    gpu.context.bind_to_thread()?;
    let f = gpu.kernel("emu_fill");
    // SAFETY: the arguments are the kernel's.
    let launched = unsafe {
        stream.launch_builder(&f).arg(out).arg(&2.0f32).arg(&64i32).launch(config(1, (64, 1)))
    };
    launched.map(|_| ())
}

#[test]
fn devices_are_counted_and_told_apart() {
    on_two("emulator::devices::devices_are_counted_and_told_apart", |[a, b]| {
        assert_eq!(CudaContext::device_count().unwrap(), 2);
        assert_eq!(CudaContext::new(2).unwrap_err().0, CUresult::CUDA_ERROR_INVALID_DEVICE);
        assert_ne!(a.context.uuid().unwrap().bytes, b.context.uuid().unwrap().bytes);
        let free = |gpu: &Gpu| gpu.context.mem_get_info().unwrap().0;
        let before = [free(&a), free(&b)];
        let kept = a.stream.alloc_zeros::<u8>(1 << 20).unwrap();
        assert_eq!([free(&a), free(&b)], [before[0] - (1 << 20), before[1]]);
        // All of it, though the other has given some away.
        // SAFETY: never read.
        unsafe { b.stream.alloc::<u8>(before[1]) }.unwrap();
        drop(kept);
    });
}

#[test]
fn what_is_one_devices_is_no_others() {
    on_two("emulator::devices::what_is_one_devices_is_no_others", |[a, b]| {
        let of_a = a.stream.alloc_zeros::<f32>(64).unwrap();
        let of_b = b.stream.alloc_zeros::<f32>(64).unwrap();
        fill(&a, &a.stream, &of_a).unwrap();
        fill(&b, &b.stream, &of_b).unwrap();
        assert_eq!(
            (a.read(&of_a).unwrap(), b.read(&of_b).unwrap()),
            (vec![2.0; 64], vec![2.0; 64])
        );

        let (handle, value) =
            (CUresult::CUDA_ERROR_INVALID_HANDLE, CUresult::CUDA_ERROR_INVALID_VALUE);
        fails(fill(&a, &b.stream, &of_b), handle, "a function of device 0");
        let mut host = [0f32; 64];
        let address = of_a.leak();
        b.context.bind_to_thread().unwrap();
        // SAFETY: the emulator checks the range before it copies.
        let copied = unsafe { memcpy_dtoh_sync(&mut host, address) };
        fails(copied, value, "of another device, 0: allocation");

        // A kernel that is given the other's memory breaks its own context, and no other.
        // SAFETY: the address is that of 64 floats; the emulator refuses it on this device.
        let foreign = unsafe { b.stream.upgrade_device_ptr::<f32>(address, 64) };
        fill(&b, &b.stream, &foreign).unwrap();
        let broken = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
        fails(b.stream.synchronize(), broken, "of another device, 0: allocation");
        fails(b.read(&of_b), broken, "");
        fill(&a, &a.stream, &a.stream.alloc_zeros::<f32>(64).unwrap()).unwrap();
        a.stream.synchronize().unwrap();
        std::mem::forget((foreign, of_b));
    });
}

/// Users of one GPU from several threads: kernels that are given more shared memory for one of them keep it, and what
/// one queues another does not wait for.
#[test]
fn users_of_a_gpu_share_its_kernels_and_its_memory() {
    alone("emulator::devices::users_of_a_gpu_share_its_kernels_and_its_memory", || {
        super::gpu();
        let gpu = Cuda::open(0, IMAGES).unwrap();
        assert_eq!(gpu.speed(), 1.0);
        let users = gpu.shared_by(3, 1.5).unwrap();
        let free = gpu.free_bytes().unwrap();
        for user in &users {
            assert_eq!((user.name(), user.speed()), (gpu.name(), 0.5));
            assert_eq!(user.free_bytes().unwrap(), free / 3);
        }
        let filled: Vec<Vec<f32>> = std::thread::scope(|scope| {
            let one = |(i, user): (usize, &Cuda)| {
                let mut buffer = user.buffer(1000).unwrap();
                buffer.write(0, &vec![i as f32; 1000]).unwrap();
                buffer.read(0, 1000).unwrap()
            };
            let threads: Vec<_> =
                users.iter().enumerate().map(|user| scope.spawn(move || one(user))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(filled.iter().enumerate().all(|(i, words)| words.iter().all(|w| *w == i as f32)));
        // Memory that was given back is free once its stream has come that far.
        users.iter().for_each(|user| user.wait().unwrap());
        assert_eq!(gpu.shared_by(1, 1.0).unwrap()[0].free_bytes().unwrap(), free);
    });
}
