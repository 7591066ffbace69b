//! Settings of a run as files give them, and the presets of `files/presets.toml`.

use crate::error::usage;
use crate::model::ModelSettings;
use crate::run::{RunSettings, TrainSettings};
use crate::settings::Setting;
use anyhow::Result;
use serde::de::DeserializeOwned;
use std::sync::LazyLock;

/// Settings as written: tables of keys, put over one another.
pub type Overrides = toml::Table;

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

/// A network and training that take minutes on a CPU.
pub const SMALL: &str = "small";

/// What `--preset` takes.
pub fn names() -> Vec<&'static str> {
    PRESETS.iter().map(|(name, _)| name.as_str()).collect()
}

pub fn preset(name: &str) -> Option<&'static RunSettings> {
    PRESETS.iter().find(|(known, _)| known == name).map(|(_, settings)| settings)
}

/// What a table gives of a run; its other keys are left alone. Errors as of [`super::settings::Settings::read`].
pub fn read_run(written: &Overrides, what: &str) -> Result<RunSettings> {
    let keys = |settings: &'static [Setting]| settings.iter().map(|s| s.key);
    Ok(RunSettings {
        network: part(written, keys(ModelSettings::SETTINGS), what)?,
        training: part(written, keys(TrainSettings::SETTINGS), what)?,
    })
}

/// The settings of these keys.
pub fn part<T: DeserializeOwned>(
    written: &Overrides,
    keys: impl IntoIterator<Item = &'static str>,
    what: &str,
) -> Result<T> {
    let mut all = Overrides::new();
    for key in keys {
        let Some(value) = written.get(key) else { continue };
        let one = Overrides::from_iter([(key.to_string(), value.clone())]);
        one.try_into::<T>()
            .map_err(|e| usage(format!("{what}: {key} = {value}: {}", e.message())))?;
        all.insert(key.into(), value.clone());
    }
    all.try_into().map_err(|e: toml::de::Error| usage(format!("{what}: {}", e.message())))
}
