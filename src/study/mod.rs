//! What the paper does over many runs: the settings of its experiments, the search for the EMM, the gap to the
//! optimum; and its whole study. That is declared in TOML ([`spec`]: axes of values, the printed results, the tables and
//! figures), resolved at a scale on a set into runs ([`plan`], which says how tables and figures use it), and read
//! back from the folders of finished runs ([`outcome`]).

mod names;
mod report_runs;
mod study_file;

pub mod account;
pub mod answer;
pub mod bootstrap;
pub mod cost;
pub mod figures;
pub mod find;
pub mod folder;
pub mod gap;
pub mod matrix;
pub mod outcome;
pub mod pictures;
pub mod plan;
pub mod presets;
pub mod quickstart;
pub mod report;
pub mod scale;
pub mod settings;
pub mod share;
pub mod sheets;
pub mod spec;
pub mod sweep;
pub mod tables;
pub mod theirs;

pub use answer::{Found, Measured};
pub use find::{Search, Sizes, find};
pub use outcome::{RunState, Seen, passed_over};
pub use plan::{Plan, Set, Setup};
pub use scale::Scale;
pub use settings::Shape;
pub use spec::Study;
pub use sweep::Sweep;
