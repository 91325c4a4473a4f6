//! The truth of a problem, and what a kernel may make of it.

use isonorm_kernels::abi::{Direction, Dtype};
use isonorm_oracles::Problem;
use isonorm_oracles::dd::Dd;
use isonorm_oracles::formula::{Binary, Graph, Op};
use isonorm_oracles::interpret::Sizes;
use isonorm_oracles::interpret::bound::{Arithmetic, OutputBound, bound};
use isonorm_oracles::interpret::exact::{Values, exact};
use isonorm_oracles::operators::Role;

use super::Expected;

/// The exact value of every node of a problem's formula.
#[derive(Clone, Debug)]
pub struct Truth {
    /// The formula.
    pub graph: Graph,
    values: Values,
    /// By output: whether infinities meet in it in an order that kernels choose.
    any_non_finite: Vec<bool>,
}

/// How far a kernel of some arithmetic can be from the truth.
#[derive(Clone, Debug)]
pub struct Tolerance {
    outputs: Vec<OutputBound>,
}

impl Truth {
    /// Evaluates the formula of `problem` on dense inputs, in the order of [`Problem::inputs`].
    ///
    /// # Panics
    /// If the number of inputs or of elements is not that of the problem.
    pub fn of(problem: &Problem, inputs: &[&[f64]]) -> Truth {
        let graph = problem.graph();
        let values = exact(&graph, &problem.sizes(), inputs);
        // Sums of gradients meet infinities in every order, and so do running means. Where a mean is subtracted, x·s +
        // (b - mean·s) meets them too if the weight or the scale is infinite. Other forward formulas give each element its
        // class.
        let backward = problem.direction == Direction::Backward;
        let centred = graph.nodes.iter().any(|node| matches!(node.op, Op::Binary(Binary::Sub, ..)));
        let outputs = problem.outputs().into_iter();
        let any_non_finite = outputs.map(|output| backward || centred || output.role == Role::State).collect();
        Truth { graph, values, any_non_finite }
    }

    /// The same for a slice of a larger problem: sums run over elements of other slices too, which counts for bounds.
    ///
    /// # Panics
    /// As [`Truth::of`].
    pub fn of_slice(problem: &Problem, inputs: &[&[f64]], whole: Sizes) -> Truth {
        let mut truth = Truth::of(problem, inputs);
        truth.values.whole = whole;
        truth
    }

    /// Bounds the error of a kernel that computes with `arithmetic`.
    pub fn tolerance(&self, arithmetic: Arithmetic) -> Tolerance {
        Tolerance { outputs: bound(&self.graph, &self.values, arithmetic) }
    }

    /// The true elements of an output, before they are rounded to its type.
    pub fn output(&self, output: usize) -> &[Dd] {
        &self.values.nodes[self.graph.outputs[output].node.index()]
    }

    /// The exact values of all nodes.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// The most elements that one sum or mean of the formula runs over.
    pub fn longest_sum(&self) -> u64 {
        let counts = self.graph.nodes.iter().zip(self.graph.live()).filter(|(_, live)| *live);
        let sums = counts.filter_map(|(node, _)| match node.op {
            Op::Reduce(_, _, axes) => Some(self.values.whole.count(axes) as u64),
            _ => None,
        });
        sums.max().unwrap_or(0)
    }

    /// The type of an output.
    pub fn dtype(&self, output: usize) -> Dtype {
        self.graph.outputs[output].dtype
    }

    /// What to expect of each element of an output.
    pub fn expected<'a>(
        &'a self,
        tolerance: &'a Tolerance,
        output: usize,
    ) -> impl ExactSizeIterator<Item = Expected> + 'a {
        let bound = &tolerance.outputs[output];
        let any_non_finite = self.any_non_finite[output];
        self.output(output).iter().zip(&bound.errors).map(move |(&truth, &error)| Expected {
            truth,
            error,
            zero_sign: bound.zero_sign,
            any_non_finite,
        })
    }
}

impl Tolerance {
    /// Whether all evaluations agree on every element: the answer must match to the bit.
    pub fn is_exact(&self) -> bool {
        self.outputs.iter().all(|output| output.errors.iter().all(|&error| error == 0.0))
    }

    /// The largest error of one element of an output.
    pub fn error(&self, output: usize, element: usize) -> f64 {
        self.outputs[output].errors[element]
    }
}
