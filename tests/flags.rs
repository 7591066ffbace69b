//! What the training commands take and refuse.

use crate::run::{fixture, train_args, train_tiny, words};
use crate::support::{emm, has_raw_number};
use emm::data::Dataset;
use std::fs;

#[test]
fn flags_of_the_reference_are_refused_by_name_or_work_as_aliases() {
    let f = fixture();
    for (flag, instead) in [
        ("--fp16=1", "--precision"),
        ("--augment", "without augmentation"),
        ("--xflip=1", "mirror"),
        ("--optimizer", "Adam"),
        ("--tick=1", "stats.jsonl"),
        ("--snap=1", "--evaluations"),
        ("--ema=0.5", "--ema-rate"),
        ("--dump=1", "--save-every"),
        ("--resume=x", "emm train --run"),
        ("--transfer=x", "--run"),
        ("--workers=1", "--threads"),
        ("--batch-gpu=8", "--micro-batch"),
        ("--cbase=128", "--channels"),
        ("--dry-run", "emm plan"),
    ] {
        let name = flag.split('=').next().unwrap();
        for command in ["train", "plan", "find"] {
            emm([command, flag]).refused(2, &format!("{name}: "), instead);
        }
    }
    let aliases = "--num-channels=8 --mult=1,1 --num-blocks=1 --skip-connections=1,1,1,0 \
                   --precond=edm --arch=ddpmpp --embed=fourier --duration=0.1 --cond=1 --attn=none \
                   --batch=16 --ramp-epochs=1 --beta2=0.95 --looks=1 --score-images=4 --rescore-images=0 --quiet";
    let outdir = f.folder.path().join("aliases");
    let mut args = words("train --data");
    args.push(f.data.display().to_string());
    args.push(format!("--outdir={}", outdir.display()));
    args.extend(words(aliases));
    emm(args).ok();
    let config = fs::read_to_string(outdir.join("config.toml")).unwrap();
    for line in [
        "model_channels = 8",
        "num_blocks = 1",
        "skip_connections = [1, 1, 1, 0]",
        "precond = \"edm\"",
        "embedding = \"fourier\"",
        "label_dim = 10",
        "epochs = 2.0",
        "ramp_epochs = 1.0",
        "beta2 = 0.95",
    ] {
        assert!(config.contains(line), "{line} in {config}");
    }
}

#[test]
fn wrong_flags_are_usage_errors_that_begin_with_the_flag() {
    let f = fixture();
    let run = f.folder.path().join("never");
    for (extra, start) in [
        ("--channels 0", "--channels: 0"),
        ("--channels 9", "--channels: 9"),
        ("--mult 0,1", "--mult: "),
        ("--mult 1,1,1,1,1", "--resolution: 8"),
        ("--blocks 0", "--blocks: 0"),
        ("--blocks 100000", "--blocks: 100000"),
        ("--attn 7", "--attn: "),
        ("--attn x", "--attn: "),
        ("--embed x", "--embed: "),
        ("--skips 1,1", "--skips: 2"),
        ("--skips 1,1,1,2", "--skips: 4"),
        ("--dropout 1", "--dropout: 1"),
        ("--dropout -0.1", "--dropout: -0.1"),
        ("--dropout nan", "--dropout: NaN"),
        ("--epochs 0", "--epochs: 0"),
        ("--batch 0", "--batch: 0"),
        ("--micro-batch 0", "--micro-batch: 0"),
        ("--micro-batch 17", "--micro-batch: 17"),
        ("--lr -1", "--lr: -1"),
        ("--beta2 1", "--beta2: 1"),
        ("--beta2 -0.1", "--beta2: -0.1"),
        ("--beta2 nan", "--beta2: NaN"),
        ("--lr nan", "--lr: NaN"),
        ("--weight-decay inf", "--weight-decay: inf"),
        ("--ema-rate 1", "--ema-rate: 1"),
        ("--precision tf32", "--precision: tf32"),
        ("--precision x", "--precision: "),
        ("--score-images 0", "--score-images: 0"),
        ("--score-images 1e15", "--score-images: 1"),
        ("--rescore-images 1e15", "--rescore-images: 1"),
    ] {
        train_tiny(&run, extra).refused(2, start, "");
    }
    for extra in [
        "--channels x",
        "--epochs x",
        "--epochs -1",
        "--batch 1.5",
        "--preset nope",
        "--arch unet",
        "--precond vpx",
        "--cond maybe",
        "--order random",
        "--keep none",
        "--save-every 0",
        "--save-every x",
        "--looks -3",
        "--unknown",
    ] {
        let flag = extra.split(' ').next().unwrap();
        train_tiny(&run, extra).refused(2, &format!("{flag}: "), "");
    }
    train_tiny(&run, "--duration 1").refused(2, "--epochs: ", "--duration");
    assert!(!run.exists(), "a refused command leaves nothing");
    let unlabelled = f.folder.path().join("unlabelled.zip");
    let mut set = Dataset::open(&f.data).unwrap();
    set.labels = None;
    set.save(&unlabelled, false).unwrap();
    emm(train_args(&unlabelled, &run, "--cond true")).refused(2, "--cond: ", "no labels");
    let gone = f.folder.path().join("gone.zip");
    emm(train_args(&gone, &run, "")).refused(3, &gone.display().to_string(), "");
}

