//! What a search leaves beside its answer: settings, costs, and pictures that stand by themselves.

use super::find::{TINY, folder, run_dir};
use super::support::emm_in;
use serde_json::json;

#[test]
fn results_say_what_was_trained_and_what_it_took() {
    let dir = folder();
    let dir = dir.path();
    let args = format!("find --data d.zip --quiet --json {TINY} --sizes 4,8 --out out");
    let found = emm_in(dir, args.split_whitespace()).json();
    // Settings as config.toml has them, shared and each run's own; FLOP, devices, time added up and by the clock.
    let config = std::fs::read_to_string(run_dir(dir, &found, 8).join("config.toml")).unwrap();
    let config: toml::Value = toml::from_str(&config).unwrap();
    for section in ["model", "train", "data"] {
        let own = &found["sizes"][1]["runs"][0]["settings"][section];
        for (key, value) in config[section].as_table().unwrap() {
            let shared = &found["settings"][section][key];
            let said = if shared.is_null() { &own[key] } else { shared };
            assert_eq!(*said, serde_json::to_value(value).unwrap(), "{section}.{key}");
        }
    }
    let costs = &found["costs"];
    let runs = (0..2).map(|i| &found["sizes"][i]["runs"][0]);
    let sum = |key: &str| runs.clone().map(|r| r[key].as_f64().unwrap()).sum::<f64>();
    assert_eq!(costs["flop"].as_f64().unwrap(), sum("flop"));
    assert_eq!(costs["elapsed_s"].as_f64().unwrap(), sum("elapsed_s"));
    assert!(sum("flop") > 1e6 && costs["clock_s"].as_f64() <= costs["elapsed_s"].as_f64());
    assert_eq!(costs["devices"], json!(["cpu, 1 thread"]));
    // Both pictures say what was trained and what is drawn around their points.
    for name in ["sizes.svg", "epochs.svg"] {
        let svg = std::fs::read_to_string(dir.join("out").join(name)).unwrap();
        for words in ["DDPM++, VP preconditioning", "seed 1024", "95% sampling interval", "1 − ε"]
        {
            assert!(svg.contains(words), "{name}: no {words:?}");
        }
        assert!(svg.contains("fill-opacity"), "{name}: no bands");
        assert!(svg.contains("% to "), "{name}: no intervals");
    }
}
