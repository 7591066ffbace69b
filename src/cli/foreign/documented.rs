//! The command lines that EDM and DiffMemorize document, with `emm` and its command in place of the script: each runs, or
//! one line says what to type.

use super::super::{Cli, Command, one_line, with_negative_numbers};
use super::in_our_words;
use crate::study::ImageShape;
use clap::{CommandFactory as _, FromArgMatches as _};
use std::ffi::OsString;

/// The command of a line as this program reads it, or what it says instead; a training's settings are resolved.
fn read(line: &str) -> Result<Cli, String> {
    let args = ["emm"].into_iter().chain(line.split_whitespace()).map(OsString::from);
    let ours = in_our_words(args.collect()).map_err(|e| e.to_string())?;
    let matches = with_negative_numbers(Cli::command()).try_get_matches_from(ours);
    let cli = matches.and_then(|m| Cli::from_arg_matches(&m)).map_err(|e| one_line(&e))?;
    if let Command::Train(args) = &cli.command {
        let shape = ImageShape { images: 1000, resolution: 32, channels: 3, label_dim: 10 };
        args.flags.resolve_shape(&cli.common, shape).map_err(|e| e.to_string())?;
    }
    Ok(cli)
}

#[track_caller]
fn runs(line: &str) -> Cli {
    read(line).unwrap_or_else(|e| panic!("{line}: {e}"))
}

