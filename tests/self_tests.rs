//! A GPU's self-test at its first use: what passes is used, what fails or never ends is replaced, and the verdict is kept.

use crate::support::{Ended, put_emulated_driver};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};

/// How `emm ARGS` ends on an emulated H100 that is tested, with a user's cache of its own and a fault of the driver.
fn on_a_tested_gpu(cache: &Path, fault: &str, args: &str) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    put_emulated_driver(dir.path());
    let mut emm = Command::new(env!("CARGO_BIN_EXE_emm"));
    emm.args(args.split(' ')).stdin(Stdio::null()).env("LD_LIBRARY_PATH", dir.path());
    emm.env("XDG_CACHE_HOME", cache).env("EMM_SELF_TEST", "1");
    emm.env("EMM_EMULATOR_SHARED", (227 << 10).to_string());
    if !fault.is_empty() {
        emm.env("EMM_EMULATOR_FAIL", fault);
    }
    Ended::of(&mut emm)
}

const PLAN: &str = "plan --json --launches --rate 1 --device cuda --precision bf16 --resolution 8 --channels 16 --mult 1,1 --batch 4";

/// Whether a step that is planned has kernels with this in their names.
fn has(plan: &Value, kernel: &str) -> bool {
    plan["launches"].as_object().unwrap().keys().any(|name| name.contains(kernel))
}

/// What `emm doctor` knows of the GPU.
fn verdict(cache: &Path) -> Value {
    let found: Value = on_a_tested_gpu(cache, "", "doctor --json").json();
    found["devices"][1]["self_test"].clone()
}

#[test]
fn a_gpu_that_passes_is_used_with_all_that_it_has() {
    let cache = tempfile::tempdir().unwrap();
    assert_eq!(verdict(cache.path()), Value::Null);
    let ended = on_a_tested_gpu(cache.path(), "", PLAN);
    let told = "emm: --device: cuda:0, CPU emulator: first used with this driver and this program: testing its kernels\n";
    assert_eq!(ended.stderr, told, "{ended:?}");
    let plan: Value = ended.json();
    assert!(has(&plan, "conv2d_wgmma") && has(&plan, "wgrad_wgmma") && has(&plan, "norm_slab"));
    assert_eq!(verdict(cache.path()), json!([]));
    assert_eq!(on_a_tested_gpu(cache.path(), "", PLAN).stderr, "");
}

#[test]
fn what_fails_is_replaced_and_said_again_without_a_test() {
    let cache = tempfile::tempdir().unwrap();
    for (fault, lines) in [("launch:wgmma", 2), ("", 1)] {
        let ended = on_a_tested_gpu(cache.path(), fault, PLAN);
        let told = "computes without its hopper kernels, which failed the self-test";
        assert!(
            ended.stderr.contains(told) && ended.stderr.lines().count() == lines,
            "{}",
            ended.stderr
        );
        let plan: Value = ended.json();
        assert!(!has(&plan, "wgmma") && has(&plan, "conv2d_mma") && has(&plan, "norm_slab"));
    }
    assert_eq!(verdict(cache.path())[0][0], "hopper");
    let said = on_a_tested_gpu(cache.path(), "", "doctor").ok();
    assert!(said.contains("self-test: computes without hopper ("), "{said}");
}

/// A family does not pass by its smallest kernels.
#[test]
fn each_kernel_of_a_family_is_tested() {
    for (kernel, family) in [
        ("conv2d_wgmma_256", "hopper"),
        ("conv2d_wgmma_192", "hopper"),
        ("conv2d_mma_wide", "wide-tiles"),
        ("wgrad_mma_wide", "wide-tiles"),
        ("norm_slab_bwd_plain", "slabs"),
        ("attention_mma_bwd_keys", "attention"),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let ended = on_a_tested_gpu(cache.path(), &format!("launch:{kernel}"), PLAN);
        let told = format!("computes without its {family} kernels");
        assert!(ended.stderr.contains(&told) && ended.stderr.lines().count() == 2, "{ended:?}");
    }
}

#[test]
fn what_never_ends_is_replaced() {
    let cache = tempfile::tempdir().unwrap();
    let ended = on_a_tested_gpu(cache.path(), "hang:norm_slab", PLAN);
    let told =
        "computes without its slabs kernels, which failed the self-test: had not ended after 5 s";
    assert!(ended.stderr.contains(told), "{ended:?}");
    let plan: Value = ended.json();
    assert!(has(&plan, "conv2d_wgmma") && !has(&plan, "norm_slab") && has(&plan, "norm_fwd"));
}

#[test]
fn families_that_are_none_are_refused() {
    let cache = tempfile::tempdir().unwrap();
    let ended = on_a_tested_gpu(cache.path(), "", "check --device cuda --self-test wide");
    ended.refused(2, "--self-test: ", "no family");
}
