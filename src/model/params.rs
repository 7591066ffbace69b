//! The list of parameters: one entry per tensor, in EDM's module order, and where each lies in the flat buffers: in the
//! same order, but for the blocks' `affine`, which come first.

use super::config::{Embedding, ModelConfig};
use super::layout::{Kind, Layout};
use crate::rng::{Stream, fill_normals, philox, tag, unit};
use crate::tape::Param;
use std::collections::HashMap;

/// How a tensor lies in the master buffer, next to its PyTorch shape in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// The same in both: vectors and linear weights [out, in].
    Plain,
    /// File [out, in, k, k], master [out, k, k, in].
    Conv,
    /// File [3·C, C, 1, 1] with row c·3 + {q,k,v}, master rows [q | k | v].
    Qkv,
    /// Vector [3·C] of the qkv bias, permuted alike.
    QkvBias,
    /// File [channel, label], master [label, channel].
    LabelTable,
}

/// Distribution of the initial values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    Zeros,
    Ones,
    /// U(−a, a), a = scale · √(6 / (fan_in + fan_out)).
    Xavier {
        fan_in: usize,
        fan_out: usize,
        scale: f64,
    },
}

/// What a tensor lies beside in the flat buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// Alone, from the beginning of a cache line.
    Nothing,
    /// The same of all blocks' `affine`: [`Params::affine`] of this index.
    Affine(usize),
}

#[derive(Debug, Clone, PartialEq)]
pub struct ParamSpec {
    /// EDM's module path with the leading `model.`.
    pub name: String,
    /// PyTorch shape, as in files.
    pub shape: Vec<usize>,
    pub storage: Storage,
    pub init: Init,
    pub beside: Beside,
    /// First element in the flat buffers (in f32): a multiple of 16, that is 64 bytes, but where one block's `affine`
    /// follows another's.
    pub offset: usize,
    pub len: usize,
}

/// All parameters of a network and the length of a flat buffer that holds them.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    pub specs: Vec<ParamSpec>,
    /// Weights [Σ channels, 4·C] and biases [Σ channels] of all blocks' `affine`, in the blocks' order: one linear of the
    /// embedding that they share.
    pub affine: [Param; 2],
    /// Length of w, gradient, m, v, EMA in f32, padding included (padding stays 0).
    pub flat_len: usize,
    /// Indices into `specs`: deep networks have tens of thousands.
    by_name: HashMap<String, usize>,
    by_offset: HashMap<usize, usize>,
}

/// Scale of the initial weights of convolutions that end a branch: the block starts as the identity.
const NEAR_ZERO: f64 = 1e-5;

/// Offsets are multiples of this many f32: 64 bytes; those of the blocks' `affine` among themselves are not.
const ALIGN: usize = 16;

impl Params {
    /// The parameters of `config`, which must be valid.
    pub fn new(config: &ModelConfig) -> Self {
        let nowhere = Param { offset: 0, len: 0 };
        let mut p = Params {
            specs: Vec::new(),
            affine: [nowhere; 2],
            flat_len: 0,
            by_name: HashMap::new(),
            by_offset: HashMap::new(),
        };
        let layout = Layout::new(config);
        let (noise, emb) = (config.noise_channels(), 4 * config.model_channels);
        if config.label_dim > 0 {
            p.linear("map_label", config.label_dim, noise, Storage::LabelTable);
        }
        p.linear("map_layer0", noise, emb, Storage::Plain);
        p.linear("map_layer1", emb, emb, Storage::Plain);
        for part in layout.parts() {
            let name = &part.name;
            if part.kind != Kind::Block {
                p.conv(name, part.cin, part.cout, 3, 1.0);
                continue;
            }
            let at = |module: &str| format!("{name}.{module}");
            p.norm(&at("norm0"), part.cin);
            p.conv(&at("conv0"), part.cin, part.cout, 3, 1.0);
            p.linear(&at("affine"), emb, part.cout, Storage::Plain);
            p.beside_others();
            p.norm(&at("norm1"), part.cout);
            p.conv(&at("conv1"), part.cout, part.cout, 3, NEAR_ZERO);
            if part.has_skip_conv() {
                p.conv(&at("skip"), part.cin, part.cout, 1, 1.0);
            }
            if part.attention {
                p.norm(&at("norm2"), part.cout);
                p.qkv(&at("qkv"), part.cout);
                p.conv(&at("proj"), part.cout, part.cout, 1, NEAR_ZERO);
            }
        }
        p.norm(&layout.aux_norm, layout.out_channels);
        p.conv(&layout.aux_conv, layout.out_channels, config.image_channels, 3, NEAR_ZERO);
        p.place();
        p
    }

