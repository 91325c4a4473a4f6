//! Operators whose statistics are taken along the last axes: each row of the data is normalized by itself.
//!
//! A row is measured (its sums are taken), then mapped. An operator says what the sums mean ([`Operator::judge`]), what
//! that makes of an element ([`Operator::normalized`]), and backward what makes the gradient ([`Operator::gradient`]).
//! The loops over rows and elements are in [`forward`] and [`backward`].

pub mod add_layer_norm;
pub mod add_rms_norm;
mod backward;
pub mod crms_norm;
mod forward;
pub mod l2_normalize;
pub mod layer_norm;
pub mod partial_rms_norm;
pub mod rms_norm;

use super::arguments::{Param, ParamOutput, elements, eps, expect_sizes, param};
use super::moments::Scaling;
use super::views::{Input, Output};
use crate::abi::{Call, Refusal};
use crate::simd::{Element, Isa, Kept, Lanes, Real, Sink, Source, map, sum};

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
        if inner == 0 || inner > x.shape.len() {
            return Err(Refusal::Failed(format!(
                "`x` has {} axes; {inner} of them cannot be normalized",
                x.shape.len()
            )));
        }
        let (outer, last) = x.shape.split_at(x.shape.len() - inner);
        Ok(Rows { call, shape: x.shape, inner, count: elements("x", outer)?, width: elements("x", last)? })
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

    /// How many axes number the rows.
    fn outer(&self) -> usize {
        self.shape.len() - self.inner
    }

    fn row_sizes(&self) -> &'a [i64] {
        &self.shape[self.outer()..]
    }

    /// A data input.
    ///
    /// # Errors
    /// If it is missing or not like `x`.
    fn input<D: Element>(&self, name: &str) -> Result<Input<'a, D>, Refusal> {
        let tensor = self.call.required_input(name)?;
        expect_sizes(name, &tensor, self.shape)?;
        Input::new(name, &tensor, tensor.axes(), self.outer())
    }

    /// A data output.
    ///
    /// # Errors
    /// If it is missing or not like `x`.
    fn output<D: Element>(&self, name: &str) -> Result<Output<'a, D>, Refusal> {
        let tensor = self.call.required_output(name)?;
        expect_sizes(name, &tensor, self.shape)?;
        Output::new(name, &tensor, tensor.axes(), self.outer())
    }

    /// `eps`, weight and bias, those that are there.
    ///
    /// # Errors
    /// If `eps` is not as it should be, or sizes or types of the others do not fit.
    pub fn parameters<D: Element>(&self, has_bias: bool) -> Result<Parameters<'a, D>, Refusal> {
        Ok(Parameters {
            eps: eps(self.call)?,
            weight: param::<D>(self.call, "weight", self.row_sizes(), 1.0)?,
            bias: if has_bias {
                // x + (-0) is x, for every x.
                param::<D>(self.call, "bias", self.row_sizes(), -0.0)?
            } else {
                Param::Owned(Vec::new())
            },
        })
    }

    /// The gradients of the parameters that are asked for.
    ///
    /// # Errors
    /// If one's sizes do not fit.
    fn param_outputs(&self) -> Result<[Option<ParamOutput<'a>>; 2], Refusal> {
        Ok([
            ParamOutput::find(self.call, "dweight", self.row_sizes())?,
            ParamOutput::find(self.call, "dbias", self.row_sizes())?,
        ])
    }

    /// `x` -> `y`
    ///
    /// # Errors
    /// If a tensor is missing or not like `x`.
    pub fn forward<D: Element, O: Operator<D::Real>>(
        &self,
        parameters: &Parameters<'_, D>,
        operator: &O,
    ) -> Result<(), Refusal> {
        let (x, y) = (self.input::<D>("x")?, self.output("y")?);
        forward::forward(self, [x], [y], Sum::Unrounded, parameters, operator);
        Ok(())
    }

    /// `dy`, `x` -> `dx`, `dweight`?, `dbias`?
    ///
    /// # Errors
    /// If a tensor is missing or not like `x`, or a gradient of a parameter has other sizes.
    pub fn backward<D: Element, O: Operator<D::Real>>(
        &self,
        parameters: &Parameters<'_, D>,
        operator: &O,
    ) -> Result<(), Refusal> {
        let inputs = [self.input::<D>("dy")?, self.input("x")?];
        backward::backward(self, inputs, [self.output("dx")?], Sum::Unrounded, parameters, operator)
    }

    /// `x`, `residual` -> `y`, `residual_out`: their sum is normalized.
    ///
    /// # Errors
    /// If a tensor is missing or not like `x`, or the attribute `sum` is not one of its words.
    pub fn add_forward<D: Element, O: Operator<D::Real>>(
        &self,
        parameters: &Parameters<'_, D>,
        operator: &O,
    ) -> Result<(), Refusal> {
        let inputs = [self.input::<D>("x")?, self.input("residual")?];
        let outputs = [self.output("y")?, self.output("residual_out")?];
        forward::forward(self, inputs, outputs, Sum::new(self.call)?, parameters, operator);
        Ok(())
    }

    /// `dy`, `dresidual_out`, `x`, `residual` -> `dx`, `dresidual`, `dweight`?, `dbias`?
    ///
    /// # Errors
    /// As for [`backward`](Self::backward), and [`add_forward`](Self::add_forward).
    pub fn add_backward<D: Element, O: Operator<D::Real>>(
        &self,
        parameters: &Parameters<'_, D>,
        operator: &O,
    ) -> Result<(), Refusal> {
        let inputs = [self.input::<D>("dy")?, self.input("dresidual_out")?, self.input("x")?, self.input("residual")?];
        let outputs = [self.output("dx")?, self.output("dresidual")?];
        backward::backward(self, inputs, outputs, Sum::new(self.call)?, parameters, operator)
    }
}

