//! What people look at: tables, charts, sheets of samples beside their nearest training images.

mod canvas;
pub mod chart;
mod draw;
pub mod events;
mod frame;
pub mod grid;
mod layout;
pub mod page;
mod pdf;
mod scene;
pub mod sheet;
pub mod table;

pub use chart::{Chart, ChartScale, Panel, Point, Series, Style};
pub use frame::number;
pub use grid::grid;
pub use page::{Page, PagePart, Section};
pub use sheet::{Compared, Sheet, SheetOf, sheets};
pub use table::{Cell, Table};
