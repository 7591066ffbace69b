//! `emm check` on the CPU, and on the kernels where the build holds an emulator for them.

use crate::ops::all_cases;
#[cfg(feature = "emulator")]
use crate::support::Ended;
use crate::support::emm;
#[cfg(feature = "emulator")]
use emm::check::OPS;
use emm::check::cases::GOLDENS;
use serde_json::{Value, json};

#[test]
fn every_op_is_checked_and_passes() {
    let checked = emm(["check", "--json", "--device", "cpu"]);
    // A line each as it ends, below two of a head.
    let lines: Vec<String> = checked.stderr.lines().skip(2).map(String::from).collect();
    let found = checked.json();
    assert_eq!((&found["ok"], &found["device"]), (&json!(true), &json!("cpu")));
    let ops = found["ops"].as_array().unwrap();
    let in_fp32 = ops.iter().filter(|op| op["precision"] == "fp32");
    let of_goldens = in_fp32.filter(|op| GOLDENS.iter().any(|(name, _)| op["op"] == *name));
    let cases: u64 = of_goldens.map(|op| op["cases"].as_u64().unwrap()).sum();
    assert_eq!(cases, all_cases().len() as u64);
    check_precisions(&found, &["fp32", "bf16"]);
    for op in ops {
        // Embeddings are rounded once from float64 and may be exact; an exact conv2d would mean nothing was compared.
        let worst = op["worst_error"].as_f64().unwrap();
        assert!(worst > 0.0 || op["op"] == "noise_embed" || op["bar"] == 0.0, "{op}");
        assert!(op["failures"] == json!([]) && op["sizes"] == "golden", "{op}");
        let name = op["op"].as_str().unwrap();
        assert!(lines.iter().any(|l| l.starts_with(name) && l.ends_with("  ok")), "{lines:?}");
    }
    assert_eq!(lines.len(), ops.len());
    let text = emm(["check", "--op", "norm", "--device", "cpu"]).ok();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[2..].iter().all(|l| l.starts_with("norm ") && l.ends_with("  ok")), "{text}");
    let bf16 = emm(["check", "--op", "norm", "--device", "cpu", "--precision", "bf16"]).ok();
    assert_eq!(bf16.lines().collect::<Vec<_>>(), [lines[0], lines[1], lines[3]]);
    // The same by a process of its own, and at sizes of a network.
    let by_child = ["check", "--op", "norm", "--device", "cpu", "--limit-s", "600"];
    assert_eq!(emm(by_child).ok(), text);
    let real = ["--sizes", "real", "--network", "2,16,8"];
    let text = emm(by_child.into_iter().chain(real)).ok();
    assert!(text.lines().skip(2).all(|l| l.starts_with("norm real ")), "{text}");
    assert_eq!(text.lines().count(), 4, "{text}");
}

#[test]
fn where_nothing_would_be_checked_nothing_passes() {
    let refused = |args: &str, start: &str, holds: &str| {
        let args = args.split(' ').chain(["--device", "cpu"]);
        emm(std::iter::once("check").chain(args)).refused(2, start, holds);
    };
    refused("--op linear --precision bf16", "--precision: linear computes in bf16 ", "in fp32");
    refused("--primitives", "--primitives: primitives ", "--device cuda");
    refused("--op loss --primitives", "--op: ", "--primitives");
    refused("--precision tf32", "--precision: tf32 ", "CUDA");
    refused("--precision f32", "--precision: ", "fp32");
    refused("--sizes small", "--sizes: ", "golden");
    refused("--network 1,2", "--network: ", "IMAGES,CHANNELS,SIDE");
    refused("--limit-s 0", "--limit-s: ", "1..=86400");
    refused("--child 0", "--op: ", "not given");
}

/// The check ran in these precisions and no other, each op within the bar of its precision.
fn check_precisions(found: &Value, precisions: &[&str]) {
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
            let exact = op["bar"] == 0.0 && worst == 0.0;
            assert!(exact || worst >= floor && worst < bar, "{op}");
        }
    }
    assert!(ops.iter().all(|op| precisions.iter().any(|p| op["precision"] == *p)), "{found}");
}

#[test]
fn a_wrong_op_names_the_nearest_and_a_missing_gpu_ends_with_4() {
    emm(["check", "--op", "nrm"]).refused(2, "--op: ", "'norm'");
    emm(["check", "--device", "cuda:77"]).refused(4, "--device: cuda:77: ", "--device cpu");
    emm(["check", "--device", "gpu"]).refused(2, "--device: ", "cuda:K");
}

/// How `emm ARGS` ends with a folder's libcuda.so, or else the emulator, as its driver, and a fault of that driver.
#[cfg(feature = "emulator")]
fn with_driver<S: AsRef<std::ffi::OsStr>>(
    folder: Option<&std::path::Path>,
    fault: &str,
    args: &[S],
) -> Ended {
    let folder = folder.unwrap_or(std::path::Path::new(env!("EMM_EMULATOR_DIR")));
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(folder.join("libcuda.so"), dir.path().join("libcuda.so.1")).unwrap();
    let mut emm = std::process::Command::new(env!("CARGO_BIN_EXE_emm"));
    emm.args(args).env("LD_LIBRARY_PATH", dir.path()).stdin(std::process::Stdio::null());
    if !fault.is_empty() {
        emm.env("EMM_EMULATOR_FAIL", fault);
    }
    Ended::of(&mut emm)
}

/// The JSON that `emm ARGS` prints with the emulator as its driver.
#[cfg(feature = "emulator")]
pub fn on_the_emulator<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Value {
    with_driver(None, "", args).json()
}

