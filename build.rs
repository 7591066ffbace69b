//! Builds the kernels: by nvcc into what a card runs, or, where a feature asks for it, into the emulator.
//! `$OUT_DIR/kernels.rs` says what came of it, for `src/device/cuda/mod.rs`.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=kernels");
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    println!("cargo::rustc-env=EMM_TARGET_FEATURES={features}");
    #[cfg(feature = "emulator")]
    let Built { images, archs, lacking } = emulator::build();
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

/// `kernels/*.cu` compiled by nvcc, one fatbin a file.
#[cfg(not(feature = "emulator"))]
mod nvcc {
    use super::{Built, Path, PathBuf, env, files, fs, out_dir};
    use std::process::Command;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::SystemTime;

    /// Variables that decide. PATH is not among them: it differs from one shell or editor to the next, and each
    /// change would build the crate again.
    const VARIABLES: [&str; 6] =
        ["EMM_CUDA_ARCHS", "NVCC", "CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "VIRTUAL_ENV"];
    /// What `EMM_CUDA_ARCHS=all` stands for: machine code for these cards, PTX for later ones.
    const ALL: &str = "80,86,89,90a,100,120,+80";
    /// Where no card says which: runs on all of them, on all but sm_8x after the driver compiled it.
    const DEFAULT: &str = "80,+80";
    /// Line numbers are for compute-sanitizer and the profilers. With them six architectures are 52 MB, compressed 7 MB;
    /// the driver decompresses what it loads. Drivers before CUDA 12.4 can't, and 13.0 is the least that works anyway.
    const FLAGS: [&str; 6] =
        ["-fatbin", "-std=c++17", "-O3", "-Ikernels", "-lineinfo", "--compress-mode=size"];
    const WHEELS: &str = include_str!("kernels/nvcc.txt");

    /// The fatbins, and what they are for, as nvcc names it: sm_80 is machine code, compute_80 is PTX.
    pub fn build() -> Built {
        for variable in VARIABLES {
            println!("cargo::rerun-if-env-changed={variable}");
        }
        let wanted = env::var("EMM_CUDA_ARCHS").ok();
        if wanted.as_deref() == Some("none") {
            return none("built with EMM_CUDA_ARCHS=none", "build again without that");
        }
        let cards = if wanted.is_none() { cards() } else { None };
        let Some(nvcc) = find() else {
            let wheels = WHEELS.lines().collect::<Vec<_>>().join(" ");
            let how = format!("`pip install {wheels}`, `touch build.rs` and build again");
            if wanted.is_some() {
                fatal(&format!("EMM_CUDA_ARCHS: no nvcc was found; {how}"));
            }
            let none = none("built where no nvcc was found", &how);
            // Whoever has no card has nothing to miss.
            if cards.is_some() {
                println!("cargo::warning=no CUDA kernels: {}", none.lacking);
            }
            return none;
        };
        let list = match wanted.as_deref() {
            Some("all") => ALL.to_string(),
            Some(list) => list.to_string(),
            None => cards.filter(|c| !c.is_empty()).unwrap_or_else(|| DEFAULT.into()),
        };
        let archs: Vec<String> = list.split(',').map(arch).collect();
        // One folder a list, so that a file's age says all about it.
        let folder = out_dir().join(format!("cuda-{}", archs.join("-")));
        fs::create_dir_all(&folder).expect("OUT_DIR is writable");
        let images = compile(&nvcc, &archs, &folder);
        Built { images, archs, lacking: String::new() }
    }

    fn none(why: &str, how: &str) -> Built {
        let lacking = format!("{why}; {how}, or run bench/pack.sh, which gets nvcc by itself");
        Built { images: Vec::new(), archs: Vec::new(), lacking }
    }

    /// `80`, `90a` or `+80` as nvcc names it.
    fn arch(item: &str) -> String {
        let (kind, number) = match item.trim().strip_prefix('+') {
            Some(number) => ("compute", number),
            None => ("sm", item.trim()),
        };
        let digits = number.trim_end_matches(['a', 'f']);
        if number.len() - digits.len() > 1 || !matches!(digits.parse::<u32>(), Ok(80..1000)) {
            fatal(&format!(
                "EMM_CUDA_ARCHS: {item:?} is no architecture; give all, none or a list such as 80,90a,+80 \
                 (+ is PTX), 80 or newer"
            ));
        }
        format!("{kind}_{number}")
    }

    fn fatal(message: &str) -> ! {
        for line in message.lines().filter(|line| !line.trim().is_empty()) {
            println!("cargo::error={line}");
        }
        std::process::exit(1)
    }

    /// Architectures of the cards here, as a list; empty if the driver does not say, None without a driver.
    fn cards() -> Option<String> {
        let query = ["--query-gpu=compute_cap", "--format=csv,noheader"];
        let said = match Command::new("nvidia-smi").args(query).output() {
            Ok(said) if said.status.success() => said,
            _ => return Path::new("/proc/driver/nvidia/version").exists().then(String::new),
        };
        let mut archs: Vec<String> = String::from_utf8_lossy(&said.stdout)
            .lines()
            .map(|capability| capability.trim().replace('.', ""))
            .filter(|arch| arch.parse::<u32>().is_ok_and(|n| n >= 80))
            .map(|arch| if arch == "90" { "90a".into() } else { arch })
            .collect();
        archs.sort();
        archs.dedup();
        Some(archs.join(","))
    }

    fn find() -> Option<PathBuf> {
        let named = env::var_os("NVCC").filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(path) = named {
            if !path.is_file() {
                fatal(&format!("NVCC: {}: no such file", path.display()));
            }
            return Some(path);
        }
        let homes = ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT"].into_iter().filter_map(env::var_os);
        let path = env::var_os("PATH").unwrap_or_default();
        homes
            .map(|home| PathBuf::from(home).join("bin"))
            .chain(env::split_paths(&path))
            .chain(["/usr/local/cuda/bin", "/opt/cuda/bin"].map(PathBuf::from))
            .map(|folder| folder.join("nvcc"))
            .find(|path| path.is_file())
            .or_else(of_python)
    }

    /// The nvcc of the wheels that [`WHEELS`] names.
    fn of_python() -> Option<PathBuf> {
        const SCAN: &str = "import os, sys
for folder in sys.path:
    nvcc = os.path.join(folder, 'nvidia', 'cu13', 'bin', 'nvcc')
    if os.path.isfile(nvcc):
        print(nvcc)
        break";
        let said = Command::new("python3").args(["-c", SCAN]).output().ok()?;
        let path = PathBuf::from(String::from_utf8(said.stdout).ok()?.trim());
        path.is_file().then_some(path)
    }

    /// Compiles what is not newer than all it is made of, as many files at a time as cargo allows.
    fn compile(nvcc: &Path, archs: &[String], folder: &Path) -> Vec<PathBuf> {
        let sources = files("kernels", "cu");
        let mut shared = files("kernels/prelude", "cuh");
        shared.extend([nvcc.to_path_buf(), "build.rs".into()]);
        let shared = shared.iter().map(|path| changed(path)).max().flatten();
        let image = |source: &PathBuf| {
            folder.join(source.with_extension("fatbin").file_name().expect("a file"))
        };
        let stale: Vec<&PathBuf> = (sources.iter())
            .filter(|source| changed(&image(source)) <= changed(source).max(shared))
            .collect();
        let jobs = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
        let next = AtomicUsize::new(0);
        let worker = || {
            let mut failed = Vec::new();
            while let Some(source) = stale.get(next.fetch_add(1, Ordering::Relaxed)) {
                failed.extend(compile_one(nvcc, archs, source, &image(source)).err());
            }
            failed
        };
        let failed: Vec<String> = thread::scope(|scope| {
            let workers: Vec<_> = (0..stale.len().min(jobs)).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().flat_map(|w| w.join().expect("no panic")).collect()
        });
        if !failed.is_empty() {
            fatal(&failed.join("\n"));
        }
        sources.iter().map(image).collect()
    }

    fn changed(path: &Path) -> Option<SystemTime> {
        fs::metadata(path).and_then(|m| m.modified()).ok()
    }

    fn compile_one(
        nvcc: &Path,
        archs: &[String],
        source: &Path,
        image: &Path,
    ) -> Result<(), String> {
        let unfinished = image.with_extension("unfinished");
        let mut command = Command::new(nvcc);
        command.args(FLAGS).arg(source).arg("-o").arg(&unfinished);
        for code in archs {
            let virtual_arch = code.replace("sm_", "compute_");
            command.arg(format!("-gencode=arch={virtual_arch},code={code}"));
        }
        let failed = |what: String| format!("{}: {}: {what}", source.display(), nvcc.display());
        let said = command.output().map_err(|e| failed(e.to_string()))?;
        if !said.status.success() {
            let stderr = String::from_utf8_lossy(&said.stderr);
            return Err(failed(format!("{}\n{}", said.status, stderr.trim())));
        }
        fs::rename(&unfinished, image).map_err(|e| failed(e.to_string()))
    }
}

/// `kernels/*.cu` compiled as C++ and linked with `kernels/emulator` into a libcuda.so that runs them on the CPU:
/// `emulator/libcuda.so` in OUT_DIR, and `emulator-check/libcuda.so` whose kernels tell a checker of every memory
/// access. `env!("EMM_EMULATOR_DIR")` and `env!("EMM_EMULATOR_CHECK_DIR")` name the folders. Beside a library,
/// `compile` holds the command that compiled its kernels, an argument a line, and `objects` what it was linked
/// from: source, tab, object.
#[cfg(feature = "emulator")]
mod emulator {
    use super::{Built, Path, PathBuf, env, files, fs, out_dir};
    use std::process::Command;