    /// Gives every tensor its place.
    fn place(&mut self) {
        for (which, all) in self.affine.iter_mut().enumerate() {
            all.offset = self.flat_len;
            for spec in self.specs.iter_mut().filter(|s| s.beside == Beside::Affine(which)) {
                spec.offset = all.offset + all.len;
                all.len += spec.len;
            }
            self.flat_len = (all.offset + all.len).next_multiple_of(ALIGN);
        }
        for spec in self.specs.iter_mut().filter(|s| s.beside == Beside::Nothing) {
            spec.offset = self.flat_len;
            self.flat_len += spec.len.next_multiple_of(ALIGN);
        }
        self.by_offset = self.specs.iter().enumerate().map(|(i, s)| (s.offset, i)).collect();
    }

    fn push(&mut self, name: String, shape: Vec<usize>, storage: Storage, init: Init) {
        let len = shape.iter().product();
        let name = format!("model.{name}");
        self.by_name.insert(name.clone(), self.specs.len());
        let beside = Beside::Nothing;
        self.specs.push(ParamSpec { name, shape, storage, init, beside, offset: 0, len });
    }

    fn norm(&mut self, name: &str, channels: usize) {
        self.push(format!("{name}.weight"), vec![channels], Storage::Plain, Init::Ones);
        self.push(format!("{name}.bias"), vec![channels], Storage::Plain, Init::Zeros);
    }

    fn linear(&mut self, name: &str, fan_in: usize, fan_out: usize, storage: Storage) {
        let init = Init::Xavier { fan_in, fan_out, scale: 1.0 };
        self.push(format!("{name}.weight"), vec![fan_out, fan_in], storage, init);
        self.push(format!("{name}.bias"), vec![fan_out], Storage::Plain, Init::Zeros);
    }

    /// The linear just listed is one of the blocks' `affine`.
    fn beside_others(&mut self) {
        let linear = self.specs.iter_mut().rev().take(2).rev();
        linear.enumerate().for_each(|(which, spec)| spec.beside = Beside::Affine(which));
    }

    fn conv(&mut self, name: &str, cin: usize, cout: usize, k: usize, scale: f64) {
        let init = Init::Xavier { fan_in: cin * k * k, fan_out: cout * k * k, scale };
        self.push(format!("{name}.weight"), vec![cout, cin, k, k], Storage::Conv, init);
        self.push(format!("{name}.bias"), vec![cout], Storage::Plain, Init::Zeros);
    }

    fn qkv(&mut self, name: &str, c: usize) {
        let init = Init::Xavier { fan_in: c, fan_out: 3 * c, scale: 0.2f64.sqrt() };
        self.push(format!("{name}.weight"), vec![3 * c, c, 1, 1], Storage::Qkv, init);
        self.push(format!("{name}.bias"), vec![3 * c], Storage::QkvBias, Init::Zeros);
    }

    /// Number of trainable values, padding not counted.
    pub fn count(&self) -> usize {
        self.specs.iter().map(|s| s.len).sum()
    }

    /// The tensor of that name, which includes the leading `model.`.
    pub fn get(&self, name: &str) -> Option<&ParamSpec> {
        self.by_name.get(name).map(|&i| &self.specs[i])
    }

    /// The tensor that begins at this element of the flat buffers.
    pub fn at(&self, offset: usize) -> Option<&ParamSpec> {
        self.by_offset.get(&offset).map(|&i| &self.specs[i])
    }

    /// Initial values for `seed` in master order.
    ///
    /// Element i of parameter p, counted in PyTorch order, is word i mod 4 of Philox at counter
    /// (⌊i/4⌋, 0, 0, (Init, p)): computed in float64, rounded once.
    pub fn init(&self, seed: u64) -> Vec<f32> {
        let mut flat = vec![0.0; self.flat_len];
        for (index, spec) in self.specs.iter().enumerate() {
            let values: Vec<f32> = match spec.init {
                Init::Zeros => continue,
                Init::Ones => vec![1.0; spec.len],
                Init::Xavier { fan_in, fan_out, scale } => {
                    let bound = scale * (6.0 / (fan_in + fan_out) as f64).sqrt();
                    let words =
                        |block| philox([block, 0, 0, tag(Stream::Init, index as u32)], seed);
                    (0..spec.len.div_ceil(4) as u32)
                        .flat_map(words)
                        .take(spec.len)
                        .map(|w| ((2.0 * unit(w) - 1.0) * bound) as f32)
                        .collect()
                }
            };
            self.from_torch(spec, &values, &mut flat);
        }
        flat
    }

