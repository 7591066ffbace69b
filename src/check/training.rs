//! The optimizer against float64, batches against the CPU's, and replayed steps against launched ones.

use super::golden::{Golden, rel_err};
use super::wanted::{NetworkSize, Wanted, random};
use super::{CaseSize, Check, Off, Run};
use crate::data::Dataset;
use crate::device::cuda::{Addresses, Cuda};
use crate::device::params::{GOOD, ROUNDED_IMAGES, Step};
use crate::device::{Buffer, Device, Dtype, Precision, Ptr, Slot, Space};
use crate::model::{Arch, ModelConfig, Rates, Trainer, TrainerOptions, Training};
use crate::ops::adam_ema;
use crate::ops::precondition::Precond;
use crate::ops::prepare_batch::{self, Batch, OnGpu, Position, Source};
use anyhow::{Result, ensure};
use std::rc::Rc;

const ADAM: &[u8] = include_bytes!("../../tests/goldens/ops/adam_ema.safetensors");

/// The flat buffers of a step.
#[derive(Clone)]
struct Flats {
    w: Vec<f32>,
    g: Vec<f32>,
    m: Vec<f32>,
    v: Vec<f32>,
    ema: Vec<f32>,
}

/// The step that updates are made at.
const STEP: u64 = 6;

impl Flats {
    /// An update on whichever device; on a GPU also the step that was bad, if one was.
    fn update(&mut self, device: &Device, rates: Rates, scrub: bool) -> Result<u32> {
        let Flats { w, g, m, v, ema } = self;
        match device {
            Device::Cpu(cpu) => adam_ema::adam_ema(cpu, &rates.words(0, scrub), w, g, m, v, ema),
            Device::Cuda { cuda, .. } => return self.update_on_gpu(device, cuda, rates, scrub),
        }
        Ok(GOOD)
    }

    fn update_on_gpu(
        &mut self,
        device: &Device,
        cuda: &Cuda,
        rates: Rates,
        scrub: bool,
    ) -> Result<u32> {
        let step = rates.words(0, scrub);
        // Through the table of an interval, as a training step takes them.
        let table = Buffer::of(device, &[step.words(), Step::default().words()].concat())?;
        let cursor = Buffer::of(device, &[0.0])?;
        let here = Buffer::new(device, Step::WORDS)?;
        let next = adam_ema::next_step(&here, (&table).into(), (&cursor).into());
        let bad_step = Buffer::of(device, &[f32::from_bits(GOOD)])?;
        let loss = Buffer::of(device, bytemuck::cast_slice(&[1.0_f64]))?;
        let flats = [&self.w, &self.g, &self.m, &self.v, &self.ema];
        let buffers = flats.map(|values| Buffer::of(device, values));
        let [w, g, m, v, ema] = buffers;
        let (w, g, m, v, ema) = (w?, g?, m?, v?, ema?);
        let loss = (!scrub).then(|| Ptr::from(&loss));
        let count = self.w.len();
        let mut kernels = vec![next];
        let buffers = [&w, &g, &m, &v, &ema];
        kernels.extend(adam_ema::kernels(buffers, count, (&bad_step).into(), loss));
        cuda.launch(&kernels, &Addresses::new([0, 0, 0, here.address()], 0))?;
        for (to, from) in
            [(&mut self.w, &w), (&mut self.m, &m), (&mut self.v, &v), (&mut self.ema, &ema)]
        {
            *to = from.read(0, count)?.into_owned();
        }
        ensure!(cursor.read(0, 1)?[0].to_bits() == 1, "the cursor has not moved on by one");
        Ok(bad_step.read(0, 1)?[0].to_bits())
    }

    fn take_bits(&self, off: &mut Off, want: &Flats) {
        for (what, got, want) in [
            ("w", &self.w, &want.w),
            ("m", &self.m, &want.m),
            ("v", &self.v, &want.v),
            ("ema", &self.ema, &want.ema),
        ] {
            off.take_bits(got, want, what);
        }
    }
}

