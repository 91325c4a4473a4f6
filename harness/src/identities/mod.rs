//! Checking identities: in double-double arithmetic, in the arithmetic of libtorch and of the kernels, with what they must
//! not survive, and after steps of an optimizer.

mod arithmetic;
mod deviation;
mod instance;
mod kernels;
mod training;
mod truth;

use std::time::Instant;

use isonorm_kernels::abi::Dtype;
use isonorm_oracles::formula::Graph;
use isonorm_oracles::identities::{Identity, Size};
use isonorm_oracles::interpret::text::text;
use isonorm_reports::record::{self, Formulas, IdentityVerdict, Number, Point};

use crate::generate::Random;
use arithmetic::{Through, Tolerated};
use instance::{Instance, Shape};
use kernels::Kernels;
use truth::Truth;
pub(crate) use truth::{beyond, worse};

/// What both sides may be apart in double-double arithmetic, relative to the largest value: its 31 digits, less those that
/// whole networks lose.
pub const EXACT: f64 = 1e-24;

/// The element types that identities are checked in.
pub const DTYPES: [Dtype; 3] = [Dtype::F64, Dtype::F32, Dtype::Bf16];

/// How much is asked.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Of sizes, parameters and data.
    pub seed: u64,
    /// Widths that are drawn, from the least to the largest; each with every depth.
    pub widths: usize,
    /// The largest width; wider ranges are cut off there.
    pub widest: usize,
    /// Further cases of random sizes.
    pub random: usize,
    /// Cases for each deviation.
    pub deviating: usize,
    /// Steps of each optimizer.
    pub steps: usize,
}

impl Plan {
    /// What `isonorm identities` asks.
    pub fn full(seed: u64) -> Plan {
        Plan { seed, widths: 5, widest: usize::MAX, random: 8, deviating: 6, steps: 5 }
    }

    /// What a test can afford.
    pub fn quick(seed: u64) -> Plan {
        Plan { seed, widths: 2, widest: 16, random: 1, deviating: 2, steps: 2 }
    }

    /// The shapes of the cases: those that are drawn, then random ones.
    fn shapes(&self, identity: &Identity, random: Random) -> Vec<Shape> {
        let (shallow, deep) = identity.depth;
        let widths = identity.axes.iter().find_map(|axis| match axis.size {
            Size::Width(from, to) => Some((from, to.min(self.widest).max(from))),
            _ => None,
        });
        let (narrow, wide) = widths.unwrap_or((1, 1));
        let ratio = wide as f64 / narrow as f64;
        let mut grid: Vec<usize> = (0..self.widths)
            .map(|step| narrow as f64 * ratio.powf(step as f64 / (self.widths - 1).max(1) as f64))
            .map(|width| width.round() as usize)
            .collect();
        grid.dedup();
        let drawn = (shallow..=deep).flat_map(|depth| grid.iter().map(move |&width| (depth, width)));
        let mut shapes: Vec<Shape> = drawn.map(|(depth, width)| Shape { depth, width, drawn: true }).collect();
        for place in 0..self.random as u64 {
            let depth = shallow + random.below(2 * place, deep - shallow + 1);
            let width = narrow + random.below(2 * place + 1, wide - narrow + 1);
            shapes.push(Shape { depth, width, drawn: false });
        }
        shapes
    }
}

/// Checks an identity in every way.
///
/// # Errors
/// If libtorch or a kernel could not compute a side.
pub fn check(identity: &'static Identity, plan: &Plan) -> Result<record::Identity, String> {
    let started = Instant::now();
    let random = Random::new(plan.seed).named(identity.name);
    let mut found = Found { kernels: Kernels::new()?, ..Found::default() };
    let shapes = plan.shapes(identity, random.named("shapes"));
    for (place, &shape) in shapes.iter().enumerate() {
        found.case(Instance::new(identity, shape, random.named("case").child(place as u64)))?;
    }
    let deviations: Vec<record::Deviation> = identity
        .deviations
        .iter()
        .map(|deviation| deviation::check(identity, deviation, &shapes, plan, random.named(deviation.name)))
        .collect::<Result<_, _>>()?;
    let training: Vec<record::Training> = identity
        .training
        .iter()
        .map(|training| training::check(identity, training, shapes[0], plan.steps, random.named("training")))
        .collect::<Result<_, _>>()?;

    let mut reasons = found.reasons();
    for deviation in deviations.iter().filter(|deviation| deviation.caught < deviation.cases) {
        let (name, caught, cases) = (&deviation.name, deviation.caught, deviation.cases);
        reasons.push(format!("with `{name}` both sides differ in {caught} of {cases} cases only"));
    }
    for training in training.iter().filter(|training| !training.confirmed) {
        let (is, must) = if training.holds { ("differ", "be equal") } else { ("are equal", "differ") };
        let (scheme, optimizer, apart) = (&training.scheme, &training.optimizer, training.discrepancy);
        reasons.push(format!("after {optimizer}, {scheme}, both sides {is} ({apart}) and must {must}"));
    }
    let depth = identity.depth.0;
    let paper = |paper: &isonorm_oracles::operators::Paper| format!("{} ({})", paper.title, paper.reference);
    Ok(record::Identity {
        name: identity.name.to_owned(),
        summary: identity.summary.to_owned(),
        condition: identity.condition.to_owned(),
        formulas: Formulas {
            left: text(&identity.left_graph(depth, None)),
            map_in_words: identity.map_in_words.to_owned(),
            map: text(&primed(identity.map_graph(depth, None))),
            right: text(&identity.right_graph(depth, None)),
        },
        papers: identity.papers.iter().map(paper).collect(),
        verdict: if reasons.is_empty() { IdentityVerdict::Holds } else { IdentityVerdict::Fails },
        reasons,
        cases: shapes.len() as u32,
        exact_discrepancy: Number(found.exact),
        gradient_discrepancy: Number(found.gradient),
        arithmetic: found.arithmetic,
        points: found.points,
        deviations,
        training,
        kernels: found.kernels.used(),
        seconds: Number(started.elapsed().as_secs_f64()),
    })
}

