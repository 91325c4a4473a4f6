//! Operators whose statistics are taken along the last axes: each row of the data is normalized by itself.
//!
//! The reductions are in [`moments`](super::moments); [`affine`] is the map stage forward, [`gradient`] the one
//! backward; [`run`] goes over the rows. An operator's file says what they are given.

pub mod add_layer_norm;
pub mod add_rms_norm;
pub mod crms_norm;
mod gradient;
pub mod l2_normalize;
pub mod layer_norm;
pub mod partial_rms_norm;
pub mod rms_norm;

use super::arguments::{Param, ParamOutput, eps, expect_sizes, param, sizes};
use super::moments::Total;
use super::parallel;
use super::views::{Input, Output, streams, writers};
use crate::abi::{Call, Refusal};
use crate::simd::{self, Element, InstructionSet, Isa, Lanes, Real, Sink, Source, Task, map};

pub use gradient::Gradient;

/// The most rows that add up their share of a parameter's gradient in the working precision, before `f64`.
const MAX_BLOCK: usize = 64;

/// Elements of such a block: enough to be worth a row of sums, few enough for the threads to share the blocks.
const BLOCK_ELEMENTS: usize = 1 << 17;

/// The rows of a call.
pub struct Rows<'a> {
    call: &'a Call<'a>,
    shape: &'a [i64],
    /// Axes along a row.
    inner: usize,
    /// Number of rows.
    pub count: usize,
    /// Elements of a row.
    pub width: usize,
}

impl<'a> Rows<'a> {
    /// The rows of `x`, whose last `inner` axes lie along a row.
    ///
    /// # Errors
    /// If `x` is missing or has fewer axes.
    pub fn new(call: &'a Call<'a>, inner: usize) -> Result<Self, Refusal> {
        let x = call.required_input("x")?;
        let sizes = sizes("x", &x)?;
        if inner == 0 || inner > sizes.len() {
            return Err(Refusal::Failed(format!("`x` has {} axes; {inner} of them cannot be normalized", sizes.len())));
        }
        let (outer, last) = sizes.split_at(sizes.len() - inner);
        Ok(Rows { call, shape: x.shape, inner, count: outer.iter().product(), width: last.iter().product() })
    }

    /// The rows of `x`, whose last `normalized_ndim` axes lie along a row.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn normalized(call: &'a Call<'a>) -> Result<Self, Refusal> {
        let inner = call.integer("normalized_ndim")?;
        let inner = usize::try_from(inner)
            .map_err(|_| Refusal::Failed(format!("normalized_ndim is {inner}; it must be at least 1")))?;
        Rows::new(call, inner)
    }

    fn axes(&self) -> Vec<usize> {
        (0..self.shape.len()).collect()
    }

    fn row_sizes(&self) -> &'a [i64] {
        &self.shape[self.shape.len() - self.inner..]
    }

    /// A data input.
    ///
    /// # Errors
    /// If it is missing or not like `x`.
    pub fn input<D: Element>(&self, name: &str) -> Result<Input<'a, D>, Refusal> {
        let tensor = self.call.required_input(name)?;
        expect_sizes(name, &tensor, self.shape)?;
        let axes = self.axes();
        let (outer, inner) = axes.split_at(axes.len() - self.inner);
        Input::new(name, &tensor, tensor.shape, tensor.strides, outer, inner)
    }

    /// A data output.
    ///
    /// # Errors
    /// If it is missing or not like `x`.
    pub fn output<D: Element>(&self, name: &str) -> Result<Output<'a, D>, Refusal> {
        let tensor = self.call.required_output(name)?;
        expect_sizes(name, &tensor, self.shape)?;
        let axes = self.axes();
        let (outer, inner) = axes.split_at(axes.len() - self.inner);
        Output::new(name, &tensor, tensor.shape, tensor.strides, outer, inner)
    }

    /// Weight and bias, those that are there.
    ///
    /// # Errors
    /// If their sizes or types do not fit.
    fn affine<D: Element>(&self) -> Result<Affine<'a, D::Real>, Refusal> {
        Ok(Affine {
            weight: param::<D>(self.call, "weight", self.row_sizes(), 1.0)?,
            // x + (-0) is x, for every x.
            bias: param::<D>(self.call, "bias", self.row_sizes(), -0.0)?,
        })
    }

    /// The operator with its parameters.
    ///
    /// # Errors
    /// If `eps` or a parameter is not as it should be.
    pub fn normalization<D: Element, A>(&self, detail: A) -> Result<Normalization<'a, D::Real, A>, Refusal> {
        Ok(Normalization { eps: eps(self.call)?, affine: self.affine::<D>()?, detail })
    }

    /// The gradients of the parameters that are asked for.
    ///
    /// # Errors
    /// If one's sizes do not fit.
    pub fn param_outputs(&self) -> Result<[Option<ParamOutput<'a>>; 2], Refusal> {
        Ok([
            ParamOutput::find(self.call, "dweight", self.row_sizes())?,
            ParamOutput::find(self.call, "dbias", self.row_sizes())?,
        ])
    }

    /// Threads to use.
    pub fn threads(&self) -> usize {
        self.call.threads()
    }
}

