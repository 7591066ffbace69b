//! Whether a GPU computes with each family of fast kernels what it must: a few of the ops' cases, in a process of its own
//! that may fail or never end. The slower kernels stand in for a family that does not pass.

use super::cases::{Case, GOLDENS, Operand, Ran};
use super::children::{end, end_with_parent};
use super::golden::{Golden, rel_err};
use super::wanted::random;
use crate::device::cuda::Cuda;
use crate::device::{Acc, Family, GpuLimits, Precision, StepArgs};
use crate::error::{Exit, OrExit as _};
use crate::ops::attention::Attention;
use crate::ops::conv2d::Conv2d;
use crate::ops::norm::Norm;
use crate::ops::{Op, words};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// A line of what the process tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// The GPU is open.
    Ready,
    Begun(Family),
    /// What is wrong with it, if anything.
    Ended(Family, Option<String>),
    /// There is no more.
    Done,
}

/// A family that this GPU does not compute right with, and why.
pub type Failed = (Family, String);

/// To open a GPU and to compile PTX for it.
const OPENING: Duration = Duration::from_secs(60);
/// For the cases of a family, which take a fraction of a second.
const LIMIT: Duration = Duration::from_secs(5);

/// Tests the families on this GPU, telling what it does; not further than one that fails, which may have broken the context.
pub fn run(cuda: &Cuda, families: &[Family], tell: &mut dyn FnMut(Told)) {
    tell(Told::Ready);
    for &family in families.iter().filter(|&&f| cuda.limits().has(f)) {
        tell(Told::Begun(family));
        let wrong = cases_of(cuda, family).err().map(|e| format!("{e:#}"));
        let goes_on = wrong.is_none();
        tell(Told::Ended(family, wrong));
        if !goes_on {
            return;
        }
    }
    tell(Told::Done);
}

/// Kernels of each family; that a family passes says that all of these have run.
fn kernels_of(family: Family) -> &'static [&'static str] {
    match family {
        Family::Hopper => {
            &["conv2d_wgmma_128", "conv2d_wgmma_192", "conv2d_wgmma_256", "wgrad_wgmma"]
        }
        Family::WideTiles => &["conv2d_mma_wide_bf16", "wgrad_mma_wide_bf16"],
        Family::Slabs => &[
            "norm_slab_fwd_plain_bf16",
            "norm_slab_bwd_plain_bf16",
            "norm_slab_fwd_silu_bf16",
            "norm_slab_bwd_silu_bf16",
            "norm_slab_fwd_silu_drop_bf16",
            "norm_slab_bwd_silu_drop_bf16",
            "norm_slab_fwd_silu_down_bf16",
            "norm_slab_bwd_silu_down_bf16",
            "norm_slab_fwd_silu_up_bf16",
            "norm_slab_bwd_silu_up_bf16",
            "norm_slab_fwd_bf16",
            "norm_slab_bwd_bf16",
        ],
        Family::Attention => {
            &["attention_mma_fwd", "attention_mma_bwd_queries", "attention_mma_bwd_keys"]
        }
    }
}

