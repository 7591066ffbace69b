//! The CPU device's own parts: its team of threads and its matrix products.

use crate::ops::fresh_seed;
use crate::support::Ended;
use emm::device::Acc;
use emm::device::cpu::gemm::{Mat, gemm};
use emm::device::cpu::team::Team;
use emm::rng::fill_normals;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn every_job_runs_once_and_every_thread_prepares_first() {
    let team = Team::new(3).unwrap();
    for jobs in [0, 1, 2, 3, 7, 100] {
        for _ in 0..200 {
            let done: Vec<_> = (0..jobs).map(|_| AtomicUsize::new(0)).collect();
            let prepared = AtomicUsize::new(0);
            let prepare = || _ = prepared.fetch_add(1, Ordering::SeqCst);
            team.each(jobs, &prepare, &|i| {
                assert!(prepared.load(Ordering::SeqCst) > 0);
                done[i].fetch_add(1, Ordering::SeqCst);
                // A region within a region.
                team.each(2, &|| (), &|_| ());
            });
            assert!(done.iter().all(|d| d.load(Ordering::SeqCst) == 1));
            assert!(prepared.load(Ordering::SeqCst) <= 3);
        }
    }
}

#[test]
fn a_panic_in_a_job_reaches_the_caller_and_the_team_goes_on() {
    let team = Team::new(2).unwrap();
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        team.each(8, &|| (), &|i| assert!(i != 5, "job 5"));
    }));
    assert!(ran.is_err());
    let count = AtomicUsize::new(0);
    team.each(8, &|| (), &|_| _ = count.fetch_add(1, Ordering::SeqCst));
    assert_eq!(count.into_inner(), 8);
}

fn normals(len: usize, image: u32, seed: u64) -> Vec<f32> {
    let mut v = vec![0.0; len];
    fill_normals(&mut v, image, 0, 0, seed);
    v
}

/// Against float64, both ways each matrix may lie, all remainders of rows and columns, more than one block of k.
#[test]
fn products_match_float64() {
    let seed = fresh_seed();
    for (case, (m, n, k)) in (0..).zip([
        (1, 1, 1),
        (3, 5, 7),
        (8, 32, 64),
        (9, 33, 300),
        (13, 48, 257),
        (40, 47, 31),
        (64, 16, 600),
        (7, 15, 19),
    ]) {
        let (a, b) = (normals(m * k, 2 * case, seed), normals(k * n, 2 * case + 1, seed));
        for (ta, tb, acc) in [
            (false, false, Acc::Set),
            (true, false, Acc::Add),
            (false, true, Acc::Add),
            (true, true, Acc::Set),
        ] {
            let left = if ta { Mat::cols(&a, m) } else { Mat::rows(&a, k) };
            let right = if tb { Mat::cols(&b, k) } else { Mat::rows(&b, n) };
            let at = |mat: Mat, i: usize, j: usize| mat.data[i * mat.row + j * mat.col] as f64;
            // Rows of c lie two words further apart than they are long.
            let stride = n + 2;
            let mut c = vec![0.5; m * stride];
            gemm([m, n, k], &mut c, stride, acc, -1.5, left, right);
            for i in 0..m {
                for j in 0..n {
                    let terms = (0..k).map(|l| at(left, i, l) * at(right, l, j));
                    let (sum, size) = terms.fold((0.0, 0.0), |(s, z), t| (s + t, z + t.abs()));
                    let want = -1.5 * sum + if acc == Acc::Add { 0.5 } else { 0.0 };
                    let error = (c[i * stride + j] as f64 - want).abs();
                    assert!(error <= 1e-6 * (size + 1.0), "{m}×{n}×{k} at {i}, {j}: {error:.1e}");
                }
                let gap = &c[i * stride + n..(i + 1) * stride];
                assert!(gap.iter().all(|&v| v == 0.5), "{m}×{n}×{k} wrote past row {i}");
            }
        }
    }
}

/// An element's bits are those of its row and column alone.
#[test]
fn products_do_not_depend_on_their_size() {
    let (m, n, k, seed) = (45, 61, 300, fresh_seed());
    let (a, b) = (normals(m * k, 0, seed), normals(k * n, 1, seed));
    let mut whole = vec![0.0; m * n];
    gemm([m, n, k], &mut whole, n, Acc::Set, 1.0, Mat::rows(&a, k), Mat::rows(&b, n));
    for (i, j) in [(0, 0), (44, 60), (17, 32), (8, 31), (33, 47)] {
        let mut one = [0.0];
        let (row, column) = (Mat::rows(&a[i * k..], k), Mat::rows(&b[j..], n));
        gemm([1, 1, k], &mut one, 1, Acc::Set, 1.0, row, column);
        assert_eq!(one[0].to_bits(), whole[i * n + j].to_bits(), "at {i}, {j}");
    }
}

#[test]
fn lower_instruction_sets_pass_every_case_and_train_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let emm = |level: &str, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_emm"));
        command.args(["--device", "cpu", "--quiet"]).args(args);
        Ended::of(command.env("EMM_X86_LEVEL", level).current_dir(dir.path())).ok()
    };
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/data/digits8x8-images-idx3-ubyte");
    emm("4", &["data", "import", digits, "--size", "16", "--out", "d.zip"]);
    let trained = |level: &str| {
        let words = "train --data d.zip --channels 16 --mult 2,2 --blocks 1 --batch 8 --epochs 2 --looks 1 \
                     --score-images 8 --rescore-images 0 --run";
        let words: Vec<&str> = words.split_whitespace().chain([level]).collect();
        emm(level, &words);
        std::fs::read(dir.path().join(level).join("state/state.safetensors")).unwrap()
    };
    let own = trained("4");
    for level in ["3", "1"] {
        emm(level, &["check"]);
        assert!(trained(level) == own, "level {level} trains to other bits");
        let search =
            emm(level, &["bench", "nearest", "--queries", "3", "--references", "5", "--json"]);
        let instructions = if level == "3" { "\"avx2\"" } else { "\"portable\"" };
        assert!(search.contains(instructions), "level {level}: {search}");
    }
}
