//! All that there is to check on a device.

use super::cases::{Case, GOLDENS};
use super::golden::Golden;
use super::wanted::Wanted;
use super::{CaseSize, Check, primitives, real, sampling, searching, training};
use anyhow::Result;
use std::rc::Rc;

/// What has no golden of an op.
const OTHERS: [&str; 6] = ["adam_ema", "prepare_batch", "heun", "optimum", "nearest", "graph"];

/// Names of everything that is checked, in order: a GPU's instructions first, for what they get wrong is wrong
/// everywhere.
pub const OPS: [&str; 1 + GOLDENS.len() + OTHERS.len()] = {
    let mut all = ["primitives"; 1 + GOLDENS.len() + OTHERS.len()];
    let mut i = 0;
    while i < GOLDENS.len() {
        all[1 + i] = GOLDENS[i].0;
        i += 1;
    }
    let mut i = 0;
    while i < OTHERS.len() {
        all[1 + GOLDENS.len() + i] = OTHERS[i];
        i += 1;
    }
    all
};

/// All checks that are wanted, those of an op in a row.
///
/// # Errors
/// A golden that cannot be read.
pub fn list(wanted: &Wanted) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for op in OPS.into_iter().filter(|op| wanted.op.is_none_or(|one| one == *op)) {
        match op {
            "primitives" => checks.extend(primitives::checks(wanted)),
            "adam_ema" => checks.extend(training::adam_checks(wanted)?),
            "prepare_batch" => checks.extend(training::batch_checks(wanted)),
            "heun" => checks.extend(sampling::heun_checks(wanted)),
            "optimum" => checks.extend(sampling::optimum_checks(wanted)),
            "nearest" => checks.extend(searching::checks(wanted)),
            "graph" => checks.extend(training::graph_checks(wanted)),
            _ => {
                if wanted.size(CaseSize::Golden) {
                    checks.extend(goldens(op, wanted)?);
                }
                if wanted.size(CaseSize::Real) {
                    checks.extend(real::checks(op, wanted));
                }
            }
        }
    }
    Ok(checks)
}

/// The cases of an op's golden file.
fn goldens(op: &'static str, wanted: &Wanted) -> Result<Vec<Check>> {
    let bytes = GOLDENS.into_iter().find(|(name, _)| *name == op).expect("an op's golden").1;
    let golden = Rc::new(Golden::parse(bytes)?);
    let cases: Vec<(String, Rc<Case>)> = (golden.cases().into_iter())
        .map(|(name, a)| {
            let case = Case::from_golden(op, &golden, &name, &a);
            (name, Rc::new(case))
        })
        .collect();
    let mut checks = Vec::new();
    for &precision in &wanted.precisions {
        for (name, case) in cases.iter().filter(|(_, case)| case.applies(precision)) {
            let (golden, case, bar) = (golden.clone(), case.clone(), case.bar(precision));
            checks.push(Check {
                op,
                size: CaseSize::Golden,
                precision,
                case: name.clone(),
                bar,
                run: Box::new(move |device| {
                    case.error(&golden, precision, |case, acc, start| {
                        case.run_on(device, precision, acc, start)
                    })
                }),
            });
        }
    }
    Ok(checks)
}

#[cfg(test)]
mod tests {
    use super::super::NetworkSize;
    use super::*;
    use crate::device::Precision;

    #[test]
    fn every_op_has_checks_in_a_row_and_every_golden_is_one() {
        let all = Wanted {
            op: None,
            precisions: vec![Precision::Fp32, Precision::Tf32, Precision::Bf16],
            sizes: vec![CaseSize::Golden, CaseSize::Real],
            on_gpu: true,
            hopper: true,
            network: NetworkSize::default(),
        };
        let checks = list(&all).unwrap();
        let rows: Vec<&str> = checks.chunk_by(|a, b| a.op == b.op).map(|row| row[0].op).collect();
        assert_eq!(rows, OPS);
        for (golden, _) in GOLDENS {
            for size in [CaseSize::Golden, CaseSize::Real] {
                assert!(checks.iter().any(|c| c.op == golden && c.size == size), "{golden}");
            }
        }
        for op in OPS {
            let only = list(&Wanted { op: Some(op), ..all.clone() }).unwrap();
            let of_all = checks.iter().filter(|c| c.op == op);
            let same = |(a, b): (&Check, &Check)| (&a.case, a.precision) == (&b.case, b.precision);
            assert!(only.len() == of_all.clone().count() && only.iter().zip(of_all).all(same));
        }
    }
}
