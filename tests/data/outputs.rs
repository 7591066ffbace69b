//! Outputs that cannot be written: exit codes, one line, and nothing half-written.

use super::bad_input::listing;
use super::{labelled, text, with_set};
use crate::support::{emm, say};
use emm::data::{Dataset, npy};
use emm::files::{write_atomic, write_dir_atomic};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

fn subset(d: &str, out: &str) -> crate::support::Ended {
    emm(["data", "subset", d, "--size", "2", "--out", out])
}

#[test]
fn an_existing_output_stays_unless_forced() {
    let (dir, d, out) = with_set(&[0, 1]);
    fs::write(&out, "precious").unwrap();
    subset(&d, &out).refused(2, &out, "--force");
    emm(["data", "import", &d, "--out", &out]).refused(2, &out, "--force");
    assert_eq!(fs::read(&out).unwrap(), b"precious");
    // A failure behind --force leaves the old file, too.
    let forced = ["--out", &out, "--force"];
    emm(["data", "import", "missing.zip"].iter().chain(&forced)).refused(3, "missing.zip", "");
    assert_eq!(fs::read(&out).unwrap(), b"precious");
    emm(["data", "import", &d].iter().chain(&forced)).ok();
    assert_eq!(Dataset::open(Path::new(&out)).unwrap(), labelled(&[0, 1]));
    assert_eq!(listing(dir.path()), ["D.zip", "out.zip"]);
}

#[test]
fn an_output_in_a_bad_place_is_named() {
    let (dir, d, _) = with_set(&[0, 1]);
    for (out, holds) in [
        (format!("{d}/out.zip"), "is no folder"),
        (dir.path().join("none/out.zip").display().to_string(), "does not exist"),
    ] {
        subset(&d, &out).refused(1, &out, holds);
    }
    let folder = text(dir.path());
    emm(["data", "import", &d, "--force", "--out", folder]).refused(1, folder, "it is a folder");
    emm(["data", "import", &d, "--force", "--out", "/dev/null"]).refused(1, "/dev/null", "device");
    let long = dir.path().join("x".repeat(300)).display().to_string();
    subset(&d, &long).refused(1, &long, "too long");
    assert_eq!(listing(dir.path()), ["D.zip"]);
}

#[test]
fn the_source_may_be_the_output() {
    let (dir, d, _) = with_set(&[0, 1]);
    emm(["data", "subset", &d, "--size", "1", "--labels", "none", "--out", &d, "--force"]).ok();
    assert_eq!(Dataset::open(Path::new(&d)).unwrap().len(), 1);
    assert_eq!(listing(dir.path()), ["D.zip"]);
}

#[test]
fn a_link_is_followed() {
    let (dir, d, out) = with_set(&[0, 1]);
    let real = dir.path().join("real.zip");
    fs::write(&real, "old").unwrap();
    std::os::unix::fs::symlink("real.zip", &out).unwrap();
    emm(["data", "import", &d, "--out", &out, "--force"]).ok();
    assert!(fs::symlink_metadata(&out).unwrap().is_symlink());
    assert_eq!(Dataset::open(&real).unwrap().len(), 2);
}

