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

fn check_kernels(found: &Value, device: &str, precision: &str) {
    assert_eq!((&found["device"], &found["precision"]), (&device.into(), &precision.into()));
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
    assert_eq!(found["batch"], 3);
}

fn losses(found: &Value) -> Vec<f64> {
    found["losses"].as_array().unwrap().iter().map(number).collect()
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
    let [fp32, bf16] = ["fp32", "bf16"].map(|precision| {
        // What auto is on the CPU.
        let asked: &[&str] = if precision == "fp32" { &[] } else { &["--precision", "bf16"] };
        let found = emm(bench("kernels", &[&cpu[..], asked].concat())).json();
        check_kernels(&found, "cpu", precision);
        let bytes = |rows: &str| {
            let rows = found[rows].as_array().unwrap().iter();
            rows.filter(|r| r["name"] == "conv2d_fwd").map(|r| number(&r["bytes"])).sum::<f64>()
        };
        ["layers", "cases"].map(bytes)
    });
    assert!(bf16[0] < fp32[0] && bf16[1] < 0.8 * fp32[1], "{bf16:?} {fp32:?}");
    let tf32 = emm(bench("kernels", &[&cpu[..], &["--precision", "tf32"]].concat()));
    tf32.refused(2, "--precision: tf32 ", "CUDA");
    check_step(&emm(bench("step", &cpu)).json(), "cpu");
    let with = |repeats: &str, more: &[&'static str]| {
        let mut words = bench("step", &[&cpu[..], more].concat());
        words[3] = repeats.into();
        emm(words).json()
    };
    let (ten, again) = (with("11", &[]), with("8", &["--threads", "1"]));
    assert_eq!(losses(&ten).len(), 10);
    assert_eq!(losses(&ten), losses(&again));
    check_sample(&emm(bench("sample", &[&cpu[..], &SAMPLE].concat())).json(), "cpu");
    for (what, flag) in [("step", "--repeats"), ("kernels", "--repeats"), ("sample", "--samples")] {
        emm(["bench", what, flag, "0"]).refused(2, &format!("{flag}: 0"), "at least 1");
    }
}

#[cfg(feature = "emulator")]
#[test]
fn every_bench_reports_on_a_gpu() {
    let run = |what: &str, more: &[&'static str]| -> Value {
        let arguments = bench(what, &[&["--device", "cuda"], more].concat());
        crate::check::on_the_emulator(&arguments)
    };
    let device = "cuda:0, CPU emulator";
    for precision in ["bf16", "tf32", "fp32"] {
        // What auto is on a GPU.
        let asked = ["--precision", precision];
        let found = run("kernels", if precision == "bf16" { &[] } else { &asked[..] });
        check_kernels(&found, device, precision);
        for rows in ["layers", "cases"] {
            let rows = found[rows].as_array().unwrap().iter();
            let names: Vec<&str> = rows.map(|r| r["name"].as_str().unwrap()).collect();
            let has = |what: &str| names.iter().any(|name| name.contains(what));
            let tensor = (has("conv2d_mma_bf16"), has("conv2d_mma_tf32"));
            assert_eq!(tensor, (precision == "bf16", precision == "tf32"), "{names:?}");
            assert_eq!(has("norm_slab_bwd_silu_bf16"), precision == "bf16", "{names:?}");
            assert_eq!(has("_mma_"), precision != "fp32", "{names:?}");
        }
    }
    let step = run("step", &[]);
    check_step(&step, device);
    let of = |found: &Value| losses(found);
    let cpu = |precision| emm(bench("step", &["--device", "cpu", "--precision", precision])).json();
    assert_eq!(of(&step).len(), 3); // as many as there are steps
    for (found, wanted, bar) in
        [(step, cpu("bf16"), 1e-3), (run("step", &["--precision", "fp32"]), cpu("fp32"), 1e-5)]
    {
        assert_eq!(found["precision"], wanted["precision"]);
        let pairs: Vec<_> = of(&found).into_iter().zip(of(&wanted)).collect();
        assert!(pairs.iter().all(|(a, b)| (a - b).abs() <= bar * b), "{pairs:?}");
    }
    check_sample(&run("sample", &SAMPLE), device);
    let small = ["--queries", "3", "--references", "5", "--pixels", "48", "--repeats", "1"];
    let search = ["bench", "nearest", "--json", "--device", "cuda"].into_iter().chain(small);
    let found = crate::check::on_the_emulator(&search.collect::<Vec<_>>());
    assert_eq!((&found["device"], &found["queries"]), (&device.into(), &3.into()));
    assert!(number(&found["median_s"]) > 0.0, "{found}");
}

