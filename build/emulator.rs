//! `kernels/*.cu` compiled as C++ and linked with `kernels/emulator` into a libcuda.so that runs them on the CPU:
//! `emulator/libcuda.so` in OUT_DIR, and `emulator-check/libcuda.so` whose kernels tell a checker of every memory
//! access. `env!("EMM_EMULATOR_DIR")` and `env!("EMM_EMULATOR_CHECK_DIR")` name the folders. Beside a library,
//! `compile` holds the command that compiled its kernels, an argument a line, and `objects` what it was linked
//! from: source, tab, object.

use super::{Built, Path, PathBuf, env, files, fs, generate, out_dir, params::Declared};
use std::process::Command;

const RUNTIME: [&str; 12] = [
    "machine",
    "shared",
    "prims",
    "mbarrier",
    "warpgroup",
    "tensor_copy",
    "wgmma",
    "memory",
    "driver",
    "tensor_map",
    "launch",
    "stream",
];

/// The instrumentation is the compiler's, the functions that it calls are checker.cpp's.
const CHECKED: [&str; 3] =
    ["-g1", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"];

/// A fatbin of nothing, as nvcc writes one: a head, and the head and text of one piece of PTX for compute_80. The
/// emulator's driver wants an image that a GPU would load, and knows its kernels by name.
fn image() -> Vec<u8> {
    let text = b"// kernels of the emulator\n\0\0\0\0";
    let mut entry = Vec::new();
    for (bytes, value) in [
        (2, 1u64), // PTX
        (2, 0x101),
        (4, 64), // bytes of this head
        (8, text.len() as u64),
        (8, 0), // not compressed, no options
        (4, 8), // PTX 8.0: minor, major
        (4, 80),
    ] {
        entry.extend_from_slice(&value.to_le_bytes()[..bytes]);
    }
    entry.resize(64, 0);
    entry.extend(text);
    let mut image = vec![0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0];
    image.extend((entry.len() as u64).to_le_bytes());
    image.extend(entry);
    image
}

/// The images to load.
pub fn build(declared: &Declared) -> Built {
    assert_eq!(
        env::var("CARGO_CFG_TARGET_ARCH").as_deref(),
        Ok("x86_64"),
        "feature emulator: the fiber switch is written for x86-64"
    );
    let out = out_dir();
    let registry = out.join("registry.cpp");
    fs::write(&registry, generate::registry(declared)).expect("OUT_DIR is writable");
    let of_tests = files("kernels/emulator/tests", "cu");
    let kernels = [files("kernels", "cu"), of_tests, vec![registry]].concat();
    let runtime = compile(&mut compiler(), &RUNTIME.map(source), &out.join("runtime"));
    for (name, env_name, checker, flags) in [
        ("emulator", "EMM_EMULATOR_DIR", &["no_checker"][..], &[][..]),
        ("emulator-check", "EMM_EMULATOR_CHECK_DIR", &["checker", "clocks"], &CHECKED),
    ] {
        let dir = out.join(name);
        let mut of_kernels = compiler();
        of_kernels.flag("-xc++").flag("-include").flag("kernels/emulator/cuda.h");
        of_kernels.include("kernels").flag("-Wno-unknown-pragmas");
        flags.iter().for_each(|flag| _ = of_kernels.flag(flag));

        let mut objects = runtime.clone();
        let checker: Vec<PathBuf> = checker.iter().map(|name| source(name)).collect();
        objects.extend(compile(&mut compiler(), &checker, &dir));
        objects.extend(compile(&mut of_kernels, &kernels, &dir));
        link(&objects, &dir.join("libcuda.so"));
        describe(&of_kernels, &objects, &dir);
        println!("cargo:rustc-env={env_name}={}", dir.display());
    }
    let image = out.join("emulator.image");
    fs::write(&image, self::image()).expect("OUT_DIR is writable");
    Built { images: vec![image], archs: vec!["emulator".into()], lacking: String::new() }
}

fn source(name: &str) -> PathBuf {
    PathBuf::from(format!("kernels/emulator/{name}.cpp"))
}

fn compiler() -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(2).debug(false).pic(true).cargo_metadata(false);
    // CUDA code casts and overflows freely; products and sums are rounded one by one unless it says fmaf.
    build.flag("-fno-strict-aliasing").flag("-fwrapv").flag("-ffp-contract=off");
    build.flag("-fvisibility=hidden").flag("-fno-exceptions").flag("-Wno-psabi");
    if std::arch::is_x86_feature_detected!("fma") && std::arch::is_x86_feature_detected!("avx2") {
        build.flag("-mavx2").flag("-mfma"); // fmaf as one instruction
    }
    build
}

/// Pairs of source and object.
fn compile(build: &mut cc::Build, files: &[PathBuf], dir: &Path) -> Vec<(PathBuf, PathBuf)> {
    fs::create_dir_all(dir).expect("OUT_DIR is writable");
    let objects = build.out_dir(dir).files(files).compile_intermediates();
    files.iter().cloned().zip(objects).collect()
}

fn link(objects: &[(PathBuf, PathBuf)], library: &Path) {
    let linker = compiler().get_compiler();
    let status = Command::new(linker.path())
        .args(["-shared", "-Wl,-soname,libcuda.so", "-Wl,-Bsymbolic", "-Wl,-z,defs", "-o"])
        .arg(library)
        .args(objects.iter().map(|(_, object)| object))
        .args(["-ldl", "-pthread"])
        .status()
        .unwrap_or_else(|e| panic!("feature emulator: cannot run {:?}: {e}", linker.path()));
    assert!(status.success(), "feature emulator: linking {} failed", library.display());
}

/// Writes `compile` and `objects`, so that a test can build a library with one kernel changed.
fn describe(of_kernels: &cc::Build, objects: &[(PathBuf, PathBuf)], dir: &Path) {
    let command = of_kernels.get_compiler().to_command();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let pairs = objects.iter().map(|(s, o)| format!("{}\t{}\n", s.display(), o.display()));
    fs::write(dir.join("compile"), words.join("\n")).expect("OUT_DIR is writable");
    fs::write(dir.join("objects"), pairs.collect::<String>()).expect("OUT_DIR is writable");
}
