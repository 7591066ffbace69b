//! What a search for the EMM answers, in words and as `results.json` has it. Of curves that still rose nothing is
//! concluded but what they reached.

use super::account::{cost_json, costs_json, describe_settings, settings_json};
use crate::memorization::{Beyond, Bracket};
use crate::run::progress::describe_epochs;
use crate::study::find::{Found, OfSize};
use crate::study::folder::RunSeen;
use serde_json::{Value, json};

/// The object of `results.json`.
pub fn results(found: &Found) -> Value {
    let emm = &found.emm;
    let violations: Vec<_> = emm.violations.iter().map(|b| [b.lo.0, b.hi.0]).collect();
    let runs = found.runs();
    let (settings, mut own) = settings_json(&runs);
    let mut of_size = |m: &OfSize| size_json(m, own.drain(..m.runs.len()));
    let sizes: Vec<Value> = found.sizes.iter().map(&mut of_size).collect();
    let outside = emm.found.as_ref().err().filter(|side| **side != Beyond::Unreached);
    json!({
        "epsilon": emm.epsilon,
        "emm": emm.found.as_ref().ok().map(|f| f.0),
        "bracket": found.bracket(),
        "sizes": sizes,
        "outside": outside,
        "violations": violations,
        "emm_is_least": emm.at_least(),
        "emm_interval": found.interval,
        "known": {"at_least": emm.reached, "below": emm.below},
        "still_rising": emm.rising,
        "epochs": found.epochs,
        "precision": found.precision,
        "said": sentence(found),
        "settings": settings,
        "describe_settings": describe_settings(&runs),
        "costs": costs_json(&runs),
    })
}

/// `own`: for each run the settings that it does not share with all others.
fn size_json(m: &OfSize, own: impl Iterator<Item = Value>) -> Value {
    let run = |(r, own): (&RunSeen, Value)| {
        let ratio = r.done.as_ref().map(|done| done.value.ratio);
        let mut all = json!({"seed": r.config.train.seed, "ratio": ratio, "run": r.dir.display().to_string()});
        cost_json(r).into_iter().for_each(|(key, value)| all[key] = value);
        all["settings"] = own;
        all
    };
    let found = &m.found;
    json!({
        "size": m.size,
        "ratio": found.ratio,
        "interval": found.interval,
        "looks": found.evaluations,
        "best_epoch": found.best_epoch,
        "curve": found.curve.iter().map(|&(e, r)| [e, r]).collect::<Vec<_>>(),
        "curve_intervals": found.curve_intervals,
        "spread": found.ends(),
        "runs": m.runs.iter().zip(own).map(run).collect::<Vec<_>>(),
        "rising": found.rising,
        "reference_duplicates": found.reference_duplicates,
        "ratio_distinct": found.ratio_distinct,
    })
}

