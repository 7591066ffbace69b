//! How the checks of an op went, told as soon as the last of them has ended.

use super::worker::Message;
use super::{CaseSize, Check, Off};
use crate::device::Precision;
use serde::Serialize;
use std::ops::Range;
use std::time::Instant;

/// An op's checks of one size at one precision.
#[derive(Debug, Clone, Serialize)]
pub struct CheckOutcome {
    pub op: &'static str,
    pub sizes: CaseSize,
    pub precision: Precision,
    pub cases: usize,
    /// The widest bar of the cases.
    pub bar: f64,
    /// Largest error of the cases that gave numbers.
    #[serde(rename = "worst_error")]
    pub worst: f64,
    pub ok: bool,
    /// The first failure in one line.
    pub failed: Option<String>,
    pub failures: Vec<Failure>,
    pub elapsed_s: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    pub case: String,
    /// On a GPU: the kernel that failed, or of a wrong result those that made it.
    pub kernel: Option<String>,
    pub error: String,
}

impl CheckOutcome {
    fn new(check: &Check) -> Self {
        CheckOutcome {
            op: check.op,
            sizes: check.size,
            precision: check.precision,
            cases: 0,
            bar: 0.0,
            worst: 0.0,
            ok: true,
            failed: None,
            failures: Vec::new(),
            elapsed_s: 0.0,
        }
    }

    fn is_of(&self, check: &Check) -> bool {
        (self.op, self.sizes, self.precision) == (check.op, check.size, check.precision)
    }

    fn fail(&mut self, failure: Failure) {
        let Failure { case, kernel, error } = &failure;
        let kernel = kernel.as_ref().map_or(String::new(), |kernel| format!("{kernel}: "));
        self.failed.get_or_insert_with(|| format!("{case}: {kernel}{error}"));
        self.ok = false;
        self.failures.push(failure);
    }

    /// `conv2d`, or `conv2d real`.
    pub fn name(&self) -> String {
        match self.sizes {
            CaseSize::Golden => self.op.into(),
            CaseSize::Real => format!("{} real", self.op),
        }
    }
}

/// Kernels that are named at most where all are meant.
const NAMED: usize = 8;

/// Hears how checks go.
pub struct Tally<'a> {
    checks: &'a [Check],
    /// With how many of each are still to end.
    outcomes: Vec<(CheckOutcome, usize)>,
    told: Box<dyn FnMut(&CheckOutcome) + 'a>,
    began: Instant,
    /// Of the check under way, without repetitions, the last one at the end.
    kernels: Vec<String>,
}

impl<'a> Tally<'a> {
    /// `told` hears each outcome when it is complete.
    pub fn new(checks: &'a [Check], told: impl FnMut(&CheckOutcome) + 'a) -> Self {
        let mut outcomes: Vec<(CheckOutcome, usize)> = Vec::new();
        for check in checks {
            let known = outcomes.iter().position(|(o, _)| o.is_of(check));
            let at = known.unwrap_or(outcomes.len());
            if known.is_none() {
                outcomes.push((CheckOutcome::new(check), 0));
            }
            let (outcome, left) = &mut outcomes[at];
            outcome.bar = outcome.bar.max(check.bar);
            outcome.cases += 1;
            *left += 1;
        }
        let (told, began) = (Box::new(told), Instant::now());
        Tally { checks, outcomes, told, began, kernels: Vec::new() }
    }

    /// What the checks from `first` on tell of themselves.
    pub fn hear(&mut self, first: usize, message: Message) {
        match message {
            Message::Begin(_) => self.begin(),
            Message::Kernel(name) => self.kernel(name),
            Message::Result { index, by, at } => self.result(first + index, &Off { by, at }),
            Message::Wrong { index, error } => self.wrong(first + index, 0.0, error),
            Message::Error { index, error } => self.error(first + index, error),
            Message::Ready | Message::NoDevice(_) => {}
        }
    }

    /// The next check begins.
    fn begin(&mut self) {
        self.began = Instant::now();
        self.kernels.clear();
    }

    /// It begins a kernel.
    fn kernel(&mut self, name: String) {
        self.kernels.retain(|known| *known != name);
        self.kernels.push(name);
    }

    /// Check `index` gave a result.
    fn result(&mut self, index: usize, off: &Off) {
        // Not `off.by > bar`: NaN must fail.
        if off.by <= self.checks[index].bar {
            self.end(index, off.by, None);
        } else {
            self.wrong(index, off.by, format!("{}: off by {:.1e}", off.at, off.by));
        }
    }

    /// Check `index` gave a wrong result, which any of its kernels may have made.
    fn wrong(&mut self, index: usize, by: f64, error: String) {
        let kernel = match &self.kernels[..] {
            [] => None,
            [some @ .., _] if some.len() >= NAMED => {
                let more = self.kernels.len() - NAMED;
                Some(format!("{} and {more} more", self.kernels[..NAMED].join(" ")))
            }
            all => Some(all.join(" ")),
        };
        let case = self.checks[index].case.clone();
        self.end(index, by, Some(Failure { case, kernel, error }));
    }

    /// Check `index` gave none, and it was the kernel's that was begun last.
    pub fn error(&mut self, index: usize, error: String) {
        let (case, kernel) = (self.checks[index].case.clone(), self.kernels.last().cloned());
        self.end(index, 0.0, Some(Failure { case, kernel, error }));
    }

