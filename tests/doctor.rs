//! `emm doctor`, and what is said where a GPU's driver is of any other kind than it should be.

use crate::support::{Ended, emm};
use emm::device::cuda::probe::NEEDED;
use emm::device::cuda::{KERNELS_FOR, runs_on};
use serde_json::json;
use std::process::Command;
use tempfile::tempdir;

#[test]
fn the_doctor_names_what_is_there_and_what_is_missing() {
    let found = emm(["doctor", "--json"]).json();
    assert_eq!(found["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&found["devices"][0]["device"], &found["devices"][0]["usable"]),
        (&json!("cpu"), &json!(true))
    );
    assert!(found["cpu"]["threads"].as_u64().unwrap() >= 1);
    assert_eq!(found["kernels_for"], json!(KERNELS_FOR));
    let missing = found["missing"].as_array().unwrap();
    let none = KERNELS_FOR.is_empty();
    let text = emm(["doctor"]).ok();
    assert!(text.contains("device    cpu"), "{text}");
    let kernels = if none { "none".into() } else { format!("for {}", KERNELS_FOR.join(", ")) };
    assert!(text.contains(&format!("kernels   {kernels}")), "{text}");
    // One line: why, and how to get them.
    let line = text.lines().find_map(|l| l.strip_prefix("missing   CUDA kernels: "));
    assert_eq!(line.is_some(), none, "{text}");
    assert!(line.is_none_or(|l| l.contains("built") && l.contains("bench/pack.sh")), "{text}");
    let in_json = missing.iter().find(|m| m["what"] == "CUDA kernels");
    assert_eq!(in_json.and_then(|m| m["how"].as_str()), line, "{found}");
}

/// A `libcuda.so.1` of so much C, on the loader's path of `emm ARGS`.
fn with_driver(c: &str, args: &[&str]) -> Ended {
    let dir = tempdir().unwrap();
    let (source, library) = (dir.path().join("stub.c"), dir.path().join("libcuda.so.1"));
    std::fs::write(&source, c).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-w", "-o"])
        .arg(&library)
        .arg(&source)
        .status();
    assert!(built.expect("a C compiler, as Rust's linker is one").success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_emm"));
    command.env("LD_LIBRARY_PATH", dir.path()).env("EMM_SELF_TEST", "0");
    Ended::of(command.args(args))
}

/// A driver of this version whose cuInit returns `init`, with one GPU.
fn driver(init: i32, version: i32) -> String {
    let others: String = NEEDED.iter().map(|f| format!("int {f}() {{ return 999; }}\n")).collect();
    format!(
        "#include <string.h>\n{others}
         int cuInit(unsigned f) {{ return {init}; }}
         int cuDriverGetVersion(int *v) {{ *v = {version}; return 0; }}
         int cuDeviceGetCount(int *n) {{ *n = 1; return 0; }}
         int cuDeviceGet(int *d, int k) {{ *d = k; return 0; }}
         int cuDeviceGetName(char *s, int n, int d) {{ strncpy(s, \"Pretend GPU\", n); return 0; }}
         int cuDeviceGetUuid_v2(char *u, int d) {{ memset(u, 7, 16); return 0; }}
         int cuDeviceTotalMem_v2(unsigned long *b, int d) {{ *b = 80UL << 30; return 0; }}
         int cuDeviceGetAttribute(int *v, int a, int d) {{ *v = a == 75 ? 9 : 0; return 0; }}\n"
    )
}

/// Why `emm gap` cannot have the pretended GPU, in this build.
fn pretend_gpu() -> &'static str {
    match (KERNELS_FOR, runs_on((9, 0))) {
        ([], _) => "Pretend GPU is there, but this build holds no CUDA kernels",
        (_, false) => "Pretend GPU is there with compute capability 9.0, but this build's kernels",
        (_, true) => "cannot open GPU 0: ",
    }
}

#[test]
fn drivers_of_every_kind_are_probed_without_a_panic() {
    let cuda = ["gap", "--model", "m", "--data", "d", "--device", "cuda"];
    for (c, why) in [
        (String::new(), "lacks"),
        (driver(100, 13000), "sees no GPU"),
        (driver(803, 13000), "cuInit failed with error 803"),
        (driver(0, 12040), "supports CUDA 12.4, and 13.0 is needed"),
        (driver(0, 13000), pretend_gpu()),
    ] {
        with_driver(&c, &cuda).refused(4, "--device: cuda: ", why);
        // auto says why it takes the CPU, once, and goes on to the next complaint.
        let auto = with_driver(&c, &cuda[..5]);
        assert_eq!((auto.code, auto.stdout.as_str()), (3, ""), "{auto:?}");
        let lines: Vec<_> = auto.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{auto:?}");
        assert!(
            lines[0].starts_with("emm: --device: auto takes the CPU: ") && lines[0].contains(why),
            "{auto:?}"
        );
        let doctor = with_driver(&c, &["doctor"]).ok();
        assert!(doctor.contains("driver    "), "{doctor}");
    }
    let found = with_driver(&driver(0, 13000), &["doctor", "--json"]).json();
    let gpu = &found["devices"][1];
    assert_eq!((&gpu["device"], &gpu["name"]), (&json!("cuda:0"), &json!("Pretend GPU")));
    assert_eq!((&gpu["capability"], &gpu["memory_bytes"]), (&json!("9.0"), &json!(80u64 << 30)));
    assert_eq!((&gpu["usable"], &found["cuda_driver"]), (&json!(runs_on((9, 0))), &json!("13.0")));
    with_driver(&driver(0, 13000), &["gap", "--model", "m", "--data", "d", "--device", "cuda:3"])
        .refused(4, "--device: cuda:3: there is no GPU 3", "sees 1");
    emm(["gap", "--model", "m", "--data", "d", "--device", "cuda:x"]).refused(
        2,
        "--device: ",
        "cuda:K",
    );
}