#[track_caller]
fn says(line: &str, flag: &str, instead: &str) {
    let said = read(line).expect_err(line);
    assert!(said.starts_with(&format!("{flag}: ")) && said.contains(instead), "{line}: {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

const EDM: &str = "https://nvlabs-fi-cdn.nvidia.com/edm";

#[test]
fn edms_generator() {
    for line in [
        "--outdir=out --seeds=0-63 --batch=64",
        "--outdir=out --seeds=0-999 --batch=64",
        "--outdir=out --steps=18",
        "--outdir=out --steps=40",
        "--outdir=out --steps=256 --S_churn=40 --S_min=0.05 --S_max=50 --S_noise=1.003",
        "--outdir=out --steps=18 --solver=heun --disc=edm --schedule=linear --scaling=none",
        "--outdir=out --seeds=1,2,5-10 --class=3 --sigma_min=0.002 --sigma_max=80 --rho=7",
    ] {
        let network = format!("--network={EDM}/pretrained/edm-cifar10-32x32-cond-vp.pkl");
        says(&format!("sample {line} {network}"), "--network", "--model F.safetensors");
        runs(&format!("sample {line} --model model.safetensors"));
    }
    let ablation =
        "sample --outdir=out --steps=512 --solver=euler --disc=vp --schedule=vp --scaling=vp";
    says(ablation, "--solver", "Heun");
    let ablation =
        "sample --outdir=out --steps=128 --solver=heun --disc=edm --schedule=vp --scaling=vp";
    says(ablation, "--schedule", "linear");
    let all = "sample --outdir=fid-tmp --seeds=0-49999 --subdirs --network=x.pkl";
    says(all, "--subdirs", "leave it out");
}

#[test]
fn edms_other_scripts() {
    says("sample generate.py --seeds=0-3", "generate.py", "leave it out");
    says("data import dataset_tool.py --source=x", "dataset_tool.py", "leave it out");
    says("example.py", "example.py", "emm quickstart");
    for line in ["calc --images=fid-tmp --ref=x.npz", "ref --data=d.zip --dest=fid-refs/d.npz"] {
        says(&format!("fid.py {line}"), "fid.py", "emm score");
    }
    let calc = format!("score --images=fid-tmp --ref={EDM}/fid-refs/cifar10-32x32.npz");
    says(&calc, "--ref", "--reference");
    for line in [
        "--source=downloads/cifar10/cifar-10-python.tar.gz --dest=datasets/cifar10-32x32.zip",
        "--source=downloads/ffhq/images1024x1024 --dest=datasets/ffhq-64x64.zip --resolution=64x64",
        "--source=downloads/imagenet/ILSVRC/Data/CLS-LOC/train --dest=datasets/imagenet-64x64.zip --resolution=64x64 \
         --transform=center-crop",
        "--source train-images-idx3-ubyte.gz --dest /path/to/dataset.zip --max-images 100",
    ] {
        runs(&format!("data import {line}"));
    }
    let lsun =
        "data import --source LSUN/raw/cat_lmdb --dest /tmp/lsun_cat --transform=center-crop-wide";
    says(lsun, "--dest", "--out F.zip");
    says("data import x --transform=center-crop-wide", "--transform", "--center-crop");
    says("data import x --out y.zip --resolution=512x384", "--resolution", "square");
}

#[test]
fn edms_trainings() {
    let set = "train --outdir=training-runs --data=datasets/cifar10-32x32.zip";
    for line in ["--cond=1 --arch=ddpmpp", "--cond=1 --arch=ncsnpp", "--cond=0 --arch=ddpmpp"] {
        runs(&format!("{set} {line}"));
    }
    let faces = "--batch=256 --cres=1,2,2,2 --lr=2e-4 --dropout=0.05 --augment=0.15";
    says(&format!("{set} --cond=0 --arch=ncsnpp {faces}"), "--cres", "--mult 1,2,2,2");
    let faces = faces.replace("--cres", "--mult");
    says(&format!("{set} --cond=0 {faces}"), "--augment", "without augmentation");
    runs(&format!("{set} --cond=0 {}", faces.replace("0.15", "0")));
    let adm = "--cond=1 --arch=adm --duration=2500 --batch=4096 --lr=1e-4 --ema=50 --dropout=0.10 --augment=0 --fp16=1 \
               --ls=100 --tick=200";
    says(&format!("{set} {adm}"), "--ema", "--ema-rate");
    for (flag, instead) in [
        ("--fp16=True", "--precision bf16"),
        ("--ls=100", "no scaling"),
        ("--tick=200", "stats.jsonl"),
        ("--batch-gpu=32", "--micro-batch 32"),
        ("--batch-gpu 32", "--micro-batch 32"),
        ("-n", "emm plan"),
        ("--dry-run", "emm plan"),
        ("--resume=training-state.pt", "emm train --run"),
        ("--transfer=x.pkl", "seed"),
        ("--cache=0", "in memory"),
        ("--bench=1", "emm bench"),
        ("--xflip=yes", "mirror"),
        ("--desc=x", "--run"),
        ("--cbase=192", "--channels 192"),
        ("--workers=4", "--threads"),
        ("--snap=10", "--evaluations"),
        ("--dump=10", "--save-every"),
    ] {
        says(&format!("{set} {flag}"), flag.split(['=', ' ']).next().unwrap(), instead);
    }
    let neutral = "--augment=0.0 --augment 0 --xflip=0 --fp16=0 --ls=1.0 --bench=False --cache=True --nosubdir";
    runs(&format!("{set} {neutral}"));
    runs("plan --outdir=x --nosubdir --cond=0 --precond=edm --num-blocks=4 --xflip=False --seed=1");
    says("find --data d.zip --outdir=x", "--outdir", "--runs x");
    says("train.py --outdir=x", "train.py", "emm train");
    says("generate --outdir=x", "generate", "emm sample");
}

/// What all of DiffMemorize's trainings share.
const BASIC: &str = "--arch=ddpmpp --augment=0.0 --window-size=0.0 --precond=vp --seed=1024 --duration=2000 \
                     --num-blocks=2 --num-channels=128 --fp16=False --lr=2e-4";

#[test]
fn diffmemorizes_trainings() {
    let set = "train --outdir=runs --data=datasets/cifar10/data_size/cifar10-1000.zip";
    let cli = runs(&format!("{set} --cond=0 {BASIC}"));
    let Command::Train(args) = &cli.command else { panic!("{cli:?}") };
    assert_eq!(args.flags.precision, "fp32");
    assert_eq!(args.flags.settings.training.order, Some(crate::run::Order::Fixed));
    assert_eq!(args.flags.duration, Some(2000.0));
    for more in [
        "--cond=1",
        "--cond=0 --attn-resolutions=16",
        "--cond=0 --embed=positional",
        "--cond=0 --embed=fourier",
        "--cond=0 --embed=positional --skip-connections=1,1,1,0,0,0,0,0,0",
        "--cond=0 --batch=128",
        "--cond=0 --weight-decay=1e-5",
        "--cond=0 --ema_mode=mode2 --optimizer=Adam",
    ] {
        runs(&format!("{set} {BASIC} {more}"));
    }
    let skips = "--arch=ncsnpp --augment=0.0 --window-size=0.0 --precond=ve --seed=1024 --duration=2000 --num-blocks=2 \
                 --num-channels=128 --embed=fourier --fp16=False --lr=2e-4 --skip-connections=0,0,0,0,0,0,1,0,0";
    runs(&format!("{set} --cond=0 {skips}"));
    runs(&format!("{set} --cond=1 {}", BASIC.replace("=vp", "=edm").replace("2e-4", "10e-4")));
    says(
        &format!("{set} --cond=0 {BASIC} --final-ema=0.9 --ema_mode=mode4"),
        "--final-ema",
        "--ema-rate 0.9",
    );
    says(&format!("{set} --ema_mode=mode4"), "--ema_mode", "--ema-rate");
    says(&format!("{set} --optimizer=SGD --momentum=0.9"), "--optimizer", "Adam");
    says(&format!("{set} --momentum=0.9"), "--momentum", "Adam");
    says(&format!("{set} --window-size=0.5"), "--window-size", "--order");
}

#[test]
fn diffmemorizes_other_scripts() {
    let optimal = "optimal --outdir=fid-tmp-optim --seeds=0-49999";
    let network = "--network=datasets/cifar10/cifar10-train.zip";
    says(&format!("{optimal} --subdirs {network}"), "--subdirs", "leave it out");
    runs(&format!("{optimal} {network} --batch=64"));
    says("generate_optim.py --outdir=x", "generate_optim.py", "emm optimal");
    let ratio = "--seeds=0-9999 --subdirs --batch=512 --steps=18 --S_churn=0";
    let theirs = format!("score --expdir=out --knn-ref=d.zip --log=out/mem_traj.log {ratio}");
    says(&theirs, "--expdir", "--run RUN");
    runs(&format!("score --run out --knn-ref=d.zip {ratio}"));
    says("score --run out --knn-ref=d.zip --log=x", "--log", "--json");
    says("score --run out --knn-ref=d.zip --steps=40", "--steps", "emm sample");
    says("mem_ratio.py --expdir=out", "mem_ratio.py", "emm score");

    let archive = "--source=datasets/cifar10/cifar-10-python.tar.gz";
    runs(&format!("data import {archive} --dest=datasets/cifar10/cifar10-train.zip"));
    runs(&format!("data import {archive} --dest=d/cifar10-16x16-1000.zip --resolution=16x16"));
    let subset = format!("data subset {archive} --dest=d/cifar10-1000.zip --max-images=1000");
    runs(&subset);
    runs(&format!("{subset} --labels unique"));
    says(&format!("{subset} --num-classes=2"), "--num-classes", "--classes 2");
    says(&format!("{subset} --num-classes=2"), "--num-classes", "--labels random:2");
    runs(&format!("{subset} --class-num=5"));
    says(&format!("{subset} --inter-rate=0.2"), "--inter-rate", "--blend E.zip:0.2");
    for script in ["dataset_size", "dataset_diversity", "dataset_random", "dataset_unique"] {
        says(&format!("data_utils/{script}.py"), &format!("data_utils/{script}.py"), "emm data");
    }
    says("intra_diversity.py", "intra_diversity.py", "--blend");
    says("sample_imagenet.py", "sample_imagenet.py", "--spread");
}
