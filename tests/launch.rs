//! Sweeps that engines of many machines do: each engine's stand-in reads what is written for it, kills workers, starts them
//! again as the engine does. Nothing is lost, nothing done twice.

mod bucket;
mod engine;
mod flags;
mod yaml;

use crate::support::Ended;
use engine::{
    FLAGS, Fate, Next, RUNS, STRAIGHT, Told, Try, calm, disturbed, drive, folder, go, programs,
    starts, was_killed,
};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

/// Every run is as if undisturbed, and was begun once a try; enough of them were disturbed.
fn all_as_undisturbed(told: &Told, runs: &Path) {
    STRAIGHT.compare(runs);
    assert_eq!(starts(runs), told.tries);
    let count = |code: Option<i32>| told.codes.iter().filter(|c| **c == code).count();
    assert!(count(Some(75)) >= 3 && count(None) >= 3, "{:?}", told.codes);
    assert_eq!(count(Some(0)), RUNS, "{:?}", told.codes);
}

fn options(script: &str) -> HashMap<&str, &str> {
    let lines = script.lines().filter_map(|line| line.strip_prefix("#SBATCH --"));
    lines.map(|line| line.split_once('=').unwrap_or((line, ""))).collect()
}

/// The indices of `0-3,7%2`, and how many at once.
fn array(text: &str) -> (Vec<usize>, usize) {
    let (indices, cap) = text.split_once('%').unwrap_or((text, "99"));
    let range = |part: &str| {
        let (a, b) = part.split_once('-').unwrap_or((part, part));
        a.parse::<usize>().unwrap()..=b.parse().unwrap()
    };
    (indices.split(',').flat_map(range).collect(), cap.parse().unwrap())
}

#[test]
fn twenty_runs_on_slurm_lose_and_repeat_nothing() {
    let dir = folder();
    let dir = dir.path();
    go(dir, &format!("sweep slurm {FLAGS} --cap 3 --container emm.sif --out job.sh")).ok();
    let script = std::fs::read_to_string(dir.join("job.sh")).unwrap();
    let options = options(&script);
    assert!(options.contains_key("requeue") && options["signal"] == "B:USR1@120", "{script}");
    let (indices, cap) = array(options["array"]);
    let container = "[ \"$1 $2\" = 'exec emm.sif' ] && shift 2 && exec \"$@\"";
    let path =
        programs(dir, &[("scontrol", "echo \"$1 $2\" >> requeued"), ("apptainer", container)]);
    let start = |index: usize, _| {
        let mut command = Command::new("bash");
        command.arg("job.sh").current_dir(dir).env("PATH", &path);
        command.envs([("SLURM_ARRAY_JOB_ID", "77"), ("SLURM_ARRAY_TASK_ID", &index.to_string())]);
        Try { command, runs: dir.join("runs") }
    };
    let asked = |index| {
        let all = std::fs::read_to_string(dir.join("requeued")).unwrap_or_default();
        all.lines().filter(|line| *line == format!("requeue 77_{index}")).count()
    };
    let mut requeued = [0; RUNS];
    // A node that fails has its jobs requeued as the script says; another is when it asks for it.
    let mut judge = |index: usize, status: std::process::ExitStatus, _| {
        let again = asked(index) > requeued[index];
        requeued[index] += usize::from(again);
        assert!(again || was_killed(status) || status.success(), "{index}: {status}");
        if again || was_killed(status) { Next::Again } else { Next::Done }
    };
    let told = drive(indices.clone(), cap, &start, &disturbed, &mut judge);
    all_as_undisturbed(&told, &dir.join("runs"));
    // Submitted once more, nothing is begun again.
    drive(indices, cap, &start, &calm, &mut judge);
    assert_eq!(starts(&dir.join("runs")), told.tries);
}

