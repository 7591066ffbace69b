//! `emm ckpt`: model files looked at, taken out of runs, converted.

use super::endings::check_ending;
use super::{Common, say, say_json};
use crate::error::data;
use crate::files::check_output;
use crate::model::flops::flops;
use crate::model::infer::{Unsaid, convert};
use crate::model::tensor_file::TensorFile;
use crate::model::{Params, Precond};
use crate::run::dir::model_at;
use crate::run::{RunDir, state};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Look at, take out, convert model files: safetensors with EDM's names
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Print a model file's configuration and counts; every value is checked
    #[command(
        after_help = "Example:\n  emm ckpt info runs/digits/snapshots/epoch-002000.safetensors"
    )]
    Info {
        /// Model file, or a run's directory for its best snapshot
        #[arg(value_name = "F.safetensors|RUN")]
        model: PathBuf,
    },
    /// Write the network of a run's last saved state as a model file
    #[command(after_help = "Example:\n  emm ckpt export runs/digits --out model.safetensors")]
    Export {
        /// A run's directory
        #[arg(value_name = "RUN")]
        run: PathBuf,
        /// Model file to write
        #[arg(long, value_name = "F.safetensors")]
        out: PathBuf,
        /// The live weights instead of their moving average
        #[arg(long)]
        live: bool,
        /// Replace an existing output
        #[arg(long)]
        force: bool,
    },
    /// Make a model file of safetensors with EDM's names from elsewhere: any float type, with or without `model.`
    #[command(after_help = "Example:\n  \
        emm ckpt convert edm-cifar10.safetensors --precond vp --out model.safetensors")]
    Convert {
        /// safetensors of another program
        #[arg(value_name = "F.safetensors")]
        source: PathBuf,
        /// Model file to write
        #[arg(long, value_name = "F.safetensors")]
        out: PathBuf,
        /// Its preconditioning, which tensors do not tell [default: vp for ddpmpp, ve for ncsnpp]
        #[arg(long, value_enum)]
        precond: Option<Precond>,
        /// Its skip connections, which tensors do not tell [default: all 1]
        #[arg(long, alias = "skip-connections", value_name = "1,0,...", value_delimiter = ',')]
        skips: Option<Vec<u8>>,
        /// Dropout it is trained with
        #[arg(long, value_name = "P", default_value_t = 0.13)]
        dropout: f64,
        /// Replace an existing output
        #[arg(long)]
        force: bool,
    },
}

/// Prints what a model file holds, or writes a run's or another program's network as one.
///
/// # Errors
/// Usage: flags, or an output that is there. Data: no model, no state yet.
pub fn run(command: Command, common: &Common) -> Result<()> {
    match command {
        Command::Info { model } => info(&model, common),
        Command::Export { run, out, live, force } => {
            check_ending("--out", &out, "a model", &["safetensors"])?;
            check_output(&out, force)?;
            let dir = RunDir::new(&run);
            let config = dir.config()?;
            let model = state::model_of(&dir.state_path(), &config, live)?;
            let none = || data(format!("{}: no state has been saved yet", run.display()));
            model.ok_or_else(none)?.save(&out, force)?;
            written(&out, common);
            Ok(())
        }
        Command::Convert { source, out, precond, skips, dropout, force } => {
            check_ending("--out", &out, "a model", &["safetensors"])?;
            check_output(&out, force)?;
            let unsaid = Unsaid { precond, skip_connections: skips, dropout };
            convert(&source, &unsaid)?.save(&out, force)?;
            written(&out, common);
            Ok(())
        }
    }
}

fn written(out: &Path, common: &Common) {
    match common.json {
        true => say_json!({"out": out.display().to_string()}),
        false => say!("{}", out.display()),
    }
}

fn info(path: &Path, common: &Common) -> Result<()> {
    let (file, model) = model_at(path)?;
    let checked = TensorFile::open(&file)?.check()?;
    let params = Params::new(&model.config);
    let cost = flops(&model.config);
    if common.json {
        say_json!({
            "file": file.display().to_string(),
            "parameters": params.count(),
            "tensors": params.specs.len(),
            "forward_flop_per_image": cost.forward,
            "finite": true,
            "checksum": checked,
            "model": model.config,
            "run": model.run,
        });
        return Ok(());
    }
    say!("file        {}", file.display());
    say!("parameters  {} in {} tensors, all finite", params.count(), params.specs.len());
    say!(
        "checksum    {}",
        if checked { "fits" } else { "none: of another program or from before there were any" }
    );
    say!("forward     {:.2} GFLOP per image", cost.forward as f64 / 1e9);
    say!("model       {}", serde_json::to_string(&model.config)?);
    if let Some(run) = model.run {
        say!("run         {run}");
    }
    Ok(())
}
