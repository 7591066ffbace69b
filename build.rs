//! Builds the kernels where a feature asks for it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "emulator")]
    emulator::build();
}

/// `kernels/*.cu` compiled as C++ and linked with `kernels/emulator` into a libcuda.so that runs them on the CPU:
/// `emulator/libcuda.so` in OUT_DIR, and `emulator-check/libcuda.so` whose kernels tell a checker of every memory
/// access. `env!("EMM_EMULATOR_DIR")` and `env!("EMM_EMULATOR_CHECK_DIR")` name the folders. Beside a library,
/// `compile` holds the command that compiled its kernels, an argument a line, and `objects` what it was linked
/// from: source, tab, object.
#[cfg(feature = "emulator")]
mod emulator {
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::{env, fs};

    const RUNTIME: [&str; 6] = ["machine", "prims", "memory", "driver", "launch", "stream"];

    /// The instrumentation is the compiler's, the functions that it calls are checker.cpp's.
    const CHECKED: [&str; 3] =
        ["-g1", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"];

    pub fn build() {
        assert_eq!(
            env::var("CARGO_CFG_TARGET_ARCH").as_deref(),
            Ok("x86_64"),
            "feature emulator: the fiber switch is written for x86-64"
        );
        println!("cargo:rerun-if-changed=kernels");
        let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        let kernels = [kernels_in("kernels"), kernels_in("kernels/emulator/tests")].concat();
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
    }

    fn source(name: &str) -> PathBuf {
        PathBuf::from(format!("kernels/emulator/{name}.cpp"))
    }

    fn kernels_in(dir: &str) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(dir)
            .unwrap_or_else(|e| panic!("{dir}: {e}"))
            .map(|entry| entry.expect("a readable folder").path())
            .filter(|path| path.extension().is_some_and(|e| e == "cu"))
            .collect();
        files.sort();
        files
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
