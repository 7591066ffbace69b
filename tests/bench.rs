//! `emm bench`: what it reports, on the CPU and on the kernels where the build holds an emulator for them.

use crate::support::emm;
use serde_json::Value;

/// A network that even the emulator trains in no time.
const TINY: [&str; 11] = [
    "--resolution",
    "4",
    "--channels",
    "16",
    "--mult",
    "1,1",
    "--blocks",
    "1",
    "--batch",
    "3",
    "--json",
];

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("a number wanted, {value} found"))
}

fn check_kernels(found: &Value, device: &str) {
    assert_eq!(found["device"], device);
    let ceilings = found["ceilings"].as_object().unwrap();
    assert!(ceilings.values().all(|c| number(c) > 0.0), "{ceilings:?}");
    assert_eq!(ceilings.contains_key("bf16_flop_per_s"), device != "cpu");
    let layers = found["layers"].as_array().unwrap();
    let sum: f64 = layers.iter().map(|r| number(&r["count"]) * number(&r["flop"])).sum();
    let plan = emm(["plan", "--rate", "1", "--device", "cpu"].into_iter().chain(TINY)).json();
    assert_eq!(sum, 3.0 * number(&plan["train_flop_per_image"]));
    for row in layers.iter().chain(found["cases"].as_array().unwrap()) {
        let positive = ["median_s", "bytes", "bytes_per_s", "of_ceiling"];
        assert!(positive.iter().all(|key| number(&row[*key]) > 0.0), "{row}");
        let rate = number(&row["flop"]) / number(&row["median_s"]);
        assert!((rate - number(&row["flop_per_s"])).abs() <= 1e-9 * rate, "{row}");
    }
    let of = |rows: &str| found[rows].as_array().unwrap().iter().map(|r| r["of"].clone());
    assert!(of("layers").any(|l| l == "enc.4x4_block0.conv0"));
    assert!(of("cases").any(|c| c.as_str().unwrap().starts_with("attention ")));
}

fn check_step(found: &Value, device: &str) {
    assert_eq!(found["device"], device);
    let (step, arena) = (&found["step_s"], number(&found["arena_bytes"]));
    assert!(number(&step["min"]) <= number(&step["median"]) && arena > 0.0, "{found}");
    let rate = 3.0 / number(&step["median"]);
    assert!((number(&found["images_per_s"]) - rate).abs() < 1e-9 * rate, "{found}");
    assert!(number(&found["flop_per_s"]) > 0.0, "{found}");
}

fn check_sample(found: &Value, device: &str) {
    assert_eq!(found["device"], device);
    let rate = 5.0 / number(&found["sample_s"]["median"]);
    assert!((number(&found["images_per_s"]) - rate).abs() < 1e-9 * rate, "{found}");
    assert_eq!(
        (&found["images"], &found["batch"], &found["steps"]),
        (&5.into(), &2.into(), &3.into())
    );
}

const SAMPLE: [&str; 6] = ["--samples", "5", "--at-a-time", "2", "--steps", "3"];

fn bench(what: &str, more: &[&'static str]) -> Vec<String> {
    let words = ["bench", what, "--repeats", "1"].into_iter().chain(TINY);
    words.chain(more.iter().copied()).map(String::from).collect()
}

#[test]
fn every_bench_reports_on_the_cpu() {
    let cpu = ["--device", "cpu"];
    check_kernels(&emm(bench("kernels", &cpu)).json(), "cpu");
    check_step(&emm(bench("step", &cpu)).json(), "cpu");
    check_sample(&emm(bench("sample", &[&cpu[..], &SAMPLE].concat())).json(), "cpu");
    for (what, flag) in [("step", "--repeats"), ("kernels", "--repeats"), ("sample", "--samples")] {
        emm(["bench", what, flag, "0"]).refused(2, &format!("{flag}: 0"), "at least 1");
    }
}

#[cfg(feature = "emulator")]
#[test]
fn every_bench_reports_on_a_card() {
    let dir = tempfile::tempdir().unwrap();
    let run = |what: &str, more: &[&'static str]| -> Value {
        let arguments = bench(what, &[&["--device", "cuda"], more].concat());
        crate::check::on_the_emulator(dir.path(), &arguments)
    };
    let device = "cuda:0, CPU emulator";
    check_kernels(&run("kernels", &[]), device);
    check_step(&run("step", &[]), device);
    check_sample(&run("sample", &SAMPLE), device);
}
