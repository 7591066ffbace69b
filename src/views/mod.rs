//! What was found, as people and programs read it: tables, figures, sheets, a search's answer, pages. Views read and draw;
//! what is run, and what its numbers mean, [`crate::study`] decides.

mod report_runs;

pub mod account;
pub mod answer;
pub mod audit;
pub mod compare;
pub mod figures;
pub mod gap;
pub mod held;
pub mod matrix;
pub mod predict;
pub mod report;
pub mod search;
pub mod sheets;
pub mod status;
pub mod tables;
pub mod verify;
pub mod when;
pub mod words;
