//! `emm check` on the CPU, and on the kernels where the build holds an emulator for them.

use crate::ops::all_cases;
use crate::support::emm;
use serde_json::json;

#[test]
fn every_op_is_checked_and_passes() {
    let found = emm(["check", "--json", "--device", "cpu"]).json();
    assert_eq!((&found["ok"], &found["device"]), (&json!(true), &json!("cpu")));
    let ops = found["ops"].as_array().unwrap();
    let in_fp32 = ops.iter().filter(|op| op["precision"] == "fp32");
    let cases: u64 = in_fp32.map(|op| op["cases"].as_u64().unwrap()).sum();
    assert_eq!(cases, all_cases().len() as u64);
    check_precisions(&found, &["fp32", "bf16"]);
    for op in ops {
        // Embeddings are rounded once from float64 and may be exact; an exact conv2d would mean nothing was compared.
        let worst = op["worst_error"].as_f64().unwrap();
        assert!(worst > 0.0 || op["op"] == "noise_embed", "{op}");
    }
    let text = emm(["check", "--op", "norm", "--device", "cpu"]).ok();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[2..].iter().all(|l| l.starts_with("norm ") && l.ends_with("  ok")), "{text}");
    let bf16 = emm(["check", "--op", "norm", "--device", "cpu", "--precision", "bf16"]).ok();
    assert_eq!(bf16.lines().collect::<Vec<_>>(), [lines[0], lines[1], lines[3]]);
    // Where nothing would be checked, nothing passes.
    let nothing = emm(["check", "--op", "linear", "--device", "cpu", "--precision", "bf16"]);
    nothing.refused(2, "--precision: linear computes in bf16 ", "in fp32");
    emm(["check", "--device", "cpu", "--precision", "tf32"]).refused(
        2,
        "--precision: tf32 ",
        "CUDA",
    );
    emm(["check", "--device", "cpu", "--precision", "f32"]).refused(2, "--precision: ", "fp32");
}

/// The check ran in these precisions and no other, each op within the bar of its precision.
fn check_precisions(found: &serde_json::Value, precisions: &[&str]) {
    let ops = found["ops"].as_array().unwrap();
    for &precision in precisions {
        // tf32 rounds factors of products (2^-12), bf16 also what is stored (2^-9).
        let (floor, bar) = match precision {
            "fp32" => (0.0, 1e-5),
            "tf32" => (1e-5, 2e-3),
            _ => (1e-4, 2e-2),
        };
        let these: Vec<_> = ops.iter().filter(|op| op["precision"] == precision).collect();
        assert!(these.iter().any(|op| op["op"] == "conv2d"), "{precision}: {found}");
        for op in these {
            let worst = op["worst_error"].as_f64().unwrap();
            assert!(worst >= floor && worst < bar, "{op}");
        }
    }
    assert!(ops.iter().all(|op| precisions.iter().any(|p| op["precision"] == *p)), "{found}");
}

#[test]
fn a_wrong_op_names_the_nearest_and_a_missing_card_ends_with_4() {
    emm(["check", "--op", "nrm"]).refused(2, "--op: ", "'norm'");
    emm(["check", "--device", "cuda:77"]).refused(4, "--device: cuda:77: ", "--device cpu");
    emm(["check", "--device", "gpu"]).refused(2, "--device: ", "cuda:K");
}

/// The JSON that `emm ARGS` prints with the emulator as its driver; `dir` is scratch.
#[cfg(feature = "emulator")]
pub fn on_the_emulator<S: AsRef<std::ffi::OsStr>>(
    dir: &std::path::Path,
    args: &[S],
) -> serde_json::Value {
    let library = concat!(env!("EMM_EMULATOR_DIR"), "/libcuda.so");
    let link = dir.join("libcuda.so.1");
    if !link.exists() {
        std::os::unix::fs::symlink(library, link).unwrap();
    }
    let mut emm = std::process::Command::new(env!("CARGO_BIN_EXE_emm"));
    let out = emm.args(args).env("LD_LIBRARY_PATH", dir).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    serde_json::from_slice(&out.stdout).unwrap()
}

#[cfg(feature = "emulator")]
#[test]
fn kernels_are_checked_as_a_card_would() {
    let dir = tempfile::tempdir().unwrap();
    for device in ["cuda", "auto"] {
        let found = on_the_emulator(dir.path(), &["check", "--json", "--device", device]);
        assert_eq!(
            (&found["ok"], &found["device"]),
            (&json!(true), &json!("cuda:0, CPU emulator"))
        );
        check_precisions(&found, &["fp32", "tf32", "bf16"]);
    }
}