/// A mounted file system of 64 KiB, unmounted when dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", text(dir.path())];
        let mounted = Command::new("mount").args(mount).output();
        mounted.is_ok_and(|m| m.status.success()).then_some(Small(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_leaves_nothing() {
    let Some(small) = Small::mount() else {
        say("data: skipped, mounting a small file system needs rights that are not there");
        return;
    };
    let (_dir, d, _) = with_set(&[0, 1]);
    Dataset::digits().save(Path::new(&d), true).unwrap();
    let out = small.0.path().join("out.zip").display().to_string();
    emm(["data", "import", &d, "--out", &out]).refused(1, &out, "No space left");
    assert_eq!(listing(small.0.path()), [""; 0]);
}

#[test]
fn samples_that_are_written_are_scored_alike_in_every_form() {
    let (dir, d, _) = with_set(&[0, 1, 2, 0, 1, 2]);
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let mut scores = Vec::new();
    for out in ["s.npy", "s.npz", "s.zip", "folder"].map(at) {
        emm(["optimal", "--data", &d, "--seeds", "0-9", "--steps", "4", "--out", &out]).ok();
        scores.push(emm(["score", "--samples", &out, "--reference", &d, "--json"]).json());
        assert_eq!(scores[0], *scores.last().unwrap(), "{out}");
    }
    assert_eq!(scores[0]["images"], 10);
    // Of another shape; of no images.
    let wrong = at("wrong.npy");
    for shape in [&[1, 1, 4, 5][..], &[1, 4, 4, 1], &[16], &[0, 1, 4, 4]] {
        let values = vec![0.5_f32; shape.iter().product()];
        npy::write(wrong.as_ref(), true, shape, &values).unwrap();
        let score = emm(["score", "--samples", &wrong, "--reference", &d]);
        score.refused(3, &wrong, "expected shape");
    }
    npy::write(wrong.as_ref(), true, &[1, 1, 4, 4], &[f32::NAN; 16]).unwrap();
    emm(["score", "--samples", &wrong, "--reference", &d]).refused(3, &wrong, "not finite");
}

/// Outputs by command, with an ending that says another format and what they should be named.
const OTHER_FORMATS: &[(&str, &str, &str)] = &[
    ("quickstart", "--out q.png", "name it q"),
    ("data import d.zip", "--out flat.png", "name it flat.zip"),
    ("data import d.zip", "--out flat.NPZ", "name it flat.zip"),
    ("data subset d.zip --size 1", "--out flat.npy", "name it flat.zip"),
    ("data dedupe d.zip", "--out flat.npy", "name it flat.zip"),
    ("sample --model m --seeds 0", "--out x.csv", ".npy or a folder"),
    ("denoise --model m --images x --sigmas s", "--out x.png", "name it x.npy"),
    ("score --samples s --reference d.zip", "--sheet x.jpg", "expected a .png"),
    ("score --samples s --reference d.zip", "--pairs x.csv", "expected a .npz"),
    ("score --samples s --reference d.zip", "--per-image x.json", "expected a .csv"),
    ("audit --samples s --train d.zip", "--out x.csv", "name it x"),
    ("optimal --data d.zip --seeds 0", "--out x.json", ".npy or a folder"),
    ("optimal --data d.zip --images x --sigmas s", "--out x.png", "written as .npy"),
    ("gap --run r --data d.zip", "--out x.json", "name it x.csv"),
    ("gap --run r --data d.zip --holdout h.zip", "--out x.json", "name it x"),
    ("compare a b --data-a d.zip --data-b d.zip", "--out x.csv", "name it x"),
    ("find --data d.zip", "--out x.csv", "name it x"),
    ("when r", "--out x.csv", "name it x"),
    ("sweep slurm table3", "--out x.py", "name it x.sh"),
    ("sweep k8s table3 --image e --claim c", "--out x.json", "name it x.yaml"),
    ("sweep sky table3 --volume v", "--out x.sh", "name it x.yaml"),
    ("table 3 --scale tiny", "--out x.png", "name it x.md"),
    ("table 3 --scale tiny --format csv", "--out x.md", "name it x.csv"),
    ("table 3 --scale tiny --json", "--out x.csv", "name it x.json"),
    ("figure 3a", "--out x.gif", ".png, .svg, .pdf, .csv, .json"),
    ("figure 1a", "--out x.svg", ".png"),
    ("report d", "--out x.md", "expected a .html"),
    ("verify r", "--out x.md", "name it x.json"),
    ("ckpt export r", "--out x.pt", "name it x.safetensors"),
    ("ckpt convert m", "--out x.npz", "name it x.safetensors"),
];

#[test]
fn no_output_is_named_for_another_format() {
    let dir = tempfile::tempdir().unwrap();
    for (command, out, holds) in OTHER_FORMATS {
        let flag = out.split(' ').next().unwrap();
        let line = format!("{command} {out}");
        let ended = crate::support::emm_in(dir.path(), line.split(' '));
        ended.refused(2, &format!("{flag}: "), holds);
    }
    assert_eq!(listing(dir.path()), [""; 0]);
}

/// The table above knows every command with an output.
#[test]
fn every_output_is_tried_under_a_wrong_name() {
    let commands = |path: &str| -> Vec<String> {
        let help = emm(path.split_whitespace().chain(["--help"])).ok();
        let (_, listed) = help.split_once("Commands:").unwrap_or_default();
        let names = listed.lines().skip(1).take_while(|line| !line.is_empty());
        let names = names.filter(|line| !line.starts_with("   "));
        let names = names.filter_map(|line| line.split_whitespace().next());
        names.filter(|name| *name != "help").map(|name| format!("{path} {name}")).collect()
    };
    let leaves = commands("").into_iter().flat_map(|path| match commands(&path) {
        inner if inner.is_empty() => vec![path],
        inner => inner,
    });
    let mut outputs = 0;
    for path in leaves {
        let help = emm(path.split_whitespace().chain(["--help"])).ok();
        for flag in ["--out", "--sheet", "--pairs", "--per-image"] {
            if help.contains(&format!(" {flag} <")) {
                outputs += 1;
                let begins = |(command, out, _): &&(&str, &str, &str)| {
                    command.starts_with(path.trim()) && out.starts_with(&format!("{flag} "))
                };
                assert!(OTHER_FORMATS.iter().any(|row| begins(&row)), "{path} {flag}");
            }
        }
    }
    assert!(outputs >= 17, "{outputs}");
}

#[test]
fn a_table_is_of_the_format_that_its_file_is_named_for() {
    let dir = tempfile::tempdir().unwrap();
    let table = |args: &str| {
        let line = format!("table 1 --scale tiny --only size=20 {args}");
        crate::support::emm_in(dir.path(), line.split(' ')).ok();
    };
    table("--out t.csv");
    table("--format csv --out plain");
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    // Below the head are hours, which are measured.
    assert_eq!(read("t.csv").lines().next(), read("plain").lines().next());
    assert!(read("t.csv").starts_with("study,cell,"), "{}", read("t.csv"));
}

#[test]
fn a_file_appears_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let failed = write_atomic(&path, false, |w| {
        w.write_all(b"half")?;
        anyhow::bail!("interrupted")
    });
    let failed: anyhow::Result<()> = failed;
    assert_eq!(
        failed.unwrap_err().to_string(),
        format!("{}: cannot write: interrupted", path.display())
    );
    assert_eq!(listing(dir.path()), [""; 0]);
    write_atomic(&path, false, |w| Ok(w.write_all(b"whole")?)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"whole");
    assert_eq!(listing(dir.path()), ["x"]);
}

#[test]
fn a_folder_appears_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let fill = |name: &'static str| {
        move |folder: &Path| -> anyhow::Result<()> { Ok(fs::write(folder.join(name), name)?) }
    };
    let ours = &|folder: &Path| Ok(listing(folder).into_iter().find(|name| name.len() > 1));
    write_dir_atomic(&path, false, ours, fill("a")).unwrap();
    assert!(write_dir_atomic(&path, false, ours, fill("b")).is_err());
    let failed: anyhow::Result<()> = write_dir_atomic(&path, true, ours, |folder| {
        fs::write(folder.join("half"), "half")?;
        anyhow::bail!("interrupted")
    });
    assert!(failed.is_err());
    assert_eq!(listing(&path), ["a"]);
    write_dir_atomic(&path, true, ours, fill("b")).unwrap();
    assert_eq!(listing(&path), ["b"]);
    assert_eq!(listing(dir.path()), ["x"]);
    // What somebody else put there stays.
    fs::write(path.join("thesis"), "").unwrap();
    let foreign = write_dir_atomic(&path, true, ours, fill("c")).unwrap_err();
    assert!(foreign.to_string().contains("holds thesis"), "{foreign}");
    assert_eq!(listing(&path), ["b", "thesis"]);
    assert_eq!(listing(dir.path()), ["x"]);
    fs::write(dir.path().join("file"), "").unwrap();
    let over = write_dir_atomic(&dir.path().join("file"), true, ours, fill("c"));
    assert!(over.unwrap_err().to_string().contains("it is a file"));
}
