//! Every op at sizes of a network in use: whole tensors beside those of the device's own float32, whose kernels are the
//! general ones, and a few values of each beside their definition in float64.

mod places;

use super::cases::{Case, Ran};
use super::plain::{Of, Sample};
use super::wanted::Wanted;
use super::{CaseSize, Check, Off};
use crate::device::{Acc, Device, Precision};
use anyhow::Result;
use places::{Place, places};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// A case with its values, and what they must give.
struct MadeCase {
    case: Case,
    samples: Vec<Sample>,
    /// The device's own float32, once it was wanted.
    float32: Option<Ran>,
}

/// The case made last: one place's precisions follow one another, and hundreds of megabytes are made once for all.
type Last = Rc<RefCell<Option<(usize, MadeCase)>>>;

/// An op's places at each precision that changes what it computes there.
pub fn checks(op: &'static str, wanted: &Wanted) -> Vec<Check> {
    let last = Last::default();
    let mut checks = Vec::new();
    for (i, place) in places(op, wanted.network).into_iter().enumerate() {
        let empty = place.case(false);
        let place = Arc::new(place);
        let precisions = [Precision::Fp32, Precision::Tf32, Precision::Bf16].into_iter();
        for precision in precisions.filter(|&p| wanted.precision(p) && empty.applies(p)) {
            let (place, last) = (place.clone(), last.clone());
            checks.push(Check {
                op,
                size: CaseSize::Real,
                precision,
                case: place.case.into(),
                bar: empty.bar(precision),
                run: Box::new(move |device| {
                    let mut last = last.borrow_mut();
                    let made = match last.take() {
                        Some((known, made)) if known == i => made,
                        _ => device.host().run(|| make(&place)),
                    };
                    error(&mut last.insert((i, made)).1, device, precision)
                }),
            });
        }
    }
    checks
}

fn make(place: &Place) -> MadeCase {
    let case = place.case(true);
    let samples = place.plain.samples(&case);
    MadeCase { case, samples, float32: None }
}

fn error(made: &mut MadeCase, device: &Device, precision: Precision) -> Result<Off> {
    let MadeCase { case, samples, float32 } = made;
    let run = |precision| case.run_on(device, precision, Acc::Set, 0.0);
    let ran = run(precision)?;
    let mut off = Off::default();
    for sample in samples.iter() {
        let name = sample.of.name(case).expect("what is compared has a name");
        let by = sample.error(case, &ran).map_err(|e| e.context(name.to_string()))?;
        off.take(by, name);
    }
    if precision == Precision::Fp32 {
        *float32 = Some(ran);
        return Ok(off);
    }
    let float32 = match float32 {
        Some(known) => known,
        none => none.insert(run(Precision::Fp32)?),
    };
    for of in Of::all(case) {
        of.beside(case, &ran, float32, &mut off)?;
    }
    Ok(off)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{NetworkSize, OPS, list};
    use crate::device::Cpu;
    use std::collections::BTreeSet;

    const SMALL: NetworkSize = NetworkSize { images: 2, channels: 16, side: 8 };

    fn wanted() -> Wanted {
        Wanted {
            op: None,
            precisions: vec![Precision::Fp32, Precision::Bf16],
            sizes: vec![CaseSize::Real],
            on_gpu: false,
            hopper: false,
            network: SMALL,
        }
    }

    /// Definitions and the CPU's ops know nothing of each other.
    #[test]
    fn the_cpu_agrees_with_the_definitions() {
        let device = Device::Cpu(Cpu::new(2).unwrap());
        let mut seen = BTreeSet::new();
        for check in list(&wanted()).unwrap() {
            let Check { op, precision, case, bar, .. } = &check;
            let what = format!("{op} {case} {precision:?}");
            let off = (check.run)(&device).unwrap_or_else(|e| panic!("{what}: {e:#}"));
            assert!(off.by <= *bar, "{what}: {} off by {:.1e}", off.at, off.by);
            // Something was compared, and at the precision that was asked for.
            assert!(off.by > 0.0 || *bar < 1e-5, "{what}");
            assert!(off.by > 1e-4 || *precision == Precision::Fp32, "{what}: {:.1e}", off.by);
            seen.insert(*op);
        }
        let of_gpus = ["primitives", "adam_ema", "prepare_batch", "heun", "graph"];
        assert!(OPS.iter().all(|op| seen.contains(op) != of_gpus.contains(op)), "{seen:?}");
    }

    /// Every tensor that a case compares has a sample: none goes unseen.
    #[test]
    fn every_tensor_has_values_from_its_definition() {
        for op in OPS.into_iter().filter(|op| wanted_has(op)) {
            for place in places(op, SMALL) {
                let made = make(&place);
                for of in Of::all(&made.case) {
                    let name = of.name(&made.case);
                    let samples = made.samples.iter().filter(|s| s.of == of);
                    let values: usize = samples.map(|s| s.want.len()).sum();
                    assert!(values > 1, "{op} {}: {name:?} has {values}", place.case);
                }
            }
        }
    }

    fn wanted_has(op: &str) -> bool {
        crate::check::cases::GOLDENS.iter().any(|(name, _)| *name == op)
    }

    #[test]
    fn networks_are_three_numbers() {
        assert_eq!("2,16,8".parse(), Ok(SMALL));
        for (text, why) in [
            ("2,16", "three numbers"),
            ("0,16,8", "0 images"),
            ("2,12,8", "12 channels"),
            ("2,16,24", "side of 24"),
        ] {
            let e = text.parse::<NetworkSize>().unwrap_err();
            assert!(e.contains(why), "{e}");
        }
    }
}
