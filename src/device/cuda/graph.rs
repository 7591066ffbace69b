//! CUDA graphs: work that is queued again and again costs one call.

use super::engine::{Cuda, driver};
use crate::error::{Exit, fail};
use anyhow::Result;
use cudarc::driver::CudaGraph;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode as Mode};

/// Work with the same kernels and arguments each time. The first time it is queued launch by launch, so that every
/// kernel is loaded and whatever is wrong shows by name; the second time it is captured; from then on replayed.
#[derive(Default)]
pub struct Repeated {
    queued_before: bool,
    graph: Option<CudaGraph>,
}

impl Repeated {
    /// Queues the work. `queue` queues it on `cuda`, launches only: no copies, no waiting, no memory.
    ///
    /// # Errors
    /// Those of `queue`, and what the driver says (exit 4).
    pub fn run(&mut self, cuda: &Cuda, queue: impl FnOnce() -> Result<()>) -> Result<()> {
        if !self.queued_before {
            self.queued_before = true;
            return queue();
        }
        let graph = match &mut self.graph {
            Some(graph) => graph,
            none => none.insert(capture(cuda, queue)?),
        };
        cuda.watched("graph", || graph.launch().map_err(driver("a graph does not launch")))
    }
}

/// Records what `queue` queues; nothing runs.
fn capture(cuda: &Cuda, queue: impl FnOnce() -> Result<()>) -> Result<CudaGraph> {
    let stream = cuda.stream();
    let mode = Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    stream.begin_capture(mode).map_err(driver("no capture"))?;
    cuda.set_capturing(true);
    let queued = queue();
    cuda.set_capturing(false);
    // Ended in any case: a stream that is still capturing takes no other work.
    let graph = stream.end_capture(CUgraphInstantiate_flags(0));
    queued?;
    let graph = graph.map_err(driver("no graph"))?;
    let graph = graph.ok_or_else(|| fail(Exit::Device, "--device: cuda: an empty graph"))?;
    graph.upload().map_err(driver("no graph"))?;
    Ok(graph)
}
