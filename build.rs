//! Builds the kernels: by nvcc into what a GPU runs, or, where a feature asks for it, into the emulator.
//! `$OUT_DIR/kernels.rs` says what came of it, for `src/device/cuda/mod.rs`; `$OUT_DIR/params.rs` what kernels take, as
//! `kernels/params` declares it, for `src/device/params.rs`.

#[cfg(feature = "emulator")]
#[path = "build/emulator.rs"]
mod emulator;
#[path = "build/generate.rs"]
mod generate;
#[cfg(not(feature = "emulator"))]
#[path = "build/nvcc.rs"]
mod nvcc;
#[path = "build/params.rs"]
mod params;

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=kernels");
    let declared = params::read(&files("kernels/params", "h"));
    fs::write(out_dir().join("params.rs"), generate::rust(&declared)).expect("OUT_DIR is writable");
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    println!("cargo::rustc-env=EMM_TARGET_FEATURES={features}");
    #[cfg(feature = "emulator")]
    let Built { images, archs, lacking } = emulator::build(&declared);
    #[cfg(not(feature = "emulator"))]
    let Built { images, archs, lacking } = nvcc::build();

    let images: String =
        images.iter().map(|image| format!("    include_bytes!({image:?}),\n")).collect();
    let text = format!(
        "pub const IMAGES: &[&[u8]] = &[\n{images}];\npub const KERNELS_FOR: &[&str] = &{archs:?};\n\
         pub const LACKING: &str = {lacking:?};\n"
    );
    fs::write(out_dir().join("kernels.rs"), text).expect("OUT_DIR is writable");
}

struct Built {
    images: Vec<PathBuf>,
    archs: Vec<String>,
    /// Why there are no images, and how to get them.
    lacking: String,
}

fn out_dir() -> PathBuf {
    env::var_os("OUT_DIR").expect("cargo sets OUT_DIR").into()
}

/// The files of folder `dir` with extension `extension`, sorted.
fn files(dir: &str, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort();
    files
}