    const RUNTIME: [&str; 6] = ["machine", "prims", "memory", "driver", "launch", "stream"];

    /// The instrumentation is the compiler's, the functions that it calls are checker.cpp's.
    const CHECKED: [&str; 3] =
        ["-g1", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"];

    /// A fatbin of nothing, as nvcc writes one: a head, and the head and text of one piece of PTX for compute_80. The
    /// emulator's driver wants an image that a card would load, and knows its kernels by name.
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
    pub fn build() -> Built {
        assert_eq!(
            env::var("CARGO_CFG_TARGET_ARCH").as_deref(),
            Ok("x86_64"),
            "feature emulator: the fiber switch is written for x86-64"
        );
        let out = out_dir();
        let kernels = [files("kernels", "cu"), files("kernels/emulator/tests", "cu")].concat();
        let runtime = compile(&mut compiler(), &RUNTIME.map(source), &out.join("runtime"));
        for (name, env_name, checker, flags) in [
            ("emulator", "EMM_EMULATOR_DIR", "no_checker", &[][..]),
            ("emulator-check", "EMM_EMULATOR_CHECK_DIR", "checker", &CHECKED),
        ] {
            let dir = out.join(name);
            let mut of_kernels = compiler();
            of_kernels.flag("-xc++").flag("-include").flag("kernels/emulator/cuda.h");
            of_kernels.include("kernels").flag("-Wno-unknown-pragmas");
            flags.iter().for_each(|flag| _ = of_kernels.flag(flag));

            let mut objects = runtime.clone();
            objects.extend(compile(&mut compiler(), &[source(checker)], &dir));
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
        if std::arch::is_x86_feature_detected!("fma") && std::arch::is_x86_feature_detected!("avx2")
        {
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
}
