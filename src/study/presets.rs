//! The presets of `files/presets.toml`.

use super::settings::{Overrides, read_run};
use crate::run::RunSettings;
use std::sync::LazyLock;

static PRESETS: LazyLock<Vec<(String, RunSettings)>> = LazyLock::new(|| {
    let all: Overrides = toml::from_str(include_str!("files/presets.toml")).expect("TOML");
    let read = |(name, written): (String, toml::Value)| {
        let settings = written.as_table().map(|table| read_run(table, &name));
        (name, settings.expect("a table").expect("a shipped preset is whole"))
    };
    all.into_iter().map(read).collect()
});

/// The preset of the paper's basic experiments.
pub const PAPER: &str = "paper-basic";

/// What `--preset` takes.
pub fn names() -> Vec<&'static str> {
    PRESETS.iter().map(|(name, _)| name.as_str()).collect()
}

pub fn preset(name: &str) -> Option<&'static RunSettings> {
    PRESETS.iter().find(|(known, _)| known == name).map(|(_, settings)| settings)
}
