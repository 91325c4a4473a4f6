//! Strategies: which cases a campaign asks.
//!
//! A case is drawn as a whole from a key, without rejection of what proptest made, and shrinks as data ([`CaseTree`]).

use std::collections::{BTreeMap, BTreeSet};

use isonorm_kernels::abi::{Direction, DtypeSet, KernelInfo, Layouts};
use isonorm_oracles::operators::{Attribute, Operator};
use isonorm_oracles::{Problem, Tensor};
use proptest::strategy::{NewTree, Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::families::{Family, suitable};
use super::layouts::{Layout, in_place_pairs};
use super::{CaseTree, Draws, Random, shapes};
use crate::case::Case;

/// What a kernel, or several, can be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// Which halves; at least one.
    pub directions: Vec<Direction>,
    /// Element types; at least one.
    pub dtypes: Vec<DtypeSet>,
    /// Layouts that must be accepted.
    pub layouts: Layouts,
    /// The most threads a case asks for.
    pub threads: usize,
    /// The only sizes that some axes can have, by name; for a kernel that is compiled for certain sizes.
    pub sizes: Sizes,
}

/// Sizes of axes, by name.
pub type Sizes = BTreeMap<&'static str, Vec<usize>>;

/// Elements of a case whose sizes are not drawn, at most, where its other axes allow that.
const MOST_WITH_SIZES: usize = 1 << 16;

impl Offer {
    /// What a kernel offers.
    pub fn of(kernel: &KernelInfo, threads: usize) -> Self {
        Offer {
            directions: vec![kernel.direction],
            dtypes: kernel.dtypes.clone(),
            layouts: kernel.layouts,
            threads: threads.max(1),
            sizes: Sizes::new(),
        }
    }

    /// Whether all sizes are among those that the axes can have.
    fn takes(&self, problem: &Problem) -> bool {
        self.sizes.iter().all(|(axis, sizes)| sizes.contains(&problem.size(axis)))
    }

    /// Gives the axes sizes that they can have, one for each drawn by `pick`, and the others fewer elements where that makes
    /// too many.
    pub fn resize(&self, dims: &mut BTreeMap<&'static str, Vec<usize>>, mut pick: impl FnMut(&[usize]) -> usize) {
        for (axis, sizes) in &self.sizes {
            dims.insert(axis, vec![pick(sizes)]);
        }
        let elements = |dims: &BTreeMap<&'static str, Vec<usize>>| dims.values().flatten().product::<usize>();
        while !self.sizes.is_empty() && elements(dims) > MOST_WITH_SIZES {
            let others = dims.iter_mut().filter(|(axis, _)| !self.sizes.contains_key(*axis)).flat_map(|(_, dims)| dims);
            match others.max() {
                Some(largest) if *largest > 1 => *largest /= 2,
                _ => break,
            }
        }
    }
}

/// Cases of one operator, as a proptest strategy; see [`cases`].
#[derive(Clone, Debug)]
pub struct Cases {
    operator: &'static Operator,
    offer: Offer,
}

/// Cases of an operator that a kernel with this offer must answer, for proptest.
pub fn cases(operator: &'static Operator, offer: &Offer) -> Cases {
    Cases { operator, offer: offer.clone() }
}

impl Strategy for Cases {
    type Tree = CaseTree;
    type Value = Case;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let mut bits = || proptest::num::u64::ANY.new_tree(runner).map(|tree| tree.current());
        let (seed, index) = (bits()?, bits()? >> 1);
        Ok(case_at(seed, self.operator, &self.offer, index))
    }
}

/// Case `index` of a campaign: the same for the same arguments, whatever was asked before.
///
/// Families, element types and size classes take turns, so that few cases see all of them.
///
/// # Panics
/// If the offer has no direction or no element types.
pub fn case_at(seed: u64, operator: &'static Operator, offer: &Offer, index: u64) -> CaseTree {
    let halves = offer.directions.len() as u64;
    let direction = offer.directions[(index % halves) as usize];
    let turn = index / halves;
    let random = Random::new(seed).named(operator.name).named(direction.name()).child(turn);
    let families = suitable(operator, direction);
    let count = families.len() as u64;
    let (place, round) = ((turn % count) as usize, (turn / count) as usize);
    let types = offer.dtypes.len();
    let plan = Plan {
        operator,
        direction,
        family: families[place],
        dtypes: offer.dtypes[(round + place) % types],
        // Shifted by one each time that the element types have gone round, so that all pairs come.
        class: shapes::class(round + round / (types * shapes::turns()) + 3 * place + round / types),
    };
    CaseTree::new(plan.draw(offer, &mut Draws::new(random)))
}

