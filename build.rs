//! Builds the kernels where a feature asks for it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "emulator")]
    emulator::build();
}

/// `kernels/*.cu` compiled as C++ and linked with `kernels/emulator` into a libcuda.so that runs them on the CPU:
/// `$OUT_DIR/emulator/libcuda.so`, and `$OUT_DIR/emulator-check/libcuda.so` whose kernels tell a checker of
/// every memory access. The paths are `EMM_EMULATOR_LIB` and `EMM_EMULATOR_CHECK_LIB` for `env!`.
#[cfg(feature = "emulator")]
mod emulator {
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::{env, fs};

    const RUNTIME: [&str; 6] = ["machine", "prims", "memory", "driver", "launch", "stream"];

    pub fn build() {
        assert_eq!(
            env::var("CARGO_CFG_TARGET_ARCH").as_deref(),
            Ok("x86_64"),
            "feature emulator: the fiber switch is written for x86-64"
        );
        println!("cargo:rerun-if-changed=kernels");
        let kernels = [kernels_in("kernels"), kernels_in("kernels/emulator/tests")].concat();
        let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        let (fast, checked) = (out.join("emulator"), out.join("emulator-check"));

        let runtime = objects(&mut compiler(), &RUNTIME.map(source), &out.join("runtime"));
        for (dir, checker, env_name, flags) in [
            (&fast, "no_checker", "EMM_EMULATOR_LIB", &[][..]),
            (
                &checked,
                "checker",
                "EMM_EMULATOR_CHECK_LIB",
                // The instrumentation is the compiler's, the functions it calls are checker.cpp's.
                &["-g1", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"][..],
            ),
        ] {
            let mut for_kernels = compiler();
            for_kernels.flag("-xc++").flag("-include").flag("kernels/emulator/cuda.h");
            for_kernels.include("kernels").flag("-Wno-unknown-pragmas");
            for flag in flags {
                for_kernels.flag(flag);
            }
            let mut all = runtime.clone();
            all.extend(objects(&mut compiler(), &[source(checker)], dir));
            all.extend(objects(&mut for_kernels, &kernels, dir));
            let lib = dir.join("libcuda.so");
            link(&all, &lib);
            println!("cargo:rustc-env={env_name}={}", lib.display());
        }
    }

    fn source(name: &str) -> PathBuf {
        PathBuf::from(format!("kernels/emulator/{name}.cpp"))
    }

    fn kernels_in(dir: &str) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok().map(|e| e.path()))
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
        build.define("NDEBUG", None);
        if std::arch::is_x86_feature_detected!("fma") && std::arch::is_x86_feature_detected!("avx2")
        {
            build.flag("-mavx2").flag("-mfma"); // fmaf as one instruction
        }
        build
    }

    fn objects(compiler: &mut cc::Build, files: &[PathBuf], dir: &Path) -> Vec<PathBuf> {
        fs::create_dir_all(dir).expect("OUT_DIR is writable");
        compiler.out_dir(dir).files(files).compile_intermediates()
    }

    fn link(objects: &[PathBuf], lib: &Path) {
        let linker = compiler().get_compiler();
        let status = Command::new(linker.path())
            .args(["-shared", "-Wl,-soname,libcuda.so", "-Wl,-Bsymbolic", "-Wl,-z,defs", "-o"])
            .arg(lib)
            .args(objects)
            .args(["-ldl", "-pthread"])
            .status()
            .unwrap_or_else(|e| panic!("feature emulator: cannot run {:?}: {e}", linker.path()));
        assert!(status.success(), "feature emulator: linking {} failed", lib.display());
    }
}