/// The answer in one sentence.
pub fn sentence(found: &Found) -> String {
    let (emm, sizes) = (&found.emm, &found.sizes);
    let (e, epochs) = (emm.epsilon, describe_epochs(found.epochs));
    let level = trimmed(100.0 * (1.0 - e));
    let size = |m: Option<&OfSize>| m.map_or(0, |m| m.size);
    let sure = match (&emm.found, found.interval) {
        // The sentence says it already.
        (Err(Beyond::Below), [None, Some(n)]) if n == size(sizes.first()) as f64 => String::new(),
        (Err(Beyond::Above), [Some(n), None]) if n == size(sizes.last()) as f64 => String::new(),
        (_, interval) => describe_interval(interval),
    };
    match &emm.found {
        Ok((n, Bracket { lo, hi })) if emm.at_least() => {
            let ends = [lo.0, hi.0].into_iter().filter(|n| emm.rising.contains(n));
            let below = match emm.below {
                Some(below) => format!("; it is below {below}"),
                None => String::new(),
            };
            format!(
                "EMM(ε = {e}) ≈ {n:.0} images at least{sure}: the ratio falls through {level}% between {} and {} images, \
                 but of {} it still rose at the last evaluation, after {epochs} epochs{below}",
                lo.0,
                hi.0,
                listed(&ends.collect::<Vec<_>>())
            )
        }
        Ok((n, b)) => format!(
            "EMM(ε = {e}) ≈ {n:.0} images{sure}: the ratio falls through {level}% between {} and {} images",
            b.lo.0, b.hi.0
        ),
        Err(Beyond::Below) => format!(
            "EMM(ε = {e}) not bracketed: every ratio is below {level}% after {epochs} epochs and rises no more, so \
             it lies below {} images{sure}",
            size(sizes.first())
        ),
        Err(Beyond::Above) => format!(
            "EMM(ε = {e}) not bracketed: {} images are still memorized to {level}%, so it is at least that{sure}",
            size(sizes.last())
        ),
        Err(Beyond::Unreached) => {
            let why = match emm.rising.as_slice() {
                [] => "too little was memorized to tell when training would be long enough"
                    .to_string(),
                rising => {
                    format!(
                        "the ratio still rose at the last evaluation of {} images",
                        listed(rising)
                    )
                }
            };
            let below = match emm.below {
                Some(below) => {
                    format!("; of {below} no longer, so it lies below {below} images")
                }
                None => String::new(),
            };
            format!(
                "EMM(ε = {e}) not known: {level}% was not reached in {epochs} epochs, and {why}{below}"
            )
        }
    }
}

/// ` (95%: 58 to 71)`, or the end that is known; empty if none is. Ends are rounded outwards.
pub fn describe_interval([low, high]: [Option<f64>; 2]) -> String {
    match (low.map(f64::floor), high.map(f64::ceil)) {
        (Some(low), Some(high)) => format!(" (95%: {low} to {high})"),
        (Some(low), None) => format!(" (95%: at least {low})"),
        (None, Some(high)) => format!(" (95%: below {high})"),
        (None, None) => String::new(),
    }
}

/// A sentence for each doubt: pairs of sizes that speak against a falling ratio, training images that hide copies.
pub fn notes(found: &Found) -> Vec<String> {
    let violations = found.emm.violations.iter().map(|b| against(&found.sizes, b));
    violations.chain(found.sizes.iter().filter_map(describe_duplicates)).collect()
}

fn against(sizes: &[OfSize], b: &Bracket) -> String {
    let end = |size, end: usize| {
        sizes.iter().find(|m| m.size as u64 == size).map(|m| m.found.interval[end])
    };
    let doubt = match end(b.hi.0, 0) <= end(b.lo.0, 1) {
        true => "; their intervals overlap",
        false => "",
    };
    format!(
        "the ratio rises from {:.2}% at {} to {:.2}% at {} images, against the hypothesis that it falls{doubt}",
        100.0 * b.lo.1,
        b.lo.0,
        100.0 * b.hi.1,
        b.hi.0
    )
}

fn describe_duplicates(m: &OfSize) -> Option<String> {
    let found = &m.found;
    let once =
        found.ratio_distinct.map_or("cannot be told".into(), |r| format!("is {:.2}%", 100.0 * r));
    (found.reference_duplicates > 0).then(|| {
        format!(
            "of {} training images {} repeat an earlier one, which hides copies of it: with identical images \
             counted once the ratio {once}, not {:.2}%",
            m.size,
            found.reference_duplicates,
            100.0 * found.ratio
        )
    })
}

/// 90 rather than 90.00000000000001.
fn trimmed(percent: f64) -> f64 {
    (percent * 1e6).round() / 1e6
}

/// `8, 16 and 32`.
fn listed(sizes: &[u64]) -> String {
    let all: Vec<String> = sizes.iter().map(u64::to_string).collect();
    match all.as_slice() {
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
        [] => String::new(),
    }
}
