//! What launches do to memory, compared: a kernel that starts to read a tensor twice is slower on any GPU, and no GPU is needed to see it.

use super::policy::TrafficPolicy;
use super::{Consequence, Gate, Kind, Regression, Undecided};
use crate::record::Number;

/// Compares the figures of all kernels that the PTX executor ran before.
pub(super) fn compare(gate: &mut Gate, policy: &TrafficPolicy) {
    let Gate { before, after, regressions, undecided, .. } = gate;
    for (kernel, then) in &before.kernels {
        let Some(now) = after.kernels.get(kernel) else { continue };
        for (dtype, then) in &then.traffic {
            let Some(now) = now.traffic.get(dtype) else {
                let reason = "the baseline has counted launches, and this run has none".to_owned();
                undecided.push(Undecided { kind: Kind::Traffic, name: format!("{kernel} {dtype}"), reason });
                continue;
            };
            for (figure, now) in now {
                let then = then.get(figure).copied().unwrap_or(Number(0.0));
                if now.0 <= policy.growth * then.0.max(policy.floor) {
                    continue;
                }
                regressions.push(Regression {
                    kind: Kind::Traffic,
                    name: format!("{kernel} {dtype} {figure}"),
                    evidence: format!("{}: grew from {then} to {now}, executed on the PTX executor", meaning(figure)),
                    case: None,
                    finding: None,
                    consequence: Consequence::Fails,
                });
            }
        }
    }
}

/// What a figure says, in words.
fn meaning(figure: &str) -> String {
    match figure.rsplit_once(' ') {
        Some((tensor, "read")) => format!("bytes read of {tensor}, as a multiple of its own"),
        Some((tensor, "written")) => format!("bytes written to {tensor}, as a multiple of its own"),
        Some((tensor, "narrow")) => format!("part of the accesses to {tensor} that move fewer than 16 bytes"),
        Some((tensor, "uncoalesced")) => {
            format!("part of the requests to {tensor} that touch more memory than they have to")
        }
        _ => figure.to_owned(),
    }
}
