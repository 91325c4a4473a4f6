//! Residual addition and layer normalization in one.
//!
//! `h = x + residual`; `residual_out = round(h)`; `y` is the layer normalization of `round(h)` (`sum = rounded`) or of `h` in
//! the working precision (`sum = unrounded`). Backward, `dx = dresidual` is the gradient of the normalization at `h`
//! plus `dresidual_out`.
//!
//! **Shapes.** `x`, `residual`, `y`, `residual_out`: `[r.., d..]`; `weight`, `bias`: `[d..]`, each optional.
//!
//! **Dtypes.** As for `layer_norm`; a second rounding, when `residual_out` is stored.
//!
//! **Special values, errors.** As for `layer_norm`.
//!
//! **Source.** Ba, Kiros, Hinton: Layer Normalization, arXiv:1607.06450; fused as inference libraries do.

use super::layer_norm::{Backward, Forward};
use super::{Job, Normalization, Room, RowKernel, Rows, Sums, run};
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::for_data_type;
use crate::cpu::moments::attempt;
use crate::simd::{Element, Isa, Sink, Source, map};

/// `x`, `residual`, `weight`?, `bias`? -> `y`, `residual_out`
///
/// # Errors
/// See the module.
pub fn forward(call: &Call<'_>) -> Result<(), Refusal> {
    for_data_type!(call, forward_typed)
}

/// `dy`, `dresidual_out`, `x`, `residual`, `weight`?, `bias`? -> `dx`, `dresidual`, `dweight`?, `dbias`?
///
/// # Errors
/// See the module.
pub fn backward(call: &Call<'_>) -> Result<(), Refusal> {
    for_data_type!(call, backward_typed)
}

/// What the normalization reads.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Sum {
    /// The sum as stored.
    Rounded,
    /// The sum in the working precision.
    Unrounded,
}

impl Sum {
    /// The attribute `sum`.
    pub(super) fn new(call: &Call<'_>) -> Result<Self, Refusal> {
        match call.text("sum")? {
            "rounded" => Ok(Sum::Rounded),
            "unrounded" => Ok(Sum::Unrounded),
            other => Err(Refusal::Unsupported(format!("sum is `{other}`; it can be rounded or unrounded"))),
        }
    }

    /// Writes what the normalization reads to `to`, and the sum to `stored` if it is wanted.
    ///
    /// `stored` may be the memory of `x` or `residual`, so both are read here once and not again.
    #[inline(always)]
    pub(super) fn add<S: Isa, D: Element>(
        self,
        simd: S,
        from: (Source<'_, D>, Source<'_, D>),
        to: &mut Vec<D::Real>,
        stored: Option<Sink<'_, D>>,
    ) {
        to.resize(from.0.len(), Default::default());
        let to = Sink::from(&mut to[..]);
        let rounded = D::IS_NARROW && self == Sum::Rounded;
        match stored {
            Some(stored) if rounded => map(simd, from, (to, stored), |(x, r)| (D::round(x + r), x + r)),
            Some(stored) => map(simd, from, (to, stored), |(x, r)| (x + r, x + r)),
            None if rounded => map(simd, from, to, |(x, r)| D::round(x + r)),
            None => map(simd, from, to, |(x, r)| x + r),
        }
    }
}

/// The tensors of either operator with a residual, forward.
pub(super) fn forward_job<'a, D: Element>(rows: &Rows<'a>) -> Result<Job<'a, D, 2, 2>, Refusal> {
    Ok(Job {
        inputs: [rows.input("x")?, rows.input("residual")?],
        outputs: [rows.output("y")?, rows.output("residual_out")?],
    })
}

/// The tensors of either operator with a residual, backward.
pub(super) fn backward_job<'a, D: Element>(rows: &Rows<'a>) -> Result<Job<'a, D, 4, 2>, Refusal> {
    Ok(Job {
        inputs: [rows.input("dy")?, rows.input("dresidual_out")?, rows.input("x")?, rows.input("residual")?],
        outputs: [rows.output("dx")?, rows.output("dresidual")?],
    })
}

fn forward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::normalized(call)?;
    run(&rows, &forward_job::<D>(&rows)?, [None, None], &rows.normalization::<D, _>(Sum::new(call)?)?)
}

impl<D: Element> RowKernel<D, 2, 2> for Normalization<'_, D::Real, Sum> {
    #[inline(always)]
    fn row<S: Isa>(
        &self,
        simd: S,
        room: &mut Room<D::Real>,
        [x, residual]: [Source<'_, D>; 2],
        [y, residual_out]: [Sink<'_, D>; 2],
        _: Sums<'_, D::Real>,
    ) {
        self.detail.add(simd, (x, residual), &mut room.sum, Some(residual_out));
        let h = Source::from(&room.sum[..]);
        attempt(simd, h, self.eps, &mut room.scaled, Forward { y, affine: &self.affine });
    }
}

fn backward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::normalized(call)?;
    run(&rows, &backward_job::<D>(&rows)?, rows.param_outputs()?, &rows.normalization::<D, _>(Sum::new(call)?)?)
}

impl<D: Element> RowKernel<D, 4, 2> for Normalization<'_, D::Real, Sum> {
    const HAS_BIAS: bool = true;

    #[inline(always)]
    fn row<S: Isa>(
        &self,
        simd: S,
        room: &mut Room<D::Real>,
        [dy, dresidual_out, x, residual]: [Source<'_, D>; 4],
        [mut dx, dresidual]: [Sink<'_, D>; 2],
        sums: Sums<'_, D::Real>,
    ) {
        self.detail.add(simd, (x, residual), &mut room.sum, None);
        let h = Source::from(&room.sum[..]);
        let backward = Backward { dy, more: dresidual_out, dx: dx.reborrow(), affine: &self.affine, sums };
        attempt(simd, h, self.eps, &mut room.scaled, backward);
        map(simd, dx.source(), dresidual, |dx| dx);
    }
}
