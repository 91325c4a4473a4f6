//! One element: what a kernel gave against what is true.

use isonorm_kernels::abi::Dtype;
use isonorm_oracles::dd::Dd;
use isonorm_oracles::storage::Format;

/// What is known of an element before a kernel is asked.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The true value.
    pub truth: Dd,
    /// How far the computed value can be from it before it is rounded to the output's type; infinite if nothing can
    /// be said.
    pub error: f64,
    /// Whether a zero must have the sign of the true zero.
    pub zero_sign: bool,
    /// Whether every non-finite result stands for every other: where infinities meet, the order of evaluation decides
    /// which of them comes out.
    pub any_non_finite: bool,
}

/// Why an element is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A number where the formula gives NaN or an infinity, or the other way round, or the wrong infinity.
    Class,
    /// Farther from the truth than any evaluation of the formula can be.
    Bound,
    /// All evaluations give the same value, which is rounded in another way than to nearest, ties to even.
    Rounding,
    /// A zero of the wrong sign.
    ZeroSign,
}

impl Fault {
    /// The property that the kernel lacks, for records.
    pub fn property(self) -> &'static str {
        match self {
            Fault::Class => "special_values",
            Fault::Bound => "within_bound",
            Fault::Rounding => "exact_rounding",
            Fault::ZeroSign => "sign_of_zero",
        }
    }

    /// What is wrong, as half a sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Fault::Class => "NaN, infinity or number where the formula gives another of these",
            Fault::Bound => "farther from the true value than any evaluation of the formula can be",
            Fault::Rounding => {
                "the exact result is representable in every step and is not rounded to nearest, ties to even"
            }
            Fault::ZeroSign => "a zero of the wrong sign",
        }
    }
}

/// How an element was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// What is wrong with it, if anything.
    pub fault: Option<Fault>,
    /// Distance from the truth as a multiple of the bound, the last rounding included; none where nothing can be said.
    /// Above 1 for a wrong element, at most 1 for a right one.
    pub ratio: Option<f64>,
    /// Distance from the truth in units in the last place of the output's type.
    pub ulps: Option<f64>,
}

const RIGHT: Found = Found { fault: None, ratio: Some(0.0), ulps: Some(0.0) };
const OPEN: Found = Found { fault: None, ratio: None, ulps: None };

