//! Sizes: mostly small, mostly at edges.

use std::collections::{BTreeMap, BTreeSet};

use isonorm_kernels::abi::{Direction, DtypeSet};
use isonorm_oracles::Problem;
use isonorm_oracles::operators::{AxisKind, AxisSpec, Operator};

use super::Draws;
use crate::case::Case;

/// Sizes that ask the same of a kernel.
#[derive(Debug)]
pub struct SizeClass {
    /// What they are.
    pub name: &'static str,
    /// The size of the axis that the case is about.
    pub sizes: &'static [usize],
    /// Its turns among sixteen.
    pub turns: usize,
}

/// Every class. Tiny sizes come most: the error bounds are tightest there.
pub static SIZE_CLASSES: [SizeClass; 6] = [
    SizeClass { name: "tiny", sizes: &[1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 17], turns: 7 },
    SizeClass { name: "lanes", sizes: &[3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65], turns: 4 },
    SizeClass { name: "powers", sizes: &[127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025], turns: 2 },
    // Sizes at which shipped kernels went wrong.
    SizeClass { name: "reported", sizes: &[17, 33, 259, 320, 768, 769, 960, 2049, 3584], turns: 1 },
    SizeClass { name: "any", sizes: &[10, 11, 13, 14, 19, 23, 29, 37, 50, 71, 100, 150], turns: 1 },
    SizeClass { name: "empty", sizes: &[0], turns: 1 },
];

/// Sizes of the axes that a case is not about.
const ASIDE: [usize; 12] = [1, 1, 2, 2, 3, 4, 5, 7, 9, 16, 17, 33];
/// The same for rows and samples: more of them tell more, because every slice has values of another kind.
const ASIDE_BATCH: [usize; 12] = [1, 2, 3, 4, 5, 7, 9, 16, 17, 33, 64, 100];
/// The same for all axes of a case that may be larger.
const ASIDE_LARGER: [usize; 9] = [1, 7, 33, 64, 255, 256, 257, 1000, 4099];
/// Elements of most cases, at most.
const BUDGETS: [usize; 3] = [150, 500, 1200];
/// Elements of one case in forty, at most.
const LARGER_BUDGET: usize = 1 << 16;

/// The class of the `turn`th case.
pub(super) fn class(turn: usize) -> &'static SizeClass {
    let total: usize = SIZE_CLASSES.iter().map(|class| class.turns).sum();
    // An odd step scatters the turns of a class.
    let mut place = turn.wrapping_mul(7) % total;
    SIZE_CLASSES
        .iter()
        .find(|class| {
            let here = place < class.turns;
            place = place.saturating_sub(class.turns);
            here
        })
        .unwrap_or(&SIZE_CLASSES[0])
}

/// How many turns there are before the classes repeat.
pub(super) fn turns() -> usize {
    SIZE_CLASSES.iter().map(|class| class.turns).sum()
}

/// Draws the sizes of all axes of an operator.
pub(super) fn draw(operator: &Operator, class: &SizeClass, draws: &mut Draws) -> BTreeMap<&'static str, Vec<usize>> {
    let weights: Vec<usize> = operator.axes.iter().map(weight).collect();
    let focus = draws.weighted(&weights);
    let larger = draws.chance(1, 40);
    let size = *draws.pick(class.sizes);
    let budget = if larger { LARGER_BUDGET } else { *draws.pick(&BUDGETS) };
    let mut left = budget / size.max(1);
    let mut dims = BTreeMap::new();
    for (place, axis) in operator.axes.iter().enumerate() {
        let target = if place == focus {
            size
        } else {
            let aside = match axis.kind {
                _ if larger && draws.chance(1, 2) => *draws.pick(&ASIDE_LARGER),
                AxisKind::Batch => *draws.pick(&ASIDE_BATCH),
                _ => *draws.pick(&ASIDE),
            };
            let aside = aside.min(left.max(1));
            left /= aside;
            aside
        };
        let sizes = split(axis, target.max(axis.least), place == focus, &mut left, draws);
        dims.insert(axis.name, sizes);
    }
    dims
}

/// How often a case is about this axis.
fn weight(axis: &AxisSpec) -> usize {
    match axis.kind {
        AxisKind::Reduced => 6,
        AxisKind::Channel => 3,
        AxisKind::Batch => 2,
    }
}

/// Lays `size` elements out in a rank that the axis can have.
fn split(axis: &AxisSpec, size: usize, must: bool, left: &mut usize, draws: &mut Draws) -> Vec<usize> {
    const RANKS: [usize; 4] = [2, 4, 3, 1];
    let lowest = (*axis.ranks.start()).max(usize::from(must && size != 1));
    let ranks: Vec<usize> = (lowest..=*axis.ranks.end()).collect();
    let weights: Vec<usize> = ranks.iter().map(|&rank| RANKS[rank.min(3)]).collect();
    let rank = ranks[draws.weighted(&weights)];
    let mut dims = vec![1; rank];
    if rank == 0 {
        return dims;
    }
    // The size comes last, mostly; small ones may stand beside it.
    let place = if draws.chance(3, 4) { rank - 1 } else { draws.below(rank) };
    dims[place] = size;
    for other in (0..rank).filter(|&other| other != place) {
        let beside = (*draws.pick(&[1, 2, 2, 3])).min((*left).max(1));
        *left /= beside;
        dims[other] = beside;
    }
    dims
}

/// A few large cases for each half of an operator: more than 65,536 rows or channels, rows of 70,000 elements, more than
/// 2^24 elements.
pub fn large(operator: &'static Operator, direction: Direction, dtypes: DtypeSet, seed: u64) -> Vec<Case> {
    let many = |kind: AxisKind, size: usize| {
        let long = operator.axes.iter().rposition(|axis| axis.kind == kind)?;
        let sizes = move |place: usize, axis: &AxisSpec| match axis.ranks.contains(&2) {
            _ if place == long => vec![size],
            // Several dimensions: what is sized by the last of them only is too small.
            true => vec![2, 3],
            false => vec![3],
        };
        Some(plain(operator, direction, dtypes, seed, sizes))
    };
    let reduced = operator.axes.iter().rposition(|axis| axis.kind == AxisKind::Reduced);
    let huge = plain(operator, direction, dtypes, seed, |place, axis| match axis.kind {
        AxisKind::Batch => vec![257],
        AxisKind::Reduced if Some(place) == reduced => vec![65_537],
        _ => vec![1],
    });
    let cases = [many(AxisKind::Batch, 65_537), many(AxisKind::Reduced, 70_000), many(AxisKind::Channel, 65_537)];
    cases.into_iter().flatten().chain([huge]).filter(|case| case.validate().is_ok()).collect()
}

/// A case with every optional input and attributes as they are by default.
fn plain(
    operator: &'static Operator,
    direction: Direction,
    dtypes: DtypeSet,
    seed: u64,
    sizes: impl Fn(usize, &AxisSpec) -> Vec<usize>,
) -> Case {
    let dims = operator.axes.iter().enumerate().map(|(place, axis)| (axis.name, sizes(place, axis)));
    let given: BTreeSet<&str> = operator.inputs.iter().filter(|input| input.optional).map(|input| input.name).collect();
    let (dims, attributes) = (dims.collect(), operator.default_attributes());
    let mut problem = Problem { operator, direction, dtypes, dims, attributes, given };
    // Where attributes exclude each other, the first that makes the problem valid.
    for attribute in operator.attributes.iter().filter(|attribute| attribute.optional) {
        if problem.validate().is_err() {
            problem.attributes.insert(attribute.name, attribute.domain.default());
        }
    }
    Case::plain(problem, seed)
}