/// The parameters of a row; those that are absent do nothing.
pub struct Affine<'a, R> {
    /// Factor per element.
    pub weight: Param<'a, R>,
    /// Term per element.
    pub bias: Param<'a, R>,
}

/// Room for rows, per thread.
#[derive(Default)]
pub struct Room<R> {
    /// The sum of two inputs.
    pub sum: Vec<R>,
    /// A rescaled row.
    pub scaled: Vec<R>,
}

/// The running sums of the gradients of the parameters, if any is wanted.
pub type Sums<'a, R> = Option<ParamSums<'a, R>>;

/// The running sums of the gradients of the parameters.
pub struct ParamSums<'a, R> {
    /// Of `dy * x_hat`.
    pub weight: &'a mut [R],
    /// Of `dy`; empty if the operator has no bias.
    pub bias: &'a mut [R],
}

/// An operator and its parameters, for one call.
pub struct Normalization<'a, R, A = ()> {
    /// Added under the root.
    pub eps: f64,
    /// Weight and bias.
    pub affine: Affine<'a, R>,
    /// What else the operator needs to know.
    pub detail: A,
}

/// What an operator does with one row.
pub trait RowKernel<D: Element, const N: usize, const M: usize>: Sync {
    /// Whether there is a bias.
    const HAS_BIAS: bool = false;