/// The parameters of a call; those that are absent do nothing.
pub struct Parameters<'a, D: Element> {
    /// Added under the root.
    pub eps: f64,
    /// Factor per element of a row.
    pub weight: Param<'a, D>,
    /// Term per element of a row.
    pub bias: Param<'a, D>,
}

/// An operator: how it normalizes by the sums of a row.
pub trait Operator<R: Real>: Sync {
    /// What normalizing an element takes.
    type Statistic: Copy + Into<Line>;

    /// Whether there is a weight.
    const HAS_WEIGHT: bool = true;
    /// Whether there is a bias.
    const HAS_BIAS: bool = false;
    /// Whether the statistic may come from a part of the row.
    const IS_PARTIAL: bool = false;
    /// Whether the sum of the elements is wanted, besides that of their squares.
    const TOTALS: bool = false;
    /// Whether it may be that something is to be subtracted from the elements before they are added up.
    const SHIFTS: bool = false;
    /// Whether half-precision data may be rounded before the weight.
    const ROUNDS: bool = false;

    /// Whether they are.
    fn rounds(&self) -> bool {
        false
    }

    /// How many elements, from the first on, the statistic of a row of `width` comes from.
    fn measured(&self, width: usize) -> usize {
        width
    }

    /// The statistic, if the sums are good enough for it.
    fn judge(&self, measured: Measured<R>, scaling: Scaling) -> Verdict<R, Self::Statistic>;

    /// What stands before weight and bias.
    fn normalized<S: Isa>(&self, simd: S, statistic: Self::Statistic) -> impl Fn(Lanes<S, R>) -> Lanes<S, R> + Copy;

    /// `slope` and `offset` of `x * slope + offset`, if that takes fewer operations than [`normalized`](Self::normalized),
    /// and is off from it by no more than the working precision's rounding of 1: half precision does not show that.
    #[inline(always)]
    fn slope(&self, _: Self::Statistic) -> Option<[R; 2]> {
        None
    }

    /// How the gradient of a row of `count` measured elements comes from the sums of `g = dy * weight` and of
    /// `g * x_hat`: `dx = (g + a + x_hat * b) * rstd`; answers `[a, b]`.
    fn gradient(&self, statistic: Self::Statistic, count: f64, sums: [f64; 2]) -> [f64; 2];
}

/// The sums of a row.
#[derive(Clone, Copy)]
pub struct Measured<R> {
    /// Elements.
    pub count: usize,
    /// What was subtracted from each, if an operator asked for it.
    pub shift: Option<R>,
    /// Of the differences, if [`Operator::TOTALS`] says that they are wanted, and of their squares.
    pub sums: [f64; 2],
}

/// What an operator thinks of the sums of a row.
pub enum Verdict<R, T> {
    /// This is their statistic.
    Accepted(T),
    /// They should be taken once more, with this shift.
    Again(R),
    /// Squares have left the range of the working precision.
    Rejected,
}

/// How an element is normalized: `x_hat = (x - mean) * rstd`.
#[derive(Clone, Copy)]
pub struct Line {
    /// Of the elements, or 0.
    pub mean: f64,
    /// The factor.
    pub rstd: f64,
    /// Whether the mean is well within the spread.
    pub is_near: bool,
}

