//! Times by a GPU's own clock, and what a GPU has of what benches size themselves by.

use super::super::Kernel;
use super::engine::{Addresses, Buffer, Cuda, driver};
use anyhow::Result;
use cudarc::driver::CudaEvent;
use cudarc::driver::sys::{CUdevice_attribute as Attribute, CUevent_flags};

/// Times kernels one at a time.
pub struct Clock {
    cuda: Cuda,
    start: CudaEvent,
    end: CudaEvent,
    /// What pushes everything else out of the second-level cache.
    other: Buffer,
}

impl Clock {
    /// # Errors
    /// Device (exit 4): what the driver says.
    pub fn new(cuda: &Cuda) -> Result<Self> {
        let context = cuda.stream().context();
        let event = || context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
        Ok(Clock {
            start: event().map_err(driver("no event"))?,
            end: event().map_err(driver("no event"))?,
            other: cuda.buffer(2 * cuda.cache_bytes()? / 4)?,
            cuda: cuda.clone(),
        })
    }

    /// Seconds of a kernel that finds nothing in the second-level cache. While that is flushed, the host queues the
    /// kernel, so that the time holds no launch.
    ///
    /// # Errors
    /// Device (exit 4): also what went wrong in a kernel before.
    pub fn cold(&mut self, kernel: &Kernel, at: &Addresses) -> Result<f64> {
        self.other.clear()?;
        self.time(std::slice::from_ref(kernel), at)
    }

    /// Seconds of kernels one after another, from when the first may begin.
    ///
    /// # Errors
    /// As [`Clock::cold`].
    pub fn time(&mut self, kernels: &[Kernel], at: &Addresses) -> Result<f64> {
        let stream = self.cuda.stream();
        self.start.record(stream).map_err(driver("an event"))?;
        self.cuda.launch(kernels, at)?;
        self.end.record(stream).map_err(driver("an event"))?;
        let ms = self.start.elapsed_ms(&self.end).map_err(driver("a kernel failed"))?;
        Ok(ms as f64 / 1e3)
    }
}

impl Cuda {
    fn attribute(&self, which: Attribute) -> Result<usize> {
        let value = self.stream().context().attribute(which);
        Ok(value.map_err(driver("no attribute"))?.max(1) as usize)
    }

    /// Bytes of the second-level cache.
    ///
    /// # Errors
    /// Device (exit 4).
    pub fn cache_bytes(&self) -> Result<usize> {
        self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)
    }
}
