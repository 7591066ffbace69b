//! Runs checks one after another, in this process or as the child of one that watches.

use super::{Check, Off};
use crate::device::Device;
use crate::error::{Exit, exit_code};
use serde::{Deserialize, Serialize};
use std::io::Write as _;

/// What a child tells, a line each. Indices are those of the list that both have made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The device is open.
    Ready,
    /// There is none; this is the last message.
    NoDevice(String),
    Begin(usize),
    Kernel(String),
    Result {
        index: usize,
        by: f64,
        at: String,
    },
    /// What came of it is no result, and why.
    Wrong {
        index: usize,
        error: String,
    },
    /// The device failed.
    Error {
        index: usize,
        error: String,
    },
}

/// Runs `checks[from..]`. Ends early when the device failed: nothing can be expected of its context from then on.
pub fn run(device: &Device, checks: &[Check], from: usize, tell: &mut dyn FnMut(Message)) {
    for (index, check) in checks.iter().enumerate().skip(from) {
        tell(Message::Begin(index));
        match (check.run)(device) {
            Ok(Off { by, at }) if by.is_finite() => tell(Message::Result { index, by, at }),
            Ok(Off { by, at }) => {
                tell(Message::Wrong { index, error: format!("{at}: off by {by}") });
            }
            Err(e) if exit_code(&e) == Exit::Device as i32 => {
                tell(Message::Error { index, error: format!("{e:#}") });
                return;
            }
            Err(e) => tell(Message::Wrong { index, error: format!("{e:#}") }),
        }
    }
}

/// As [`run`], telling whoever reads this process's stdout; also of each kernel before it is launched.
pub fn run_as_child(device: &Device, checks: &[Check], from: usize) {
    print(&Message::Ready);
    if let Device::Cuda { cuda, .. } = device {
        cuda.watch(|kernel| print(&Message::Kernel(kernel.into())));
    }
    run(device, checks, from, &mut |message| print(&message));
}

/// Tells that there is no device.
pub fn no_device(why: &anyhow::Error) {
    print(&Message::NoDevice(format!("{why:#}")));
}

fn print(message: &Message) {
    let line = serde_json::to_string(message).expect("messages are plain");
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        // Nobody listens any more.
        std::process::exit(Exit::Other as i32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::CaseSize;
    use crate::device::{Cpu, Precision};
    use crate::error::fail;
    use anyhow::{Result, bail};

    fn check(run: impl Fn() -> Result<Off> + 'static) -> Check {
        Check {
            op: "norm",
            size: CaseSize::Golden,
            precision: Precision::Fp32,
            case: "a".into(),
            bar: 1.0,
            run: Box::new(move |_| run()),
        }
    }

    #[test]
    fn checks_go_on_after_an_error_and_end_with_the_device() {
        let off = |by| Ok(Off { by, at: "y".into() });
        let checks = [
            check(move || off(0.5)),
            check(|| bail!("NaN")),
            check(move || off(f64::NAN)),
            check(|| Err(fail(Exit::Device, "--device: lost"))),
            check(move || off(0.0)),
        ];
        let device = Device::Cpu(Cpu::new(1).unwrap());
        let mut told = Vec::new();
        run(&device, &checks, 0, &mut |message| told.push(message));
        let wrong = |index, error: &str| Message::Wrong { index, error: error.into() };
        let want = [
            Message::Begin(0),
            Message::Result { index: 0, by: 0.5, at: "y".into() },
            Message::Begin(1),
            wrong(1, "NaN"),
            Message::Begin(2),
            wrong(2, "y: off by NaN"),
            Message::Begin(3),
            Message::Error { index: 3, error: "--device: lost".into() },
        ];
        assert_eq!(told, want);
        for message in told {
            let line = serde_json::to_string(&message).unwrap();
            assert_eq!(serde_json::from_str::<Message>(&line).unwrap(), message);
        }
    }
}
