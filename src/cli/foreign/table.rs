//! The flags of EDM's and DiffMemorize's scripts that ours do not share, by command.

/// A flag of theirs.
pub struct Flag {
    /// With its dashes.
    pub name: &'static str,
    /// Whether it stands alone.
    pub switch: bool,
    /// Values that mean the same as words of ours, in which `{}` is the value; no words where it is what is done anyway.
    /// See `fits`.
    pub same: &'static [(&'static str, &'static [&'static str])],
    /// What to type in place of any other value, which is `{}`.
    pub instead: &'static str,
}

/// The flags that a command may be given, in groups that several share.
pub type FlagGroups = &'static [&'static [Flag]];

const fn flag(
    name: &'static str,
    same: &'static [(&'static str, &'static [&'static str])],
    instead: &'static str,
) -> Flag {
    Flag { name, switch: false, same, instead }
}

/// One that takes no value.
const fn switch(
    name: &'static str,
    same: &'static [(&'static str, &'static [&'static str])],
    instead: &'static str,
) -> Flag {
    Flag { name, switch: true, same, instead }
}

/// What is done anyway, whatever the value of the flag.
const ANY: &[(&str, &[&str])] = &[("*", &[])];

/// Groups of flags by command.
pub const COMMANDS: &[(&str, FlagGroups)] = &[
    ("train", &[TRAINING]),
    ("plan", &[TRAINING, PLAN]),
    ("find", &[TRAINING, FIND]),
    ("sample", &[SAMPLER, SAMPLE]),
    ("optimal", &[SAMPLER, OPTIMAL]),
    ("score", &[SAMPLER, SCORE]),
    ("data import", &[PACKING, IMPORT]),
    ("data subset", &[PACKING, SUBSET]),
];

/// Scripts in place of a command, and the command.
pub const SCRIPTS: &[(&str, &str)] = &[
    ("train", "`emm train` trains"),
    ("generate", "`emm sample` generates images"),
    ("generate_edm", "`emm sample` generates images"),
    ("generate_optim", "`emm optimal` generates images of the theoretical optimum"),
    ("mem_ratio", "`emm train` scores every evaluation, `emm score` any samples"),
    ("fid", "FID is not computed; `emm score` counts copies"),
    ("dataset_tool", "`emm data import` makes data sets"),
    ("dataset_size", "`emm data subset D.zip --size N --out S.zip` cuts one to a size"),
    (
        "dataset_diversity",
        "`emm data subset D.zip --size N --classes C --out S.zip` takes the first C classes",
    ),
    (
        "dataset_random",
        "`emm data subset D.zip --size N --labels random:C --out S.zip` draws labels",
    ),
    (
        "dataset_unique",
        "`emm data subset D.zip --size N --labels unique --out S.zip` gives each image its own label",
    ),
    (
        "intra_diversity",
        "`emm data subset D.zip --size N --class K --blend E.zip:ALPHA --out S.zip` blends two sets",
    ),
    (
        "sample_imagenet",
        "`emm data import DIR --size N --spread --shuffle --out E.zip` takes an equal share of each folder",
    ),
    ("example", "`emm quickstart` needs no data, `emm sample` draws from a model"),
];

const HALF: &str =
    "--precision bf16 stores activations in half precision, --precision fp32 does not";
const ADAM: &str = "Adam with --lr and --weight-decay is the only optimizer";
const EMA: &str = "it is a half-life there and 10 epochs here; --ema-rate sets the rate per step of the paper's Table 2";
const EMA_MODE: &str = "the rule here is mode2's; --ema-rate R is mode4's with --final-ema=R";
const SNAPSHOTS: &str = "--evaluations N takes N evenly spaced snapshots and scores them; `emm train --keep all` keeps them";
const PLANS: &str = "`emm plan` takes the same flags and writes nothing";

/// Of `train.py`.
const TRAINING: &[Flag] = &[
    flag("--fp16", &[("false", &["--precision", "fp32"])], HALF),
    flag(
        "--ls",
        &[("1", &[])],
        "losses need no scaling, bf16 and fp32 have the range: leave it out",
    ),
    flag(
        "--augment",
        &[("0", &[])],
        "the paper trains without augmentation, and so does this program: leave it out",
    ),
    flag(
        "--xflip",
        &[("false", &[])],
        "the paper trains without mirroring; mirror the images before `emm data import`",
    ),
    flag(
        "--window-size",
        &[("0", &["--order", "fixed"])],
        "--order fixed is window size 0, --order shuffle a new order each epoch",
    ),
    flag("--optimizer", &[("Adam", &[])], ADAM),
    flag("--momentum", &[], ADAM),
    flag("--ema", &[], EMA),
    flag("--ema_mode", &[("mode2", &[])], EMA_MODE),
    flag("--final-ema", &[], "--ema-rate {} is the rate per step that it settles at in mode4"),
    flag("--tick", &[], "progress is shown as it goes and kept in stats.jsonl: leave it out"),
    flag("--snap", &[], SNAPSHOTS),
    flag("--dump", &[], "`emm train --save-every 30s` says how often the state is saved"),
    flag("--resume", &[], "the same `emm train --run RUN` resumes"),
    flag(
        "--transfer",
        &[],
        "a run starts from its seed, or the same `emm train --run RUN` resumes it",
    ),
    flag("--workers", &[], "images stay in memory; --threads sets the threads"),
    flag("--cache", &[("true", &[])], "images stay in memory: leave it out"),
    flag(
        "--bench",
        &[("false", &[])],
        "`emm bench` measures, kernels are chosen without trials: leave it out",
    ),
    switch("--nosubdir", ANY, ""),
    flag("--desc", &[], "`emm train --run RUN` names the directory itself"),
    flag("--batch-gpu", &[], "--micro-batch {} is the images computed at a time"),
    flag("--cbase", &[], "--channels {} is the width of the network"),
    flag("--cres", &[], "--mult {} gives the width of each level"),
    switch("--dry-run", &[], PLANS),
    switch("-n", &[], PLANS),
    flag("--network", &[], "`emm sample --model F.safetensors` reads model files"),
    flag("--seeds", &[], "--seed is the run's; `emm sample --seeds {}` generates images"),
];