/// The map with a mark at what it makes, which may have the name of what it is made of.
fn primed(mut map: Graph) -> Graph {
    map.outputs.iter_mut().for_each(|output| output.name.push('′'));
    map
}

/// What the cases gave so far.
#[derive(Default)]
struct Found {
    kernels: Kernels,
    exact: f64,
    gradient: f64,
    arithmetic: Vec<record::Arithmetic>,
    points: Vec<Point>,
}

impl Found {
    fn case(&mut self, instance: Instance) -> Result<(), String> {
        let forward = Truth::forward(&instance, None);
        self.exact = worse(self.exact, forward.discrepancy());
        let mut points = vec![point(&instance, "exact", forward.discrepancy(), None)];
        for dtype in DTYPES {
            let rounded = instance.rounded(dtype);
            let tolerated = Tolerated::new(&rounded, Truth::forward(&rounded, None), dtype);
            let libtorch = tolerated.apart(Through::Libtorch)?;
            points.push(point(&instance, dtype.name(), libtorch.discrepancy, Some(libtorch.bound)));
            self.add(dtype, "libtorch", "forward", &libtorch);
            if tolerated.has_applications() {
                let kernels = tolerated.apart(Through::Kernels(&self.kernels))?;
                self.add(dtype, "kernels", "forward", &kernels);
            }
            if let Some(truth) = Truth::gradient(&rounded) {
                let tolerated = Tolerated::new(&rounded, truth, dtype);
                if dtype == Dtype::F64 {
                    self.gradient = worse(self.gradient, tolerated.truth().discrepancy());
                }
                self.add(dtype, "libtorch", "gradient", &tolerated.apart(Through::Libtorch)?);
            }
        }
        if instance.shape.drawn {
            self.points.append(&mut points);
        }
        Ok(())
    }

    fn add(&mut self, dtype: Dtype, through: &str, half: &str, apart: &arithmetic::Apart) {
        let same = |known: &&mut record::Arithmetic| {
            known.dtype == dtype.name() && known.through == through && known.half == half
        };
        if self.arithmetic.iter_mut().find(same).is_none() {
            self.arithmetic.push(record::Arithmetic {
                dtype: dtype.name().to_owned(),
                through: through.to_owned(),
                half: half.to_owned(),
                cases: 0,
                decided: 0,
                ratio_to_bound: Number(0.0),
                discrepancy: Number(0.0),
            });
        }
        if let Some(known) = self.arithmetic.iter_mut().find(same) {
            known.cases += 1;
            known.decided += u32::from(apart.bound < 1.0);
            known.ratio_to_bound = Number(worse(known.ratio_to_bound.0, apart.ratio));
            known.discrepancy = Number(worse(known.discrepancy.0, apart.discrepancy));
        }
    }

    fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for (what, apart) in [("values", self.exact), ("gradients", self.gradient)] {
            if beyond(apart, EXACT) {
                reasons.push(format!("in double-double arithmetic the {what} of both sides are {apart:e} apart"));
            }
        }
        for found in self.arithmetic.iter().filter(|found| beyond(found.ratio_to_bound.0, 1.0)) {
            let record::Arithmetic { dtype, through, half, ratio_to_bound, .. } = found;
            reasons.push(format!("{half} in {dtype} through {through}: {ratio_to_bound} times the bounds apart"));
        }
        reasons
    }
}

fn point(instance: &Instance, dtype: &str, discrepancy: f64, bound: Option<f64>) -> Point {
    Point {
        depth: instance.shape.depth as u32,
        width: instance.shape.width as u32,
        dtype: dtype.to_owned(),
        discrepancy: Number(discrepancy),
        bound: bound.map(Number),
    }
}

#[cfg(test)]
mod tests;
