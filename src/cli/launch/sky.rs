//! `emm sweep sky`: the runs as managed jobs of SkyPilot.
//!
//! A managed job for each run, from one task: SkyPilot has no arrays, and its `--num-jobs` numbers jobs only in newer
//! versions and cannot submit some of them again.

use super::order::{FOLDER, Order, OrderFlags, TRIES, word};
use super::yaml;
use crate::cli::Common;
use crate::error::{Exit, usage};
use anyhow::Result;
use serde_json::{Value, json};
use std::path::Path;

/// Write a SkyPilot task: a managed job for each run, recovered until done
#[derive(clap::Args, Debug)]
#[command(
    next_help_heading = "Jobs",
    after_help = "Example:
  emm sweep sky table3 --data cifar10.zip --device cuda --gpu H100 --image registry.example/emm:1 \\
    --pull 'aws s3 sync s3://bucket/runs/{run} {dir}' --push 'aws s3 sync --delete {dir} s3://bucket/runs/{run}' \\
    --out table3.yaml

The file's head has the loop that submits it, a `sky jobs launch` for each run. Sets and study files are sent from here. A
machine that is taken away is replaced; the run goes on from what was pushed last (--push-every). A job that ends with 75
has saved and is started again, another failure is tried three times more."
)]
pub struct Args {
    /// Accelerator as SkyPilot names it: needed with --device cuda
    #[arg(long, value_name = "H100", value_parser = word)]
    gpu: Option<String>,
    /// Docker image of the workers: emm on its PATH, and what --pull and --push call [default: the machine's own, where
    /// `setup` in the file has to bring emm]
    #[arg(long, value_name = "IMAGE", value_parser = word)]
    image: Option<String>,
    /// SkyPilot volume that all workers share, in place of a bucket: its root is their folder
    #[arg(long, value_name = "NAME", value_parser = word)]
    volume: Option<String>,
    /// Machines that are not taken away, at their price, in place of spot instances
    #[arg(long)]
    on_demand: bool,
    #[command(flatten)]
    order: OrderFlags,
}

/// Writes the task.
///
/// # Errors
/// Usage: flags; as [`OrderFlags::write`].
pub fn run(args: &Args, common: &Common) -> Result<()> {
    let mut order = args.order.order(common, "a task", &["yaml", "yml"])?;
    if args.volume.is_none() && !args.order.bucket.both_ways() {
        return Err(usage(
            "--push: a job's disk is lost with its machine; bring runs to a bucket and back with --push and --pull, or name a \
             --volume that all machines share",
        ));
    }
    if order.gpu && args.gpu.is_none() {
        return Err(usage(
            "--gpu: not given; SkyPilot has to know which to find for --device cuda, such as H100",
        ));
    }
    let task = args.task(&order)?;
    let submit = format!(
        "for i in $(seq 0 {}); do sky jobs launch --yes --detach-run --name emm-$i --env INDEX=$i {}; done",
        order.last(),
        args.order.file("F.yaml")
    );
    order.head.push(format!("Submit: {}", submit.replace(char::is_control, " ")));
    let text = yaml::document(&order.head, &task);
    args.order.write(common, "task", (&text, task), order.sweep.runs.len(), &submit)
}

impl Args {
    fn task(&self, order: &Order) -> Result<Value> {
        let mut resources = json!({});
        if let Some(gpu) = &self.gpu {
            let counted = gpu.contains(':');
            resources["accelerators"] =
                json!(if counted { gpu.clone() } else { format!("{gpu}:1") });
        }
        if order.threads > 0 {
            resources["cpus"] = json!(format!("{}+", order.threads));
        }
        resources["use_spot"] = json!(!self.on_demand);
        if let Some(image) = &self.image {
            resources["image_id"] = json!(format!("docker:{image}"));
        }
        let codes = [Exit::Suspended as i32];
        resources["job_recovery"] =
            json!({"recover_on_exit_codes": codes, "max_restarts_on_errors": TRIES});
        // Without a value a job that is submitted without its number is refused.
        let mut task = json!({"name": "emm", "resources": resources, "envs": {"INDEX": null}});
        let folder = match &self.volume {
            Some(volume) => {
                task["volumes"] = json!({FOLDER: volume});
                FOLDER
            }
            None => {
                let files = self.files()?;
                if files.as_object().is_some_and(|files| !files.is_empty()) {
                    task["file_mounts"] = files;
                }
                "~"
            }
        };
        task["run"] = json!(format!("cd {folder} && exec {}", order.command("$INDEX")));
        Ok(task)
    }

    /// What is sent from here: to the same place, from home on where the path is from here on.
    fn files(&self) -> Result<Value> {
        let mut files = json!({});
        for (flag, path) in self.order.text_paths()?.into_iter().filter(|p| p.0 != "--runs") {
            if Path::new(path).components().any(|part| part.as_os_str() == "..") {
                return Err(usage(format!(
                    "{flag}: {path}: leads out of this folder, which a machine does not have; give the full path"
                )));
            }
            let there = if path.starts_with('/') { path.to_string() } else { format!("~/{path}") };
            files[there] = json!(path);
        }
        Ok(files)
    }
}
