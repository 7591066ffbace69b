//! Flags of EDM's and DiffMemorize's training scripts that this program does not have, and what to use instead.

use crate::error::usage;
use anyhow::Result;
use std::ffi::OsString;

const COMMANDS: [&str; 3] = ["train", "plan", "find"];

const FOREIGN: [(&str, &str); 25] = [
    ("--fp16", "--precision bf16 stores activations in half precision"),
    ("--ls", "losses need no scaling: bf16 and fp32 have the range"),
    ("--augment", "the paper trains without augmentation, and so does this program"),
    ("--xflip", "the paper trains without mirroring; mirror the images before `emm data import`"),
    ("--optimizer", "Adam with --lr and --weight-decay is the only one"),
    ("--ema", "it is a half-life there; --ema-rate gives the rate per step of the paper's Table 2"),
    ("--tick", "progress is shown as it goes and kept in stats.jsonl"),
    ("--snap", "--looks N takes N evenly spaced snapshots and scores them; --keep all keeps them"),
    ("--dump", "--save-every says how often the state is saved"),
    ("--resume", "the same command with the same --run resumes"),
    ("--transfer", "a run starts from its seed or resumes its own --run"),
    ("--workers", "images stay in memory; --threads sets the threads"),
    ("--cache", "images stay in memory"),
    ("--bench", "`emm bench` measures; kernels are chosen without trials"),
    ("--nosubdirs", "--run names the directory itself"),
    ("--desc", "--run names the directory itself"),
    ("--batch-gpu", "--micro-batch is the images computed at a time"),
    ("--batch_gpu", "--micro-batch is the images computed at a time"),
    ("--cbase", "--channels is the width of the network"),
    ("--cres", "--mult gives the width of each level"),
    ("--dry-run", "`emm plan` takes the same flags and writes nothing"),
    ("--implicit_mlp", "there is no such layer in the paper's networks"),
    ("--network", "--model of `emm sample` reads model files"),
    ("--num-images", "--score-images is the number of generated images per look"),
    ("--seeds", "--seed is the run's seed; `emm sample --seeds` generates images"),
];

/// Refuses the first foreign flag among a training command's arguments.
///
/// # Errors
/// Usage (exit 2): begins with the flag and says what to use instead.
pub fn refuse(args: &[OsString]) -> Result<()> {
    let args: Vec<&str> = args.iter().skip(1).map_while(|a| a.to_str()).collect();
    let Some(command) = args.iter().find(|a| !a.starts_with('-')) else { return Ok(()) };
    if !COMMANDS.contains(command) {
        return Ok(());
    }
    for arg in args.iter().take_while(|&&a| a != "--") {
        let name = arg.split_once('=').map_or(*arg, |(name, _)| name);
        if let Some((flag, instead)) = FOREIGN.iter().find(|(flag, _)| *flag == name) {
            return Err(usage(format!("{flag}: there is no such flag; {instead}")));
        }
    }
    Ok(())
}