/// The golden that a family's kernels compute, and how the names begin of its cases that go by them.
fn golden_of(family: Family) -> (&'static str, &'static [&'static str]) {
    match family {
        Family::Hopper | Family::WideTiles => ("conv2d", &["even"]),
        Family::Slabs => ("norm", &["even"]),
        Family::Attention => ("attention", &["wide", "large_logits_rounded"]),
    }
}

/// Runs what a family is for, so that its kernels are taken whatever the GPU's size: goldens, which tell right from wrong
/// in float64, and cases for the kernels that these are too small or too few for, beside the general kernels in float32.
fn cases_of(cuda: &Cuda, family: Family) -> Result<()> {
    let others = Family::ALL.into_iter().filter(|&f| f != family);
    let limits = others.fold(cuda.limits(), GpuLimits::without);
    let alone = cuda.with_limits(GpuLimits { multiprocessors: 1, ..limits });
    let general = cuda.with_limits(limits.without(family));
    let ((op, names), precision) = (golden_of(family), Precision::Bf16);
    let fast = |name: &str| names.iter().any(|first| name.starts_with(first));
    let (_, bytes) = GOLDENS.into_iter().find(|(name, _)| *name == op).expect("an op's golden");
    let golden = Golden::parse(bytes)?;
    let mut launched = Vec::new();
    for (name, attributes) in golden.cases().into_iter().filter(|(n, _)| fast(n)) {
        let case = Case::from_golden(op, &golden, &name, &attributes);
        launched.extend(case.kernel_names(alone.limits(), precision)?);
        let run = |case: &Case, acc, start| case.run_kernels(&alone, precision, acc, start);
        let off = case.error(&golden, precision, run)?;
        let (by, bar) = (off.by, case.bar(precision));
        ensure!(by < bar, "{op} {name}: {} is off by {by:.1e}, the bar is {bar:.0e}", off.at);
    }
    for (name, case) in made(family) {
        launched.extend(case.kernel_names(alone.limits(), precision)?);
        let got = case.run_kernels(&alone, precision, Acc::Set, 0.0)?;
        let want = case.run_kernels(&general, Precision::Fp32, Acc::Set, 0.0)?;
        let all = |ran: Ran| -> Vec<Vec<f32>> {
            let outs = ran.outs.into_iter().take(1);
            outs.chain(ran.d_ins.into_iter().flatten()).chain(ran.d_params).collect()
        };
        for (i, (got, want)) in all(got).iter().zip(&all(want)).enumerate() {
            let (by, bar) = (rel_err(got, want)?, case.bar(precision));
            ensure!(by < bar, "{name}: tensor {i} is off by {by:.1e}, the bar is {bar:.0e}");
        }
    }
    let lacking: Vec<_> = kernels_of(family).iter().filter(|k| !launched.contains(k)).collect();
    ensure!(lacking.is_empty(), "no case goes by {lacking:?}");
    Ok(())
}

/// What no golden is: tiles of 256 and 192 columns, forward and of the weight's gradient; a norm alone; attention over more
/// than a block's queries, and over more than its channels.
fn made(family: Family) -> Vec<(String, Case)> {
    let operand = |shape: [usize; 4], which: u32, activation: bool| {
        let words = random(words(shape), which, 1.0);
        Operand { shape, words, grad: Some(String::new()), activation }
    };
    let case = |op: Box<dyn Op>, [side, c]: [usize; 2], params: &[usize], outs: usize, o: usize| {
        let d_out = random(side * side * o, 4, 1.0);
        Case {
            op,
            ins: vec![operand([1, side, side, c], 1, true)],
            params: params.iter().zip(2..).map(|(&n, w)| operand([1, 1, 1, n], w, false)).collect(),
            outs: vec![None; outs],
            d_outs: (0..outs).map(|i| (i == 0).then(|| d_out.clone())).collect(),
            args: StepArgs::default(),
            float32_only: false,
        }
    };
    match family {
        Family::Slabs => {
            let norm = Norm { groups: 4, silu: false, dropout: None, resample: None, off: 0 };
            vec![("a norm alone".into(), case(Box::new(norm), [8, 32], &[32; 2], 2, 32))]
        }
        Family::Attention => {
            let attention = |[side, c]: [usize; 2]| {
                let name = format!("attention of {c} channels over {side}×{side} pixels");
                (name, case(Box::new(Attention), [side, 3 * c], &[], 2, c))
            };
            [[16, 72], [8, 264]].map(attention).into()
        }
        Family::Hopper | Family::WideTiles => {
            let convolution = |(c, o): (usize, usize)| {
                let name = format!("a convolution of {c} channels to {o}");
                (name, case(Box::new(Conv2d::same(3, o)), [8, c], &[9 * c * o, o], 1, o))
            };
            [(8, 200), (8, 136), (136, 8)].map(convolution).into()
        }
    }
}

/// Has processes test the families; `start` makes one that does so for some. `None`: the GPU could not be opened there.
///
/// # Errors
/// The program does not start.
pub fn in_process(start: impl Fn(&[Family]) -> Command) -> Result<Option<Vec<Failed>>> {
    let mut failed = Vec::new();
    let mut left = Family::ALL.to_vec();
    while !left.is_empty() {
        let mut command = start(&left);
        end_with_parent(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child =
            command.spawn().or_exit(Exit::Other, || format!("{name}: does not start"))?;
        let (tell, told) = channel();
        let out = BufReader::new(child.stdout.take().expect("its stdout is ours"));
        thread::spawn(move || {
            let lines = out.lines().map_while(Result::ok);
            lines.filter_map(|l| serde_json::from_str(&l).ok()).all(|t| tell.send(t).is_ok())
        });
        let (mut now, mut limit, before) = (None, OPENING, left.len());
        let how = loop {
            match told.recv_timeout(limit) {
                Ok(Told::Ready) => limit = LIMIT,
                Ok(Told::Begun(family)) => now = Some(family),
                Ok(Told::Ended(family, wrong)) => {
                    left.retain(|f| *f != family);
                    failed.extend(wrong.map(|why| (family, why)));
                    now = None;
                }
                Ok(Told::Done) => {
                    left.clear();
                    break String::new();
                }
                Err(RecvTimeoutError::Timeout) => {
                    break format!("had not ended after {} s", limit.as_secs());
                }
                Err(RecvTimeoutError::Disconnected) => break "its process ended".to_string(),
            }
        };
        end(&mut child);
        match now {
            Some(family) => {
                left.retain(|f| *f != family);
                failed.push((family, how));
            }
            None if left.len() < before => {}
            None => return Ok(None),
        }
    }
    Ok(Some(failed))
}
