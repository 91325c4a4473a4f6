//! Loops over broadcast tensors, shared by the interpreters that compute element by element.

use crate::formula::{Axis, AxisSet, Graph, NodeId, Window};

/// The size of every axis of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(pub Vec<usize>);

impl Sizes {
    /// The size of one axis.
    pub fn of(&self, axis: Axis) -> usize {
        self.0[axis.0 as usize]
    }

    /// The number of elements along some axes.
    pub fn count(&self, axes: AxisSet) -> usize {
        axes.iter().map(|axis| self.of(axis)).product()
    }

    /// The element of node `to` that element `element` of node `from` depends on, where their axes agree; the first along
    /// axes that only `to` has.
    pub fn project(&self, graph: &Graph, from: NodeId, element: usize, to: NodeId) -> usize {
        let (from, to) = (graph.node(from).axes, graph.node(to).axes);
        let (from_steps, to_steps) = (self.steps(from), self.steps(to));
        let shared = from.intersection(to);
        shared
            .iter()
            .map(|axis| axis.0 as usize)
            .fold(0, |place, axis| place + element / from_steps[axis].max(1) % self.0[axis].max(1) * to_steps[axis])
    }

    /// The step that a dense row-major tensor with the axes `axes` makes along each axis of the graph.
    fn steps(&self, axes: AxisSet) -> Vec<usize> {
        let mut steps = vec![0; self.0.len()];
        let mut step = 1;
        for axis in (0..self.0.len()).rev() {
            if axes.has(Axis(axis as u8)) {
                steps[axis] = step;
                step *= self.0[axis];
            }
        }
        steps
    }
}

/// Visits every element of a dense tensor with the axes `over`, in order, in runs along the innermost axes.
///
/// `run` gets, for the tensor itself and for each of the dense tensors with the axes `others` (which repeat along the
/// axes they lack), where the run starts; the step within the run of each of the others (0 where it repeats; the tensor's
/// own step is 1); and the length of the run.
#[inline(always)]
pub(super) fn walk<const K: usize>(
    sizes: &Sizes,
    over: AxisSet,
    others: [AxisSet; K],
    mut run: impl FnMut(usize, [usize; K], [usize; K], usize),
) {
    if sizes.count(over) == 0 {
        return;
    }
    let all: [Vec<usize>; K] = others.map(|axes| sizes.steps(axes));
    // Loops from the outermost in; an axis that all tensors cross evenly melts into its neighbour.
    let mut loops: Vec<(usize, [usize; K])> = Vec::new();
    for axis in over.iter() {
        let size = sizes.of(axis);
        if size == 1 {
            continue;
        }
        let steps: [usize; K] = std::array::from_fn(|k| all[k][axis.0 as usize]);
        match loops.last_mut() {
            Some((length, outer)) if (0..K).all(|k| outer[k] == steps[k] * size) => {
                *length *= size;
                *outer = steps;
            }
            _ => loops.push((size, steps)),
        }
    }
    let (length, steps) = loops.pop().unwrap_or((1, [0; K]));
    let mut counter = vec![0; loops.len()];
    let mut starts = [0; K];
    let mut own = 0;
    loop {
        run(own, starts, steps, length);
        own += length;
        let mut level = loops.len();
        loop {
            if level == 0 {
                return;
            }
            level -= 1;
            counter[level] += 1;
            let (size, steps) = &loops[level];
            for k in 0..K {
                starts[k] += steps[k];
            }
            if counter[level] < *size {
                break;
            }
            counter[level] = 0;
            for k in 0..K {
                starts[k] -= steps[k] * size;
            }
        }
    }
}

/// Visits every pair of an entry and a place from which a window shows it, as indices into two dense tensors: `whole` has
/// the axis `from` of the window, `seen` those that it makes.
pub(super) fn windowed(
    sizes: &Sizes,
    window: Window,
    whole: AxisSet,
    seen: AxisSet,
    mut visit: impl FnMut(usize, usize),
) {
    let common = whole.without(AxisSet::of(window.from));
    let (whole_steps, seen_steps) = (sizes.steps(whole), sizes.steps(seen));
    let step = |steps: &[usize], axis: Axis| steps[axis.0 as usize];
    let taps = window.tap.map_or(1, |tap| sizes.of(tap));
    let tap_step = window.tap.map_or(0, |tap| step(&seen_steps, tap));
    let pairs: Vec<(usize, usize)> = (0..sizes.of(window.to))
        .flat_map(|place| (0..taps).map(move |tap| (place, tap)))
        .filter_map(|(place, tap)| {
            let entry = (place * window.stride + tap).checked_add_signed(-window.before)?;
            let inside = entry < sizes.of(window.from);
            let at = place * step(&seen_steps, window.to) + tap * tap_step;
            inside.then(|| (entry * step(&whole_steps, window.from), at))
        })
        .collect();
    walk(sizes, common, [whole, seen], |_, [whole_start, seen_start], [whole_step, seen_step], length| {
        for i in 0..length {
            for (entry, at) in &pairs {
                visit(whole_start + i * whole_step + entry, seen_start + i * seen_step + at);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visits_what_an_odometer_visits() {
        let graph = Graph { axes: vec!["a", "b", "c", "d"], ..Graph::default() };
        let sizes = Sizes(vec![2, 3, 1, 4]);
        for over in ["a b c d", "a c", "b d", "", "a b d"] {
            let over = graph.axis_set(over);
            for other in ["", "a", "b", "d", "a b", "b d", "a d", "a b c d"] {
                let other = graph.axis_set(other).intersection(over);
                let mut seen = Vec::new();
                walk(&sizes, over, [other], |own, [start], [step], length| {
                    seen.extend((0..length).map(|i| (own + i, start + i * step)));
                });
                let mut want = Vec::new();
                for own in 0..sizes.count(over) {
                    let (mut rest, mut index, mut step) = (own, 0, 1);
                    for axis in (0..4u8).rev().map(Axis).filter(|&axis| over.has(axis)) {
                        if other.has(axis) {
                            index += rest % sizes.of(axis) * step;
                            step *= sizes.of(axis);
                        }
                        rest /= sizes.of(axis);
                    }
                    want.push((own, index));
                }
                assert_eq!(seen, want);
            }
        }
        walk(&Sizes(vec![0, 3, 1, 4]), graph.axis_set("a b"), [], |_, [], [], _| panic!("nothing to visit"));
    }
}