impl Line {
    /// `centre`, `rstd` and `offset` of `x_hat = (x - centre) * rstd + offset`: what rounding the mean lost goes with
    /// the offset; data of mean 10^6 and spread 1 need it.
    #[inline(always)]
    pub fn parts<R: Real>(self) -> [R; 3] {
        let centre = R::from_f64(self.mean);
        let lost = self.mean - centre.to_f64();
        [centre, R::from_f64(self.rstd), R::from_f64(-(lost * self.rstd))]
    }
}

/// Accumulators.
type Terms<S, R, const K: usize> = [Lanes<S, R>; K];

/// Adds a vector's elements and their squares to the sums that an operator `O` wants.
#[inline(always)]
fn measuring<S: Isa, R: Real, O: Operator<R>>(x: Lanes<S, R>, [total, squares]: Terms<S, R, 2>) -> Terms<S, R, 2> {
    [if O::TOTALS { total + x } else { total }, x.mul_add(x, squares)]
}

/// The sums of a run for an operator `O`: of the elements as they are, or less `shift`.
///
/// Most rows lie about zero. For those that do not, [`Operator::judge`] asks for their mean to be subtracted, which would
/// cost all others half as much time again.
#[inline(always)]
fn measure<S: Isa, E: Element, O: Operator<E::Real>>(simd: S, x: Source<'_, E>, shift: Option<E::Real>) -> [f64; 2] {
    if O::SHIFTS
        && let Some(shift) = shift
    {
        let shift = Lanes::splat(simd, shift);
        return sum(
            simd,
            x,
            #[inline(always)]
            |x, sums| measuring::<_, _, O>(x - shift, sums),
        );
    }
    match E::sums(simd, x, O::TOTALS) {
        Some(sums) => sums,
        None => sum(simd, x, measuring::<_, _, O>),
    }
}

/// How the sum of two inputs is taken.
#[derive(Clone, Copy, PartialEq)]
pub enum Sum {
    /// As stored.
    Rounded,
    /// In the working precision.
    Unrounded,
}

impl Sum {
    /// The attribute `sum`.
    ///
    /// # Errors
    /// If it is missing or another word.
    pub fn new(call: &Call<'_>) -> Result<Self, Refusal> {
        match call.text("sum")? {
            "rounded" => Ok(Sum::Rounded),
            "unrounded" => Ok(Sum::Unrounded),
            other => Err(Refusal::Unsupported(format!("sum is `{other}`; it can be rounded or unrounded"))),
        }
    }
}

/// Rows of sums of two inputs.
struct Sums<R> {
    values: Vec<R>,
    width: usize,
    rows: usize,
}

impl<R: Real> Sums<R> {
    /// Room for so many rows, once there is one.
    fn new(width: usize, rows: usize) -> Self {
        Sums { values: Vec::new(), width, rows }
    }

    /// Adds two rows to the one at `index`, and stores the sum too if that is wanted.
    ///
    /// `stored` may be the memory of an input, so the inputs are read here once and not again.
    #[inline(always)]
    fn add<S: Isa, D: Element<Real = R>>(
        &mut self,
        simd: S,
        sum: Sum,
        from: (Source<'_, D>, Source<'_, D>),
        stored: Option<Sink<'_, D>>,
        index: usize,
    ) {
        if self.values.is_empty() {
            self.values.resize(self.width * self.rows, R::default());
        }
        let to = Kept(Sink::from(&mut self.values[index * self.width..][..self.width]));
        let rounded = D::IS_NARROW && sum == Sum::Rounded;
        match stored {
            Some(stored) if rounded => {
                map(
                    simd,
                    from,
                    (to, stored),
                    #[inline(always)]
                    |(x, r)| (D::round(x + r), x + r),
                );
            }
            Some(stored) => map(
                simd,
                from,
                (to, stored),
                #[inline(always)]
                |(x, r)| (x + r, x + r),
            ),
            None if rounded => map(
                simd,
                from,
                to,
                #[inline(always)]
                |(x, r)| D::round(x + r),
            ),
            None => map(
                simd,
                from,
                to,
                #[inline(always)]
                |(x, r)| x + r,
            ),
        }
    }

    /// The row at `index`.
    #[inline(always)]
    fn row(&self, index: usize) -> Source<'_, R> {
        Source::from(&self.values[index * self.width..][..self.width])
    }
}
