//! What an identity must not survive.

use isonorm_oracles::identities::{Deviation, Identity, Wrong};
use isonorm_reports::record::{self, Number};

use super::arithmetic::{Through, Tolerated};
use super::instance::{Instance, Shape};
use super::truth::{Truth, beyond};
use super::{DTYPES, EXACT, Plan};
use crate::generate::Random;

/// Looks for the difference that it must make.
///
/// # Errors
/// If libtorch could not compute a side.
pub fn check(
    identity: &'static Identity,
    deviation: &'static Deviation,
    shapes: &[Shape],
    plan: &Plan,
    random: Random,
) -> Result<record::Deviation, String> {
    let (mut caught, mut least) = (0, f64::INFINITY);
    let mut caught_in: Vec<(String, u32)> = DTYPES.iter().map(|dtype| (dtype.name().to_owned(), 0)).collect();
    for place in 0..plan.deviating {
        let shape = shapes[random.below(place as u64, shapes.len())];
        let instance = Instance::new(identity, shape, random.child(place as u64));
        let apart = Truth::forward(&instance, Some(deviation.name)).discrepancy();
        caught += u32::from(beyond(apart, EXACT));
        least = least.min(apart);
        for (dtype, (_, count)) in DTYPES.into_iter().zip(&mut caught_in) {
            let rounded = instance.rounded(dtype);
            let tolerated = Tolerated::new(&rounded, Truth::forward(&rounded, Some(deviation.name)), dtype);
            *count += u32::from(beyond(tolerated.apart(Through::Libtorch)?.ratio, 1.0));
        }
    }
    Ok(record::Deviation {
        name: deviation.name.to_owned(),
        kind: match deviation.wrong {
            Wrong::Condition => "condition".to_owned(),
            Wrong::Planted => "planted".to_owned(),
        },
        cases: plan.deviating as u32,
        caught,
        caught_in,
        least_discrepancy: Number(least),
    })
}
