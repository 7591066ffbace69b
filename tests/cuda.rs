//! Whole commands on a GPU: the program finds the emulator as its CUDA driver.

use crate::run::{digits, files_of, same_files, saved_step, suspended, wait_until, words};
use crate::support::{Ended, put_emulated_driver};
use emm::check::golden::rel_err;
use emm::data::npy;
use emm::model::SavedModel;
use emm::model::tensor_file::TensorFile;
use emm::rng::fill_normals;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// 8 steps, 2 evaluations, in what both devices compute.
const TINY: &str = "--precision fp32 --data d.zip --channels 8 --mult 1,1 --blocks 1 --attn none --batch 8 --epochs 4 \
                    --looks 2 --score-images 4 --rescore-images 0 --quiet";

/// A folder with a driver and 16 digits, `d.zip`.
struct Scene(TempDir);

impl Scene {
    fn new() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        put_emulated_driver(&dir.path().join("driver"));
        digits(16, &dir.path().join("d.zip"));
        Scene(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, args: &str, device: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_emm"));
        command.args(words(args)).args(["--device", device]).stdin(Stdio::null());
        command.current_dir(self.0.path()).env("LD_LIBRARY_PATH", self.path("driver"));
        command
    }

    fn gpu(&self, args: &str) -> Ended {
        Ended::of(&mut self.command(args, "cuda"))
    }

    fn cpu(&self, args: &str) -> Ended {
        Ended::of(&mut self.command(args, "cpu"))
    }

    fn spawn(&self, args: &str) -> Child {
        let mut command = self.command(args, "cuda");
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// How far an .npy file of the GPU is from the CPU's.
    #[track_caller]
    fn npy_error(&self, gpu: &str, cpu: &str) -> f64 {
        let [gpu, cpu] = [gpu, cpu].map(|name| npy::read_f32(&self.path(name)).unwrap());
        assert_eq!(gpu.0, cpu.0);
        rel_err(&gpu.1, &cpu.1).unwrap()
    }
}

/// A scene with the run `run` that a GPU trained without interruption, its files, and its model.
fn trained() -> &'static (Scene, BTreeMap<String, Vec<u8>>) {
    static TRAINED: OnceLock<(Scene, BTreeMap<String, Vec<u8>>)> = OnceLock::new();
    TRAINED.get_or_init(|| {
        let scene = Scene::new();
        scene.gpu(&format!("train --run run {TINY}")).ok();
        scene.gpu("ckpt export run --out m.safetensors").ok();
        let files = files_of(&scene.path("run"));
        (scene, files)
    })
}

fn stop(mut child: Child, signal: i32) -> Option<i32> {
    // SAFETY: a plain system call on a child that has not been waited for.
    unsafe { libc::kill(child.id() as i32, signal) };
    child.wait().unwrap().code()
}

#[test]
fn a_run_on_a_gpu_continues_after_any_stop_with_the_same_bytes() {
    let (scene, files) = trained();
    let run = scene.path("stopped");
    let train = format!("train --run stopped --save-every 1 {TINY}");
    suspended(scene.gpu(&format!("{train} --stop-after-steps 3")), "stopped at step 3 of 8");
    let child = scene.spawn(&train);
    wait_until("at step 5", || saved_step(&run) >= Some(5));
    assert_eq!(stop(child, libc::SIGKILL), None);
    let killed_at = saved_step(&run).unwrap();
    if killed_at < 8 {
        let child = scene.spawn(&train);
        wait_until("further", || saved_step(&run).unwrap() > killed_at);
        let code = stop(child, libc::SIGTERM);
        // It may have been at its end.
        assert!([Some(75), Some(0)].contains(&code), "{code:?}");
    }
    scene.gpu(&train).ok();
    same_files(&run, files);
}