#[test]
fn a_gpu_that_is_not_here_is_planned_kernel_by_kernel() {
    let plan = |device: &str, more: &[&'static str]| {
        let words = ["plan", "--device", device].into_iter().chain(TINY);
        emm(words.chain(more.iter().copied()).map(String::from).collect::<Vec<_>>()).json()
    };
    let h100 = plan("h100", &["--launches"]);
    let step_s = number(&h100["step_s"]);
    let kernels = h100["kernels"].as_array().unwrap();
    let sum: f64 = kernels.iter().map(|k| number(&k["floor_s"])).sum();
    assert!((sum - step_s).abs() < 1e-9 * step_s, "{h100}");
    assert!((number(&h100["images_per_s"]) - 3.0 / step_s).abs() < 1e-6 / step_s);
    let hours = number(&h100["steps"]) * step_s / 3600.0;
    assert!((number(&h100["train_hours"]) - hours).abs() < 1e-9 * hours);
    assert!(kernels.iter().any(|k| k["name"] == "adam_ema" && k["bound"] == "launches"));
    // All matrix work is in the layers' kernels, and each kernel is in the count by name.
    let launches: Vec<&Value> = h100["layers"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|l| l["launches"].as_array().unwrap())
        .collect();
    let flop: f64 = launches.iter().map(|l| number(&l["flop"])).sum();
    assert_eq!(flop, 3.0 * number(&h100["train_flop_per_image"]));
    let counted: f64 = h100["launches"].as_object().unwrap().values().map(number).sum();
    assert_eq!(counted, launches.len() as f64);
    assert!(
        launches.iter().all(|l| number(&l["floor_s"]) >= 2e-6 && number(&l["geometry"][1]) > 0.0)
    );
    // A model that is large enough for more than launches.
    for too_much in [
        "--batch 512 --micro-batch 512 --channels 4096",
        "--batch 1m --channels 4096",
        "--resolution 4096",
        "--resolution 256 --batch 1m --micro-batch 1m",
    ] {
        let words = ["plan", "--device", "h100"].into_iter().chain(too_much.split(' '));
        emm(words).refused(4, "--device: ", "");
    }
    let large = ["plan", "--device", "h100", "--json", "--batch", "1m"];
    assert!(emm(large).json()["micro_batch"].as_u64().unwrap() >= 512);
    emm(["plan", "--device", "h200"]).refused(2, "--device: ", "h100, a100");
    let wide = ["--resolution", "32", "--channels", "128", "--batch", "512"];
    let words = |device: &str| {
        [&["plan", "--json", "--device", device][..], &wide]
            .concat()
            .into_iter()
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let [h100, a100] = ["h100", "a100"].map(|d| emm(words(d)).json());
    assert!(number(&h100["step_s"]) < number(&a100["step_s"]));
    assert_eq!(h100["kernels"][0]["bound"], "arithmetic");
    // Which is bf16's: a GPU's own precision.
    let fp32 = emm(words("h100").into_iter().chain(["--precision".into(), "fp32".into()])).json();
    assert!(number(&h100["arena_bytes"]) < 0.7 * number(&fp32["arena_bytes"]));
    assert!(number(&h100["step_s"]) < 0.7 * number(&fp32["step_s"]));
    emm(["bench", "step", "--device", "h100"]).refused(2, "--device: ", "cuda:K");
}

#[test]
fn a_search_that_does_not_fit_blames_the_flag_that_made_it_so() {
    let search = |flag: &str, value: &str| emm(["bench", "nearest", flag, value]);
    for flag in ["--queries", "--references"] {
        search(flag, "99999999999").refused(4, &format!("{flag}: 99999999999"), "3 KiB");
    }
    search("--references", "1").refused(2, "--references: 1", "at least 2");
    search("--repeats", "0").refused(2, "--repeats: 0", "at least 1");
}
