//! The map stage backward.

use crate::simd::{Element, Isa, Lanes, Load, Real, Sink, Slot, Source, map};

/// What the gradient of a row needs of its statistics:
/// `dx = (g - a - x_hat * b) * scale` with `g = dy * weight` and `x_hat = (x - hi - lo) * rstd`.
#[derive(Clone, Copy, Default)]
pub struct Gradient<R> {
    /// The mean, rounded.
    pub hi: R,
    /// What rounding the mean lost.
    pub lo: R,
    /// What makes `x_hat`.
    pub rstd: R,
    /// Subtracted from `g`.
    pub a: R,
    /// Times `x_hat`, subtracted from `g`.
    pub b: R,
    /// The derivative of `x_hat`: `rstd`, but for rescaled rows.
    pub scale: R,
}

impl<R: Real> Gradient<R> {
    /// Computes `dx`, and adds to the sums of `dweight` and `dbias`.
    ///
    /// `more` is added to `dx` before it is rounded; `stored` is what the operator makes of `x_hat` before it
    /// multiplies it with the weight.
    #[inline(always)]
    pub fn apply<S: Isa, E: Element<Real = R>, D: Element<Real = R>>(
        self,
        simd: S,
        (dy, x, weight): (Source<'_, D>, Source<'_, E>, Source<'_, R>),
        more: impl Load<S, R, Item = Lanes<S, R>>,
        dx: Sink<'_, D>,
        (dweight, dbias): (impl Slot<S, R>, impl Slot<S, R>),
        stored: impl Fn(Lanes<S, R>) -> Lanes<S, R>,
    ) {
        let [hi, lo, rstd, a, b, scale] =
            [self.hi, self.lo, self.rstd, self.a, self.b, self.scale].map(|value| Lanes::splat(simd, value));
        let (weight_sum, weight_to) = dweight.ends();
        let (bias_sum, bias_to) = dbias.ends();
        let from = (dy, x, weight, more, weight_sum, bias_sum);
        map(simd, from, (dx, weight_to, bias_to), |(dy, x, w, more, weight, bias)| {
            let x_hat = ((x - hi) - lo) * rstd;
            let dx = ((dy * w - a) - x_hat * b) * scale + more;
            (dx, dy.mul_add(stored(x_hat), weight), bias + dy)
        });
    }
}