    /// One tensor in PyTorch order, out of a flat buffer in master order.
    pub fn to_torch(&self, spec: &ParamSpec, flat: &[f32]) -> Vec<f32> {
        let master = &flat[spec.offset..][..spec.len];
        if spec.storage == Storage::Plain {
            return master.to_vec();
        }
        let mut values = vec![0.0; spec.len];
        spec.for_each_place(|file, place| values[file] = master[place]);
        values
    }

    /// Puts one tensor given in PyTorch order into a flat buffer.
    pub fn from_torch(&self, spec: &ParamSpec, values: &[f32], flat: &mut [f32]) {
        assert_eq!(values.len(), spec.len, "{}: wrong number of values", spec.name);
        let master = &mut flat[spec.offset..][..spec.len];
        if spec.storage == Storage::Plain {
            return master.copy_from_slice(values);
        }
        spec.for_each_place(|file, place| master[place] = values[file]);
    }
}

impl ParamSpec {
    /// Calls `f(index in PyTorch order, index in master order)` for every element.
    fn for_each_place(&self, mut f: impl FnMut(usize, usize)) {
        // Master index = the two index ranges [rows, columns] of the file seen as a matrix, exchanged
        // (Conv: per output channel; LabelTable: whole; Qkv: rows c·3 + j seen as [c, 3] go to [3, c]).
        let (outer, rows, columns, inner) = match self.storage {
            Storage::Plain => (1, 1, 1, self.len),
            Storage::Conv => (self.shape[0], self.shape[1], self.shape[2] * self.shape[3], 1),
            Storage::LabelTable => (1, self.shape[0], self.shape[1], 1),
            Storage::Qkv => (1, self.shape[0] / 3, 3, self.shape[1]),
            Storage::QkvBias => (1, self.shape[0] / 3, 3, 1),
        };
        let mut file = 0;
        for o in 0..outer {
            for row in 0..rows {
                for column in 0..columns {
                    let place = ((o * columns + column) * rows + row) * inner;
                    for i in 0..inner {
                        f(file, place + i);
                        file += 1;
                    }
                }
            }
        }
    }
}