    /// These checks, of one op, were not run.
    pub fn skip(&mut self, range: Range<usize>, why: &str) {
        self.begin();
        let mut rest: Vec<(usize, usize)> = Vec::new();
        for index in range {
            let at = self.outcome_of(index);
            match rest.iter_mut().find(|(known, _)| *known == at) {
                Some((_, count)) => *count += 1,
                None => rest.push((at, 1)),
            }
        }
        for (at, count) in rest {
            let case = format!("{count} cases");
            self.outcomes[at].0.fail(Failure { case, kernel: None, error: why.into() });
            self.ended(at, count);
        }
    }

    fn outcome_of(&self, index: usize) -> usize {
        let of = |(o, _): &(CheckOutcome, usize)| o.is_of(&self.checks[index]);
        self.outcomes.iter().position(of).expect("an outcome of every check")
    }

    fn end(&mut self, index: usize, off: f64, failure: Option<Failure>) {
        let at = self.outcome_of(index);
        let outcome = &mut self.outcomes[at].0;
        outcome.worst = outcome.worst.max(off);
        outcome.elapsed_s += self.began.elapsed().as_secs_f64();
        if let Some(failure) = failure {
            outcome.fail(failure);
        }
        self.ended(at, 1);
    }

    fn ended(&mut self, at: usize, count: usize) {
        let (outcome, left) = &mut self.outcomes[at];
        *left -= count;
        if *left == 0 {
            (self.told)(outcome);
        }
    }

    /// All outcomes, those that are not complete marked as failed.
    pub fn finish(mut self) -> Vec<CheckOutcome> {
        for (outcome, left) in &mut self.outcomes {
            if *left > 0 {
                let (case, error) = (format!("{left} cases"), "not run".into());
                outcome.fail(Failure { case, kernel: None, error });
            }
        }
        self.outcomes.into_iter().map(|(outcome, _)| outcome).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn checks() -> Vec<Check> {
        let check = |op, precision, case: &str, bar| Check {
            op,
            size: CaseSize::Golden,
            precision,
            case: case.into(),
            bar,
            run: Box::new(|_| panic!("not run")),
        };
        use Precision::{Bf16, Fp32};
        vec![
            check("norm", Fp32, "a", 1e-5),
            check("norm", Bf16, "a", 2e-2),
            check("norm", Fp32, "b", 0.0),
            check("norm", Bf16, "b", 2e-2),
            check("loss", Fp32, "c", 1e-5),
        ]
    }

    fn off(by: f64) -> Off {
        Off { by, at: "y".into() }
    }

    #[test]
    fn outcomes_are_told_when_the_last_case_ends() {
        let (checks, told) = (checks(), RefCell::new(Vec::new()));
        let mut tally = Tally::new(&checks, |o| told.borrow_mut().push((o.op, o.precision, o.ok)));
        tally.begin();
        tally.result(0, &off(1e-6));
        tally.begin();
        for kernel in ["k1", "k2", "k1"] {
            tally.kernel(kernel.into());
        }
        tally.result(1, &off(f64::NAN));
        assert!(told.borrow().is_empty());
        tally.begin();
        tally.result(2, &off(0.0));
        assert_eq!(*told.borrow(), [("norm", Precision::Fp32, true)]);
        tally.begin();
        tally.kernel("k3".into());
        tally.kernel("k4".into());
        tally.error(3, "lost".into());
        let all = tally.finish();
        assert_eq!(told.borrow()[1..], [("norm", Precision::Bf16, false)]);
        let [fp32, bf16, loss] = all.try_into().unwrap();
        assert!(fp32.ok && fp32.cases == 2 && fp32.bar == 1e-5 && fp32.worst == 1e-6);
        assert_eq!(bf16.failed.as_deref(), Some("a: k2 k1: y: off by NaN"));
        let lost = Failure { case: "b".into(), kernel: Some("k4".into()), error: "lost".into() };
        assert_eq!(bf16.failures[1], lost);
        assert_eq!(loss.failed.as_deref(), Some("1 cases: not run"));
    }

    #[test]
    fn a_wrong_result_names_its_kernels_up_to_a_number() {
        let checks = checks();
        for (kernels, want) in [
            (0, None),
            (2, Some("k0 k1")),
            (8, Some("k0 k1 k2 k3 k4 k5 k6 k7")),
            (11, Some("k0 k1 k2 k3 k4 k5 k6 k7 and 3 more")),
        ] {
            let mut tally = Tally::new(&checks, |_| ());
            (0..kernels).for_each(|k| tally.hear(0, Message::Kernel(format!("k{k}"))));
            tally.hear(0, Message::Wrong { index: 0, error: "y: value 0 is NaN".into() });
            let all = tally.finish();
            assert_eq!(all[0].failures[0].kernel.as_deref(), want);
        }
    }

    #[test]
    fn skipped_checks_fail_once_an_outcome() {
        let checks = checks();
        let mut tally = Tally::new(&checks, |_| ());
        tally.skip(1..4, "not run");
        tally.result(0, &off(0.0));
        let all = tally.finish();
        assert_eq!(all[0].failures.len() + all[1].failures.len(), 2);
        assert_eq!(all[1].failed.as_deref(), Some("2 cases: not run"));
    }
}