#[test]
fn arrays_of_equal_times_hold_every_run_once() {
    let dir = folder();
    let dir = dir.path();
    // Of two sizes one takes twice as long as the other.
    go(dir, &format!("sweep slurm {FLAGS} --time auto --rate 2 --out job.sh")).ok();
    let path = programs(dir, &[("sbatch", "echo \"$@\" >> submitted")]);
    let mut submit = Command::new("bash");
    submit.arg("job.sh").current_dir(dir).env("PATH", &path).env_remove("SLURM_ARRAY_TASK_ID");
    Ended::of(&mut submit).ok();
    let submitted = std::fs::read_to_string(dir.join("submitted")).unwrap();
    let mut all = Vec::new();
    let mut times = Vec::new();
    for line in submitted.lines() {
        let [indices, time, script] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        assert_eq!(script, "job.sh");
        all.extend(array(indices.strip_prefix("--array=").unwrap()).0);
        times.push(time.strip_prefix("--time=").unwrap().to_string());
    }
    all.sort_unstable();
    assert_eq!(all, (0..RUNS).collect::<Vec<_>>());
    assert!(times.len() == 2 && times[0] < times[1], "{submitted}");
    // A cap holds for one array, whose time is the longest.
    let capped = go(dir, &format!("sweep slurm {FLAGS} --time auto --rate 2 --cap 4")).ok();
    let capped = options(&capped);
    assert_eq!((capped["array"], capped["time"]), ("0-19%4", times[1].as_str()));
    let h100 =
        go(dir, &format!("sweep slurm {FLAGS} --device cuda --time auto:00:20:00 --gpu h100")).ok();
    assert_eq!(options(&h100)["time"], "00:20:00");
}

/// What a job's policy says of a pod that ended so: the first rule that fits, or that it counts.
fn action(spec: &Value, disrupted: bool, code: i32) -> &str {
    let rules = spec["podFailurePolicy"]["rules"].as_array().unwrap();
    let fits = |rule: &&Value| match (&rule["onPodConditions"], &rule["onExitCodes"]) {
        (Value::Array(conditions), _) => {
            disrupted && conditions.iter().any(|c| c["type"] == "DisruptionTarget")
        }
        (_, codes) => {
            assert_eq!(
                (&codes["operator"], &codes["containerName"]),
                (&"In".into(), &"emm".into())
            );
            codes["values"].as_array().unwrap().contains(&code.into())
        }
    };
    rules.iter().find(fits).map_or("Count", |rule| rule["action"].as_str().unwrap())
}

/// A command as Kubernetes gives it to a container.
fn expanded(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('$') {
        assert!(!rest[at..].starts_with("$("), "a variable of Kubernetes's: {text}");
        out += &rest[..=at];
        rest = rest[at + 1..].strip_prefix('$').unwrap_or(&rest[at + 1..]);
    }
    out + rest
}

#[test]
fn twenty_runs_on_kubernetes_lose_and_repeat_nothing() {
    let dir = folder();
    let dir = dir.path();
    let line = format!("sweep k8s {FLAGS} --image emm:1 --claim shared --cap 3 --queue gpus");
    let json = go(dir, &format!("{line} --json")).json();
    go(dir, &format!("{line} --out job.yaml")).ok();
    let job = yaml::read(&std::fs::read_to_string(dir.join("job.yaml")).unwrap());
    assert_eq!((&job, &json["runs"]), (&json["manifest"], &RUNS.into()));
    let spec = &job["spec"];
    let number = |name: &str| spec[name].as_u64().unwrap() as usize;
    assert_eq!((&spec["completionMode"], &spec["suspend"]), (&"Indexed".into(), &true.into()));
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["restartPolicy"], "Never");
    let container = &pod["containers"][0];
    let mount = &container["volumeMounts"][0];
    assert_eq!(mount["mountPath"], container["workingDir"], "the folder is the claim's root");
    let words: Vec<String> = container["command"]
        .as_array()
        .unwrap()
        .iter()
        .map(|w| expanded(w.as_str().unwrap()))
        .collect();
    let path = programs(dir, &[]);
    let start = |index: usize, _| {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(dir).env("PATH", &path);
        command.env("JOB_COMPLETION_INDEX", index.to_string());
        Try { command, runs: dir.join("runs") }
    };
    let mut failures = [0; RUNS];
    let mut judge = |index: usize, status: std::process::ExitStatus, fate| {
        if status.success() {
            return Next::Done;
        }
        // Every other pod that is killed loses its node, the rest their memory.
        let disrupted = fate != Fate::Undisturbed && was_killed(status) && index.is_multiple_of(2);
        match action(spec, disrupted, status.code().unwrap_or(137)) {
            "Ignore" => {}
            "Count" => failures[index] += 1,
            other => panic!("{index}: {status}: {other}"),
        }
        assert!(failures[index] <= number("backoffLimitPerIndex"));
        Next::Again
    };
    let told =
        drive(0..number("completions"), number("parallelism"), &start, &disturbed, &mut judge);
    all_as_undisturbed(&told, &dir.join("runs"));
    assert!(failures.iter().sum::<usize>() < told.codes.iter().filter(|c| c.is_none()).count());
    for (code, says) in [
        (75, "Ignore"),
        (1, "Count"),
        (4, "Count"),
        (2, "FailIndex"),
        (3, "FailIndex"),
        (5, "FailIndex"),
    ] {
        assert_eq!(action(spec, false, code), says, "{code}");
    }
}

