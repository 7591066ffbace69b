//! `emm sweep k8s`: the runs as an Indexed Job of Kubernetes.

use super::order::{FOLDER, NOTICE_S, Order, OrderFlags, TRIES, cap, word};
use super::yaml;
use crate::cli::Common;
use crate::error::{Exit, usage};
use anyhow::Result;
use serde_json::{Value, json};

/// Write a Kubernetes Job: an index for each run, replaced until done
#[derive(clap::Args, Debug)]
#[command(
    next_help_heading = "Jobs",
    after_help = "Examples:
  emm sweep k8s table3 --data cifar10.zip --device cuda --image registry.example/emm:1 --claim shared --cap 8 --queue gpus \\
    --out table3.yaml && kubectl apply -f table3.yaml
  emm sweep k8s table3 --data /sets/cifar10.zip --device cuda --image registry.example/emm:1 \\
    --pull 'aws s3 sync s3://bucket/runs/{run} {dir}' --push 'aws s3 sync --delete {dir} s3://bucket/runs/{run}'

The claim's root is the worker's folder: sets, study files and --runs lie there as they lie here. A pod that is told to stop
saves and ends with 75, which counts as no failure, as losing its node does not; wrong flags, damaged runs and runs that
diverge (2, 3, 5) end their index at once, all else is tried three times more. A second pod of an index waits five minutes
for the first one's lock. Kubernetes 1.31 or newer."
)]
pub struct Args {
    /// Image of the workers: emm on its PATH, sh, and what --pull and --push call
    #[arg(long, value_name = "IMAGE", value_parser = word)]
    image: String,
    /// Persistent volume claim that all workers share (ReadWriteMany)
    #[arg(long, value_name = "NAME", value_parser = label)]
    claim: Option<String>,
    /// Runs at once [default: all]
    #[arg(long, value_name = "N", value_parser = cap)]
    cap: Option<usize>,
    /// Kueue's local queue: the job waits there until it is admitted, with fewer runs at once if need be
    #[arg(long, value_name = "NAME", value_parser = label)]
    queue: Option<String>,
    /// The job's name [default: emm- and the first study's]
    #[arg(long, value_name = "NAME", value_parser = label)]
    name: Option<String>,
    #[command(flatten)]
    order: OrderFlags,
}

/// Writes the job.
///
/// # Errors
/// Usage: flags; as [`OrderFlags::write`].
pub fn run(args: &Args, common: &Common) -> Result<()> {
    let mut order = args.order.order(common, "a manifest", &["yaml", "yml"])?;
    let paths = args.order.text_paths()?;
    if args.claim.is_none() {
        if !args.order.bucket.both_ways() {
            return Err(usage(
                "--claim: not given: runs that end with their pod are lost; name a claim that all pods share, or bring runs to \
                 a bucket and back with --push and --pull",
            ));
        }
        let relative = |p: &&(&str, &str)| p.0 != "--runs" && !p.1.starts_with('/');
        if let Some((flag, path)) = paths.iter().find(relative) {
            return Err(usage(format!(
                "{flag}: {path}: a pod's folder is empty without --claim; give the full path that it has in the image"
            )));
        }
    }
    let submit = format!("kubectl apply -f {}", args.order.file("-"));
    order.head.push(match &args.claim {
        Some(claim) => {
            format!("The root of claim {claim} holds what the command names, and gets the runs.")
        }
        None => {
            "Runs come from a bucket and go there; the image holds what else the command names."
                .into()
        }
    });
    order.head.push(format!("Submit: {}", submit.replace(char::is_control, " ")));
    let job = args.job(&order);
    let text = yaml::document(&order.head, &job);
    args.order.write(common, "manifest", (&text, job), order.sweep.runs.len(), &submit)
}

impl Args {
    fn job(&self, order: &Order) -> Value {
        let runs = order.sweep.runs.len();
        let name = self.name.clone().unwrap_or_else(|| default_name(&order.first));
        let mut metadata = json!({"name": name});
        let mut spec = json!({});
        if let Some(queue) = &self.queue {
            metadata["labels"] = json!({"kueue.x-k8s.io/queue-name": queue});
            // Runs need not run together.
            metadata["annotations"] = json!({"kueue.x-k8s.io/job-min-parallelism": "1"});
            spec["suspend"] = json!(true);
        }
        spec["completionMode"] = json!("Indexed");
        spec["completions"] = json!(runs);
        spec["parallelism"] = json!(self.cap.unwrap_or(runs).min(runs));
        // No most of failed indexes: one run's failure is no reason to stop the others.
        spec["backoffLimitPerIndex"] = json!(TRIES);
        let ended = |codes: &[Exit]| {
            let codes: Vec<i32> = codes.iter().map(|&code| code as i32).collect();
            json!({"containerName": "emm", "operator": "In", "values": codes})
        };
        spec["podFailurePolicy"] = json!({"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "Ignore", "onExitCodes": ended(&[Exit::Suspended])},
            {"action": "FailIndex", "onExitCodes": ended(&[Exit::Usage, Exit::Data, Exit::Diverged])},
        ]});
        spec["template"] = json!({"spec": self.pod(order)});
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
    }

    fn pod(&self, order: &Order) -> Value {
        // Before the shell Kubernetes reads it, where $$ is a $ and $(NAME) a variable.
        let command = order.command("$JOB_COMPLETION_INDEX").replace('$', "$$");
        // In the shell's place, so that the signal to stop reaches the worker.
        let mut container = json!({
            "name": "emm",
            "image": self.image,
            "workingDir": FOLDER,
            "command": ["sh", "-c", format!("exec {command}")],
        });
        let mut limits = json!({});
        if order.threads > 0 {
            limits["cpu"] = json!(order.threads);
        }
        if order.gpu {
            limits["nvidia.com/gpu"] = json!(1);
        }
        if limits != json!({}) {
            container["resources"] = json!({"limits": limits});
        }
        container["volumeMounts"] = json!([{"name": "work", "mountPath": FOLDER}]);
        let volume = match &self.claim {
            Some(claim) => json!({"name": "work", "persistentVolumeClaim": {"claimName": claim}}),
            None => json!({"name": "work", "emptyDir": {}}),
        };
        json!({
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": NOTICE_S,
            "containers": [container],
            "volumes": [volume],
        })
    }
}

/// Characters of names that Kubernetes takes as a label and as a part of a pod's name.
const MOST_CHARACTERS: usize = 52;

/// A name as Kubernetes takes it everywhere.
fn label(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends = text.starts_with(fits) && text.ends_with(fits);
    match ends && text.len() <= MOST_CHARACTERS && text.chars().all(|c| fits(c) || c == '-') {
        true => Ok(text.into()),
        false => Err(format!(
            "expected at most {MOST_CHARACTERS} of a-z, 0-9 and -, with no - at an end, found {text:?}"
        )),
    }
}

/// `emm-` and what of a study's name or path may stand in a name.
fn default_name(study: &str) -> String {
    let file = study.rsplit('/').next().unwrap_or_default();
    let stem = file.strip_suffix(".toml").unwrap_or(file).to_ascii_lowercase();
    let kept: String = stem.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let name = format!("emm-{kept}");
    name.chars().take(MOST_CHARACTERS).collect::<String>().trim_end_matches('-').into()
}
