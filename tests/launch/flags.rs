//! Flags of the launchers that are wrong: one line each, and exit code 2.

use super::engine::{folder, go, programs};
use super::{expanded, yaml};
use crate::support::{Ended, emm_in};

#[test]
fn wrong_flags_are_said_in_a_line() {
    let dir = folder();
    let dir = dir.path();
    let cases = [
        ("slurm --cap 0", "--cap: ", "from 1 on"),
        ("slurm --cap x", "--cap: ", "from 1 on"),
        ("slurm --cap -1", "--cap: ", "from 1 on"),
        ("slurm --partition a|b", "--partition: ", "a name without spaces"),
        ("slurm --account=", "--account: ", "a name without spaces"),
        ("slurm --container=", "--container: ", "an image's path"),
        ("slurm --time auto:never", "--time: ", "auto:08:00:00"),
        ("slurm --time 00:00", "--time: ", "04:00:00"),
        ("slurm --gpu v100", "--gpu: ", "h100 or a100"),
        ("slurm --device gpu", "--device: ", "none of auto"),
        ("k8s", "--image: ", "not given"),
        ("k8s --image=", "--image: ", "a name without spaces"),
        ("k8s --image emm:1", "--claim: not given", "--push and --pull"),
        ("k8s --image emm:1 --claim Shared", "--claim: ", "a-z, 0-9 and -"),
        ("k8s --image emm:1 --claim c --queue=-q", "--queue: ", "a-z, 0-9 and -"),
        ("k8s --image emm:1 --claim c --name a_b", "--name: ", "a-z, 0-9 and -"),
        ("k8s --image emm:1 --claim c --cap 0", "--cap: ", "from 1 on"),
        ("k8s --image emm:1 --claim c --out j.sh", "--out: ", "name it j.yaml"),
        (
            "k8s --image emm:1 --pull {dir}{run} --push {dir}{run}",
            "STUDY: twenty.toml: ",
            "the full path",
        ),
        ("sky", "--push: ", "--volume"),
        ("sky --volume v --device cuda", "--gpu: not given", "H100"),
        ("sky --volume v --gpu=", "--gpu: ", "a name without spaces"),
        ("sky --pull {dir} --push {dir}", "--pull: ", "where {run} goes"),
        ("sky --pull {run} --push {dir}", "--pull: ", "where {dir} goes"),
        ("sky --pull= --push {dir}", "--pull: ", "found nothing"),
        ("sky --push {dir}{run} --push-every soon", "--push-every: ", "10m"),
        ("sky --push-every 1m", "--push", "--push"),
        ("run-one 0 --wait soon", "--wait: ", "10m"),
        ("run-one 20", "I: 20", "0 to 19"),
    ];
    for (line, start, holds) in cases {
        let (command, flags) = line.split_once(' ').unwrap_or((line, ""));
        let words = format!("sweep {command} {flags} twenty.toml --scale tiny --repeats 10");
        emm_in(dir, words.split_whitespace()).refused(2, start, holds);
    }
    let spaces = ["sweep", "slurm", "table3", "--scale", "tiny", "--partition", "two words"];
    emm_in(dir, spaces).refused(2, "--partition: ", "\"two words\"");
    let away = ["sweep", "sky", "../twenty.toml", "--scale", "tiny"];
    let inner = dir.join("inner");
    std::fs::create_dir(&inner).unwrap();
    let bucket = ["--pull", "{dir} {run}", "--push", "{dir} {run}"];
    emm_in(&inner, away.iter().chain(&bucket)).refused(2, "STUDY: ../twenty.toml: ", "full path");
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = std::ffi::OsStr::from_bytes(b"--runs=r\xff");
    let words = ["sweep", "k8s", "table3", "--scale", "tiny", "--image", "e", "--claim", "c"];
    emm_in(dir, words.iter().map(std::ffi::OsStr::new).chain([bytes])).refused(
        2,
        "--runs: ",
        "not UTF-8",
    );
}