/// Machines that share nothing: each try has a folder of its own, gone with its end, and a bucket between.
#[test]
fn twenty_runs_on_skypilot_lose_and_repeat_nothing() {
    let dir = folder();
    let dir = dir.path();
    let bucket = dir.join("bucket");
    std::fs::create_dir(&bucket).unwrap();
    let b = bucket.display();
    let pull = format!("if [ -d {b}/{{run}} ]; then cp -r {b}/{{run}}/. {{dir}}; fi");
    let push = format!("rm -rf {b}/{{run}} && cp -r {{dir}} {b}/{{run}}");
    let words = format!("sweep sky {FLAGS} --out task.yaml --quiet --pull");
    let args: Vec<&str> = words.split(' ').chain([&*pull, "--push", &*push]).collect();
    crate::support::emm_in(dir, args).ok();
    let text = std::fs::read_to_string(dir.join("task.yaml")).unwrap();
    let task = yaml::read(&text);
    let submit = text.lines().find_map(|line| line.strip_prefix("# Submit: ")).unwrap();
    let path = programs(dir, &[("sky", "echo \"$@\" >> launched")]);
    let mut shell = Command::new("bash");
    Ended::of(shell.args(["-c", submit]).current_dir(dir).env("PATH", &path)).ok();
    let launched = std::fs::read_to_string(dir.join("launched")).unwrap();
    let index = |line: &str| -> usize {
        assert!(line.starts_with("jobs launch ") && line.ends_with(" task.yaml"), "{line}");
        let (_, rest) = line.split_once("--env INDEX=").unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    let indices: Vec<usize> = launched.lines().map(index).collect();
    assert_eq!(task["envs"]["INDEX"], Value::Null, "a job without its number is refused");
    let machine = |index: usize, attempt: usize| dir.join(format!("machine-{index}-{attempt}"));
    let start = |index: usize, attempt: usize| {
        let home = machine(index, attempt);
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir(&home).unwrap();
        for (there, here) in task["file_mounts"].as_object().unwrap() {
            let there = home.join(there.strip_prefix("~/").unwrap());
            std::fs::copy(dir.join(here.as_str().unwrap()), there).unwrap();
        }
        let mut command = Command::new("bash");
        command.args(["-c", task["run"].as_str().unwrap()]).env("PATH", &path);
        command.env("HOME", &home).env("INDEX", index.to_string());
        Try { command, runs: home.join("runs") }
    };
    let recovers = task["resources"]["job_recovery"]["recover_on_exit_codes"].as_array().unwrap();
    let mut saved = [0; RUNS];
    let mut tries = [0; RUNS];
    let mut judge = |index: usize, status: std::process::ExitStatus, _| {
        std::fs::remove_dir_all(machine(index, tries[index])).unwrap();
        tries[index] += 1;
        let recovered = status.code().is_some_and(|code| recovers.contains(&code.into()));
        saved[index] += usize::from(recovered);
        assert!(recovered || was_killed(status) || status.success(), "{index}: {status}");
        if status.success() { Next::Done } else { Next::Again }
    };
    let told = drive(indices.clone(), 3, &start, &disturbed, &mut judge);
    STRAIGHT.compare(&bucket);
    // What a killed machine did is gone with it; what was pushed was gone on from.
    assert_eq!(starts(&bucket), saved.iter().map(|saved| saved + 1).collect::<Vec<_>>());
    assert!(saved.iter().sum::<usize>() >= 3 && told.codes.iter().any(Option::is_none));
    // Submitted once more, each finds its run finished in the bucket.
    let before = starts(&bucket);
    tries.fill(0);
    let mut judge = |_, status: std::process::ExitStatus, _| {
        assert!(status.success());
        Next::Done
    };
    drive(indices, 3, &start, &calm, &mut judge);
    assert_eq!(starts(&bucket), before);
}
