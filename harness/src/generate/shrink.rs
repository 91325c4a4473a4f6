//! From a case that fails to the smallest and plainest one that fails.
//!
//! A case is simplified as data, whatever it was made by: a line that a user wrote shrinks as well as a generated one.

use std::collections::VecDeque;

use isonorm_oracles::Problem;
use proptest::strategy::ValueTree;

use crate::case::Case;
use crate::generate::families::FAMILIES;

/// A case and the simpler ones next to it.
#[derive(Clone, Debug)]
pub struct CaseTree {
    /// The simplest case known to fail.
    failing: Case,
    current: Case,
    untried: VecDeque<Case>,
}

impl CaseTree {
    /// Starts from a case.
    pub fn new(case: Case) -> Self {
        CaseTree { failing: case.clone(), current: case, untried: VecDeque::new() }
    }

    /// Goes to the next simpler case; back to the failing one if there is none.
    fn advance(&mut self) -> bool {
        let next = self.untried.pop_front();
        let found = next.is_some();
        self.current = next.unwrap_or_else(|| self.failing.clone());
        found
    }
}

impl ValueTree for CaseTree {
    type Value = Case;

    fn current(&self) -> Case {
        self.current.clone()
    }

    fn simplify(&mut self) -> bool {
        self.failing = self.current.clone();
        self.untried = simpler(&self.failing).into();
        self.advance()
    }

    fn complicate(&mut self) -> bool {
        self.advance()
    }
}

/// Valid cases that are one step simpler, the largest steps first. Every chain of steps ends.
fn simpler(case: &Case) -> Vec<Case> {
    let mut steps = Vec::new();
    let mut step = |change: &dyn Fn(&mut Case)| {
        let mut next = case.clone();
        change(&mut next);
        next.tidy();
        if next != *case && next.validate().is_ok() && !steps.contains(&next) {
            steps.push(next);
        }
    };
    step(&|next| {
        (next.threads, next.refreshed) = (1, false);
        next.in_place.clear();
        next.layouts.clear();
    });
    step(&|next| next.threads = 1);
    step(&|next| next.refreshed = false);
    step(&|next| next.in_place.clear());
    step(&|next| next.layouts.clear());
    for name in case.in_place.keys() {
        step(&|next| _ = next.in_place.remove(name));
    }
    for name in case.layouts.keys() {
        step(&|next| _ = next.layouts.remove(name));
    }
    let rank = FAMILIES.iter().position(|family| *family == case.family).unwrap_or(0);
    for &family in &FAMILIES[..rank] {
        step(&|next| next.family = family);
    }
    step(&|next| next.problem.given.clear());
    for &name in &case.problem.given {
        step(&|next| _ = next.problem.given.remove(name));
        // Running statistics come in pairs.
        for other in case.problem.given.range(name..).skip(1) {
            step(&|next| next.problem.given.retain(|given| given != &name && given != other));
        }
    }
    attribute_steps(&case.problem, &mut step);
    size_steps(&case.problem, &mut step);
    if case.seed != 0 {
        step(&|next| next.seed = 0);
    }
    steps
}

/// Takes a change that may make a case simpler.
type Step<'a> = dyn FnMut(&dyn Fn(&mut Case)) + 'a;

fn attribute_steps(problem: &Problem, step: &mut Step<'_>) {
    let attributes = problem.operator.attributes;
    for (place, attribute) in attributes.iter().enumerate().filter(|(_, a)| problem.attributes.contains_key(a.name)) {
        if attribute.optional {
            step(&|next| _ = next.problem.attributes.remove(attribute.name));
            for other in attributes[..place].iter().filter(|other| other.optional) {
                step(&|next| {
                    next.problem.attributes.remove(attribute.name);
                    next.problem.attributes.insert(other.name, other.domain.default());
                });
            }
        }
        step(&|next| _ = next.problem.attributes.insert(attribute.name, attribute.domain.default()));
    }
}

fn size_steps(problem: &Problem, step: &mut Step<'_>) {
    let mut set = |axis: &'static str, dims: Vec<usize>| {
        step(&|next| _ = next.problem.dims.insert(axis, dims.clone()));
    };
    for axis in problem.operator.axes {
        let dims = &problem.dims[axis.name];
        // All ones, in as few dimensions as possible.
        set(axis.name, vec![1; *axis.ranks.start()]);
        for place in 0..dims.len() {
            let mut fewer = dims.clone();
            fewer.remove(place);
            set(axis.name, fewer);
        }
        if dims.len() > 1 && !dims.contains(&0) {
            set(axis.name, vec![dims.iter().product()]);
        }
        for (place, &dim) in dims.iter().enumerate() {
            // Towards 1 by halves, then one by one; 0 is a question of its own.
            let smaller = [1, dim / 4, dim / 2, dim - dim / 4, dim - dim / 16, dim.saturating_sub(8)];
            let single = [dim.saturating_sub(2), dim.saturating_sub(1)];
            for size in smaller.into_iter().chain(single).filter(|&size| 0 < size && size < dim) {
                let mut changed = dims.clone();
                changed[place] = size;
                set(axis.name, changed);
            }
        }
    }
}
