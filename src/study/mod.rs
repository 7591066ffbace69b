//! What the paper does over many runs: the settings of its experiments, the search for the EMM, the gap to the
//! optimum; and its whole study. That is declared in TOML ([`spec`]: axes of values, the printed results, the tables and
//! figures), resolved at a scale on a set into runs ([`plan`]), trained and scored ([`sweep`]), and read back from the
//! folders of finished runs ([`outcome`]: whoever asks, what the runs of a cell found is one type, [`Measured`]). A search
//! for the EMM ([`mod@find`]) is such a study, with the axis `size`.

mod share;
mod study_file;

pub mod ahead;
pub mod bucket;
pub mod compare;
pub mod cost;
pub mod find;
pub mod folder;
pub mod gap;
pub mod held;
pub mod lent;
pub mod log;
mod longer;
pub mod names;
pub mod outcome;
pub mod plan;
pub mod predict;
pub mod presets;
pub mod quickstart;
pub mod samples;
pub mod scale;
pub mod settings;
pub mod spec;
pub mod standing;
pub mod sweep;
pub mod theirs;
pub mod verify;
pub mod when;
pub mod within;

pub use find::{EmmSearch, Found, Sizes, find};
pub use outcome::{Measured, RunState, Seen, passed_over};
pub use plan::{NamedSet, Setup, StudyPlan};
pub use scale::Scale;
pub use settings::ImageShape;
pub use spec::Study;
pub use sweep::Sweep;

/// ε of the EMM where nothing else is asked for (Gu et al. 2023, section 2).
pub const EPSILON: f64 = 0.1;
