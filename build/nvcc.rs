//! `kernels/*.cu` compiled by nvcc, one fatbin a file; in a package those that came with it.

use super::{Built, Path, PathBuf, env, files, fs, out_dir};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::SystemTime;

/// Variables that decide. PATH is not among them: it differs from one shell or editor to the next, and each
/// change would build the crate again.
const VARIABLES: [&str; 7] = [
    "EMM_CUDA_ARCHS",
    "EMM_CUDA_LINES",
    "NVCC",
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_ROOT",
    "VIRTUAL_ENV",
];
/// What `EMM_CUDA_ARCHS=all` stands for: machine code for these GPUs, PTX for later ones.
const ALL: &str = "80,86,89,90a,100,120,+80";
/// Where no GPU says which: runs on all of them, on all but sm_8x and sm_90 after the driver compiled it. A Hopper GPU's
/// own instructions need code for it.
const DEFAULT: &str = "80,90a,+80";
/// Of six architectures 6.7 MB; the driver decompresses what it loads. Drivers before CUDA 12.4 can't, and 13.0 is the least that
/// works anyway.
const FLAGS: [&str; 5] = ["-fatbin", "-std=c++17", "-O3", "-Ikernels", "--compress-mode=size"];
/// What `EMM_CUDA_LINES=1` adds, for compute-sanitizer and profilers: line numbers, which take more room than the code.
const LINES: &str = "-lineinfo";
/// In a package, which `bench/release.sh` makes: the fatbins, and a file `archs` that names what they are for.
const PACKAGED: &str = "kernels/compiled";
const WHEELS: &str = include_str!("../kernels/nvcc.txt");

/// The fatbins, and what they are for, as nvcc names it: sm_80 is machine code, compute_80 is PTX.
pub fn build() -> Built {
    for variable in VARIABLES {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let wanted = env::var("EMM_CUDA_ARCHS").ok();
    if wanted.as_deref() == Some("none") {
        return none("built with EMM_CUDA_ARCHS=none", "build again without that");
    }
    if let (None, Ok(archs)) = (&wanted, fs::read_to_string(format!("{PACKAGED}/archs"))) {
        let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
        let images = files(PACKAGED, "fatbin").iter().map(|image| root.join(image)).collect();
        let archs = archs.split_whitespace().map(String::from).collect();
        return Built { images, archs, lacking: String::new() };
    }
    let gpus = if wanted.is_none() { gpus() } else { None };
    let Some(nvcc) = find() else {
        let wheels = WHEELS.lines().collect::<Vec<_>>().join(" ");
        let how = format!("`pip install {wheels}`, `touch build.rs` and build again");
        if wanted.is_some() {
            fatal(&format!("EMM_CUDA_ARCHS: no nvcc was found; {how}"));
        }
        let none = none("built where no nvcc was found", &how);
        // Whoever has no GPU has nothing to miss.
        if gpus.is_some() {
            println!("cargo::warning=no CUDA kernels: {}", none.lacking);
        }
        return none;
    };
    let list = match wanted.as_deref() {
        Some("all") => ALL.to_string(),
        Some(list) => list.to_string(),
        None => gpus.filter(|c| !c.is_empty()).unwrap_or_else(|| DEFAULT.into()),
    };
    let archs: Vec<String> = list.split(',').map(arch).collect();
    let lines = env::var_os("EMM_CUDA_LINES").is_some_and(|value| value == "1");
    // One folder a list, so that a file's age says all about it.
    let named = format!("cuda-{}{}", archs.join("-"), if lines { "-lines" } else { "" });
    let folder = out_dir().join(named);
    fs::create_dir_all(&folder).expect("OUT_DIR is writable");
    let flags = archs.iter().map(|code| {
        let virtual_arch = code.replace("sm_", "compute_");
        format!("-gencode=arch={virtual_arch},code={code}")
    });
    let flags: Vec<String> = flags.chain(lines.then(|| LINES.to_string())).collect();
    let images = compile(&nvcc, &flags, &folder);
    fs::write(folder.join("archs"), archs.join(" ")).expect("OUT_DIR is writable");
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

/// Architectures of the GPUs here, as a list; empty if the driver does not say, None without a driver.
fn gpus() -> Option<String> {
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
fn compile(nvcc: &Path, flags: &[String], folder: &Path) -> Vec<PathBuf> {
    let sources = files("kernels", "cu");
    let mut shared = [files("kernels/prelude", "cuh"), files("kernels/params", "h")].concat();
    shared.extend([nvcc.to_path_buf(), "build.rs".into(), "build/nvcc.rs".into()]);
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
            failed.extend(compile_one(nvcc, flags, source, &image(source)).err());
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

fn compile_one(nvcc: &Path, flags: &[String], source: &Path, image: &Path) -> Result<(), String> {
    let unfinished = image.with_extension("unfinished");
    let mut command = Command::new(nvcc);
    command.args(FLAGS).args(flags).arg(source).arg("-o").arg(&unfinished);
    let failed = |what: String| format!("{}: {}: {what}", source.display(), nvcc.display());
    let said = command.output().map_err(|e| failed(e.to_string()))?;
    if !said.status.success() {
        let stderr = String::from_utf8_lossy(&said.stderr);
        return Err(failed(format!("{}\n{}", said.status, stderr.trim())));
    }
    fs::rename(&unfinished, image).map_err(|e| failed(e.to_string()))
}
