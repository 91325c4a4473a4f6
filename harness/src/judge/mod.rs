//! Judging: every element of every output against the truth and the bound.

mod element;
mod libtorch;
mod truth;

pub use element::{Expected, Fault, Found, judge};
pub use libtorch::{by_formula, libtorch};
pub use truth::{Tolerance, Truth};

use isonorm_kernels::abi::Dtype;
use isonorm_reports::record::Histogram;

/// What came of comparing all outputs of a call.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Output elements.
    pub elements: u64,
    /// Of these, elements of which the bound says nothing.
    pub open: u64,
    /// Elements by error as a multiple of the bound.
    pub ratios: Histogram,
    /// Elements by error in units in the last place.
    pub ulps: Histogram,
    /// The largest error as a multiple of the bound; none if every element is open.
    pub worst_ratio: Option<f64>,
    /// The largest error in units in the last place.
    pub worst_ulps: Option<f64>,
    /// For each kind of fault, the worst element.
    pub faults: Vec<Wrong>,
}

/// A wrong element.
#[derive(Clone, Debug)]
pub struct Wrong {
    /// What is wrong.
    pub fault: Fault,
    /// Which output.
    pub output: usize,
    /// Which element of it, in row-major order: the first that is wrong in this way.
    pub element: usize,
    /// What the kernel gave there.
    pub got: f64,
    /// How far it may be from the truth before it is rounded.
    pub bound: f64,
    /// The largest distance from the truth, of all elements that are wrong in this way, as a multiple of the bound.
    pub ratio: f64,
    /// How many elements are wrong in this way.
    pub count: u64,
}

impl Comparison {
    /// Adds one output, given as dense row-major values.
    ///
    /// # Panics
    /// If the number of values is not that of the output.
    pub fn add(&mut self, output: usize, dtype: Dtype, expected: impl ExactSizeIterator<Item = Expected>, got: &[f64]) {
        assert_eq!(expected.len(), got.len(), "elements of output {output}");
        for (element, (expected, &got)) in expected.zip(got).enumerate() {
            let found = judge(dtype, expected, got);
            self.elements += 1;
            match found.ratio {
                None => self.open += 1,
                Some(ratio) => {
                    self.ratios.add(ratio);
                    raise(&mut self.worst_ratio, ratio);
                }
            }
            if let Some(ulps) = found.ulps {
                self.ulps.add(ulps);
                raise(&mut self.worst_ulps, ulps);
            }
            if let Some(fault) = found.fault {
                let ratio = found.ratio.unwrap_or(f64::INFINITY);
                match self.faults.iter_mut().find(|wrong| wrong.fault == fault) {
                    Some(wrong) => {
                        wrong.count += 1;
                        wrong.ratio = wrong.ratio.max(ratio);
                    }
                    None => {
                        let bound = expected.error;
                        self.faults.push(Wrong { fault, output, element, got, bound, ratio, count: 1 });
                    }
                }
            }
        }
    }
}

/// NaN is the largest of all errors.
fn raise(worst: &mut Option<f64>, value: f64) {
    *worst = Some(match *worst {
        Some(old) if old.is_nan() || old >= value => old,
        _ => value,
    });
}