struct Plan {
    operator: &'static Operator,
    direction: Direction,
    family: &'static Family,
    dtypes: DtypeSet,
    class: &'static shapes::SizeClass,
}

impl Plan {
    fn draw(&self, offer: &Offer, draws: &mut Draws) -> Case {
        let problem = self.problem(offer, draws);
        let mut case = Case { family: self.family, ..Case::plain(problem, draws.bits() >> 32) };
        if draws.chance(1, 3) {
            lay_out(&mut case, &offer.layouts, draws);
        }
        if offer.threads > 1 && draws.chance(1, 4) {
            case.threads = 2 + draws.below(offer.threads - 1);
        }
        case.refreshed = draws.chance(1, 8);
        case.tidy();
        debug_assert_eq!(case.validate(), Ok(()), "{case}");
        case
    }

    fn problem(&self, offer: &Offer, draws: &mut Draws) -> Problem {
        let mut problem = Problem {
            operator: self.operator,
            direction: self.direction,
            dtypes: self.dtypes,
            dims: shapes::draw(self.operator, self.class, draws),
            attributes: BTreeMap::new(),
            given: BTreeSet::new(),
        };
        offer.resize(&mut problem.dims, |sizes| *draws.pick(sizes));
        // Operators say which combinations they are defined for; a few tries find one.
        const TRIES: usize = 12;
        // Afterwards without optional inputs: some sizes are too small for them.
        for attempt in 0..6 * TRIES {
            problem.attributes = self.operator.attributes.iter().filter_map(|a| attribute(a, draws)).collect();
            let forward = self.direction == Direction::Forward;
            let optional = self.operator.inputs.iter().filter(|input| input.optional && (forward || input.in_backward));
            let wanted = |draws: &mut Draws| draws.chance(2, 3) && attempt < TRIES;
            problem.given = optional.filter(|_| wanted(draws)).map(|input| input.name).collect();
            if problem.validate().is_ok() {
                break;
            }
        }
        let mut adapted = problem.clone();
        (self.family.adapt)(&mut adapted, draws);
        if adapted.validate().is_ok() && offer.takes(&adapted) { adapted } else { problem }
    }
}

fn attribute(attribute: &'static Attribute, draws: &mut Draws) -> Option<(&'static str, isonorm_kernels::abi::Value)> {
    if attribute.optional && draws.chance(1, 2) {
        return None;
    }
    // The default comes more often than the others.
    let samples = attribute.domain.samples();
    let place = if draws.chance(1, 3) { 0 } else { draws.below(samples.len()) };
    Some((attribute.name, samples[place].clone()))
}

/// Layouts for some tensors, and outputs in place.
fn lay_out(case: &mut Case, allowed: &Layouts, draws: &mut Draws) {
    let problem = &case.problem;
    let (inputs, outputs) = (problem.inputs(), problem.outputs());
    let fits = |tensor: &Tensor, layout: Layout| layout.allowed(allowed) && layout.check(problem, tensor).is_ok();
    let tensors = || inputs.iter().chain(&outputs);
    if (allowed.channels_last || allowed.strided) && draws.chance(1, 4) {
        // Everything channels last, as frameworks do it; the only mixture for kernels that do not take any strides.
        let those = tensors().filter(|tensor| fits(tensor, Layout::ChannelsLast));
        case.layouts = those.map(|tensor| (tensor.name.clone(), Layout::ChannelsLast)).collect();
    } else if allowed.strided {
        for (place, tensor) in tensors().enumerate() {
            let input = place < inputs.len();
            let layouts: Vec<Layout> = Layout::ALL
                .into_iter()
                .filter(|layout| fits(tensor, *layout) && (input || !layout.overlaps()))
                .collect();
            if draws.chance(1, 2) && !layouts.is_empty() {
                case.layouts.insert(tensor.name.clone(), *draws.pick(&layouts));
            }
        }
    }
    if allowed.in_place && draws.chance(1, 2) {
        for (output, input) in in_place_pairs(problem, &inputs, &outputs) {
            let free = !case.in_place.values().any(|taken| *taken == input);
            if free && draws.chance(1, 2) {
                case.in_place.insert(output, input);
            }
        }
    }
}
