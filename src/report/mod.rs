//! What people look at: tables, plots, sheets of samples beside their nearest training images.

mod canvas;
pub mod grid;
pub mod plot;
pub mod sheet;
pub mod table;

pub use grid::grid;
pub use plot::{Plot, SizePoint};
pub use sheet::{Triplet, sheet};
pub use table::{Cell, Table};
