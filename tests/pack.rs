//! bench/pack.sh and bench/pack_check.py: what they refuse. That the real thing passes, the gate shows.

use crate::support::Ended;
use serde_json::json;
use std::fs::{self, create_dir_all, write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use tempfile::tempdir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// An image of a fatbin, as nvcc 13.0 writes them: 1 is PTX, 2 machine code; 0x8011 and `a` (bit 20) are flags.
fn image(kind: u16, number: u32, a: bool) -> Vec<u8> {
    let payload = [7; 40];
    let mut bytes = vec![0; 72];
    bytes[0..2].copy_from_slice(&kind.to_le_bytes());
    bytes[2..4].copy_from_slice(&0x101u16.to_le_bytes());
    bytes[4..8].copy_from_slice(&72u32.to_le_bytes());
    bytes[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes[28..32].copy_from_slice(&number.to_le_bytes());
    bytes[40..48].copy_from_slice(&(0x8011 | u64::from(a) << 20).to_le_bytes());
    bytes.extend(payload);
    bytes
}

fn fatbin(images: &[(u16, u32, bool)]) -> Vec<u8> {
    let images: Vec<u8> = images.iter().flat_map(|&(k, n, a)| image(k, n, a)).collect();
    let mut bytes = 0xBA55_ED50u32.to_le_bytes().to_vec();
    bytes.extend([1, 0, 16, 0]);
    bytes.extend((images.len() as u64).to_le_bytes());
    bytes.extend(images);
    bytes
}

const GOOD: &[(u16, u32, bool)] = &[(1, 80, false), (2, 80, false), (2, 90, true)];

/// A folder whose `emm` says what a doctor says and holds `fatbins`.
fn folder(dir: &Path, kernels_for: &[&str], needs: &[&str], fatbins: &[Vec<u8>]) {
    create_dir_all(dir.join("bench/peers")).unwrap();
    write(dir.join("bench/peers/step.py"), "import json\nimport torch\nimport conv\n").unwrap();
    write(dir.join("bench/peers/conv.py"), "from pathlib import Path\n").unwrap();
    let told = json!({"kernels_for": kernels_for, "cpu": {"needs": needs}});
    let mut emm = format!("#!/bin/sh\necho '{told}'\nexit 0\n").into_bytes();
    // The magic number alone, as it may stand in code.
    emm.extend(0xBA55_ED50u32.to_le_bytes());
    emm.extend([0; 3]);
    emm.extend(fatbins.concat());
    write(dir.join("emm"), emm).unwrap();
    fs::set_permissions(dir.join("emm"), fs::Permissions::from_mode(0o755)).unwrap();
}

fn check(dir: &Path) -> Ended {
    let script = format!("{ROOT}/bench/pack_check.py");
    Ended::of(Command::new("python3").arg("-B").arg(script).arg(dir))
}

#[test]
fn a_packed_folder_is_checked_for_kernels_processors_imports_and_size() {
    let files = fs::read_dir(format!("{ROOT}/kernels")).unwrap().flatten();
    let sources = files.filter(|f| f.path().extension().is_some_and(|e| e == "cu")).count();
    let names = ["sm_80", "sm_90a", "compute_80"];
    let good = vec![fatbin(GOOD); sources];
    let with_last = |last: Vec<u8>| [&good[1..], &[last]].concat();
    let plain = fatbin(&[(1, 80, false), (2, 80, false), (2, 90, false)]);
    let mut wrong_magic = fatbin(GOOD);
    wrong_magic[0] ^= 1;
    let mut cut = fatbin(GOOD);
    cut.truncate(cut.len() - 1);

    let temp = tempdir().unwrap();
    let dir = temp.path();
    folder(dir, &names, &[], &good);
    let told = check(dir).ok();
    assert!(told.contains("targets  sm_80, sm_90a, compute_80\n"), "{told}");

    let fewer = format!("holds {} fatbins, and kernels/ has {sources} files", sources - 1);
    for (names, needs, fatbins, why) in [
        (&[][..], &[][..], vec![], "names no kernels for sm_90a, but []"),
        (&names[..1], &[], vec![fatbin(&GOOD[1..2]); sources], "names no kernels for sm_90a"),
        (&names[..2], &[], good.clone(), "a fatbin is for compute_80, sm_80, sm_90a"),
        (&names, &["avx2", "bmi2"], good.clone(), "only on CPUs with avx2 bmi2"),
        (&names, &[], vec![b"emulator".to_vec()], "holds 0 fatbins"),
        (&names, &[], with_last(plain), "a fatbin is for compute_80, sm_80, sm_90, and"),
        (&names, &[], with_last(fatbin(&GOOD[..2])), "a fatbin is for compute_80, sm_80, and"),
        (&names, &[], with_last(wrong_magic), &fewer),
        (&names, &[], with_last(cut), &fewer),
    ] {
        folder(dir, names, needs, &fatbins);
        let ended = check(dir);
        assert!(ended.code == 1 && ended.stderr.contains(why), "{why}: {ended:?}");
    }

    folder(dir, &names, &[], &good);
    write(dir.join("bench/peers/conv.py"), "from network import loss\n").unwrap();
    let ended = check(dir);
    assert!(ended.code == 1 && ended.stderr.contains("conv.py imports network"), "{ended:?}");

    folder(dir, &names, &[], &good);
    let large = fs::File::create(dir.join("images.zip")).unwrap();
    large.set_len(30 << 20).unwrap();
    let ended = check(dir);
    assert!(
        ended.code == 1 && ended.stderr.contains("30 are the most: images.zip 30.0"),
        "{ended:?}"
    );
}

#[test]
fn packing_refuses_before_it_builds() {
    let temp = tempdir().unwrap();
    let dir = temp.path();
    create_dir_all(dir.join("mine")).unwrap();
    write(dir.join("mine/notes"), "").unwrap();
    create_dir_all(dir.join("told/bench/runs")).unwrap();
    write(dir.join("told/README.txt"), "packed by bench/pack.sh").unwrap();
    for (arguments, why) in [
        ("--image a", "--image: is neither"),
        ("--images", "--images: a path has to follow"),
        ("--images nowhere.bin", "nowhere.bin: no such file"),
        ("--out mine", "mine is there and was not packed"),
        ("--out mine/notes", "notes is there and was not packed"),
        ("--out told", "told/bench/runs holds results"),
        ("--out mine/", "mine is there and was not packed"),
    ] {
        let mut command = Command::new(format!("{ROOT}/bench/pack.sh"));
        let ended = Ended::of(command.args(arguments.split(' ')).current_dir(dir));
        assert!(ended.code == 2 && ended.stderr.contains(why), "{arguments}: {ended:?}");
        assert!(ended.stderr.starts_with("pack.sh: ") && ended.stdout.is_empty(), "{ended:?}");
    }
    assert!(dir.join("mine/notes").exists());
}
