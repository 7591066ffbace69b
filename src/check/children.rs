//! Checks in processes of their own, one an op: a kernel that never ends is stopped, what a failed one leaves of a
//! context ends with its process, and the next case goes on in a new one.

use super::Check;
use super::tally::Tally;
use super::worker::Message;
use crate::error::{Exit, OrExit as _, fail};
use anyhow::Result;
use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::Range;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// To open a device and to compile the kernels' PTX for it, where there is nothing else for the GPU.
const OPENING: Duration = Duration::from_secs(60);
/// For a process that was told to end, whose GPU may hang.
const ENDING: Duration = Duration::from_secs(5);
/// An op whose processes fail this often is given up; one that is stopped for its time counts twice.
const PATIENCE: usize = 4;

/// Starts a child with the checks of an op, from this one of them on.
pub type ChildStart<'a> = dyn Fn(&'static str, usize) -> Command + 'a;

/// How a child ended.
enum ChildEnd {
    /// Before this check.
    Before(usize),
    /// At its check's time limit, before this one.
    Stopped(usize),
    /// Without having had a device.
    NoDevice(String),
}

/// Runs `checks`, each op's by a child that may take `limit` for each of them.
///
/// # Errors
/// Device (exit 4) when it cannot be opened again and again; what is left of the checks is then not run.
pub fn run(checks: &[Check], start: &ChildStart, limit: Duration, tally: &mut Tally) -> Result<()> {
    let mut first = 0;
    let mut unopened = 0;
    for op in checks.chunk_by(|a, b| a.op == b.op) {
        let all = first..first + op.len();
        first = all.end;
        let (mut from, mut trouble) = (all.start, 0);
        while from < all.end {
            if trouble >= PATIENCE {
                tally
                    .skip(from..all.end, "not run, for this op's processes failed again and again");
                break;
            }
            let command = start(op[0].op, from - all.start);
            match run_child(command, all.clone(), from, limit, tally)? {
                ChildEnd::Before(next) => {
                    (from, unopened) = (next, 0);
                    trouble += 1;
                }
                ChildEnd::Stopped(next) => {
                    (from, unopened) = (next, 0);
                    trouble += 2;
                }
                ChildEnd::NoDevice(why) => {
                    unopened += 1;
                    if unopened > 1 {
                        tally.skip(from..all.end, &why);
                        return Err(fail(Exit::Device, why));
                    }
                }
            }
        }
    }
    Ok(())
}

/// One child. Whatever it leaves unfinished has failed.
fn run_child(
    mut command: Command,
    all: Range<usize>,
    from: usize,
    limit: Duration,
    tally: &mut Tally,
) -> Result<ChildEnd> {
    end_with_parent(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().or_exit(Exit::Other, || format!("{name}: does not start"))?;
    let messages = listen(&mut child);
    // The check under way, and where to go on after it.
    let (mut now, mut next, mut ready) = (None, from, false);
    let mut deadline = Instant::now() + limit.max(OPENING);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match messages.recv_timeout(left) {
            Ok(Message::NoDevice(why)) => {
                end(&mut child);
                return Ok(ChildEnd::NoDevice(why));
            }
            Ok(message) => {
                match message {
                    Message::Begin(index) => {
                        now = Some(all.start + index);
                        next = all.start + index + 1;
                    }
                    Message::Result { .. } | Message::Wrong { .. } | Message::Error { .. } => {
                        now = None;
                    }
                    _ => ready = true,
                }
                // A case's time is that of all its kernels.
                if !matches!(message, Message::Kernel(_)) {
                    deadline = Instant::now() + limit;
                }
                tally.hear(all.start, message);
            }
            Err(RecvTimeoutError::Timeout) => {
                end(&mut child);
                let seconds = limit.as_secs_f64();
                if let Some(index) = now {
                    tally.error(index, format!("had not ended after {seconds} s"));
                } else if !ready {
                    let seconds = limit.max(OPENING).as_secs_f64();
                    let why = format!("--device: could not be opened within {seconds} s");
                    return Ok(ChildEnd::NoDevice(why));
                }
                return Ok(ChildEnd::Stopped(next));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = end_of(&mut child);
                let how = status.map_or("without a status".into(), |s| s.to_string());
                if let Some(index) = now {
                    tally.error(index, format!("its process ended: {how}"));
                } else if !ready {
                    let why = format!("--device: the process that opened it ended: {how}");
                    return Ok(ChildEnd::NoDevice(why));
                }
                return Ok(ChildEnd::Before(next));
            }
        }
    }
}

