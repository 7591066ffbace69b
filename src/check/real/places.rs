//! Where the ops stand in a network, and the shapes they have there.

use super::super::cases::{Case, Operand};
use super::super::plain::Plain;
use super::super::wanted::{NetworkSize, random};
use crate::device::StepArgs;
use crate::device::cpu::resample::Resampling;
use crate::ops::conv2d::{Conv2d, Shortcut};
use crate::ops::label_embed::LabelEmbed;
use crate::ops::linear::Linear;
use crate::ops::loss::Loss;
use crate::ops::noise_embed::NoiseEmbed;
use crate::ops::norm::Norm;
use crate::ops::precondition::Precond;
use crate::ops::{Shape, words};

/// An input of a case.
struct In {
    name: &'static str,
    shape: Shape,
    kind: PlaceKind,
}

#[derive(Clone, Copy, PartialEq)]
enum PlaceKind {
    /// Stored as activations are, with a gradient.
    Activation,
    /// float32, with a gradient.
    Vector,
    /// float32, without.
    Given,
    Sigma,
    /// Below so many.
    Labels(u32),
}

/// An op with the shapes of a place of the network.
pub(super) struct Place {
    pub(super) case: &'static str,
    pub(super) plain: Plain,
    ins: Vec<In>,
    /// Names of the outputs that are compared, and of those with a gradient.
    outs: Vec<Option<&'static str>>,
    d_outs: Vec<usize>,
    /// Names of the parameters' gradients, with the standard deviation of each parameter.
    params: Vec<(&'static str, f32)>,
}

impl Place {
    fn shapes(&self) -> Vec<Shape> {
        self.ins.iter().map(|i| i.shape).collect()
    }

