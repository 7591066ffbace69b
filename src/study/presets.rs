//! Settings of the paper's experiments (Gu et al. 2023, section 2 and appendix), one line each.

use crate::model::{Arch, Precond};
use crate::run::Order;
use crate::run::scoring::Scoring;

/// Settings that a preset fixes; flags given beside it win.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preset {
    pub name: &'static str,
    pub arch: Arch,
    pub precond: Precond,
    pub num_blocks: usize,
    pub lr: f64,
    pub epochs: f64,
    pub scoring: Scoring,
    pub order: Order,
}

/// What training uses where neither a flag nor a preset says otherwise.
pub const DEFAULT: Preset = Preset {
    name: "default",
    arch: Arch::DdpmPP,
    precond: Precond::Vp,
    num_blocks: 2,
    lr: 2e-4,
    epochs: 40_000.0,
    scoring: Scoring { looks: None, score_images: None, rescore_images: None },
    order: Order::Shuffle,
};

/// How often the paper's runs are scored, and with how many images each time.
pub const LOOKS: usize = 20;
pub const SCORE_IMAGES: usize = 10_000;

const PAPER: Preset = Preset {
    scoring: Scoring {
        looks: Some(LOOKS),
        score_images: Some(SCORE_IMAGES),
        rescore_images: Some(0),
    },
    order: Order::Fixed,
    ..DEFAULT
};

const EDM: Preset = Preset { precond: Precond::Edm, num_blocks: 4, lr: 1e-3, ..PAPER };

pub const PRESETS: [Preset; 4] = [
    Preset { name: "paper-basic", ..PAPER },
    Preset { name: "paper-ncsnpp", arch: Arch::NcsnPP, precond: Precond::Ve, ..PAPER },
    // Figure 1c; its settings are inferred from Figure 5d's.
    Preset { name: "paper-edm", epochs: 4_000.0, ..EDM },
    // Figure 5d.
    Preset { name: "paper-edm-50k", epochs: 12_000.0, ..EDM },
];

pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|p| p.name == name)
}
