//! Floating-point operations of a network, as the direct algorithms need them: 2 × the multiply-adds of its
//! convolutions, linear layers and attention products. Rates of faster algorithms are quoted in these.

use super::config::ModelConfig;
use super::layout::{Kind, Layout};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flops {
    /// One evaluation of the network, per image.
    pub forward: u64,
    /// Forward and backward, per image: every product is differentiated for both factors (attention: two
    /// products forward, four backward), save that the image and the noise level need no gradient.
    pub train: u64,
}

/// FLOP per image of `config`, which must be valid.
pub fn flops(config: &ModelConfig) -> Flops {
    let layout = Layout::new(config);
    let emb = 4 * config.model_channels;
    let linear = |i: usize, o: usize| i * o;
    let conv = |i: usize, o: usize, k: usize, r: usize| i * o * k * k * r * r;
    let noise = linear(config.noise_channels(), emb);
    let mut sum = noise + linear(emb, emb);
    // What the labels' table is added to needs one.
    let mut of_inputs = if config.label_dim > 0 { 0 } else { noise };
    for part in layout.parts() {
        let (i, o, r) = (part.cin, part.cout, part.resolution);
        if part.kind != Kind::Block {
            let products = conv(i, o, 3, r);
            // The first convolution, and NCSN++'s first aux branch. Aux branches count at their output's
            // resolution: their filter commutes with the convolution.
            if i == config.image_channels {
                of_inputs += products;
            }
            sum += products;
            continue;
        }
        sum += conv(i, o, 3, r) + linear(emb, o) + conv(o, o, 3, r);
        if part.has_skip_conv() {
            sum += conv(part.shortcut_channels(), o, 1, r);
        }
        if part.attention {
            let pixels = r * r;
            sum += conv(o, 3 * o, 1, r) + 2 * pixels * pixels * o + conv(o, o, 1, r);
        }
    }
    sum += conv(layout.out_channels, config.image_channels, 3, config.resolution);
    let (sum, of_inputs) = (2 * sum as u64, 2 * of_inputs as u64);
    Flops { forward: sum, train: 3 * sum - of_inputs }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Arch;

    #[test]
    fn the_basic_model_costs_what_was_counted_by_hand() {
        let f = flops(&ModelConfig::basic(Arch::DdpmPP, 32, 3));
        assert!((f.forward as f64 / 1e9 - 25.42).abs() < 0.005, "{f:?}");
        assert!((f.train as f64 / 1e9 - 76.24).abs() < 0.005, "{f:?}");
    }
}
