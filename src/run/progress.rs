//! A bar with ETA and img/s on a terminal, plain lines in a log.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal as _, Write as _, stderr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Seconds between plain lines.
const LINE_INTERVAL_S: f64 = 10.0;

/// Generating one image for an evaluation costs this many training images: 35 evaluations, each a third of a step.
pub const IMAGE_COST: f64 = 35.0 / 3.0;

/// Epochs as people read them: to one place, below 1 to three, without a needless `.0`.
pub fn describe_epochs(epochs: f64) -> f64 {
    let scale = if epochs < 1.0 { 1000.0 } else { 10.0 };
    (epochs * scale).round() / scale
}

/// Shows how far a run is. Work is counted in training images; an evaluation's images count [`IMAGE_COST`] each.
pub struct Progress {
    bar: Option<ProgressBar>,
    lines: bool,
    started: Instant,
    last_line: Instant,
    /// Work of this process, and what is left of the run.
    done: f64,
    left: f64,
    /// Training alone, for img/s.
    trained_images: u64,
    training_s: f64,
    /// Where a run of a study reports to instead.
    part: Option<ProgressPart>,
}

/// One progress of several runs that may run at once: each reports its part.
#[derive(Clone)]
pub struct Overall(Arc<Mutex<Progress>>);

impl Overall {
    pub fn new(quiet: bool) -> Self {
        Overall(Arc::new(Mutex::new(Progress::new(0.0, 0.0, quiet))))
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So much more work is to come.
    pub fn expect(&self, work: f64) {
        let mut all = self.lock();
        all.left += work;
        if let Some(bar) = &all.bar {
            bar.inc_length(work.round() as u64);
        }
    }

    /// A line that stays.
    pub fn note(&self, text: &str) {
        self.lock().note(text);
    }

    /// The part of a run that lines begin with `name`.
    pub fn part(&self, name: String) -> ProgressPart {
        ProgressPart { all: self.clone(), name }
    }
}

/// A run's part of an [`Overall`] progress.
#[derive(Clone)]
pub struct ProgressPart {
    all: Overall,
    name: String,
}

impl ProgressPart {
    /// So much of what was expected had been done before.
    pub fn skip(&self, work: f64) {
        let mut all = self.all.lock();
        all.left = (all.left - work).max(0.0);
        if let Some(bar) = &all.bar {
            bar.inc(work.round() as u64);
        }
    }
}

impl Progress {
    /// `done` and `left`: work of the run so far and still to come.
    pub fn new(done: f64, left: f64, quiet: bool) -> Self {
        let terminal = stderr().is_terminal();
        let bar = (terminal && !quiet).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
            bar.set_length((done + left).max(1.0) as u64);
            bar.set_position(done as u64);
            let style = ProgressStyle::with_template("{wide_bar} {percent:>3}%  {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let now = Instant::now();
        Progress {
            bar,
            lines: !terminal && !quiet,
            started: now,
            last_line: now,
            done: 0.0,
            left,
            trained_images: 0,
            training_s: 0.0,
            part: None,
        }
    }

    /// Progress of a run that `done` of its work was done of before, reported as a part of others'.
    pub fn within(part: ProgressPart, done: f64, left: f64) -> Self {
        part.skip(done);
        let mut progress = Progress::new(done, left, true);
        progress.part = Some(part);
        progress
    }

    /// One training step of `images` took `elapsed`.
    pub fn trained(&mut self, images: u64, elapsed: Duration, what: impl Fn() -> String) {
        self.trained_images += images;
        self.training_s += elapsed.as_secs_f64();
        self.advance(images as f64, &what);
    }

    /// `images` were generated for an evaluation.
    pub fn generated(&mut self, images: u64, what: impl Fn() -> String) {
        self.advance(images as f64 * IMAGE_COST, &what);
    }

    /// Training images per second of training in this process.
    pub fn images_per_s(&self) -> f64 {
        self.trained_images as f64 / self.training_s.max(1e-9)
    }

    /// So much of all work is done.
    pub fn reached(&mut self, share: f64, what: &str) {
        let work = share.clamp(0.0, 1.0) * (self.done + self.left) - self.done;
        self.advance(work.max(0.0), &|| what.into());
    }

    fn advance(&mut self, work: f64, what: &dyn Fn() -> String) {
        match &self.part {
            Some(part) => {
                part.all.lock().show(work, || format!("{}  {}", part.name, what()));
            }
            None => self.show(work, what),
        }
    }

    fn show(&mut self, work: f64, what: impl FnOnce() -> String) {
        self.done += work;
        self.left = (self.left - work).max(0.0);
        let line_due = self.lines && self.last_line.elapsed().as_secs_f64() >= LINE_INTERVAL_S;
        if self.bar.is_none() && !line_due {
            return;
        }
        let eta_s = self.left * self.started.elapsed().as_secs_f64() / self.done.max(1e-9);
        let rate = match self.training_s > 0.0 {
            true => format!("  {:.1} img/s", self.images_per_s()),
            false => String::new(),
        };
        let text = format!("{}{rate}  ETA {}", what(), duration(eta_s));
        match &self.bar {
            Some(bar) => {
                bar.inc(work.round() as u64);
                bar.set_message(text);
            }
            None => {
                self.last_line = Instant::now();
                self.say(&text);
            }
        }
    }

    /// A line that stays: above the bar, or in the log.
    pub fn note(&self, text: &str) {
        match &self.part {
            Some(part) => part.all.lock().note(&format!("{}  {text}", part.name)),
            None if self.bar.is_some() || self.lines => self.warn(text),
            None => {}
        }
    }

    /// A line that stays and is said where progress is not, too.
    pub fn warn(&self, text: &str) {
        match (&self.part, &self.bar) {
            (Some(part), _) => part.all.lock().warn(&format!("{}  {text}", part.name)),
            (None, Some(bar)) => bar.suspend(|| self.say(text)),
            (None, None) => self.say(text),
        }
    }

    fn say(&self, text: &str) {
        let _ = writeln!(stderr(), "{text}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Seconds as people say them: 48s, 3m20s, 2h03m, 4d05h.
pub fn duration(seconds: f64) -> String {
    let s = seconds.clamp(0.0, 1e12).round() as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{:02}m", s / 3600, s / 60 % 60),
        _ => format!("{}d{:02}h", s / 86_400, s / 3600 % 24),
    }
}
