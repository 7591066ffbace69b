//! `emm check` on the CPU, and on the kernels where the build holds an emulator for them.

use crate::ops::all_cases;
use crate::support::emm;
use serde_json::json;

#[test]
fn every_op_is_checked_and_passes() {
    let found = emm(["check", "--json", "--device", "cpu"]).json();
    assert_eq!((&found["ok"], &found["device"]), (&json!(true), &json!("cpu")));
    let ops = found["ops"].as_array().unwrap();
    let cases: u64 = ops.iter().map(|op| op["cases"].as_u64().unwrap()).sum();
    assert_eq!(cases, all_cases().len() as u64);
    for op in ops {
        // Embeddings are rounded once from float64 and may be exact; an exact conv2d would mean nothing was compared.
        let worst = op["worst_error"].as_f64().unwrap();
        assert!(worst < 1e-5 && (worst > 0.0 || op["op"] == "noise_embed"), "{op}");
    }
    let text = emm(["check", "--op", "norm", "--device", "cpu"]).ok();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[2].starts_with("norm ") && lines[2].ends_with("  ok"), "{text}");
}

#[test]
fn a_wrong_op_names_the_nearest_and_a_missing_card_ends_with_4() {
    emm(["check", "--op", "nrm"]).refused(2, "--op: ", "'norm'");
    emm(["check", "--device", "cuda:77"]).refused(4, "--device: cuda:77: ", "--device cpu");
    emm(["check", "--device", "gpu"]).refused(2, "--device: ", "cuda:K");
}

#[cfg(feature = "emulator")]
#[test]
fn kernels_are_checked_as_a_card_would() {
    use std::process::Command;
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(
        concat!(env!("EMM_EMULATOR_DIR"), "/libcuda.so"),
        dir.path().join("libcuda.so.1"),
    )
    .unwrap();
    for device in ["cuda", "auto"] {
        let out = Command::new(env!("CARGO_BIN_EXE_emm"))
            .args(["check", "--json", "--device", device])
            .env("LD_LIBRARY_PATH", dir.path())
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
        let found: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(
            (&found["ok"], &found["device"]),
            (&json!(true), &json!("cuda:0, CPU emulator"))
        );
    }
}