const PLAN: &[Flag] = &[flag("--outdir", ANY, "")];

const FIND: &[Flag] = &[flag("--outdir", &[], "--runs {} holds the runs, --out DIR the results")];

/// Of `generate.py`, and all scripts that sample.
const SAMPLER: &[Flag] = &[
    flag("--solver", &[("heun", &[])], "Heun's is the only solver"),
    flag(
        "--disc",
        &[("edm", &[])],
        "noise levels are spaced as --disc=edm does it, the only way here",
    ),
    flag(
        "--schedule",
        &[("linear", &[])],
        "noise grows as --schedule=linear lets it, the only way here",
    ),
    flag("--scaling", &[("none", &[])], "signals are not scaled, as --scaling=none says"),
];

const ONE_FOLDER: &str = "leave it out: images of all seeds lie in one folder, and are read from folders of a thousand, too";
const PICKLE: &str = "--model F.safetensors reads a model, which `python data/edm_to_safetensors.py F.pkl F.safetensors` \
                      makes of a downloaded pickle";

const SAMPLE: &[Flag] = &[flag("--network", &[], PICKLE), switch("--subdirs", &[], ONE_FOLDER)];

const OPTIMAL: &[Flag] = &[
    flag("--network", &[("*.zip", &["--data", "{}"])], "--data SET is the training images"),
    switch("--subdirs", &[], ONE_FOLDER),
    // An image does not depend on those beside it.
    flag("--batch", ANY, ""),
];

const DRAWN: &str =
    "--samples F.npz scores what `emm sample --out F.npz` draws with other settings";

/// Of `mem_ratio.py` and `fid.py`.
const SCORE: &[Flag] = &[
    flag(
        "--expdir",
        &[],
        "`emm train` scores every snapshot itself, into scores.csv; --run RUN scores its best one again",
    ),
    flag(
        "--log",
        &[],
        "--json prints the numbers, and scores.csv of a run holds those of its evaluations",
    ),
    flag("--network", &[], "--run RUN draws samples, --samples reads them"),
    // No images are written.
    switch("--subdirs", ANY, ""),
    flag("--class", &[], DRAWN),
    flag("--steps", &[("18", &[])], DRAWN),
    flag("--rho", &[("7", &[])], DRAWN),
    flag("--sigma_min", &[("0.002", &[])], DRAWN),
    flag("--sigma_max", &[("80", &[])], DRAWN),
    flag("--S_churn", &[("0", &[])], DRAWN),
    flag("--S_min", &[("0", &[])], DRAWN),
    flag("--S_max", &[("inf", &[])], DRAWN),
    flag("--S_noise", &[("1", &[])], DRAWN),
    flag(
        "--ref",
        &[],
        "FID is not computed; --reference takes the training images, not statistics of them",
    ),
    flag("--num", &[], "FID is not computed; all of --samples are scored"),
];

/// Of `dataset_tool.py`, and all scripts that make data sets.
const PACKING: &[Flag] = &[
    flag("--source", &[("*", &["{}"])], "the set is named without a flag"),
    flag(
        "--dest",
        &[("*.zip", &["--out", "{}"])],
        "--out F.zip: a data set is written as a zip, not as a folder",
    ),
];

const IMPORT: &[Flag] = &[
    flag(
        "--transform",
        &[("center-crop", &["--center-crop"])],
        "--center-crop keeps the central square, the only crop",
    ),
    flag("--num-classes", &[], "`emm data subset --classes {}` takes the first classes of a set"),
    flag("--class-num", &[], "`emm data subset --class {}` takes a class of a set"),
    flag("--inter-rate", &[], "`emm data subset --blend E.zip:{}` blends two sets"),
];

const SUBSET: &[Flag] = &[
    flag("--transform", &[], "`emm data import --center-crop` crops images before subsets are cut"),
    flag(
        "--num-classes",
        &[],
        "--classes {} takes the first classes as dataset_diversity.py does, --labels random:{} draws labels as \
         dataset_random.py does",
    ),
    flag("--class-num", &[("*", &["--class", "{}"])], "--class K takes one class"),
    flag("--inter-rate", &[], "--blend E.zip:{} takes that share of the images from E.zip"),
];
