//! memorization
