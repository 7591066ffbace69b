//! What runs were and what they took: settings in one line and as `config.toml` has them, FLOP, devices, time.

use crate::model::{Arch, ModelConfig, Params};
use crate::report::number;
use crate::study::cost::flop_of;
use crate::study::folder::RunSeen;
use crate::study::log::{Log, devices, wall_s};
use serde_json::{Map, Value, json};

/// FLOP and time of all runs: added up, and by the clock.
pub fn costs_json(runs: &[&RunSeen]) -> Value {
    let logs: Vec<&Log> = runs.iter().filter_map(|r| r.log.as_ref()).collect();
    let known = logs.len() == runs.len();
    json!({
        "flop": runs.iter().map(|r| flop_of(&r.config)).sum::<f64>(),
        "elapsed_s": known.then(|| logs.iter().map(|l| l.elapsed_s()).sum::<f64>()),
        "clock_s": known.then(|| wall_s(logs.iter().copied())),
        "devices": devices(logs),
    })
}

/// FLOP, device and time of one run.
pub fn cost_json(run: &RunSeen) -> Map<String, Value> {
    let log = run.log.as_ref();
    let devices = log.map_or(&[][..], |l| &l.devices);
    let all = [
        ("flop", json!(flop_of(&run.config))),
        ("elapsed_s", json!(log.map(Log::elapsed_s))),
        ("devices", json!(devices)),
    ];
    all.map(|(key, value)| (key.to_string(), value)).into_iter().collect()
}

/// Sections `model`, `train` and `data` as `config.toml` has them: what all runs share, and what each has for itself.
pub fn settings_json(runs: &[&RunSeen]) -> (Value, Vec<Value>) {
    let whole = |run: &&RunSeen| serde_json::to_value(&run.config).unwrap_or_default();
    let all: Vec<Value> = runs.iter().map(whole).collect();
    let (mut shared, mut own) = (json!({}), vec![json!({}); all.len()]);
    let sections = all.first().and_then(Value::as_object).into_iter().flatten();
    for (section, keys) in sections {
        shared[section] = json!({});
        for (key, value) in keys.as_object().into_iter().flatten() {
            match all.iter().all(|one| one[section][key] == *value) {
                true => shared[section][key] = value.clone(),
                false => {
                    for (own, one) in own.iter_mut().zip(&all) {
                        own[section][key] = one[section][key].clone();
                    }
                }
            }
        }
    }
    (shared, own)
}

/// Network, training, evaluations and seeds of runs that differ in images, evaluations and seed, in one line.
pub fn describe_settings(runs: &[&RunSeen]) -> String {
    let Some(first) = runs.first() else { return String::new() };
    let train = &first.config.train;
    let of = |what: fn(&RunSeen) -> u64| range(runs.iter().map(|r| what(r)));
    let evaluations = of(|r| r.evaluations.len() as u64);
    let images = range(runs.iter().flat_map(|r| &r.evaluations).map(|l| l.images));
    let again = match of(|r| r.config.train.rescore_images as u64).as_str() {
        "0" => String::new(),
        images => format!(", the best scored again with {images}"),
    };
    let weight_decay = match train.weight_decay {
        0.0 => String::new(),
        w => format!(", weight decay {w}"),
    };
    let (epochs, batch, lr) = (number(train.epochs), train.batch, train.lr);
    let precision = train.precision.name();
    let seed = of(|r| r.config.train.seed);
    let seeds = if seed.contains(' ') { "seeds" } else { "seed" };
    format!(
        "{} · {epochs} epochs, batch {batch}, learning rate {lr}{weight_decay}, {precision} · evaluations: {evaluations} of {images} \
         images{again} · {seeds} {}",
        describe_network(&first.config.model),
        seed.replace(',', "")
    )
}

fn describe_network(model: &ModelConfig) -> String {
    let arch = match model.arch {
        Arch::DdpmPP => "DDPM++",
        Arch::NcsnPP => "NCSN++",
    };
    let precond = json!(model.precond).as_str().unwrap_or_default().to_uppercase();
    let mult: Vec<String> = model.channel_mult.iter().map(usize::to_string).collect();
    let (channels, mult, blocks) = (model.model_channels, mult.join(","), model.num_blocks);
    let parameters = number(Params::new(model).count() as f64);
    let blocks_word = if blocks == 1 { "block" } else { "blocks" };
    let classes = match model.label_dim {
        0 => String::new(),
        n => format!(", {n} classes"),
    };
    format!(
        "{arch}, {precond} preconditioning, {channels} channels × {mult}, {blocks} {blocks_word}, {parameters} \
         parameters{classes}"
    )
}

/// `500`, or `100 to 500`.
fn range(all: impl Iterator<Item = u64> + Clone) -> String {
    let said = |n: Option<u64>| number(n.unwrap_or(0) as f64);
    let (least, most) = (all.clone().min(), all.max());
    match least == most {
        true => said(most),
        false => format!("{} to {}", said(least), said(most)),
    }
}
