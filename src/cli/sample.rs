use super::Common;
use anyhow::Result;

#[derive(clap::Args, Debug)]
pub struct Args {}

pub fn run(_args: Args, _common: &Common) -> Result<()> {
    todo!()
}