#[test]
fn a_gpu_continues_what_the_cpu_began() {
    let (scene, _) = trained();
    for run in ["mixed", "cpu"] {
        let train = format!("train --run {run} {TINY}");
        suspended(scene.cpu(&format!("{train} --stop-after-steps 4")), "stopped at step 4 of 8");
    }
    scene.gpu(&format!("train --run mixed {TINY}")).ok();
    scene.cpu(&format!("train --run cpu {TINY}")).ok();
    let [mixed, cpu, gpu] = ["mixed", "cpu", "run"].map(|run| {
        let file = scene.path(run).join("state/state.safetensors");
        assert_eq!(TensorFile::open(&file).unwrap().meta("emm.step"), Some("8"));
        scene.cpu(&format!("ckpt export {run} --live --out {run}.safetensors --force")).ok();
        SavedModel::open(&scene.path(&format!("{run}.safetensors"))).unwrap().weights
    });
    for (name, weights) in [("mixed", mixed), ("GPU", gpu)] {
        let err = rel_err(&weights, &cpu).unwrap();
        assert!(err > 0.0 && err < 1e-4, "{name}: off by {err:.1e}");
    }
}

#[test]
fn divergence_on_a_gpu_names_the_step_and_keeps_a_good_state() {
    let scene = Scene::new();
    let train = format!("train --run run --lr 1e30 --looks 0 {}", TINY.replace("--looks 2", ""));
    scene.gpu(&train).refused(5, "step ", "not finite");
    assert!(saved_step(&scene.path("run")).unwrap() < 8);
    scene.cpu("ckpt export run --out m.safetensors").ok();
    let model = SavedModel::open(&scene.path("m.safetensors")).unwrap();
    assert!(model.weights.iter().all(|w| w.is_finite()));
}

#[test]
fn sampling_and_denoising_on_a_gpu_give_the_cpus_images() {
    let (scene, _) = trained();
    let mut x = vec![0.0; 3 * 64];
    fill_normals(&mut x, 0, 0, 0, 7);
    npy::write(&scene.path("x.npy"), true, &[3, 1, 8, 8], &x).unwrap();
    npy::write(&scene.path("sigma.npy"), true, &[3], &[0.05f32, 1.0, 20.0]).unwrap();
    let images = "--images x.npy --sigmas sigma.npy";
    for (what, command) in [
        ("sample", "sample --model m.safetensors --seeds 3-7 --batch 3".to_string()),
        ("churn", "sample --model m.safetensors --seeds 3,9 --steps 5 --s-churn 20".to_string()),
        ("denoise", format!("denoise --model m.safetensors {images} --batch 2")),
        ("optimum", "optimal --data d.zip --seeds 1-4 --class 3".to_string()),
        ("optimum-at", format!("optimal --data d.zip {images}")),
    ] {
        scene.gpu(&format!("{command} --out {what}-GPU.npy")).ok();
        scene.cpu(&format!("{command} --out {what}-cpu.npy")).ok();
        let err = scene.npy_error(&format!("{what}-GPU.npy"), &format!("{what}-cpu.npy"));
        assert!(err < 1e-5, "{what}: off by {err:.1e}");
    }
}

#[test]
fn scores_on_a_gpu_are_those_of_the_cpu() {
    let (scene, _) = trained();
    scene.cpu("optimal --data d.zip --seeds 0-9 --out samples.npz").ok();
    let score = "score --reference d.zip --json";
    let samples = format!("{score} --samples samples.npz");
    assert_eq!(scene.gpu(&samples).json(), scene.cpu(&samples).json());
    let run = scene.gpu(&format!("{score} --run run --images 5")).json();
    assert_eq!((&run["images"], &run["reference_images"]), (&5.into(), &16.into()));
    let [gpu, cpu] = ["cuda", "cpu"].map(|device| {
        let gap = "gap --run run --data d.zip --levels 3 --draws 4 --json";
        Ended::of(&mut scene.command(gap, device)).json()["levels"].clone()
    });
    let (gpu, cpu) = (gpu.as_array().unwrap(), cpu.as_array().unwrap());
    assert_eq!((gpu.len(), cpu.len()), (3, 3));
    for (gpu, cpu) in gpu.iter().zip(cpu) {
        for key in ["gap", "optimum_loss", "loss"] {
            let (gpu, cpu) = (gpu[key].as_f64().unwrap(), cpu[key].as_f64().unwrap());
            assert!((gpu - cpu).abs() <= 1e-4 * cpu.abs(), "{key}: {gpu}, {cpu} on the CPU");
        }
    }
}

