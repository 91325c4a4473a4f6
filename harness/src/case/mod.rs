//! A case: one question to a kernel, as data.

mod materialise;
mod refill;
mod text;

use std::collections::BTreeMap;
use std::fmt;

use isonorm_oracles::Problem;

use crate::generate::families::Family;
use crate::generate::layouts::{self, Layout};

pub use materialise::{Materialised, dense, materialise, outline};
pub use refill::refill;
pub use text::ParseCaseError;

/// The most elements that the axes of a case may span together.
pub const MOST_ELEMENTS: usize = 1 << 32;

/// The most threads that a case may ask for.
pub const MOST_THREADS: usize = 1024;

/// Everything that decides what a kernel is asked. Two equal cases are the same question, bit for bit, on any machine.
///
/// Its text form, one line, reads back as the same case:
/// `layer_norm:forward dtype=bf16:f32 r=2x3 d=5x7 eps=1e-5 with=weight,bias family=normal layout=x:row_gap in_place=y:x
/// threads=2 refreshed seed=42`
#[derive(Clone, PartialEq)]
pub struct Case {
    /// Operator, direction, element types, sizes, attributes, optional inputs.
    pub problem: Problem,
    /// What the values are like.
    pub family: &'static Family,
    /// Layouts that are not contiguous, by tensor.
    pub layouts: BTreeMap<String, Layout>,
    /// Outputs that lie where an input does, with that input. Such an output has the input's layout.
    pub in_place: BTreeMap<String, String>,
    /// How many threads the kernel may use, at least 1.
    pub threads: usize,
    /// Whether the kernel is called with other values at the same addresses first.
    pub refreshed: bool,
    /// Of the values.
    pub seed: u64,
}

/// Why a case cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidCase(pub String);

impl Case {
    /// A case with nothing special: contiguous tensors, one thread, normal values.
    pub fn plain(problem: Problem, seed: u64) -> Self {
        Case {
            problem,
            family: crate::generate::families::FAMILIES[0],
            layouts: BTreeMap::new(),
            in_place: BTreeMap::new(),
            threads: 1,
            refreshed: false,
            seed,
        }
    }

    /// How a tensor lies.
    pub fn layout(&self, tensor: &str) -> Layout {
        let placed = self.in_place.get(tensor).map_or(tensor, String::as_str);
        self.layouts.get(placed).copied().unwrap_or(Layout::Contiguous)
    }

    /// Checks that the question makes sense.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what is possible.
    pub fn validate(&self) -> Result<(), InvalidCase> {
        let fail = |message: String| Err(InvalidCase(message));
        // Before `Problem::validate`, whose products of sizes may overflow.
        let elements =
            self.problem.dims.values().flatten().try_fold(1usize, |total, &dim| total.checked_mul(dim.max(1)));
        if elements.is_none_or(|elements| elements > MOST_ELEMENTS) {
            return fail(format!("the sizes multiply to more than {MOST_ELEMENTS} elements"));
        }
        self.problem.validate().map_err(|error| InvalidCase(error.0))?;
        if !(1..=MOST_THREADS).contains(&self.threads) {
            return fail(format!("threads is {}; it can be 1 to {MOST_THREADS}", self.threads));
        }
        if self.layouts.is_empty() && self.in_place.is_empty() {
            return Ok(());
        }
        let (inputs, outputs) = (self.problem.inputs(), self.problem.outputs());
        for (name, &layout) in &self.layouts {
            let Some(tensor) = inputs.iter().chain(&outputs).find(|tensor| tensor.name == *name) else {
                let names: Vec<&str> = inputs.iter().chain(&outputs).map(|tensor| tensor.name.as_str()).collect();
                return fail(format!("layout names `{name}`, which this case has not; it has {}", names.join(", ")));
            };
            layout.check(&self.problem, tensor).map_err(InvalidCase)?;
            if layout.overlaps() && outputs.iter().any(|output| output.name == *name) {
                return fail(format!("output `{name}` cannot be {layout}: its elements would share memory"));
            }
        }
        let pairs = layouts::in_place_pairs(&self.problem, &inputs, &outputs);
        for (output, input) in &self.in_place {
            if !pairs.iter().any(|(o, i)| (o, i) == (output, input)) {
                let pairs: Vec<String> = pairs.iter().map(|(output, input)| format!("{output}:{input}")).collect();
                let possible = if pairs.is_empty() { "nothing".to_owned() } else { pairs.join(", ") };
                return fail(format!("in_place cannot be {output}:{input} here; it can be {possible}"));
            }
            if self.layout(input).overlaps() {
                return fail(format!("output `{output}` cannot lie over `{input}`, whose elements share memory"));
            }
            if self.layouts.contains_key(output) {
                return fail(format!("output `{output}` lies as `{input}` does; leave out its own layout"));
            }
            if self.in_place.iter().any(|(other, i)| other != output && i == input) {
                return fail(format!("two outputs cannot lie over `{input}`"));
            }
        }
        Ok(())
    }

    /// Drops what the other parts do not allow: layouts and places of tensors that are absent or do not fit.
    pub(crate) fn tidy(&mut self) {
        if self.layouts.is_empty() && self.in_place.is_empty() {
            return;
        }
        let (inputs, outputs) = (self.problem.inputs(), self.problem.outputs());
        let pairs = layouts::in_place_pairs(&self.problem, &inputs, &outputs);
        let problem = &self.problem;
        self.layouts.retain(|name, layout| {
            let tensor = inputs.iter().chain(&outputs).find(|tensor| tensor.name == *name);
            *layout != Layout::Contiguous && tensor.is_some_and(|tensor| layout.check(problem, tensor).is_ok())
        });
        let mut taken = Vec::new();
        let layouts = &self.layouts;
        self.in_place.retain(|output, input| {
            let legal = pairs.iter().any(|(o, i)| (o, i) == (&*output, &*input));
            let fits = legal && !layouts.get(input).is_some_and(|layout| layout.overlaps()) && !taken.contains(input);
            taken.push(input.clone());
            fits
        });
        for output in self.in_place.keys() {
            self.layouts.remove(output);
        }
    }
}

/// The text form: what one needs to see of a case, and to ask it again.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
