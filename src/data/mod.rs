//! Image sets: 8-bit pixels in N,H,W,C order with optional labels, and where they come from.
//!
//! A [`Source`] is any set that can be read image by image (one file a format: `edm`, `cifar`, `idx`,
//! `folder`, `npz`); [`Source::collect`] makes the [`Dataset`] of it that everything else works with.

pub mod archive;
pub mod cifar;
pub mod dataset;
pub mod edm;
pub mod folder;
pub mod idx;
pub mod image;
pub mod input;
pub mod labels;
pub mod layout;
pub mod npy;
pub mod npz;
pub mod pickle;
pub mod python_random;
pub mod resize;
pub mod source;
pub mod stored_zip;
pub mod subset;

pub use dataset::Dataset;
pub use image::Image;
pub use source::{Source, Transform, open_any, open_within};
