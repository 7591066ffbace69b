//! A setting is declared once, by a line of `settings!`: its field in a configuration, type and default, its flag and key
//! in study files with their help, its bounds, and how a scale changes it. From that line come the flags, the reading of
//! study files and presets, what a stored configuration leaves out, the bounds' errors and the differences of two runs.

use crate::error::usage;
use crate::numbers::count;
use anyhow::Result;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::str::FromStr;

/// What is known of a setting that people give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// In study files and presets.
    pub key: &'static str,
    /// In a stored configuration.
    pub field: &'static str,
    /// Where it is not the key's.
    pub flag: Option<&'static str>,
    pub scaled: Option<Factor>,
}

impl Setting {
    /// `--weight-decay`.
    pub fn flag(&self) -> String {
        format!("--{}", self.flag.map_or_else(|| self.key.replace('_', "-"), String::from))
    }
}

/// By which of its factors a scale changes a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factor {
    Batch,
    Channels,
    EmaRate,
    Epochs,
    Evaluations,
    Lr,
    Ramp,
    ScoreImages,
}

/// A value, or none where it follows from other settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice<T> {
    Auto,
    Is(T),
}

impl<T> Choice<T> {
    pub fn said(self) -> Option<T> {
        match self {
            Choice::Auto => None,
            Choice::Is(value) => Some(value),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Choice<T> {
    /// As a value alone: what a file leaves to the program it leaves out.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        T::deserialize(from).map(Choice::Is)
    }
}

/// `auto`, or a count.
pub fn auto_or_count(text: &str) -> Result<Choice<usize>, String> {
    match text {
        "auto" => Ok(Choice::Auto),
        text => count(text).map(Choice::Is),
    }
}

/// `auto`, or one of an enum's names.
pub fn auto_or_name<T: clap::ValueEnum>(text: &str) -> Result<Choice<T>, String> {
    if text == "auto" {
        return Ok(Choice::Auto);
    }
    T::from_str(text, false).map(Choice::Is).map_err(|_| {
        let names = T::value_variants().iter().filter_map(T::to_possible_value);
        let names = names.map(|v| v.get_name().to_string());
        let names: Vec<String> = std::iter::once("auto".into()).chain(names).collect();
        format!("{text:?} is none of {}", names.join(", "))
    })
}

/// Resolutions with attention.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Resolutions(pub Vec<usize>);

impl FromStr for Choice<Resolutions> {
    type Err = String;

    /// `auto`, `none`, or resolutions in any order.
    fn from_str(text: &str) -> Result<Self, String> {
        let resolution = |part: &str| {
            let wrong = || format!("{part:?} is none of auto, none, a resolution");
            part.trim().parse::<usize>().map_err(|_| wrong())
        };
        let mut all = match text {
            "auto" => return Ok(Choice::Auto),
            "none" => Vec::new(),
            list => list.split(',').map(resolution).collect::<Result<Vec<_>, _>>()?,
        };
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.dedup();
        Ok(Choice::Is(Resolutions(all)))
    }
}

/// What is given of a setting, as its field holds it; a field that is worked out later holds its default until then.
pub trait Given<T> {
    fn put(&self, field: &mut T);
}

impl<T: Clone> Given<T> for T {
    fn put(&self, field: &mut T) {
        field.clone_from(self);
    }
}

impl<T: Clone> Given<Option<T>> for T {
    fn put(&self, field: &mut Option<T>) {
        *field = Some(self.clone());
    }
}

impl<T: Clone> Given<T> for Choice<T> {
    fn put(&self, field: &mut T) {
        if let Choice::Is(value) = self {
            field.clone_from(value);
        }
    }
}

impl Given<Vec<usize>> for Choice<Resolutions> {
    fn put(&self, field: &mut Vec<usize>) {
        if let Choice::Is(Resolutions(value)) = self {
            field.clone_from(value);
        }
    }
}

/// A setting that is a number, or may be none.
pub trait Number: Sized {
    fn get(&self) -> Option<f64>;
    fn set(&mut self, value: Option<f64>);
}

impl Number for usize {
    fn get(&self) -> Option<f64> {
        Some(*self as f64)
    }
    fn set(&mut self, value: Option<f64>) {
        *self = value.map_or(*self, |v| v as usize);
    }
}

impl Number for f64 {
    fn get(&self) -> Option<f64> {
        Some(*self)
    }
    fn set(&mut self, value: Option<f64>) {
        *self = value.unwrap_or(*self);
    }
}

impl Number for Option<f64> {
    fn get(&self) -> Option<f64> {
        *self
    }
    fn set(&mut self, value: Option<f64>) {
        *self = value;
    }
}

/// That a setting lies within its bounds.
///
/// # Errors
/// Usage, which begins with the flag.
pub fn within(flag: &str, value: &impl Number, bounds: impl RangeBounds<f64>) -> Result<()> {
    let Some(value) = value.get().filter(|v| !(v.is_finite() && bounds.contains(v))) else {
        return Ok(());
    };
    let least = match bounds.start_bound() {
        Bound::Included(least) | Bound::Excluded(least) => *least,
        Bound::Unbounded => f64::NEG_INFINITY,
    };
    let what = match bounds.end_bound() {
        Bound::Included(most) => format!(", expected {least} to {most}"),
        Bound::Excluded(end) => format!(" is outside [{least}, {end})"),
        Bound::Unbounded => format!(" is not a finite number ≥ {least}"),
    };
    Err(usage(format!("{flag}: {value}{what}")))
}

/// A flag's help, with the default where it is fixed and worth saying.
pub fn help<T: fmt::Debug>(text: &str, default: &T) -> String {
    let default = format!("{default:?}").to_lowercase();
    let said = ["auto", "[default"].iter().any(|what| text.contains(what));
    if said || ["none", "[]", "false"].contains(&default.as_str()) {
        return text.into();
    }
    let list = default.trim_matches(['[', ']']).replace(", ", ",");
    format!("{text} [default: {}]", list.strip_suffix(".0").unwrap_or(&list))
}

/// The one element, if there is one.
pub const fn only<T: Copy>(all: &[T]) -> Option<T> {
    match all {
        [one, ..] => Some(*one),
        [] => None,
    }
}

/// Whether files have a field of this value.
pub fn is_written(value: &impl Serialize) -> bool {
    !serde_json::to_value(value).is_ok_and(|json| json.is_null())
}

/// Declares a configuration and what may be given of it. After their names stand the fields that its files have had from
/// the first on; where another is absent, it has its default.
///
/// A row is `field: type = default;`, or, of a setting that people give, `field: type = default => key: type given, "help",
/// [how clap takes the flag]` and then what applies of `, flag "name"` (where it is not the key's), `, within bounds`,
/// `, scaled Factor`. The default of what follows from other settings is only a start, and its help says what becomes of it.
macro_rules! settings {
    (
        $(#[$meta:meta])* $config:ident, $given:ident, first [$($first:ident)*];
        $(
            $(#[doc = $doc:literal])*
            $field:ident: $type:ty = $default:expr
            $(=> $key:ident: $given_type:ty, $help:literal, [$($arg:tt)*]
                $(, flag $flag:literal)? $(, within $bounds:expr)? $(, scaled $scaled:ident)?)?
            ;
        )*
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        pub struct $config {
            $($(#[doc = $doc])* $(#[doc = $help])? pub $field: $type,)*
        }

        impl Default for $config {
            fn default() -> Self {
                $config { $($field: $default,)* }
            }
        }

        impl $config {
            /// Fields that files have had from the first on: where one is absent, something is lost.
            pub const FIRST: &[&str] = &[$(stringify!($first)),*];
        }

        impl<'de> serde::Deserialize<'de> for $config {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Stored {
                    $($field: Option<$type>,)*
                }
                let stored = Stored::deserialize(from)?;
                let mut config = $config::default();
                $(match stored.$field {
                    Some(value) => config.$field = value,
                    // What may be none is not written then.
                    None if $config::FIRST.contains(&stringify!($field))
                        && $crate::settings::is_written(&config.$field) =>
                    {
                        return Err(serde::de::Error::missing_field(stringify!($field)));
                    }
                    None => {}
                })*
                Ok(config)
            }
        }

        #[doc = concat!("What is given of a [`", stringify!($config), "`]; `None` is left to a preset or the default.")]
        #[derive(Debug, Clone, PartialEq, Default, serde::Deserialize, clap::Args)]
        #[serde(deny_unknown_fields, default)]
        pub struct $given {
            $($(
                #[doc = $help]
                #[arg(long $(= $flag)?, help = $crate::settings::help::<$type>($help, &$default), $($arg)*)]
                pub $key: Option<$given_type>,
            )?)*
        }

        impl $given {
            /// All that people give.
            pub const SETTINGS: &[$crate::settings::Setting] = &[$($(
                $crate::settings::Setting {
                    key: stringify!($key),
                    field: stringify!($field),
                    flag: $crate::settings::only::<&'static str>(&[$($flag)?]),
                    scaled: $crate::settings::only(&[$($crate::settings::Factor::$scaled)?]),
                },
            )?)*];

            /// With what `base` gives where this gives nothing.
            pub fn over(mut self, base: &Self) -> Self {
                $($(if self.$key.is_none() {
                    self.$key.clone_from(&base.$key);
                })?)*
                self
            }

            /// As given, else the default.
            pub fn config(&self) -> $config {
                let mut config = $config::default();
                $($(if let Some(given) = &self.$key {
                    $crate::settings::Given::<$type>::put(given, &mut config.$field);
                })?)*
                config
            }
        }

        impl $config {
            /// # Errors
            /// Usage, which begins with the flag: a setting outside its bounds.
            pub fn check_bounds(&self) -> anyhow::Result<()> {
                let mut settings = $given::SETTINGS.iter();
                $($(
                    let setting = settings.next().expect("a setting a key");
                    debug_assert_eq!(setting.key, stringify!($key));
                    $($crate::settings::within(&setting.flag(), &self.$field, $bounds)?;)?
                )?)*
                Ok(())
            }

            /// Changes each setting that a scale changes.
            pub fn scale(&mut self, by: &dyn Fn($crate::settings::Factor, Option<f64>) -> Option<f64>) {
                $($($(
                    let value = $crate::settings::Number::get(&self.$field);
                    let value = by($crate::settings::Factor::$scaled, value);
                    $crate::settings::Number::set(&mut self.$field, value);
                )?)?)*
            }
        }
    };
}
pub(crate) use settings;

#[cfg(test)]
mod tests {
    use super::*;

    settings! {
        /// An example.
        Example, ExampleSettings, first [size mean];

        size: usize = 8 => size: usize, "Pixels", [value_name = "N"], within 1.0..=64.0, scaled Batch;
        /// Not given.
        found: u32 = 3;
        mean: Option<f64> = None => average: f64, "Share", [value_name = "P"], flag "mean", within 0.0..1.0;
        rate: f64 = 2e-4 => rate: Choice<f64>, "Rate", [value_parser = |_: &str| Ok::<Choice<f64>, String>(Choice::Auto)], within 0.0..;
    }

    #[test]
    fn a_line_makes_field_flag_key_bounds_and_scale() {
        let given: ExampleSettings = toml::from_str("size = 7\naverage = 0.5").unwrap();
        let base = ExampleSettings { size: Some(9), rate: Some(Choice::Is(1.0)), average: None };
        let mut config = given.clone().over(&base).config();
        assert_eq!(config, Example { size: 7, found: 3, mean: Some(0.5), rate: 1.0 });
        config.scale(&|factor, value| {
            assert_eq!(factor, Factor::Batch);
            value.map(|v| 2.0 * v)
        });
        assert_eq!(config.size, 14);
        let flags: Vec<String> = ExampleSettings::SETTINGS.iter().map(Setting::flag).collect();
        assert_eq!(flags, ["--size", "--mean", "--rate"]);
        let absent: Example = toml::from_str("size = 1").unwrap();
        assert_eq!(absent, Example { size: 1, ..Example::default() });
        assert!(toml::from_str::<Example>("size = 1\nsizes = 1").is_err());
        assert!(toml::from_str::<Example>("found = 1").is_err(), "a first field is lost");
        assert!(toml::from_str::<ExampleSettings>("found = 1").is_err());
        for (config, error) in [
            (Example { size: 0, ..config.clone() }, "--size: 0, expected 1 to 64"),
            (Example { mean: Some(1.0), ..config.clone() }, "--mean: 1 is outside [0, 1)"),
            (
                Example { rate: f64::NAN, ..config.clone() },
                "--rate: NaN is not a finite number ≥ 0",
            ),
        ] {
            assert_eq!(config.check_bounds().unwrap_err().to_string(), error);
        }
        assert!(config.check_bounds().is_ok());
    }

    #[test]
    fn help_shows_a_default_that_is_one() {
        assert_eq!(help("Pixels", &8), "Pixels [default: 8]");
        assert_eq!(help("Widths", &vec![2, 1]), "Widths [default: 2,1]");
        assert_eq!(help("Rate", &1.0), "Rate [default: 1]");
        assert_eq!(help("auto: follows", &1), "auto: follows");
        assert_eq!(help("Share", &None::<f64>), "Share");
    }
}
