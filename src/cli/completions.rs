//! `emm completions`: what a shell has to know to complete command lines.

use super::{Common, say, say_json};
use anyhow::Result;
use clap::Command;
use clap_complete::{Shell, generate};

/// Print a script with which a shell completes commands and flags
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm completions bash > ~/.local/share/bash-completion/completions/emm
  emm completions zsh > \"${fpath[1]}/_emm\"
  emm completions fish > ~/.config/fish/completions/emm.fish")]
pub struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints a shell's script for the whole of `command`.
pub fn run(args: Args, mut command: Command, common: &Common) -> Result<()> {
    let mut script = Vec::new();
    generate(args.shell, &mut command, "emm", &mut script);
    let script = String::from_utf8(script)?;
    match common.json {
        true => say_json!({"shell": args.shell.to_string(), "script": script}),
        false => say!("{}", script.trim_end()),
    }
    Ok(())
}
