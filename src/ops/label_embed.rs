//! label_embed: y = e + `table[label]`·√L + bias: one row per image, never a product with a one-hot vector.
//!
//! e, y `[N, 1, 1, D]`; labels integers `[N, 1, 1, 1]`; table `[L, D]`, bias `[D]`. The table's gradient is the one
//! place that fills zeros: a batch touches few rows; repeated rows are summed in batch order.

use super::golden::{Described, GoldenCase, GoldenIn, GoldenOut};
use super::later::{ChainSum, RowSum, chain_kernels, row_kernels};
use super::sums::{scaled_add, store, sum_images};
use super::{Direction, Grads, Io, Op, Reads, Shape};
use crate::device::cpu::math;
use crate::device::params::BLOCK_THREADS;
use crate::device::{Acc, Kernel, Launch, Precision, params};
use anyhow::{Result, ensure};

#[derive(Debug, Clone, Copy)]
pub struct LabelEmbed {
    pub label_dim: usize,
}

impl LabelEmbed {
    fn scale(&self) -> f32 {
        (self.label_dim as f64).sqrt() as f32
    }
}

impl LabelEmbed {
    /// The op of a golden's case.
    pub fn golden(case: &Described) -> GoldenCase {
        let op = LabelEmbed { label_dim: case.size("label_dim") };
        let ins = [GoldenIn::Float32("e"), GoldenIn::Int32("labels")];
        GoldenCase::new(op, &ins, &["table", "b"], &[GoldenOut::Differentiated("y")])
    }
}

impl Op for LabelEmbed {
    fn name(&self) -> &'static str {
        "label_embed"
    }

    fn outputs(&self, ins: &[Shape]) -> Result<Vec<Shape>> {
        ensure!(
            ins.len() == 2 && ins[1] == [ins[0][0], 1, 1, 1],
            "label_embed: e [N, 1, 1, D] and labels [N, 1, 1, 1] wanted, {ins:?} given"
        );
        Ok(vec![ins[0]])
    }

    fn param_lens(&self, ins: &[Shape]) -> Vec<usize> {
        vec![self.label_dim * ins[0][3], ins[0][3]]
    }

    fn reads(&self, _ins: &[Shape]) -> Reads {
        Reads { ins: vec![1], outs: vec![] }
    }

    fn fwd(&self, io: &Io) -> Launch {
        let (op, io) = (*self, io.clone());
        let d = io.shapes[0][3];
        Launch::new("label_embed_fwd", 0, move |b| {
            for (n, &label) in b.get_u32(io.ins[1]).iter().enumerate() {
                let y = b.get_mut(io.outs[0].part(n * d, d));
                y.copy_from_slice(b.get(io.ins[0].part(n * d, d)));
                math::add_scaled(y, op.scale(), b.get(io.params[0].part(label as usize * d, d)));
                math::add(y, b.get(io.params[1]));
            }
        })
    }

    fn bwd(&self, io: &Io, grads: &Grads) -> Launch {
        let (op, io, grads) = (*self, io.clone(), grads.clone());
        let d = io.shapes[0][3];
        let dy = grads.outs[0].expect("label_embed's output has a gradient");
        Launch::new("label_embed_bwd", 0, move |b| {
            let (table, bias) = (grads.params[0], grads.params[1]);
            if table.acc == Acc::Set {
                b.get_mut(table.slot).fill(0.0);
            }
            for (n, &label) in b.get_u32(io.ins[1]).iter().enumerate() {
                let row = b.get_mut(table.slot.part(label as usize * d, d));
                math::add_scaled(row, op.scale(), b.get(dy.part(n * d, d)));
            }
            sum_images(b.get_mut(bias.slot), bias.acc, b.get(dy));
            if let Some(de) = grads.ins[0] {
                store(b.get_mut(de.slot), de.acc, b.get(dy));
            }
        })
    }

    fn kernel_temp_words(
        &self,
        ins: &[Shape],
        _precision: Precision,
        direction: Direction,
    ) -> usize {
        match direction {
            Direction::Fwd => 0,
            Direction::Bwd => 2 * ins[0][0],
        }
    }

    fn kernels(&self, io: &Io, grads: Option<&Grads>) -> Vec<Kernel> {
        let ([n, _, _, d], labels, scale) = (io.shapes[0], io.ins[1], self.scale());
        let Some(grads) = grads else {
            let arguments = params!(LabelEmbedFwd {
                y: io.outs[0],
                e: io.ins[0],
                labels,
                table: io.params[0],
                bias: io.params[1],
                n,
                d,
                scale,
            });
            return vec![Kernel::new(
                params::LABEL_EMBED_FWD,
                (n * d).div_ceil(BLOCK_THREADS),
                arguments,
            )];
        };
        let dy = grads.outs[0].expect("label_embed's output has a gradient");
        let (table, bias) = (grads.params[0], grads.params[1]);
        let (next, head) = (io.temp.part(0, n), io.temp.part(n, n));
        let mut list = chain_kernels(&[ChainSum::zeros(table, self.label_dim, d, d, 0)]);
        list.extend([
            Kernel::new(
                params::LABEL_ROWS,
                n.div_ceil(BLOCK_THREADS),
                params!(LabelRows { next, head, labels, n }),
            ),
            Kernel::new(
                params::LABEL_EMBED_BWD,
                [d.div_ceil(BLOCK_THREADS), n],
                params!(LabelEmbedBwd { dtable: table.slot, dy, labels, next, head, d, scale }),
            ),
        ]);
        let of_bias = RowSum { dst: bias, src: dy, src_row: d, rows: n, columns: d, scale: 1.0 };
        list.extend(row_kernels(&[of_bias]));
        list.extend(grads.ins[0].map(|de| scaled_add(de, dy, 1.0)));
        list
    }
}
