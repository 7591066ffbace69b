//! Runs a case forward and backward on a device, from NaN-filled memory, setting and adding gradients.

use super::cases::{Case, Ran};
use super::laid::Laid;
use crate::device::cuda::{Addresses, Buffer, Clock, Cuda};
use crate::device::params::Step;
use crate::device::{Acc, Bound, Cost, Cpu, Device, GpuLimits, Kernel, Launch, Precision, Target};
use crate::ops::later::{chain_kernels, row_kernels};
use crate::ops::{Direction, cost};
use anyhow::Result;
use std::time::Instant;

/// One direction of a case, or one kernel of it, run so many times.
pub struct Timed {
    pub name: &'static str,
    pub cost: Cost,
    pub seconds: Vec<f64>,
}

impl Case {
    /// Runs forward and, if the case has gradients, backward. Memory starts as NaN but for gradients that
    /// are added to, which start as `start`.
    pub fn run(&self, cpu: &Cpu, precision: Precision, acc: Acc, start: f32) -> Result<Ran> {
        let mut laid = Laid::new(self, Target::Cpu, precision, acc, start)?;
        for launch in self.lowered(&laid).iter().filter_map(Launch::function) {
            let stride = launch.scratch_words;
            let mut scratch = vec![f32::NAN; stride * cpu.threads()];
            let [arena, weights, grads] = &mut laid.words;
            let bound = Bound::new(cpu, arena, weights, grads, &mut scratch, stride, self.args);
            (launch.run)(&bound);
        }
        Ok(laid.ran(self))
    }

    /// Forward and, if the case has gradients, backward.
    fn lowered(&self, laid: &Laid) -> Vec<Launch> {
        let [fwd, bwd] = [Direction::Fwd, Direction::Bwd].map(|d| laid.io(d));
        let mut launches = self.op.lower(laid.target, &fwd, None);
        if self.has_backward() {
            launches.extend(self.op.lower(laid.target, &bwd, Some(&laid.grad_slots)));
            if let Target::Cuda(_) = laid.target {
                let later = self.op.sums(&bwd, &laid.grad_slots);
                let kernels =
                    row_kernels(&later.rows).into_iter().chain(chain_kernels(&later.chains));
                launches.extend(kernels.map(Launch::Gpu));
            }
        }
        launches
    }

    /// Names of the kernels that it goes by on such a GPU.
    ///
    /// # Errors
    /// As [`Case::run_kernels`].
    pub fn kernel_names(
        &self,
        limits: GpuLimits,
        precision: Precision,
    ) -> Result<Vec<&'static str>> {
        let laid = Laid::new(self, Target::Cuda(limits), precision, Acc::Set, 0.0)?;
        Ok(self.lowered(&laid).iter().filter_map(Launch::kernel).map(|k| k.name).collect())
    }

    /// As [`Case::run`] or [`Case::run_kernels`].
    ///
    /// # Errors
    /// As [`Case::run_kernels`].
    pub fn run_on(
        &self,
        device: &Device,
        precision: Precision,
        acc: Acc,
        start: f32,
    ) -> Result<Ran> {
        match device {
            Device::Cpu(cpu) => self.run(cpu, precision, acc, start),
            Device::Cuda { cuda, .. } => self.run_kernels(cuda, precision, acc, start),
        }
    }

    /// A case's memory on a GPU, and where it is.
    fn on_gpu(&self, cuda: &Cuda, laid: &Laid) -> Result<(Vec<Buffer>, Addresses)> {
        let step = Step { seed: self.args.seed, step: self.args.step.into(), ..Step::default() };
        let mut buffers = Vec::new();
        for words in laid.words.iter().map(Vec::as_slice).chain([&step.words()[..]]) {
            let mut buffer = cuda.buffer(words.len())?;
            buffer.write(0, words)?;
            buffers.push(buffer);
        }
        let addresses = std::array::from_fn(|i| buffers[i].address());
        Ok((buffers, Addresses::new(addresses, self.args.first_image)))
    }

    /// As [`Case::run`], on a CUDA device.
    ///
    /// # Errors
    /// Also what the driver says.
    pub fn run_kernels(
        &self,
        cuda: &Cuda,
        precision: Precision,
        acc: Acc,
        start: f32,
    ) -> Result<Ran> {
        let target = Target::Cuda(cuda.limits());
        let mut laid = Laid::new(self, target, precision, acc, start)?;
        let launches = self.lowered(&laid);
        let (buffers, addresses) = self.on_gpu(cuda, &laid)?;
        cuda.launch(&laid.packs, &addresses)?;
        cuda.launch(launches.iter().filter_map(Launch::kernel), &addresses)?;
        for (words, buffer) in laid.words.iter_mut().zip(&buffers) {
            *words = buffer.read(0, words.len())?;
        }
        Ok(laid.ran(self))
    }

    /// Times the case's directions, gradients set: on the CPU an entry a direction, on a GPU one a kernel.
    ///
    /// # Errors
    /// What the driver says.
    pub fn time(
        &self,
        device: &Device,
        precision: Precision,
        repeats: usize,
    ) -> Result<Vec<Timed>> {
        let mut laid = Laid::new(self, device.into(), precision, Acc::Set, 0.0)?;
        let io = [Direction::Fwd, Direction::Bwd].map(|d| laid.io(d));
        let grads = self.has_backward().then(|| laid.grad_slots.clone());
        let costs = [cost(&*self.op, &io[0], None), cost(&*self.op, &io[1], grads.as_ref())];
        let launches = self.lowered(&laid);
        let mut timed = Vec::new();
        let Device::Cuda { cuda, .. } = device else {
            for (launch, cost) in launches.iter().filter_map(Launch::function).zip(costs) {
                let (cpu, stride) = (device.host(), launch.scratch_words);
                let mut scratch = vec![0.0; stride * cpu.threads()];
                let [arena, weights, grads] = &mut laid.words;
                let bound = Bound::new(cpu, arena, weights, grads, &mut scratch, stride, self.args);
                let mut seconds = Vec::new();
                for _ in 0..=repeats {
                    let start = Instant::now();
                    (launch.run)(&bound);
                    seconds.push(start.elapsed().as_secs_f64());
                }
                seconds.remove(0); // it warmed up
                timed.push(Timed { name: launch.name, cost, seconds });
            }
            return Ok(timed);
        };
        let kernels: Vec<&Kernel> = launches.iter().filter_map(Launch::kernel).collect();
        let (buffers, addresses) = self.on_gpu(cuda, &laid)?;
        cuda.launch(&laid.packs, &addresses)?;
        let mut clock = Clock::new(cuda)?;
        let mut seconds = vec![Vec::new(); kernels.len()];
        for _ in 0..repeats {
            for (kernel, seconds) in kernels.iter().zip(&mut seconds) {
                seconds.push(clock.cold(kernel, &addresses)?);
            }
        }
        drop(buffers);
        Ok((kernels.iter().zip(seconds))
            .map(|(k, seconds)| Timed { name: k.name, cost: k.cost(), seconds })
            .collect())
    }
}