#[test]
fn threads_and_gpus_are_asked_of_the_engine() {
    let dir = folder();
    let dir = dir.path();
    let flags = "twenty.toml --scale tiny --threads 4 --device cuda";
    let slurm = go(dir, &format!("sweep slurm {flags} --partition gpu,long --account lab")).ok();
    for holds in [
        "#SBATCH --partition=gpu,long\n",
        "#SBATCH --account=lab\n",
        "#SBATCH --gres=gpu:1\n",
        "#SBATCH --cpus-per-task=4\n",
        " --device cuda --threads 4 ",
    ] {
        assert!(slurm.contains(holds), "{holds}: {slurm}");
    }
    let k8s = go(dir, &format!("sweep k8s {flags} --image e --claim c --json")).json();
    let container = &k8s["manifest"]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        container["resources"]["limits"],
        serde_json::json!({"cpu": 4, "nvidia.com/gpu": 1})
    );
    assert_eq!(
        k8s["manifest"]["spec"].get("suspend"),
        None,
        "without a queue nobody would resume it"
    );
    let sky =
        go(dir, &format!("sweep sky {flags} --gpu A100 --volume v --on-demand --json")).json();
    let resources = &sky["task"]["resources"];
    assert_eq!((&resources["accelerators"], &resources["cpus"]), (&"A100:1".into(), &"4+".into()));
    assert_eq!(
        (&resources["use_spot"], &sky["task"]["volumes"]["/work"]),
        (&false.into(), &"v".into())
    );
}

/// A study's path may hold whatever a shell, YAML or Kubernetes takes for something else.
#[test]
fn manifests_name_paths_that_others_would_read_otherwise() {
    let dir = folder();
    let dir = dir.path();
    let path = programs(dir, &[("tell", "printf '%s\\0' \"$@\" > given")]);
    std::fs::remove_file(dir.join("bin/emm")).unwrap();
    std::fs::rename(dir.join("bin/tell"), dir.join("bin/emm")).unwrap();
    for name in [
        "$(touch executed)`touch executed`",
        "$(JOB_COMPLETION_INDEX) $$HOME $$$ ${HOME}",
        "a\ntouch executed\n\r\t: - b #",
        "\"; touch executed; 'é\u{2028}\u{1f600}\u{7f}\\n",
        "~ * ?; touch executed",
    ] {
        let study = format!("{name}.toml");
        std::fs::copy(dir.join("twenty.toml"), dir.join(&study)).unwrap();
        let ask = |engine: &[&str]| {
            let words = [&["sweep", engine[0], study.as_str(), "--scale", "tiny"], &engine[1..]];
            yaml::read(&emm_in(dir, words.concat()).ok())
        };
        let job = ask(&["k8s", "--image", "e", "--claim", "c"]);
        let words = job["spec"]["template"]["spec"]["containers"][0]["command"].clone();
        let task = ask(&["sky", "--pull", "{dir} {run}", "--push", "{dir} {run}"]);
        assert!(task["file_mounts"][format!("~/{study}")] == *study, "{task}");
        for (line, variable) in [
            (expanded(words[2].as_str().unwrap()), "JOB_COMPLETION_INDEX"),
            (task["run"].as_str().unwrap().to_string(), "INDEX"),
        ] {
            let mut shell = std::process::Command::new("bash");
            shell
                .args(["-c", &line])
                .current_dir(dir)
                .envs([("PATH", path.as_str()), (variable, "7")]);
            Ended::of(shell.env("HOME", dir)).ok();
            let given = std::fs::read_to_string(dir.join("given")).unwrap();
            let given: Vec<&str> = given.split('\0').collect();
            assert_eq!(given[..4], ["sweep", "run-one", "7", &study]);
            assert!(!dir.join("executed").exists(), "{study:?}");
        }
    }
}
