//! Runs that go through a bucket: the commands that bring them there and back.

use super::quoted::quoted;
use crate::numbers::seconds;
use crate::study::bucket::Bucket;

/// Runs through a bucket, where machines share no file system with locks and renames
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Runs through a bucket")]
pub struct BucketFlags {
    /// Shell command that fills the empty folder {dir} with what a bucket holds of the run {run}, and succeeds if that is
    /// nothing: called before a run; what is not whole, or not as far as what is here, is not taken
    #[arg(long, value_name = "CMD", value_parser = command)]
    pub pull: Option<String>,
    /// Shell command that makes what a bucket holds of the run {run} equal to the folder {dir}: called twice once a run is
    /// finished, once when it is suspended
    #[arg(long, value_name = "CMD", value_parser = command)]
    pub push: Option<String>,
    /// Suspend and --push this often too, and go on [default: 30m]
    #[arg(long, value_name = "30m", value_parser = every, requires = "push")]
    pub push_every: Option<String>,
}

impl BucketFlags {
    pub fn bucket(&self) -> Bucket {
        let every_s = self.push_every.as_deref().and_then(|text| seconds(text).ok());
        Bucket {
            pull: self.pull.clone(),
            push: self.push.clone(),
            every_s: every_s.unwrap_or(1800.0),
        }
    }

    /// Whether runs come from a bucket and go there.
    pub fn both_ways(&self) -> bool {
        self.pull.is_some() && self.push.is_some()
    }

    /// The flags as a shell takes them, each with a space before it.
    pub fn again(&self) -> String {
        let flags = [("pull", &self.pull), ("push", &self.push), ("push-every", &self.push_every)];
        let again = |(name, value): (&str, &Option<String>)| {
            value.as_ref().map(|value| format!(" --{name} {}", quoted(value)))
        };
        flags.into_iter().filter_map(again).collect()
    }
}

fn every(text: &str) -> Result<String, String> {
    seconds(text).map(|_| text.into())
}

/// A command that names the run and its folder.
fn command(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("expected a shell command, found nothing".into());
    }
    for (place, is) in [("{dir}", "the run's folder here"), ("{run}", "the run's name")] {
        if !text.contains(place) {
            return Err(format!("{text:?} does not say where {place} goes, {is}"));
        }
    }
    Ok(text.into())
}
