//! What the lock file brings in: licences and duplicates, as `deny.toml` allows them, seen without network.

use serde_json::Value;
use spdx::{Expression, LicenseReq, ParseMode};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

struct Package {
    name: String,
    version: String,
    licence: Option<String>,
}

/// The packages that a build for the platform of the tests' own takes, dependencies of tests and the build included.
fn packages() -> Vec<Package> {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let built: BTreeSet<String> =
        metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|n| text(&n["id"])).collect();
    let all = metadata["packages"].as_array().unwrap();
    all.iter()
        .filter(|p| built.contains(p["id"].as_str().unwrap()))
        .map(|p| Package {
            name: text(&p["name"]),
            version: text(&p["version"]),
            licence: p["license"].as_str().map(String::from),
        })
        .collect()
}

fn deny() -> toml::Table {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml");
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

fn may(allowed: &BTreeSet<String>, licence: &str) -> bool {
    let licence = Expression::parse_mode(licence, ParseMode::LAX).unwrap();
    licence.evaluate(|asked: &LicenseReq| allowed.contains(&asked.license.to_string()))
}

#[test]
fn licences_let_a_binary_be_given_away() {
    let deny = deny();
    let allow = deny["licenses"]["allow"].as_array().unwrap();
    let allowed: BTreeSet<String> = allow.iter().map(|l| l.as_str().unwrap().into()).collect();
    let packages = packages();
    assert!(packages.len() > 20, "{} packages", packages.len());
    let refused: Vec<String> = packages
        .iter()
        .filter(|p| !p.licence.as_ref().is_some_and(|l| may(&allowed, l)))
        .map(|p| format!("{} {}: {:?}", p.name, p.version, p.licence))
        .collect();
    assert!(refused.is_empty(), "deny.toml allows none of these licences: {refused:#?}");
    assert!(!may(&allowed, "GPL-3.0-only") && !may(&allowed, "MIT AND GPL-2.0-or-later"));
    for one in &allowed {
        let rest: BTreeSet<String> = allowed.iter().filter(|l| *l != one).cloned().collect();
        let needed = packages.iter().any(|p| !may(&rest, p.licence.as_ref().unwrap()));
        assert!(needed, "deny.toml: nothing needs {one}");
    }
}

#[test]
fn no_crate_is_built_twice_but_those_that_deny_toml_names() {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages() {
        versions.entry(package.name).or_default().push(package.version);
    }
    let twice: BTreeSet<String> =
        versions.into_iter().filter(|(_, all)| all.len() > 1).map(|(name, _)| name).collect();
    let deny = deny();
    let named: BTreeSet<String> = deny["bans"]["skip"]
        .as_array()
        .unwrap()
        .iter()
        .map(|skip| skip["crate"].as_str().unwrap().split('@').next().unwrap().into())
        .collect();
    assert_eq!(twice, named, "built in two versions, and named in deny.toml");
}