/// # Errors
/// A golden that cannot be read.
pub fn adam_checks(wanted: &Wanted) -> Result<Vec<Check>> {
    if !wanted.precision(Precision::Fp32) {
        return Ok(vec![]);
    }
    let mut checks = Vec::new();
    let mut add = |size, case: &str, bar, run: Run| {
        let (op, precision) = ("adam_ema", Precision::Fp32);
        checks.push(Check { op, size, precision, case: case.into(), bar, run });
    };
    if wanted.size(CaseSize::Golden) {
        let golden = Rc::new(Golden::parse(ADAM)?);
        for (name, _) in golden.cases() {
            let (golden, case) = (golden.clone(), name.clone());
            add(CaseSize::Golden, &name, 1e-6, Box::new(move |d| adam_golden(d, &golden, &case)));
        }
        if wanted.on_gpu {
            let scrub = Box::new(|d: &Device| adam_bits(d, 4099, true));
            add(CaseSize::Golden, "what is not finite scrubbed", 0.0, scrub);
            add(CaseSize::Golden, "what is not finite stops it", 0.0, Box::new(adam_bad));
        }
    }
    if wanted.size(CaseSize::Real) && wanted.on_gpu {
        let n = wanted.network.parameters();
        let run = Box::new(move |d: &Device| adam_bits(d, n, false));
        add(CaseSize::Real, &format!("{n} parameters"), 0.0, run);
    }
    Ok(checks)
}

fn adam_golden(device: &Device, golden: &Golden, case: &str) -> Result<Off> {
    let (_, a) = (golden.cases().into_iter()).find(|(name, _)| name == case).expect("a case");
    let number = |key: &str| a[key].as_f64().expect("a number");
    let get = |t: &str| golden.f32(&format!("{case}/{t}")).1;
    let rates = Rates {
        step: number("step") as u64,
        lr: number("lr"),
        beta2: number("beta2"),
        weight_decay: number("weight_decay"),
        ema_beta: number("beta"),
    };
    let mut flats = Flats { w: get("w"), g: get("g"), m: get("m"), v: get("v"), ema: get("ema") };
    let bad = flats.update(device, rates, false)?;
    let mut off = Off::default();
    off.take((bad != GOOD) as u8 as f64, "bad_step");
    for (what, got) in [("w1", &flats.w), ("m1", &flats.m), ("v1", &flats.v), ("ema1", &flats.ema)]
    {
        off.take(rel_err(got, &get(what))?, what);
    }
    Ok(off)
}

fn random_flats(device: &Device, count: usize) -> Flats {
    let normals = |which| device.host().run(|| random(count, which, 1.0));
    let v = normals(4).iter().map(|v| v * v).collect();
    Flats { w: normals(1), g: normals(2), m: normals(3), v, ema: normals(5) }
}

const RATES: Rates =
    Rates { step: STEP, lr: 1e-3, beta2: 0.99, weight_decay: 1e-4, ema_beta: 0.99 };

/// How many bit patterns differ from the CPU's.
fn adam_bits(device: &Device, count: usize, scrub: bool) -> Result<Off> {
    let mut flats = random_flats(device, count);
    if scrub {
        for (i, v) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 2e5].into_iter().enumerate() {
            flats.g[i * (count - 1) / 3] = v;
        }
    }
    let mut want = flats.clone();
    want.update(&Device::Cpu(device.host().clone()), RATES, scrub)?;
    let bad = flats.update(device, RATES, scrub)?;
    let mut off = Off::default();
    off.take((bad != GOOD) as u8 as f64, "bad_step");
    flats.take_bits(&mut off, &want);
    Ok(off)
}

/// A gradient that is not finite leaves everything as it was, and the step is named.
fn adam_bad(device: &Device) -> Result<Off> {
    let mut flats = random_flats(device, 4099);
    flats.g[4098] = f32::NAN;
    let want = flats.clone();
    let bad = flats.update(device, RATES, false)?;
    let mut off = Off::default();
    off.take((bad as u64 != STEP) as u8 as f64, "bad_step");
    flats.take_bits(&mut off, &want);
    Ok(off)
}

