//! What GPUs differ in, as far as plans heed it.

use super::params;
use serde::{Deserialize, Serialize};

/// Kernels that a plan has in place of slower ones, where a GPU runs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// By Hopper's own instructions; without them convolutions go by `mma.sync`.
    Hopper,
    /// Products of 256 columns a block; without them of 128.
    WideTiles,
    /// Norms in one pass; without them in several.
    Slabs,
    /// Attention with its scores on chip; without it they go through memory.
    Attention,
}

impl Family {
    pub const ALL: [Family; 4] =
        [Family::Hopper, Family::WideTiles, Family::Slabs, Family::Attention];

    pub fn name(self) -> &'static str {
        match self {
            Family::Hopper => "hopper",
            Family::WideTiles => "wide-tiles",
            Family::Slabs => "slabs",
            Family::Attention => "attention",
        }
    }

    pub fn named(name: &str) -> Option<Family> {
        Family::ALL.into_iter().find(|f| f.name() == name)
    }
}

/// What of a GPU decides which kernels a plan has, and how they are launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GpuLimits {
    /// Shared memory that a block may ask for: 99 KB at least, 163 KB on an A100, 227 KB on an H100.
    pub shared_bytes: usize,
    pub multiprocessors: usize,
    /// A GPU of capability 9.0 with kernels built for sm_90a: tensor copies and products of warpgroups.
    pub hopper: bool,
    pub wide_tiles: bool,
    pub slabs: bool,
    pub attention: bool,
}

impl GpuLimits {
    /// The least of GPUs that the kernels run on.
    pub const LEAST: GpuLimits = GpuLimits {
        shared_bytes: params::LEAST_SHARED_BYTES,
        multiprocessors: 1,
        hopper: false,
        wide_tiles: true,
        slabs: true,
        attention: true,
    };

    /// Whether plans have kernels of a family.
    pub fn has(self, family: Family) -> bool {
        match family {
            Family::Hopper => self.hopper,
            Family::WideTiles => {
                self.wide_tiles && self.shared_bytes >= params::MMA_WIDE_SHARED_BYTES
            }
            Family::Slabs => self.slabs,
            Family::Attention => self.attention,
        }
    }

    /// Blocks of so much shared memory that a multiprocessor holds; it has no less than a block may ask for, and of each
    /// block a kilobyte is the driver's.
    pub fn blocks_of(self, shared_bytes: usize) -> usize {
        ((self.shared_bytes + 1024) / (shared_bytes + 1024)).max(1)
    }

    /// Without a family's kernels.
    pub fn without(self, family: Family) -> Self {
        match family {
            Family::Hopper => GpuLimits { hopper: false, ..self },
            Family::WideTiles => GpuLimits { wide_tiles: false, ..self },
            Family::Slabs => GpuLimits { slabs: false, ..self },
            Family::Attention => GpuLimits { attention: false, ..self },
        }
    }
}