    /// The case, without any values where they are not wanted.
    pub(super) fn case(&self, filled: bool) -> Case {
        let (op, shapes) = (self.plain.op(), self.shapes());
        let out_shapes = op.outputs(&shapes).expect("a place of the network");
        let mut which = 0;
        let mut normals = |len: usize, deviation: f32| {
            which += 1;
            if filled { random(len, which, deviation) } else { vec![] }
        };
        let ins = (self.ins.iter())
            .map(|i| Operand {
                shape: i.shape,
                words: match i.kind {
                    _ if !filled => vec![],
                    PlaceKind::Sigma => sigmas(i.shape[0]),
                    PlaceKind::Labels(n) => labels(i.shape[0], n),
                    _ => normals(words(i.shape), 1.0),
                },
                grad: matches!(i.kind, PlaceKind::Activation | PlaceKind::Vector)
                    .then(|| format!("d{}", i.name)),
                activation: i.kind == PlaceKind::Activation,
            })
            .collect();
        let lens = op.param_lens(&shapes);
        let params = (lens.into_iter().zip(&self.params))
            .map(|(len, &(name, deviation))| Operand {
                shape: [1, 1, 1, len],
                words: normals(len, deviation),
                grad: Some(name.into()),
                activation: false,
            })
            .collect();
        let outs = self.outs.iter().map(|name| name.map(String::from)).collect();
        let d_outs = (out_shapes.iter().enumerate())
            .map(|(i, &shape)| self.d_outs.contains(&i).then(|| normals(words(shape), 1.0)))
            .collect();
        // Dropout draws by an image's place in the batch; sums over chains of images are of whole batches.
        let first_image = if op.name() == "norm" { 3 } else { 0 };
        let args = StepArgs { seed: 9, step: 4, first_image };
        Case { op, ins, params, outs, d_outs, args, float32_only: false }
    }
}

fn sigmas(n: usize) -> Vec<f32> {
    let levels: Vec<f64> = (0..n).map(|i| 0.02 * 1.09_f64.powi((i * 37 % 97) as i32)).collect();
    bytemuck::pod_collect_to_vec(&levels)
}

fn labels(n: usize, below: u32) -> Vec<f32> {
    (0..n as u32).map(|i| f32::from_bits(i * i % below)).collect()
}

fn activation(name: &'static str, shape: Shape) -> In {
    In { name, shape, kind: PlaceKind::Activation }
}

/// The places of an op in DDPM++ (and of what only NCSN++ has), the largest of each kind.
pub(super) fn places(op: &str, n: NetworkSize) -> Vec<Place> {
    match op {
        "attention" => attention(n),
        "conv2d" => convolutions(n),
        "linear" => linears(n),
        "norm" => norms(n),
        _ => vec![rest(op, n)],
    }
}

fn attention(n: NetworkSize) -> Vec<Place> {
    let place = |case, images: usize, side: usize| Place {
        case,
        plain: Plain::Attention,
        ins: vec![activation("qkv", [images, side, side, 6 * n.channels])],
        outs: vec![Some("y"), None],
        d_outs: vec![0],
        params: vec![],
    };
    vec![
        place("of the middle level", n.images, n.side / 2),
        place("of the coarsest level", n.images, n.side / 4),
        place("of the finest level, an eighth of the images", n.images.div_ceil(8), n.side),
    ]
}

fn convolutions(n: NetworkSize) -> Vec<Place> {
    let NetworkSize { images, channels, side } = n;
    let wide = 2 * channels;
    let image = |side: usize, c: usize| [images, side, side, c];
    let place = |case, op: Conv2d, ins: Vec<In>| {
        let mut depths = vec![op.kernel * op.kernel * ins[0].shape[3]];
        if op.shortcut.is_some() {
            let sides = ins.iter().filter(|i| i.name.starts_with('s'));
            depths.push(sides.map(|i| i.shape[3]).sum());
        }
        let deviation = |depth: usize| 1.0 / (depth as f32).sqrt();
        let named = depths.into_iter().zip([("dw", "db"), ("dsw", "dsb")]);
        Place {
            case,
            plain: Plain::Conv2d(op),
            ins,
            outs: vec![Some("y")],
            d_outs: vec![0],
            params: named.flat_map(|(depth, (w, b))| [(w, deviation(depth)), (b, 1.0)]).collect(),
        }
    };
    let scale = 0.5_f32.sqrt();
    let half = side / 2;
    let emb = In { name: "emb", shape: [images, 1, 1, 3 * wide], kind: PlaceKind::Vector };
    let shortcut = Some(Shortcut { two: true, off: 0 });
    let down = Conv2d { stride: 2, pad: 0, ..Conv2d::same(3, wide) };
    vec![
        place("the first", Conv2d::same(3, channels), vec![activation("x", image(side, 3))]),
        place(
            "of the finest level, with an embedding",
            Conv2d { emb: Some(wide), ..Conv2d::same(3, wide) },
            vec![activation("x", image(side, channels)), emb],
        ),
        place(
            "of the middle level, with a shortcut of two",
            Conv2d { scale, shortcut, ..Conv2d::same(3, wide) },
            vec![
                activation("x", image(half, wide)),
                activation("s1", image(half, wide)),
                activation("s2", image(half, channels)),
            ],
        ),
        place(
            "of the coarsest level, with a residual",
            Conv2d { scale, residual: true, ..Conv2d::same(3, wide) },
            vec![
                activation("x", image(side / 4, wide)),
                activation("residual", image(side / 4, wide)),
            ],
        ),
        place("1×1, to qkv", Conv2d::same(1, 3 * wide), vec![activation("x", image(half, wide))]),
        place("of stride 2", down, vec![activation("x", image(half + 1, wide))]),
        place(
            "the last",
            Conv2d { float32: true, ..Conv2d::same(3, 3) },
            vec![activation("x", image(side, wide))],
        ),
    ]
}

fn norms(n: NetworkSize) -> Vec<Place> {
    let NetworkSize { images, channels, side } = n;
    let place = |case, silu, dropout, resample: Option<Resampling>, ins: Vec<In>| {
        let c: usize = ins.iter().map(|i| i.shape[3]).sum();
        let op = Norm { groups: (c / 4).min(32), silu, dropout, resample, off: 0 };
        let resampled = resample.is_some();
        let mut outs = vec![Some("y"), None];
        outs.extend(resampled.then_some(Some("xr")));
        Place {
            case,
            plain: Plain::Norm(op),
            ins,
            outs,
            d_outs: if resampled { vec![0, 2] } else { vec![0] },
            params: vec![("dgamma", 1.0), ("dbeta", 1.0)],
        }
    };
    let (wide, half) = (2 * channels, side / 2);
    let x = |side, c| activation("x", [images, side, side, c]);
    let joined = |name| activation(name, [images, side, side, wide]);
    vec![
        place("with dropout", true, Some((0.13, 3)), None, vec![x(side, wide)]),
        place("of two inputs", true, None, None, vec![joined("x1"), joined("x2")]),
        place("halved", true, None, Some(Resampling::Down), vec![x(side, wide)]),
        place("doubled", true, None, Some(Resampling::Up), vec![x(half, wide)]),
        place("of attention", false, None, None, vec![x(half, wide)]),
    ]
}

fn linears(n: NetworkSize) -> Vec<Place> {
    let wide = 4 * n.channels;
    let place = |case, op: Linear, depth: usize| {
        let x = In { name: "x", shape: [n.images, 1, 1, depth], kind: PlaceKind::Vector };
        Place {
            case,
            outs: if op.silu { vec![Some("y"), None] } else { vec![Some("y")] },
            plain: Plain::Linear(op),
            ins: vec![x],
            d_outs: vec![0],
            params: vec![("dw", 1.0 / (depth as f32).sqrt()), ("db", 1.0)],
        }
    };
    let affine = Linear { out_features: vec![2 * n.channels; 20], silu: false };
    vec![
        place("of the noise level", Linear::new(wide, true), n.channels),
        place("of all blocks", affine, wide),
    ]
}

fn rest(op: &str, n: NetworkSize) -> Place {
    let NetworkSize { images, channels, side } = n;
    let given = |name| In { name, shape: [images, side, side, 3], kind: PlaceKind::Given };
    let vector = |name, c| In { name, shape: [images, 1, 1, c], kind: PlaceKind::Vector };
    let sigma = || In { name: "sigma", shape: [images, 1, 1, 2], kind: PlaceKind::Sigma };
    let out = |name| vec![Some(name)];
    let place = |plain, ins, outs, d_outs, params| Place {
        case: "of a batch",
        plain,
        ins,
        outs,
        d_outs,
        params,
    };
    match op {
        "denoise" => {
            let ins = vec![given("x"), given("f"), sigma()];
            place(Plain::Denoised(Precond::Edm), ins, out("d"), vec![], vec![])
        }
        "fir_pad" => {
            let ins = vec![activation("x", [images, side, side, channels])];
            place(Plain::Fir, ins, out("g"), vec![0], vec![])
        }
        "label_embed" => {
            let labels =
                In { name: "labels", shape: [images, 1, 1, 1], kind: PlaceKind::Labels(10) };
            let ins = vec![vector("e", 4 * channels), labels];
            let plain = Plain::LabelEmbed(LabelEmbed { label_dim: 10 });
            place(plain, ins, out("y"), vec![0], vec![("dtable", 1.0), ("db", 1.0)])
        }
        "loss" => {
            let f = In { name: "f", shape: [images, side, side, 3], kind: PlaceKind::Vector };
            let ins = vec![f, given("y"), given("noise"), sigma()];
            let plain = Plain::Loss(Loss { precond: Precond::Vp, batch: 2 * images });
            place(plain, ins, out("loss"), vec![], vec![])
        }
        "noise_embed" => {
            let plain = NoiseEmbed { precond: Precond::Vp, channels, fourier: false };
            place(Plain::NoiseEmbed(plain), vec![sigma()], out("y"), vec![], vec![])
        }
        "precondition" => {
            let ins = vec![given("y"), given("noise"), sigma()];
            place(Plain::Noisy(Precond::Vp), ins, out("xin"), vec![], vec![])
        }
        _ => panic!("no place of that name: {op}"),
    }
}
