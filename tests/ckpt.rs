//! Model files: what is refused, and what of other programs is taken.

use crate::run::fixture;
use crate::support::emm;
use emm::model::SavedModel;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use std::collections::HashMap;
use std::fs;

#[test]
fn a_broken_model_file_is_a_data_error_that_names_the_tensor() {
    let f = fixture();
    let good = f.folder.path().join("reference/snapshots/epoch-000040.safetensors");
    let bytes = fs::read(&good).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let bad = f.folder.path().join("bad.safetensors");
    let info = |bytes: &[u8]| {
        fs::write(&bad, bytes).unwrap();
        emm(["ckpt", "info", bad.to_str().unwrap()])
    };
    assert!(info(&bytes).ok().contains("parameters"));
    let start = bad.display().to_string();

    let mut nan = bytes.clone();
    nan[header + 8..header + 12].copy_from_slice(&f32::NAN.to_le_bytes());
    info(&nan).refused(3, &start, "model.map_layer0.weight holds NaN at 2");
    info(&bytes[..bytes.len() - 4]).refused(3, &start, "bytes");
    info(&bytes[..header - 1]).refused(3, &start, "not a whole safetensors file");
    info(b"").refused(3, &start, "not a whole safetensors file");
    let text = String::from_utf8_lossy(&bytes[8..header]).to_string();
    let swap = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let mut new = bytes.clone();
        new[8..header].copy_from_slice(text.replacen(from, to, 1).as_bytes());
        new
    };
    info(&swap("\"model.map_layer0.bias\"", "\"model.map_layerX.bias\"")).refused(
        3,
        &start,
        "model.map_layerX.bias is unexpected",
    );
    info(&swap("\"shape\":[32,8]", "\"shape\":[8,32]")).refused(3, &start, "is [8, 32]");
    // Sizes in the metadata are held against the file before memory is asked for them.
    let labelled = |classes: u64| {
        let (from, to) = (r#"\"label_dim\":0"#, format!(r#"\"label_dim\":{classes}"#));
        assert!(text.contains(from), "{text}");
        let text = text.replacen(from, &to, 1);
        [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &bytes[header..]].concat()
    };
    info(&labelled(1 << 24)).refused(3, &start, "model.map_label.weight is missing");
    info(&labelled(1 << 40)).refused(3, &start, "classes, at most");
    info(&swap("emm.model", "emm.modem")).refused(3, &start, "no emm.model");
}

/// A snapshot's tensors as another program would leave them: other floats, no metadata, no `model.`.
#[test]
fn convert_takes_other_floats_and_bare_names() {
    let f = fixture();
    let good = f.folder.path().join("reference/snapshots/epoch-000040.safetensors");
    let want = SavedModel::open(&good).unwrap();
    let bytes = fs::read(&good).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    type Encode = fn(f32) -> Vec<u8>;
    type Round = fn(f32) -> f32;
    let forms: [(Dtype, Encode, Round); 4] = [
        (Dtype::F32, |v| v.to_le_bytes().to_vec(), |v| v),
        (Dtype::F64, |v| (v as f64).to_le_bytes().to_vec(), |v| v),
        (Dtype::F16, |v| f16::from_f32(v).to_le_bytes().to_vec(), |v| f16::from_f32(v).to_f32()),
        (Dtype::BF16, |v| bf16::from_f32(v).to_le_bytes().to_vec(), |v| bf16::from_f32(v).to_f32()),
    ];
    let source = f.folder.path().join("foreign.safetensors");
    let out = f.folder.path().join("converted.safetensors");
    let convert = |extra: &[&str]| {
        let fixed = ["ckpt", "convert", source.to_str().unwrap(), "--out", out.to_str().unwrap()];
        emm([&fixed, extra].concat())
    };
    for (dtype, encode, round) in forms {
        for prefix in ["", "model."] {
            let data: Vec<(String, Vec<usize>, Vec<u8>)> = file
                .iter()
                .map(|(name, t)| {
                    let values = t.data().chunks_exact(4);
                    let values = values.map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                    let name = format!("{prefix}{}", name.trim_start_matches("model."));
                    (name, t.shape().to_vec(), values.flat_map(encode).collect())
                })
                .collect();
            let views: HashMap<&str, TensorView> = data
                .iter()
                .map(|(n, s, d)| (n.as_str(), TensorView::new(dtype, s.clone(), d).unwrap()))
                .collect();
            fs::write(&source, serialize(views, None).unwrap()).unwrap();
            convert(&["--force"]).ok();
            let have = SavedModel::open(&out).unwrap();
            assert_eq!((&have.config, have.run), (&want.config, None));
            let rounded: Vec<f32> = want.weights.iter().map(|&w| round(w)).collect();
            assert!(have.weights == rounded, "{dtype:?} {prefix:?}");
        }
    }
    convert(&["--force", "--precond", "edm", "--skips", "1,0,1,1"]).ok();
    let config = SavedModel::open(&out).unwrap().config;
    assert_eq!(config.skip_connections, [1, 0, 1, 1]);
    assert_eq!(config.precond, emm::model::Precond::Edm);
    convert(&["--force", "--skips", "1,1"]).refused(2, "--skips: 2", "4 values");
    convert(&["--force", "--dropout", "2"]).refused(2, "--dropout: 2", "");
    convert(&[]).refused(2, &out.display().to_string(), "--force");
    fs::write(&source, serialize(HashMap::<&str, TensorView>::new(), None).unwrap()).unwrap();
    convert(&["--force"]).refused(3, &source.display().to_string(), "not an EDM U-Net");
}

#[test]
fn export_gives_the_moving_average_or_the_live_weights() {
    let f = fixture();
    let run = f.folder.path().join("reference");
    let export = |name: &str, extra: &[&str]| {
        let out = f.folder.path().join(name);
        let fixed = ["ckpt", "export", run.to_str().unwrap(), "--out", out.to_str().unwrap()];
        emm([&fixed, extra].concat()).ok();
        SavedModel::open(&out).unwrap()
    };
    let (ema, live) = (export("ema.safetensors", &[]), export("live.safetensors", &["--live"]));
    assert!(ema.weights != live.weights);
    let last = SavedModel::open(&run.join("snapshots/epoch-000040.safetensors")).unwrap();
    assert_eq!(ema, last);
    let nowhere = f.folder.path().join("nowhere");
    let args = ["ckpt", "export", nowhere.to_str().unwrap(), "--out", "x.safetensors"];
    emm(args).refused(3, "--run: ", "not a run");
}
