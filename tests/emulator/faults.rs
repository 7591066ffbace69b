//! Drivers that fail, as `EMM_EMULATOR_FAIL` asks.

use super::{config, gpu, last_error, run_child};
use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, DriverError, PushKernelArg};

const FAIL: &str = "EMM_EMULATOR_FAIL";

/// Runs `body` in a child process of the test `name` for each of `faults`.
fn with_faults(name: &str, faults: &[&str], body: impl FnOnce(&str)) {
    if let Ok(fault) = std::env::var(FAIL) {
        return body(&fault);
    }
    for fault in faults {
        let child = run_child(name, FAIL, fault);
        assert!(child.status.success(), "{fault}: {}", String::from_utf8_lossy(&child.stderr));
    }
}

#[track_caller]
fn fails<T>(got: Result<T, DriverError>, error: CUresult) {
    assert_eq!(got.err().expect("an error").0, error);
}

#[test]
fn a_driver_fails_where_it_is_asked_to() {
    let name = "emulator::faults::a_driver_fails_where_it_is_asked_to";
    let faults = ["open", "launch:axpy", "launch:fill", "launch", "read"];
    with_faults(name, &faults, |fault| {
        let broken = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
        if fault == "open" {
            super::Library::get();
            return fails(CudaContext::new(0), CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE);
        }
        let gpu = gpu();
        let mut x = gpu.stream.alloc_zeros::<f32>(64).unwrap();
        let f = gpu.kernel("emu_fill");
        let mut launch = gpu.stream.launch_builder(&f);
        launch.arg(&mut x).arg(&2.0f32).arg(&64i32);
        // SAFETY: the arguments are the kernel's.
        unsafe { launch.launch(config(1, (64, 1))) }.unwrap();
        let done = gpu.stream.synchronize();
        if fault == "launch:axpy" {
            done.unwrap();
            return assert_eq!(gpu.read(&x).unwrap(), [2.0; 64]);
        }
        if fault == "read" {
            done.unwrap();
        } else {
            fails(done, broken);
            assert_eq!(last_error(), "emu_fill: EMM_EMULATOR_FAIL=launch");
        }
        fails(gpu.read(&x), broken);
        fails(gpu.stream.alloc_zeros::<f32>(1), broken); // sticky
        fails(gpu.module.load_function("emu_fill"), broken);
    });
}

#[test]
fn a_driver_that_loads_no_kernels() {
    with_faults("emulator::faults::a_driver_that_loads_no_kernels", &["load"], |_| {
        super::Library::get();
        let context = CudaContext::new(0).unwrap();
        let image = cudarc::nvrtc::Ptx::from_binary(emm::device::cuda::IMAGES[0].to_vec());
        fails(context.load_module(image), CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
    });
}