/// Fourier frequencies f_i ~ 16·N(0,1) of `model.map_noise.freqs`, a buffer drawn from the seed (rounded to f32).
/// Empty for a positional embedding.
pub fn fourier_freqs(config: &ModelConfig, seed: u64) -> Vec<f32> {
    if config.embedding != Embedding::Fourier {
        return Vec::new();
    }
    // Layer 0xFFFF of the initial weights' stream, which no parameter has.
    let mut freqs = vec![0.0; config.noise_channels() / 2];
    fill_normals(&mut freqs, 0, 0, tag(Stream::Init, 0xFFFF), seed);
    freqs.iter_mut().for_each(|f| *f *= 16.0);
    freqs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Arch;

    fn basic(f: impl FnOnce(&mut ModelConfig)) -> ModelConfig {
        let mut c = ModelConfig::basic(Arch::DdpmPP, 32, 3);
        f(&mut c);
        c.skip_connections = vec![1; c.num_skips()];
        c.check().unwrap();
        c
    }

    /// The public networks' parameter counts, to the last digit.
    #[test]
    fn counts_are_the_public_ones() {
        let cases = [
            (basic(|_| ()), 35_125_251),
            (basic(|c| c.model_channels = 192), 78_984_195),
            (basic(|c| c.model_channels = 256), 140_374_019),
            (basic(|c| c.model_channels = 320), 219_294_723),
            (basic(|c| c.num_blocks = 4), 55_732_739),
            (basic(|c| c.num_blocks = 12), 138_162_691),
            (basic(|c| c.label_dim = 10), 35_126_659),
            (ModelConfig::basic(Arch::NcsnPP, 32, 3), 35_788_035),
        ];
        for (config, want) in cases {
            assert_eq!(Params::new(&config).count(), want, "{config:?}");
        }
    }

    #[test]
    fn offsets_are_aligned_and_disjoint() {
        // Of the second's `affine` a weight has 200 values, which are no whole lines.
        let narrow = ModelConfig { model_channels: 5, ..ModelConfig::basic(Arch::DdpmPP, 8, 1) };
        for config in [ModelConfig::basic(Arch::NcsnPP, 8, 1), narrow] {
            let p = Params::new(&config);
            let mut specs: Vec<_> = p.specs.iter().collect();
            specs.sort_by_key(|s| s.offset);
            let mut end = 0;
            for s in specs {
                assert!(
                    s.offset.is_multiple_of(ALIGN) || s.beside != Beside::Nothing,
                    "{}",
                    s.name
                );
                assert!(s.offset >= end, "{}", s.name);
                end = s.offset + s.len;
            }
            assert!(p.flat_len >= end && p.flat_len.is_multiple_of(ALIGN));
        }
    }

    #[test]
    fn all_affine_are_one_linear_in_the_order_of_the_blocks() {
        let config = ModelConfig { channel_mult: vec![1, 3], ..basic(|c| c.model_channels = 20) };
        let p = Params::new(&config);
        for (all, kind) in p.affine.iter().zip(["weight", "bias"]) {
            let mut end = all.offset;
            assert_eq!(end % ALIGN, 0);
            for part in Layout::new(&config).parts().filter(|p| p.kind == Kind::Block) {
                let spec = p.get(&format!("model.{}.affine.{kind}", part.name)).unwrap();
                assert_eq!((spec.offset, spec.shape[0]), (end, part.cout), "{}", spec.name);
                end += spec.len;
            }
            assert_eq!(end, all.offset + all.len);
        }
    }

    #[test]
    fn permutations_round_trip_and_put_elements_where_documented() {
        let p = Params::new(&basic(|c| {
            c.model_channels = 32;
            c.label_dim = 5;
        }));
        let mut flat = vec![0.0; p.flat_len];
        for s in &p.specs {
            let values: Vec<f32> = (0..s.len).map(|i| i as f32).collect();
            p.from_torch(s, &values, &mut flat);
            assert_eq!(p.to_torch(s, &flat), values, "{}", s.name);
            let at = |i: usize| flat[s.offset + i] as usize;
            match s.storage {
                Storage::Plain => assert_eq!(at(s.len - 1), s.len - 1),
                Storage::Conv => {
                    let (ci, k) = (s.shape[1], s.shape[2]);
                    let (o, y, x, i) = (s.shape[0] - 1, k - 1, 0, ci / 2);
                    let master = ((o * k + y) * k + x) * ci + i;
                    assert_eq!(at(master), ((o * ci + i) * k + y) * k + x, "{}", s.name);
                }
                Storage::Qkv => {
                    let c = s.shape[1];
                    assert_eq!(at((2 * c + 7) * c + 3), (7 * 3 + 2) * c + 3, "{}", s.name);
                }
                Storage::QkvBias => assert_eq!(at(s.len / 3 + 7), 7 * 3 + 1),
                Storage::LabelTable => assert_eq!(at(4 * s.shape[0] + 9), 9 * 5 + 4),
            }
        }
    }

    #[test]
    fn initial_weights_fill_their_range_and_no_more() {
        let config = basic(|c| c.model_channels = 32);
        let p = Params::new(&config);
        let flat = p.init(1024);
        assert_ne!(flat, p.init(1025));
        for s in &p.specs {
            let w = &flat[s.offset..][..s.len];
            match s.init {
                Init::Zeros => assert!(w.iter().all(|&x| x == 0.0)),
                Init::Ones => assert!(w.iter().all(|&x| x == 1.0)),
                Init::Xavier { fan_in, fan_out, scale } => {
                    let bound = scale * (6.0 / (fan_in + fan_out) as f64).sqrt();
                    let largest = w.iter().fold(0f64, |m, &x| m.max((x as f64).abs()));
                    assert!(largest <= bound * (1.0 + 1e-6), "{}", s.name);
                    assert!(largest > bound * 0.98, "{}", s.name);
                    let mean = w.iter().map(|&x| x as f64).sum::<f64>() / s.len as f64;
                    let sigma = bound / (3.0 * s.len as f64).sqrt();
                    assert!(mean.abs() < 5.0 * sigma, "{}: mean {mean}", s.name);
                }
            }
        }
    }

    #[test]
    fn a_width_that_does_not_divide_names_the_layer() {
        let mut c = ModelConfig::basic(Arch::DdpmPP, 32, 3);
        c.model_channels = 36;
        let e = c.check().unwrap_err().to_string();
        assert!(e.starts_with("--channels: 36 gives "), "{e}");
        assert!(e.contains("norm"), "{e}");
    }

    #[test]
    fn frequencies_are_normal_times_sixteen() {
        let mut c = ModelConfig::basic(Arch::NcsnPP, 32, 3);
        c.model_channels = 4096;
        let f = fourier_freqs(&c, 7);
        assert_eq!(f.len(), 4096);
        let mean = f.iter().map(|&x| x as f64).sum::<f64>() / 4096.0;
        let var = f.iter().map(|&x| (x as f64).powi(2)).sum::<f64>() / 4096.0;
        assert!(mean.abs() < 1.25 && (var / 256.0 - 1.0).abs() < 0.12, "{mean} {var}");
        assert!(fourier_freqs(&ModelConfig::basic(Arch::DdpmPP, 32, 3), 7).is_empty());
    }
}
