use super::Common;
use anyhow::Result;

#[derive(clap::Subcommand, Debug)]
pub enum Command {}

pub fn run(_command: Command, _common: &Common) -> Result<()> {
    todo!()
}
