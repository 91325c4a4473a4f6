//! Operators whose statistics are taken along the last axes: each row of the data is normalized by itself.
//!
//! An operator measures a row ([`Operator::measure`]), and says what its statistic makes of an element
//! ([`Operator::normalized`]); backward, what makes the gradient ([`Operator::gradient`]). The loops over rows and
//! elements are in [`forward`] and [`backward`].

pub mod add_layer_norm;
pub mod add_rms_norm;
pub mod crms_norm;
mod backward;
mod forward;
pub mod l2_normalize;
pub mod layer_norm;
pub mod partial_rms_norm;
pub mod rms_norm;

use std::array::from_fn;

use super::arguments::{Param, ParamOutput, eps, expect_sizes, param, sizes};
use super::moments::Scaling;
use super::views::{CACHE_LINE, Input, Output};
use crate::abi::{Call, Refusal};
use crate::simd::{Element, Isa, Kept, Lanes, Real, Sink, Source, map};

pub use backward::Gradient;

/// The most bytes of one tensor's tile: a tile is measured before it is mapped, and should stay in a cache meanwhile.
const TILE_BYTES: usize = 1 << 18;

/// Columns that a tile is mapped in at a time, where the next tile is fetched meanwhile.
const COLUMNS: usize = 256;

/// The least bytes of a call's tensors for which fetching ahead pays: what does not fit in a core's own caches.
const FETCH_BYTES: usize = 1 << 20;

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
    fn input<D: Element>(&self, name: &str) -> Result<Input<'a, D>, Refusal> {
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
    fn output<D: Element>(&self, name: &str) -> Result<Output<'a, D>, Refusal> {
        let tensor = self.call.required_output(name)?;
        expect_sizes(name, &tensor, self.shape)?;
        let axes = self.axes();
        let (outer, inner) = axes.split_at(axes.len() - self.inner);
        Output::new(name, &tensor, tensor.shape, tensor.strides, outer, inner)
    }

    /// `eps`, weight and bias, those that are there.
    ///
    /// # Errors
    /// If `eps` is not as it should be, or sizes or types of the others do not fit.
    pub fn parameters<D: Element>(&self, has_bias: bool) -> Result<Parameters<'a, D::Real>, Refusal> {
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
        parameters: &Parameters<'_, D::Real>,
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
        parameters: &Parameters<'_, D::Real>,
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
        parameters: &Parameters<'_, D::Real>,
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
        parameters: &Parameters<'_, D::Real>,
        operator: &O,
    ) -> Result<(), Refusal> {
        let inputs =
            [self.input::<D>("dy")?, self.input("dresidual_out")?, self.input("x")?, self.input("residual")?];
        let outputs = [self.output("dx")?, self.output("dresidual")?];
        backward::backward(self, inputs, outputs, Sum::new(self.call)?, parameters, operator)
    }

    /// Rows that go through the stages together, if they can: a tile must stay in a cache, and if outputs are written past
    /// the caches, all its rows must have their cache lines at the same places.
    fn tile<D: Element>(&self, most: usize, streams: bool) -> usize {
        let bytes = self.width * size_of::<D>();
        if most * bytes > TILE_BYTES || (streams && !bytes.is_multiple_of(CACHE_LINE)) { 1 } else { most }
    }

    /// Whether rows are to be fetched ahead, with `tensors` of them in a call.
    fn fetches<D: Element>(&self, tensors: usize) -> bool {
        self.count.saturating_mul(self.width).saturating_mul(tensors * size_of::<D>()) >= FETCH_BYTES
    }
}

/// The parameters of a call; those that are absent do nothing.
pub struct Parameters<'a, R> {
    /// Added under the root.
    pub eps: f64,
    /// Factor per element of a row.
    pub weight: Param<'a, R>,
    /// Term per element of a row.
    pub bias: Param<'a, R>,
}

/// An operator: what it measures of a row, and how it normalizes by that.
pub trait Operator<R: Real>: Sync {
    /// What normalizing an element takes.
    type Statistic: Copy;

    /// Whether there is a bias.
    const HAS_BIAS: bool = false;
    /// Whether the statistic may come from a part of the row.
    const IS_PARTIAL: bool = false;
    /// Whether rows go through the map stage together, where there are registers for that: pays where they share weight
    /// and bias, or the sums of gradients.
    const SHARES: bool = false;
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

    /// Measures a row, at least one element long; `None` if `scaling` does not accept its squares.
    fn measure<S: Isa, E: Element<Real = R>>(
        &self,
        simd: S,
        x: Source<'_, E>,
        scaling: Scaling,
    ) -> Option<Self::Statistic>;

    /// What stands before weight and bias.
    fn normalized<S: Isa>(&self, simd: S, statistic: Self::Statistic) -> impl Fn(Lanes<S, R>) -> Lanes<S, R> + Copy;

    /// Measures a row and the gradient that comes to it; `None` as for [`measure`](Self::measure).
    fn gradient<S: Isa, E: Element<Real = R>, D: Element<Real = R>>(
        &self,
        simd: S,
        dy: Source<'_, D>,
        x: Source<'_, E>,
        weight: Source<'_, R>,
        scaling: Scaling,
    ) -> Option<Gradient<R>>;
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
struct Sums<R, const TILE: usize> {
    values: Vec<R>,
    width: usize,
}

impl<R: Real, const TILE: usize> Sums<R, TILE> {
    fn new(width: usize) -> Self {
        Sums { values: Vec::new(), width }
    }

    /// Adds two rows, and stores the sum too if that is wanted.
    ///
    /// `stored` may be the memory of an input, so the inputs are read here once and not again.
    #[inline(always)]
    fn add<S: Isa, D: Element<Real = R>>(
        &mut self,
        simd: S,
        sum: Sum,
        index: usize,
        from: (Source<'_, D>, Source<'_, D>),
        stored: Option<Sink<'_, D>>,
    ) {
        if self.values.is_empty() {
            self.values.resize(TILE * self.width, R::default());
        }
        let to = Kept(Sink::from(&mut self.values[index * self.width..][..self.width]));
        let rounded = D::IS_NARROW && sum == Sum::Rounded;
        match stored {
            Some(stored) if rounded => map(simd, from, (to, stored), #[inline(always)] |(x, r)| (D::round(x + r), x + r)),
            Some(stored) => map(simd, from, (to, stored), #[inline(always)] |(x, r)| (x + r, x + r)),
            None if rounded => map(simd, from, to, #[inline(always)] |(x, r)| D::round(x + r)),
            None => map(simd, from, to, #[inline(always)] |(x, r)| x + r),
        }
    }

    /// The first `count` rows; the last one over and over, if that is less than a tile.
    #[inline(always)]
    fn rows(&self, count: usize) -> [Source<'_, R>; TILE] {
        from_fn(|i| Source::from(&self.values[i.min(count - 1) * self.width..][..self.width]))
    }
}