pub fn batch_checks(wanted: &Wanted) -> Vec<Check> {
    // The CPU's batches are the reference.
    if !wanted.on_gpu || !wanted.precision(Precision::Fp32) {
        return vec![];
    }
    let mut checks = Vec::new();
    let mut add = |size, case: String, run: Run| {
        let (op, precision) = ("prepare_batch", Precision::Fp32);
        // Of the noise levels, which are float64 of a library's functions.
        checks.push(Check { op, size, precision, case, bar: 1e-14, run });
    };
    for precond in [Precond::Vp, Precond::Ve, Precond::Edm] {
        for shuffle in [true, false] {
            let order = if shuffle { "shuffled" } else { "in one order" };
            let case = format!("{precond:?}, {order}").to_lowercase();
            let (small, network) =
                (NetworkSize { images: 13, channels: 0, side: 3 }, wanted.network);
            if wanted.size(CaseSize::Golden) {
                let run = Box::new(move |d: &Device| prepared(d, precond, shuffle, small, 37));
                add(CaseSize::Golden, case.clone(), run);
            }
            if wanted.size(CaseSize::Real) && shuffle {
                let set = 300 * network.images;
                let run = Box::new(move |d: &Device| prepared(d, precond, shuffle, network, set));
                add(CaseSize::Real, case, run);
            }
        }
    }
    checks
}

/// A part of a batch that goes on into the next epoch; the largest relative error of a noise level, 1 if anything else
/// differs.
fn prepared(
    device: &Device,
    precond: Precond,
    shuffle: bool,
    network: NetworkSize,
    images: usize,
) -> Result<Off> {
    let Device::Cuda { cuda, host } = device else { unreachable!("batches are a GPU's check") };
    let NetworkSize { images: count, side, .. } = network;
    let (len, batch) = (3 * side * side, 2 * count);
    let pixels = super::searching::bytes(4, 0, images * len);
    let labels: Vec<u32> = (0..images as u32).map(|i| i * i % 10).collect();
    let (seed, first_image) = (5 << 32 | 6, count.saturating_sub(3));
    let step = (images / batch) as u64;
    let at = Position { seed, step, batch, first_image, shuffle };

    let mut want =
        (vec![0.0; count * len], vec![0.0; count * len], vec![0.0; count], vec![0; count]);
    let (y, noise, sigma, row) = (&mut want.0, &mut want.1, &mut want.2, &mut want.3);
    let source = Source { pixels: &pixels, image_len: len, labels: &labels };
    prepare_batch::prepare_batch(host, precond, source, at, Batch { y, noise, sigma, labels: row });

    let mut end = 0;
    let mut place = |len: usize| {
        let slot = Slot { space: Space::Arena, offset: end, len, dtype: Dtype::F32 };
        end = (end + len).next_multiple_of(16);
        slot
    };
    let [y, noise] = [(); 2].map(|()| place(count * len));
    let (sigma, labels_of) = (place(2 * count), place(count));
    let arena = Buffer::of(device, &vec![f32::NAN; end])?;
    let index = Buffer::new(device, count)?;
    let set = Buffer::Cuda(cuda.buffer_of(&pixels)?);
    let set_labels = Buffer::of(device, bytemuck::cast_slice(&labels))?;
    let on = OnGpu {
        y,
        noise,
        sigma,
        labels: Some(labels_of),
        pixels: &set,
        set_labels: Some(&set_labels),
        index: &index,
        images,
        image_len: len,
    };
    let words = Buffer::of(device, &Step { seed, step, ..Step::default() }.words())?;
    let addresses = Addresses::new([arena.address(), 0, 0, words.address()], first_image as u32);
    cuda.launch(&prepare_batch::kernels(precond, on, at, count), &addresses)?;

    let mut bits = Off::default();
    bits.take_bits(&arena.get(y)?, &want.0, "y");
    bits.take_bits(&arena.get(noise)?, &want.1, "noise");
    bits.take_bits(&arena.get(labels_of)?, bytemuck::cast_slice(&want.3), "labels");
    let mut off = Off::default();
    off.take(bits.by.min(1.0), &bits.at);
    let levels: Vec<f64> = bytemuck::pod_collect_to_vec(&arena.get(sigma)?);
    for (got, want) in levels.iter().zip(&want.2) {
        off.take(((got - want) / want).abs(), "sigma");
    }
    Ok(off)
}

