//! Only what is right is measured: every program gives what its formula gives in f64.

use std::collections::BTreeMap;

use isonorm_oracles::claims::{Comparison, Level, Part, Shape, UNIT};
use tch::{Device, Kind, Tensor};

use super::dimensions;
use super::network::{Network, Results, Shared, Trouble, Way};
use crate::identities::{beyond, worse};

/// What f32 may be away from the truth, relative to the largest value: some hundred roundings for a norm, and what layers of
/// them make of that. A forgotten ε, mean or fold is farther: data and parameters are such that each counts.
const WITHIN: [f64; 2] = [1e-5, 1e-4];
/// Units that whole numbers may be away: half of one for the last rounding, and as much for those before.
const WHOLE: f64 = 1.0;
/// What two ways of the same function may be apart in f64.
const SAME: f64 = 1e-10;

/// What the check found.
#[derive(Debug, Default)]
pub struct Found {
    /// Of each program, the largest distance from the truth, relative to the largest value.
    pub errors: Vec<f64>,
    /// What is wrong, in words.
    pub wrong: Vec<String>,
}

/// Runs every program in f32, and its definition in f64 on the same data and parameters: output, and in training all
/// gradients. A program that is said to be another way of the same function is compared with that one.
///
/// # Errors
/// Why a program does not run.
pub fn check(comparison: &Comparison, shape: Shape, shared: &Shared, all: &[Network]) -> Result<Found, String> {
    let within = WITHIN[usize::from(comparison.level == Level::Block)];
    let mut truths: BTreeMap<&str, (Vec<Part>, Results)> = BTreeMap::new();
    let mut found = Found::default();
    for (program, network) in comparison.programs.iter().zip(all) {
        let say = |trouble: Trouble| format!("{}: {trouble}", program.name);
        let parts: Vec<Part> = (program.parts)(shape).iter().map(Part::function).collect();
        let way = Way { pass: comparison.pass, kind: Kind::Double, threads: 1, device: Device::Cpu };
        let truth = || Network::new(parts.clone(), &dimensions(shape), shared, way).and_then(|truth| truth.run());
        let root = program.same_as.unwrap_or(program.name);
        match truths.get(root) {
            // Another way in f32 only: in f64 the very same.
            Some((known, _)) if *known == parts => {}
            Some((_, known)) => {
                let apart = distance(known, &truth().map_err(say)?).map_err(say)?;
                if beyond(apart, SAME) {
                    found.wrong.push(format!("{} is not {root}: {apart:.1e} apart in f64", program.name));
                }
            }
            None => {
                let results = truth().map_err(say)?;
                truths.insert(root, (parts, results));
            }
        }
        let (_, truth) = &truths[root];
        let results = network.run().map_err(say)?;
        let whole = results.output.kind() == Kind::Int8;
        let within = if whole { WHOLE * UNIT / largest(&truth.output).map_err(say)? } else { within };
        let error = distance(truth, &results).map_err(say)?;
        if beyond(error, within) {
            found.wrong.push(format!("{} is {error:.1e} away from the truth, more than {within:.0e}", program.name));
        }
        found.errors.push(error);
    }
    Ok(found)
}

fn largest(tensor: &Tensor) -> Result<f64, Trouble> {
    Ok(tensor.f_abs()?.f_max()?.f_double_value(&[])?)
}

/// The largest difference, relative to the largest value: of the output, or of all gradients together.
fn distance(truth: &Results, given: &Results) -> Result<f64, Trouble> {
    let apart = |truth: &Tensor, given: &Tensor| -> Result<(f64, f64), Trouble> {
        if truth.size() != given.size() {
            return Ok((f64::INFINITY, 1.0));
        }
        let given = given.f_to_device(Device::Cpu)?;
        let given = if given.kind() == Kind::Int8 { given.f_mul_scalar(UNIT)? } else { given.shallow_clone() };
        let difference = truth.f_sub(&given.f_to_kind(Kind::Double)?)?.f_abs()?.f_max()?.f_double_value(&[])?;
        Ok((difference, largest(truth)?))
    };
    let (difference, largest) = apart(&truth.output, &given.output)?;
    let mut worst = difference / largest;
    let (mut difference, mut largest) = (0.0f64, 0.0f64);
    for (name, gradient) in &truth.gradients {
        let Some(other) = given.gradients.get(name) else { return Ok(f64::INFINITY) };
        let (apart, size) = apart(gradient, other)?;
        difference = worse(difference, apart);
        largest = largest.max(size);
    }
    if largest > 0.0 {
        worst = worse(worst, difference / largest);
    }
    Ok(worst)
}