/// What the child tells; what else it prints goes to stderr.
fn listen(child: &mut Child) -> Receiver<Message> {
    let (tell, messages) = channel();
    let out = child.stdout.take().expect("its stdout is ours");
    thread::spawn(move || {
        for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
            match serde_json::from_slice(&line) {
                Ok(message) => {
                    if tell.send(message).is_err() {
                        return;
                    }
                }
                Err(_) => {
                    let _ = std::io::stderr().write_all(&[&line[..], b"\n"].concat());
                }
            }
        }
    });
    messages
}

/// Kills a child and waits for its end, though not for ever.
pub(super) fn end(child: &mut Child) {
    let _ = child.kill();
    end_of(child);
}

/// How a child that is ending ended.
fn end_of(child: &mut Child) -> Option<ExitStatus> {
    let begin = Instant::now();
    while begin.elapsed() < ENDING {
        match child.try_wait() {
            Ok(None) => thread::sleep(Duration::from_millis(2)),
            Ok(status) => return status,
            Err(_) => return None,
        }
    }
    let _ = child.kill();
    None
}

/// The child's process ends when this one does, whatever it is at.
pub(super) fn end_with_parent(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt as _;
        // SAFETY: between fork and exec, where this runs, prctl is allowed: it is a plain system call.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::CaseSize;
    use crate::check::tally::{CheckOutcome, Failure};
    use crate::device::Precision;
    use crate::error::exit_code;
    use std::cell::RefCell;

    /// Long enough for a shell on a busy machine.
    const LIMIT: Duration = Duration::from_secs(5);

    fn checks(ops: &[(&'static str, usize)]) -> Vec<Check> {
        let case = |op, i| Check {
            op,
            size: CaseSize::Golden,
            precision: Precision::Fp32,
            case: format!("case {i}"),
            bar: 0.0,
            run: Box::new(|_| panic!("children run it")),
        };
        ops.iter().flat_map(|&(op, n)| (0..n).map(move |i| case(op, i))).collect()
    }

    /// Lines that a shell prints as messages.
    fn says(messages: &[Message]) -> String {
        let lines = messages.iter().map(|m| serde_json::to_string(m).unwrap());
        lines.map(|line| format!("echo '{line}'\n")).collect()
    }

    fn begins(index: usize) -> String {
        says(&[Message::Begin(index), Message::Kernel("k1".into()), Message::Kernel("k2".into())])
    }

    fn ends(index: usize) -> String {
        says(&[Message::Result { index, by: 0.0, at: "y".into() }])
    }

    /// Runs shell scripts as children: `script` by op and first case. Returns what became of it, and who was started.
    fn run_scripts(
        checks: &[Check],
        script: impl Fn(&str, usize) -> String,
    ) -> (Result<()>, Vec<CheckOutcome>, Vec<(&'static str, usize)>) {
        let (started, mut tally) = (RefCell::new(Vec::new()), Tally::new(checks, |_| ()));
        let start = |op: &'static str, from: usize| {
            started.borrow_mut().push((op, from));
            let mut command = Command::new("sh");
            command.arg("-c").arg(script(op, from));
            command
        };
        let ran = run(checks, &start, LIMIT, &mut tally);
        let outcomes = tally.finish();
        (ran, outcomes, started.into_inner())
    }

    fn failure(case: &str, kernel: Option<&str>, error: &str) -> Failure {
        Failure { case: case.into(), kernel: kernel.map(Into::into), error: error.into() }
    }

    #[test]
    fn what_hangs_fails_or_dies_is_named_and_the_rest_goes_on() {
        let checks = checks(&[("norm", 4), ("loss", 2)]);
        let ready = says(&[Message::Ready]);
        let (ran, outcomes, started) = run_scripts(&checks, |op, from| {
            let rest = match (op, from) {
                // Something else on stdout is no message.
                ("norm", 0) => {
                    format!("{}{}echo noise\n{}kill -9 $$", begins(0), ends(0), begins(1))
                }
                ("norm", 2) => {
                    let error = Message::Error { index: 2, error: "k2: broken".into() };
                    begins(2) + &says(&[error])
                }
                ("norm", 3) => begins(3) + &ends(3),
                ("loss", 0) => begins(0) + "exec sleep 1000",
                ("loss", 1) => begins(1) + &ends(1),
                other => panic!("{other:?} is started"),
            };
            format!("{ready}{rest}")
        });
        ran.unwrap();
        assert_eq!(started, [("norm", 0), ("norm", 2), ("norm", 3), ("loss", 0), ("loss", 1)]);
        let kernel = Some("k2");
        let want = [
            failure("case 1", kernel, "its process ended: signal: 9 (SIGKILL)"),
            failure("case 2", kernel, "k2: broken"),
        ];
        assert_eq!(outcomes[0].failures, want);
        let hung = failure("case 0", kernel, "had not ended after 5 s");
        assert_eq!(outcomes[1].failures, [hung]);
    }

    #[test]
    fn an_op_whose_children_keep_dying_is_given_up() {
        let checks = checks(&[("norm", 9), ("loss", 1)]);
        let ready = says(&[Message::Ready]);
        let (ran, outcomes, started) = run_scripts(&checks, |op, from| match op {
            "norm" => format!("{ready}{}exit 3", begins(from)),
            _ => format!("{ready}{}{}", begins(0), ends(0)),
        });
        ran.unwrap();
        assert_eq!(started.len(), PATIENCE + 1);
        let failures = &outcomes[0].failures;
        assert_eq!(failures.len(), PATIENCE + 1);
        assert_eq!(failures[0].error, "its process ended: exit status: 3");
        assert_eq!(failures[PATIENCE].case, "5 cases");
        assert!(failures[PATIENCE].error.starts_with("not run"));
        assert!(outcomes[1].ok);
    }

    #[test]
    fn a_device_that_is_lost_ends_the_check() {
        let checks = checks(&[("norm", 1), ("loss", 2), ("fir_pad", 1)]);
        let (ran, outcomes, started) = run_scripts(&checks, |op, from| match op {
            "norm" => says(&[Message::Ready]) + &begins(from) + &ends(from),
            _ => says(&[Message::NoDevice("--device: cuda: lost".into())]),
        });
        let e = ran.unwrap_err();
        assert_eq!((exit_code(&e), e.to_string().as_str()), (4, "--device: cuda: lost"));
        assert_eq!(started, [("norm", 0), ("loss", 0), ("loss", 0)]);
        assert!(outcomes[0].ok && !outcomes[1].ok && !outcomes[2].ok);
        assert_eq!(outcomes[1].failures, [failure("2 cases", None, "--device: cuda: lost")]);
        assert_eq!(outcomes[2].failures, [failure("1 cases", None, "not run")]);
        // A process that ends before it has said anything had no device.
        let (ran, ..) = run_scripts(&checks, |_, _| "exit 7".into());
        let e = ran.unwrap_err().to_string();
        assert!(e.ends_with("ended: exit status: 7"), "{e}");
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let checks = checks(&[("norm", 1)]);
        let mut tally = Tally::new(&checks, |_| ());
        let start = |_: &'static str, _: usize| Command::new("/nowhere/emm");
        let e = run(&checks, &start, LIMIT, &mut tally).unwrap_err();
        assert!(format!("{e:#}").starts_with("/nowhere/emm: does not start"), "{e:#}");
    }
}
