//! The plain kernel's steps, each of which a bug or a clean variant can replace.

use std::sync::Arc;

use isonorm_kernels::abi::{Call, Dtype, Layouts, Reduction, Refusal, Rsqrt, Tensor};

use crate::engine::{self, Row, Setting, Slope, Statistics, Tensors};
use crate::geometry::{Entry, Geometry};
use crate::number::{Number, round};

/// A kernel inside a kernel: what is done around the computation.
pub type Around = Arc<dyn Fn(&Call<'_>, Compute<'_>) -> Result<(), Refusal> + Send + Sync>;
/// The computation, as [`Around`] gets it.
pub type Compute<'a> = &'a dyn Fn(&Call<'_>) -> Result<(), Refusal>;

/// How to compute an operator. The default is right; what is changed in it is the kernel.
#[derive(Clone)]
pub struct Recipe {
    /// What the kernel says of itself.
    pub layouts: Layouts,
    /// The same.
    pub precision: Option<Dtype>,
    /// The same.
    pub reduction: Reduction,
    /// The same.
    pub rsqrt: Rsqrt,
    /// The same.
    pub thread_safe: bool,
    /// Whether groups are shared among threads.
    pub parallel: bool,

    /// The precision of the arithmetic, from the type of the data.
    pub working: fn(Dtype) -> Dtype,
    /// Where the elements of an input lie, in row-major order of the indices.
    pub input_offsets: fn(&Tensor<'_>) -> Vec<isize>,
    /// Where the elements of an output lie.
    pub output_offsets: fn(&Tensor<'_>) -> Vec<isize>,
    /// Changes of the inputs, once read.
    pub inputs: fn(&mut Tensors, &mut Setting),
    /// ε as it is used, from ε as it is given.
    pub eps: fn(f64, &Setting) -> f64,
    /// Which elements share their statistics.
    pub groups: fn(&Geometry) -> Vec<Vec<Entry>>,
    /// x + residual: as it is stored, and as the norm reads it.
    pub residual: fn(Number, Number, &Setting) -> (Number, Number),

    /// A sum.
    pub sum: fn(&[Number]) -> Number,
    /// A sum divided by the number of terms.
    pub quotient: fn(Number, usize) -> Number,
    /// Mean and variance, or what stands for them.
    pub statistics: fn(&Row<'_>) -> Statistics,
    /// 1/√(spread + ε), or the norm that is divided by.
    pub scale: fn(Number, &Setting) -> Number,
    /// The normalized x.
    pub normalize: fn(Number, Statistics, Number, &Setting) -> Number,
    /// Weight and bias applied.
    pub affine: fn(Number, Option<Number>, Option<Number>, &Setting) -> Number,
    /// `normalize` and `affine` in one: x, statistics, scale, weight, bias.
    pub output: fn(&engine::Point<'_>) -> Number,

    /// The running statistic: old, new, weight of the new.
    pub running: fn(Number, Number, Number) -> Number,
    /// The unbiased variance, from the biased one and the number of values.
    pub unbiased: fn(Number, usize, &Setting) -> Number,

    /// The gradient of the normalized x, from that of y and the weight.
    pub upstream: fn(Number, Option<Number>, &Setting) -> Number,
    /// The gradient of x.
    pub gradient: fn(&Slope<'_>) -> Number,
    /// What an element adds to the gradients of weight and bias.
    pub terms: fn(&Slope<'_>) -> (Number, Number),
    /// The sum of these, over a row of terms.
    pub sum_terms: fn(&[Number]) -> Number,

    /// Changes of the outputs, before they are stored.
    pub outputs: fn(&mut Tensors, &Tensors, &Setting),
    /// A number as it is stored.
    pub store: fn(f64, Dtype) -> f64,
    /// Whether an element, of so many, is written.
    pub writes: fn(usize, usize) -> bool,
    /// What is done around it all.
    pub around: Option<Around>,
}

impl Default for Recipe {
    fn default() -> Self {
        Recipe {
            layouts: Layouts::ANY,
            precision: None,
            reduction: Reduction::Any,
            rsqrt: Rsqrt::Exact,
            thread_safe: true,
            parallel: false,
            working: Dtype::statistics,
            input_offsets: engine::offsets,
            output_offsets: engine::offsets,
            inputs: |_, _| {},
            eps: |eps, _| eps,
            groups: Geometry::groups,
            residual: engine::residual,
            sum: engine::sum,
            quotient: |sum, count| sum / count as f64,
            statistics: engine::statistics,
            scale: engine::scale,
            normalize: engine::normalize,
            affine: engine::affine,
            output: engine::output,
            running: |old, new, factor| old * (factor.like(1.0) - factor) + new * factor,
            unbiased: |variance, count, _| variance * (variance.like(count as f64) / (count as f64 - 1.0)),
            upstream: engine::upstream,
            gradient: engine::gradient,
            terms: engine::terms,
            sum_terms: engine::sum,
            outputs: |_, _, _| {},
            store: round,
            writes: |_, _| true,
            around: None,
        }
    }
}
