//! Checks of ops and models against references made outside.

pub mod cases;
pub mod golden;
mod laid;