#[test]
fn studies_and_measurements_run_on_a_gpu() {
    let scene = Scene::new();
    let found = scene.gpu(&format!("find --sizes 10 --out found --json {TINY}")).json();
    assert_eq!(found["sizes"].as_array().unwrap().len(), 1);
    assert!(scene.path("found/results.json").exists());
    let plan = scene.gpu(&format!("plan --json --rate 1 {}", TINY.replace(" --quiet", ""))).json();
    assert!(plan["arena_bytes"].as_u64() > Some(0));
    let step =
        scene.gpu("bench step --resolution 8 --channels 8 --mult 1 --batch 2 --repeats 1 --json");
    assert_eq!(step.json()["device"], "cuda:0, CPU emulator");
    // A quickstart takes minutes on the emulator: it begins, stops when told, and has saved.
    let child = scene.spawn("quickstart --out quick");
    wait_until("saved", || {
        let runs = fs::read_dir(scene.path("quick/runs")).into_iter().flatten();
        runs.flatten().any(|run| saved_step(&run.path()).is_some())
    });
    assert_eq!(stop(child, libc::SIGTERM), Some(75));
}

/// The backward of 384 joined channels at 32×32 keeps 105 KB in one pass.
#[test]
fn a_plan_takes_the_shared_memory_that_the_gpu_gives() {
    let scene = Scene::new();
    let plan = "plan --json --rate 1 --batch 8 --precision bf16 --launches";
    for (kilobytes, in_one_pass) in [(99, false), (163, true)] {
        let mut command = scene.command(plan, "cuda");
        command.env("EMM_EMULATOR_SHARED", (kilobytes << 10).to_string());
        let launches = Ended::of(&mut command).json()["launches"].clone();
        assert!(launches["norm_slab_bwd_silu_bf16"].as_u64() > Some(0), "{launches}");
        assert_eq!(launches["norm_bwd_sums_bf16"].is_null(), in_one_pass, "{launches}");
    }
    for gpu in ["a100", "h100"] {
        let launches = Ended::of(&mut scene.command(plan, gpu)).json()["launches"].clone();
        assert!(launches["norm_bwd_sums_bf16"].is_null(), "{gpu}: {launches}");
    }
}

#[test]
fn micro_batches_fit_the_gpus_free_memory() {
    let scene = Scene::new();
    let flags = "--channels 8 --mult 1,1 --blocks 1 --attn none --batch 32 --looks 0";
    let plan = scene.gpu(&format!("plan --data d.zip --json --rate 1 {flags}")).json();
    assert_eq!(plan["micro_batch"], 32);
    let whole = ["arena_bytes", "parameter_bytes"].map(|key| plan[key].as_u64().unwrap());
    let memory = whole.iter().sum::<u64>().to_string();
    let train = format!("train --run run --data d.zip --epochs 4 --quiet {flags}");
    let mut first = scene.command(&format!("{train} --stop-after-steps 1"), "cuda");
    suspended(Ended::of(first.env("EMM_EMULATOR_MEMORY", memory)), "stopped at step 1 of 2");
    let kept = || fs::read_to_string(scene.path("run/config.toml")).unwrap();
    assert!(kept().contains("micro_batch = 16\n"), "{}", kept());
    // Kept, though more is free now.
    scene.gpu(&train).ok();
    assert!(kept().contains("micro_batch = 16\n"), "{}", kept());
}

#[test]
fn too_small_a_gpu_is_a_device_error_with_the_bytes() {
    let scene = Scene::new();
    // A tenth of a megabyte: auto takes the GPU too, so it is refused too.
    for device in ["cuda", "auto"] {
        let mut train = scene.command(&format!("train --run run {TINY}"), device);
        Ended::of(train.env("EMM_EMULATOR_MEMORY", "100000")).refused(
            4,
            "--device: training needs ",
            "97.7 KiB are free",
        );
        assert!(!scene.path("run").exists(), "a refused network leaves nothing");
    }
    let mut nearest =
        scene.command("bench nearest --queries 2 --references 3 --repeats 1", "cuda:1");
    Ended::of(&mut nearest).refused(4, "--device: cuda:1: there is no GPU 1", "--device cpu");
}
