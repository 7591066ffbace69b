//! Checks of ops and models against references made outside.

pub mod golden;