pub fn graph_checks(wanted: &Wanted) -> Vec<Check> {
    if !wanted.on_gpu {
        return vec![];
    }
    let mut checks = Vec::new();
    for &precision in &wanted.precisions {
        let mut add = |size, case: &str, config: ModelConfig, batch: usize| {
            let run = Box::new(move |device: &Device| replayed(device, &config, precision, batch));
            checks.push(Check { op: "graph", size, precision, case: case.into(), bar: 0.0, run });
        };
        if wanted.size(CaseSize::Golden) {
            let config = ModelConfig {
                model_channels: 16,
                channel_mult: vec![1],
                num_blocks: 1,
                attn_resolutions: vec![4],
                label_dim: 4,
                skip_connections: vec![1; 2],
                ..ModelConfig::basic(Arch::NcsnPP, 4, 3)
            };
            add(CaseSize::Golden, "a small network", config, 8);
        }
        if wanted.size(CaseSize::Real) {
            let n = wanted.network;
            add(CaseSize::Real, "the basic network", n.config(), n.images);
        }
    }
    checks
}

/// Three steps as a training takes them: the first launch by launch, then as a graph. How many bits patterns of the
/// weights, moments and averages differ from those of three steps launch by launch; NaN if the losses do.
fn replayed(
    device: &Device,
    config: &ModelConfig,
    precision: Precision,
    batch: usize,
) -> Result<Off> {
    let sizes = super::sampling::SetSizes {
        images: batch + 3,
        side: config.resolution,
        channels: config.image_channels,
        queries: 0,
        labels: config.label_dim > 0,
    };
    let data: Dataset = super::sampling::set_of(7, sizes);
    let options = TrainerOptions {
        seed: 3,
        batch,
        // A second recording adds to the gradient of the first.
        micro_batch: (batch / 2).next_multiple_of(ROUNDED_IMAGES),
        shuffle: true,
        scrub_gradients: false,
        precision,
    };
    let rates = [0, 1, 2].map(|step| Rates { weight_decay: 1e-4, ..Rates::new(step, 1e-3, 0.9) });
    let run = |singly: bool| -> Result<(f64, [Vec<f32>; 4])> {
        let mut trainer = Trainer::new(device, config, options.clone(), &data)?;
        let mut loss = 0.0;
        if singly {
            for one in rates.chunks(1) {
                let steps = trainer.steps(one, &|| false)?;
                ensure!(steps.done == 1, "step {} diverged", one[0].step);
                loss += steps.loss / 3.0;
                trainer.forget_graph();
            }
        } else {
            let steps = trainer.steps(&rates, &|| false)?;
            ensure!(steps.done == 3, "{} of 3 steps done", steps.done);
            loss = steps.loss;
        }
        let flat =
            |b: &Buffer| -> Result<Vec<f32>> { Ok(b.read(0, trainer.flat_len())?.into_owned()) };
        let Training { weights, adam_m, adam_v, ema, .. } = &trainer.training;
        Ok((loss, [flat(weights)?, flat(adam_m)?, flat(adam_v)?, flat(ema)?]))
    };
    let ((want_loss, want), (loss, got)) = (run(true)?, run(false)?);
    let mut off = Off::default();
    for ((got, want), what) in got.iter().zip(&want).zip(["weights", "m", "v", "ema"]) {
        off.take_bits(got, want, what);
    }
    // Sums of the same numbers, in another order.
    let same = ((loss - want_loss) / want_loss).abs() < 1e-12;
    off.take(if same { 0.0 } else { f64::NAN }, &format!("loss, {loss} for {want_loss},"));
    Ok(off)
}