    /// Computes the outputs of a row, at least one element long. Inputs may be the same memory as outputs: all that is
    /// needed of an input must be read before an output is written, except by the last stage.
    fn row<S: Isa>(
        &self,
        simd: S,
        room: &mut Room<D::Real>,
        inputs: [Source<'_, D>; N],
        outputs: [Sink<'_, D>; M],
        sums: Sums<'_, D::Real>,
    );
}

/// The tensors of a call.
pub struct Job<'a, D, const N: usize, const M: usize> {
    /// Read.
    pub inputs: [Input<'a, D>; N],
    /// Written.
    pub outputs: [Output<'a, D>; M],
}

/// Calls `kernel` for every row, and adds up the gradients of weight and bias, if `params` wants them.
///
/// Rows are taken in blocks whose size depends on the shape alone. A block's share of the gradients of the parameters
/// is added up row by row in the working precision, the blocks in their order in `f64`: the same sums for any number of
/// threads.
///
/// # Errors
/// If the gradients of the parameters cannot be written.
pub fn run<D, K, const N: usize, const M: usize>(
    rows: &Rows<'_>,
    job: &Job<'_, D, N, M>,
    params: [Option<ParamOutput<'_>>; 2],
    kernel: &K,
) -> Result<(), Refusal>
where
    D: Element,
    K: RowKernel<D, N, M>,
{
    let (count, width) = (rows.count, rows.width);
    let any = params.iter().any(Option::is_some);
    let wanted = [any, any && K::HAS_BIAS];
    let block = (BLOCK_ELEMENTS / width.max(1)).clamp(8, MAX_BLOCK);
    let blocks = if width == 0 { 0 } else { count.div_ceil(block) };
    let mut partial = wanted.map(|wanted| vec![D::Real::default(); if wanted { blocks * width } else { 0 }]);
    let set = InstructionSet::current();
    let [weight, bias] = &mut partial;
    let mut rest = (&mut weight[..], &mut bias[..]);
    let streams = streams(job.inputs.each_ref(), job.outputs.each_ref());
    let mut parts = parallel::Parts::new();
    for range in parallel::divide(rows.threads(), blocks, block * width) {
        let share = range.len() * width;
        let (weight, weight_rest) = rest.0.split_at_mut(if wanted[0] { share } else { 0 });
        let (bias, bias_rest) = rest.1.split_at_mut(if wanted[1] { share } else { 0 });
        rest = (weight_rest, bias_rest);
        parts.push(Part {
            job,
            kernel,
            streams,
            rows: range.start * block..count.min(range.end * block),
            block,
            width,
            weight,
            bias,
        });
    }
    parallel::each(parts, |part| simd::run(set, part));
    for (output, partial) in params.iter().zip(&partial) {
        let Some(output) = output else { continue };
        let mut totals = vec![Total::default(); width];
        for block in partial.chunks_exact(width.max(1)) {
            totals.iter_mut().zip(block).for_each(|(total, share)| total.add(share.to_f64()));
        }
        output.write(totals.into_iter().map(Total::get))?;
    }
    Ok(())
}

/// The rows of one thread.
struct Part<'a, D: Element, K, const N: usize, const M: usize> {
    job: &'a Job<'a, D, N, M>,
    kernel: &'a K,
    streams: [bool; M],
    rows: std::ops::Range<usize>,
    block: usize,
    width: usize,
    weight: &'a mut [D::Real],
    bias: &'a mut [D::Real],
}

impl<D: Element, K: RowKernel<D, N, M>, const N: usize, const M: usize> Task for Part<'_, D, K, N, M> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let mut room = Room::default();
        let mut readers = self.job.inputs.each_ref().map(|input| input.reader(self.rows.end));
        let mut writers = writers(&self.job.outputs, self.rows.end, self.streams);
        let first = self.rows.start;
        for row in self.rows {
            let at = (row - first) / self.block * self.width;
            let sums = self
                .weight
                .get_mut(at..at + self.width)
                .map(|weight| ParamSums { weight, bias: self.bias.get_mut(at..at + self.width).unwrap_or_default() });
            let inputs = readers.each_mut().map(|reader| reader.row(row));
            let outputs = writers.each_mut().map(|writer| writer.row(row));
            self.kernel.row(simd, &mut room, inputs, outputs, sums);
            writers.iter_mut().for_each(|writer| writer.commit(row));
        }
    }
}

/// The map stage forward: `y = normalized(x) * weight + bias`.
#[inline(always)]
pub fn affine<S: Isa, R: Real, E: Element<Real = R>, D: Element<Real = R>>(
    simd: S,
    x: Source<'_, E>,
    y: Sink<'_, D>,
    affine: &Affine<'_, R>,
    normalized: impl Fn(Lanes<S, R>) -> Lanes<S, R>,
) {
    let from = (x, affine.weight.source(), affine.bias.source());
    map(simd, from, y, |(x, w, b)| normalized(x).mul_add(w, b));
}

/// The map stage forward of operators without a bias: `y = normalized(x) * weight`.
#[inline(always)]
pub fn weighted<S: Isa, R: Real, E: Element<Real = R>, D: Element<Real = R>>(
    simd: S,
    x: Source<'_, E>,
    y: Sink<'_, D>,
    weight: Source<'_, R>,
    normalized: impl Fn(Lanes<S, R>) -> Lanes<S, R>,
) {
    map(simd, (x, weight), y, |(x, w)| normalized(x) * w);
}