#[cfg(feature = "emulator")]
#[test]
fn kernels_are_checked_as_a_gpu_would() {
    let found = on_the_emulator(&["check", "--json", "--device", "cuda", "--limit-s", "600"]);
    assert_eq!((&found["ok"], &found["device"]), (&json!(true), &json!("cuda:0, CPU emulator")));
    check_precisions(&found, &["fp32", "tf32", "bf16"]);
    let seen = |op: &str| found["ops"].as_array().unwrap().iter().any(|o| o["op"] == op);
    assert!(OPS.into_iter().all(seen), "{found}");
    let auto = on_the_emulator(&["check", "--json", "--device", "auto", "--op", "fir_pad"]);
    assert_eq!(auto["device"], "cuda:0, CPU emulator");
}

#[cfg(feature = "emulator")]
#[test]
fn kernels_are_checked_at_sizes_of_a_network() {
    // All that there is in fp32; what the tensor cores and norms do otherwise in all precisions.
    let real = "check --json --device cuda --sizes real --network 2,16,8 --limit-s 600";
    let checked =
        |more: &str| on_the_emulator(&[real, more].join(" ").split(' ').collect::<Vec<_>>());
    let found = checked("--precision fp32");
    let seen = |op: &str| found["ops"].as_array().unwrap().iter().any(|o| o["op"] == op);
    assert!(OPS.into_iter().all(|op| seen(op) != (op == "primitives")), "{found}");
    check_precisions(&found, &["fp32"]);
    check_precisions(&checked("--op conv2d"), &["fp32", "tf32", "bf16"]);
    for op in ["attention", "norm"] {
        assert_eq!(checked(&format!("--op {op}"))["ok"], true);
    }
}

/// The failures of an op's only line: case, kernel and error.
#[cfg(feature = "emulator")]
fn failures(ended: Ended) -> Vec<[String; 3]> {
    assert_eq!(ended.code, 1, "{ended:?}");
    let found: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&found["ok"], &found["ops"][0]["ok"]), (&json!(false), &json!(false)));
    let all = found["ops"][0]["failures"].as_array().unwrap().iter();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
    all.map(|f| [text(&f["case"]), text(&f["kernel"]), text(&f["error"])]).collect()
}

#[cfg(feature = "emulator")]
#[test]
fn what_a_driver_does_wrong_is_told_with_case_and_kernel_and_the_rest_goes_on() {
    let primitives = ["check", "--json", "--device", "cuda", "--primitives"];
    let failed = failures(with_driver(None, "launch:primitive_ldmatrix", &primitives));
    let names: Vec<[&str; 2]> =
        failed.iter().map(|[case, kernel, _]| [&case[..], kernel]).collect();
    let two = [["ldmatrix", "primitive_ldmatrix"], ["ldmatrix.trans", "primitive_ldmatrix_trans"]];
    assert_eq!(names, two);
    assert!(failed.iter().all(|[.., error]| error.contains("CUDA_ERROR_ILLEGAL_ADDRESS")));

    let limited = [&primitives[..], &["--limit-s", "20"]].concat();
    let failed = failures(with_driver(None, "hang:primitive_dp4a", &limited));
    assert_eq!(failed, [["dp4a", "primitive_dp4a", "had not ended after 20 s"].map(String::from)]);

    // Every first read fails, and the op is given up after some.
    let linear = ["check", "--json", "--device", "cuda", "--op", "linear", "--precision", "fp32"];
    let failed = failures(with_driver(None, "read", &linear));
    let (last, cases) = failed.split_last().unwrap();
    assert!(last[2].starts_with("not run"), "{last:?}");
    let told = |c: &[String; 3]| !c[1].is_empty() && c[2].contains("copy from the GPU");
    assert!(cases.iter().all(told), "{cases:?}");

    with_driver(None, "open", &linear).refused(4, "--device: cuda: ", "cannot open GPU 0");
    with_driver(None, "load", &linear).refused(4, "--device: cuda: ", "the kernels do not load");
}

/// The emulated GPU is none of Hopper's unless it is told to be.
#[cfg(feature = "emulator")]
#[test]
fn instructions_that_a_gpu_lacks_are_named() {
    let told = with_driver(None, "", &["check", "--device", "cuda", "--primitives"]);
    let named = told.stdout.lines().find(|line| line.starts_with("not checked, ")).unwrap();
    assert!(named.contains("compute capability 9.0's: mbarrier; named barriers; "), "{named}");
    assert_eq!(told.code, 0, "{told:?}");
}

/// A kernel that is wrong, and one that takes its process with it.
#[cfg(feature = "emulator")]
#[test]
fn what_a_kernel_does_wrong_is_told_with_case_and_kernel_and_the_rest_goes_on() {
    let file = "kernels/primitives.cu";
    let changes = [
        ("(u32)lane);", "(u32)lane ^ 1);"),
        ("if (in[i] == 77) atomicCAS", "if (in[i] == 77) __builtin_trap(), atomicCAS"),
    ];
    let driver = crate::emulator::patched(file, file, &changes);
    let primitives = ["check", "--json", "--device", "cuda", "--primitives"];
    let failed = failures(with_driver(Some(driver.path()), "", &primitives));
    let [[case, kernel, died], [wrong, by, differs]] = failed.try_into().unwrap();
    assert_eq!((&case[..], &kernel[..]), ("atomics", "primitive_atomics"));
    assert!(died.starts_with("its process ended: signal: "), "{died}");
    assert_eq!((&wrong[..], &by[..]), ("dp4a", "primitive_dp4a"));
    assert!(differs.starts_with("word 0 is ") && differs.ends_with("off by 3.2e1"), "{differs}");
}
