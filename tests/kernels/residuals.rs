//! The gradient by a block's residual is left to the norm that writes the same gradient next.

use super::{flats, gpu_device, networks, options, train};
use crate::model::random_data;
use emm::check::golden::rel_err;
use emm::device::{Cpu, Device, GpuLimits, Precision, Target};
use emm::model::{Arch, ModelConfig, Params, Recording, Trainer};
use emm::tape::Mode;

/// Passes of their own that the gradients by residuals of convolutions take.
fn passes(config: &ModelConfig, precision: Precision, limits: GpuLimits) -> usize {
    let (target, mode) = (Target::Cuda(limits), Mode::Training);
    let r = Recording::new(target, config, precision, 16, 16, mode).unwrap();
    let of_convolutions = r.plan.parts().iter().filter(|p| p.op == "conv2d");
    let launches = of_convolutions.flat_map(|p| &r.plan.launches()[p.launches.clone()]);
    launches.filter(|l| l.name().starts_with("scaled_add")).count()
}

#[test]
fn no_block_passes_over_its_residuals_gradient_where_norms_go_in_one_pass() {
    let networks = [Arch::DdpmPP, Arch::NcsnPP].map(|arch| ModelConfig::basic(arch, 32, 3));
    for (config, aux) in networks.iter().zip([0, 2]) {
        for precision in [Precision::Bf16, Precision::Tf32] {
            let limits = GpuLimits { shared_bytes: 163 << 10, ..GpuLimits::LEAST };
            let what = format!("{:?} {precision:?}", config.arch);
            assert_eq!(passes(config, precision, limits), aux, "{what}");
            let several = GpuLimits { slabs: false, ..limits };
            assert!(passes(config, precision, several) > 4 + aux, "{what}");
        }
    }
}

/// The first moments after one step are its gradient times a constant. At a network's start nearly all of it is the last
/// convolution's; what reaches the first has gone by every residual.
#[test]
fn gradients_by_residuals_are_those_of_the_cpu() {
    let data = random_data(20, 5);
    for (config, aux) in networks().iter().zip([0, 1]) {
        assert_eq!(passes(config, Precision::Fp32, GpuLimits::LEAST), aux, "{:?}", config.arch);
        let params = Params::new(config);
        let first = params.get("model.enc.8x8_conv.weight").unwrap();
        let moments = |device: &Device, precision| {
            let new = Trainer::new(device, config, options(precision, 16), &data);
            let mut trainer = new.unwrap();
            train(&mut trainer, 0..1);
            flats(&trainer)[1][first.offset..][..first.len].to_vec()
        };
        let want = moments(&Device::Cpu(Cpu::new(2).unwrap()), Precision::Fp32);
        // A residual of another scale is off by 0.1 at least.
        for (precision, bar) in
            [(Precision::Fp32, 1e-4), (Precision::Tf32, 5e-3), (Precision::Bf16, 3e-2)]
        {
            let off = rel_err(&moments(&gpu_device(), precision), &want).unwrap();
            assert!(off < bar, "{:?} {precision:?}: off by {off:.1e}", config.arch);
        }
    }
}