/// Judges one element of type `dtype`.
///
/// Accepted is what lies between the roundings of truth - error and truth + error; where the error is 0, only the
/// rounded truth itself.
pub fn judge(dtype: Dtype, expected: Expected, got: f64) -> Found {
    let Expected { truth, error, zero_sign, any_non_finite } = expected;
    if error == f64::INFINITY {
        return OPEN;
    }
    let wrong = |fault: Fault, ratio: f64, ulps: f64| Found {
        fault: Some(fault),
        ratio: Some(if ratio > 1.0 { ratio } else { 1.0f64.next_up() }),
        ulps: Some(ulps),
    };
    if !truth.hi.is_finite() {
        let meets = got == truth.hi || (got.is_nan() && truth.hi.is_nan()) || (any_non_finite && !got.is_finite());
        return if meets { RIGHT } else { wrong(Fault::Class, f64::INFINITY, f64::NAN) };
    }
    let format = Format::of(dtype);
    let low = format.round_dd(truth - error.into());
    let high = format.round_dd(truth + error.into());
    if got.is_nan() || (got.is_infinite() && got != low && got != high) {
        return wrong(Fault::Class, f64::INFINITY, f64::NAN);
    }
    let ulp = format.ulp(truth.hi);
    let distance = if got.is_infinite() { 0.0 } else { (Dd::from(got) - truth).hi.abs() };
    let ratio = distance / (error + 0.5 * ulp);
    let ulps = distance / ulp;
    if !(low <= got && got <= high) {
        let fault = if error == 0.0 && ulps <= 1.0 { Fault::Rounding } else { Fault::Bound };
        return wrong(fault, ratio, ulps);
    }
    let zero = error == 0.0 && truth.hi == 0.0;
    if zero && zero_sign && got.is_sign_negative() != truth.hi.is_sign_negative() {
        return wrong(Fault::ZeroSign, ratio, ulps);
    }
    Found { fault: None, ratio: Some(ratio.min(1.0)), ulps: Some(ulps) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect(truth: f64, error: f64) -> Expected {
        Expected { truth: truth.into(), error, zero_sign: true, any_non_finite: false }
    }

    /// The truth table of the judge: what is asked, what is given, what must come out.
    #[test]
    fn truth_table() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let tie = 1.0 + 0.5f64.powi(8); // between 1 and the next bf16
        let up = 1.0 + 0.5f64.powi(7);
        let table: &[(&str, Dtype, Expected, f64, Option<Fault>)] = &[
            ("equal", Dtype::F32, expect(1.5, 0.0), 1.5, None),
            ("anything against nothing known", Dtype::F32, expect(1.5, inf), nan, None),
            ("NaN for a number", Dtype::F32, expect(1.0, 1e-3), nan, Some(Fault::Class)),
            ("NaN for zero", Dtype::F32, expect(0.0, 1e-3), nan, Some(Fault::Class)),
            ("a number for NaN", Dtype::F32, expect(nan, 0.0), 0.0, Some(Fault::Class)),
            ("infinity for NaN", Dtype::F32, expect(nan, 0.0), inf, Some(Fault::Class)),
            ("NaN for NaN", Dtype::F32, expect(nan, 0.0), nan, None),
            ("NaN for infinity", Dtype::F32, expect(inf, 0.0), nan, Some(Fault::Class)),
            ("the wrong infinity", Dtype::F32, expect(inf, 0.0), -inf, Some(Fault::Class)),
            ("the right infinity", Dtype::F32, expect(-inf, 0.0), -inf, None),
            ("infinity for a number", Dtype::F32, expect(1.0, 1e-3), inf, Some(Fault::Class)),
            ("overflow of the storage type", Dtype::F16, expect(65520.0, 0.0), inf, None),
            ("saturation instead of overflow", Dtype::F16, expect(65520.0, 0.0), 65504.0, Some(Fault::Rounding)),
            ("premature overflow", Dtype::F16, expect(65510.0, 1.0), inf, Some(Fault::Class)),
            ("inside", Dtype::F32, expect(1.0, 1e-3), 1.0009, None),
            ("outside", Dtype::F32, expect(1.0, 1e-3), 1.0011, Some(Fault::Bound)),
            ("zero where the truth is not", Dtype::F32, expect(1e-3, 1e-4), 0.0, Some(Fault::Bound)),
            ("anything but zero against zero", Dtype::F32, expect(0.0, 0.0), 1e-30, Some(Fault::Bound)),
            ("tie to even", Dtype::Bf16, expect(tie, 0.0), 1.0, None),
            ("tie away", Dtype::Bf16, expect(tie, 0.0), up, Some(Fault::Rounding)),
            ("tie within an error", Dtype::Bf16, expect(tie, 1e-9), up, None),
            ("truncation", Dtype::Bf16, expect(1.007, 1e-6), 1.0, Some(Fault::Bound)),
            ("subnormal kept", Dtype::F32, expect(1e-40, 1e-45), 1e-40f32 as f64, None),
            ("subnormal flushed", Dtype::F32, expect(1e-40, 1e-45), 0.0, Some(Fault::Bound)),
            ("minus zero kept", Dtype::F32, expect(-0.0, 0.0), -0.0, None),
            ("minus zero lost", Dtype::F32, expect(-0.0, 0.0), 0.0, Some(Fault::ZeroSign)),
        ];
        let wrong: Vec<String> = table
            .iter()
            .filter_map(|&(name, dtype, expected, got, want)| {
                let found = judge(dtype, expected, got);
                let consistent = found.ratio.is_none_or(|ratio| (ratio > 1.0) == found.fault.is_some());
                (found.fault != want || !consistent).then(|| format!("{name}: {found:?}, want {want:?}"))
            })
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn where_infinities_meet_either_will_do_but_no_number() {
        let expected = Expected { any_non_finite: true, ..expect(f64::INFINITY, 0.0) };
        assert_eq!(judge(Dtype::F32, expected, f64::NAN).fault, None);
        assert_eq!(judge(Dtype::F32, expected, 1.0).fault, Some(Fault::Class));
    }
}