#[test]
fn plan_counts_what_is_published_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let plan = |extra: &str| {
        let args = words(&format!("plan --json --rate 100 {extra}"));
        crate::support::emm_in(folder.path(), args).json()
    };
    let basic = plan("--size 1k");
    assert_eq!(basic["parameters"], 35_125_251);
    assert!((basic["forward_flop_per_image"].as_f64().unwrap() / 1e9 - 25.42).abs() < 0.005);
    assert!((basic["train_flop_per_image"].as_f64().unwrap() / 1e9 - 76.24).abs() < 0.005);
    assert_eq!(basic["steps"], 78_125);
    assert_eq!((basic["images"].as_u64(), basic["epochs"].as_f64()), (Some(1000), Some(4e4)));
    assert!(basic["arena_bytes"].as_u64().unwrap() > 0);
    for (extra, parameters) in [
        ("--channels 192", 78_984_195u64),
        ("--channels 256", 140_374_019),
        ("--blocks 4", 55_732_739),
        ("--arch ncsnpp", 35_788_035),
        ("--label-dim 10", 35_126_659),
    ] {
        assert_eq!(plan(extra)["parameters"], parameters, "{extra}");
    }
    assert_eq!(plan("--preset paper-edm-50k --size 50k")["epochs"], 12_000.0);
    assert_eq!(plan("--preset paper-edm-50k --epochs 1k")["epochs"], 1_000.0);
    let launches = plan("--resolution 8 --channels 8 --mult 1,1 --blocks 1 --launches");
    // Ten blocks of two convolutions, shortcuts within the second; three of them with attention, its two 1×1
    // convolutions around it; a convolution at either end.
    for (name, count) in [("conv2d", 10 * 2 + 3 * 2 + 2), ("attention", 3), ("loss", 1)] {
        for direction in ["fwd", "bwd"] {
            let name = format!("{name}_{direction}");
            assert_eq!(launches["launches"][&name], count, "{name}: {launches}");
        }
    }
    assert_eq!(plan("")["launches"], serde_json::Value::Null);
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
}

#[test]
fn a_network_beyond_the_memory_is_planned_but_not_measured() {
    let huge = "--channels 4096 --mult 64,64,64";
    let plan = emm(words(&format!("plan --json --rate 1 {huge}"))).json();
    assert!(plan["parameter_bytes"].as_u64().unwrap() > 1 << 40, "{plan}");
    emm(words(&format!("bench step {huge}"))).refused(4, "--device: ", "iB");
    assert!(emm(words(&format!("plan {huge}"))).ok().contains("not measured"));
    let said = emm(words(&format!("plan --rate 1 {huge}"))).ok();
    let line = said.lines().find(|line| line.starts_with("memory  ")).unwrap_or_default();
    assert!(line.contains("iB needed, ") && line.contains("does not fit"), "{said}");
    assert_eq!(plan["memory"]["fits"], false);
    assert!(plan["memory"]["wanted_bytes"].as_u64() > plan["memory"]["free_bytes"].as_u64());
    let small = "plan --rate 1 --resolution 8 --channels 8 --mult 1 --blocks 1 --batch 8";
    assert!(emm(words(small)).ok().contains(" free; fits"));
    assert_eq!(emm(words(&format!("{small} --json"))).json()["memory"]["fits"], true);
}

/// Numbers of messages are rounded as people read them.
#[test]
fn no_message_holds_raw_numbers() {
    let f = fixture();
    let run = f.folder.path().join("fractions");
    let args = train_args(
        &f.data,
        &run,
        "--epochs 1.3333333333 --looks 1 --batch 48 --stop-after-steps 99",
    );
    let trained = emm(args).ok();
    for line in trained.lines() {
        assert!(!has_raw_number(line), "{line}");
    }
    assert!(trained.contains("at epoch 1.5"), "{trained}");
    for raw in ["at epoch 5.333333333333333", "needs 268435456 bytes of memory"] {
        assert!(has_raw_number(raw), "{raw}");
    }
}

#[test]
fn results_that_cannot_be_written_are_an_error() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_emm"));
    let out = command.args(["doctor", "--json"]).stdout(full).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.starts_with("emm: stdout: cannot write: "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn every_flag_says_itself_what_is_wrong_with_its_value() {
    for (args, start, holds) in [
        ("sample --model m --out x.npy --class -1", "--class: ", "-1"),
        ("sample --model m --out x.npy --batch -1", "--batch: ", "-1"),
        ("score --samples s.npz --reference r.zip --threshold -1", "--threshold: ", "-1"),
        ("gap --model m --data d.zip --levels -1", "--levels: ", "-1"),
        ("data import d.zip --out o.zip --size -3", "--size: ", "-3"),
        ("doctor --seed -1", "--seed: ", "-1"),
        ("doctor --threads -1", "--threads: ", "0 to 1024"),
        ("doctor --threads 100000", "--threads: ", "0 to 1024"),
        ("sample --out x.npy", "--run: ", "--model"),
        ("score --reference r.zip", "--run: ", "--samples"),
        ("data subset d.zip --size 4", "--out: ", "not given"),
        ("denoise --model m --images x.npy --out d.npy", "--sigmas: ", "not given"),
    ] {
        emm(words(args)).refused(2, start, holds);
    }
    emm(words("data import --out o.zip")).refused(2, "SRC", "not given");
}
