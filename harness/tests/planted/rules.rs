//! Four published rules for accepting a kernel, emulated on the corpus, to say what the derived bound is worth.
//!
//! Each rule is its inputs and its tolerance as published; the reference is the correctly rounded exact value, which is kinder
//! to them than a reference in the kernel's own precision. Conduct (stray accesses, repeated calls) is not emulated:
//! a kernel fails a rule by its outputs or by failing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use isonorm_harness::campaign::Entry;
use isonorm_harness::case::{Case, dense, materialise, refill};
use isonorm_harness::judge::Truth;
use isonorm_harness::run::{InProcess, Outcome, Request};
use isonorm_kernels::abi::{Direction, Dtype, DtypeSet, Kernel, Value};
use isonorm_oracles::operators::{self, Domain, Operator, Role};
use isonorm_oracles::storage::Format;
use isonorm_oracles::{Problem, Tensor};

use crate::corpus::{Bug, CLEAN, bugs};
use crate::trial::Accused;
use crate::{BUDGET, parallel, tables};

/// A published rule.
struct Rule {
    name: &'static str,
    /// Whether it has cases for this half of this operator in this type.
    covers: fn(&Operator, Direction, DtypeSet) -> bool,
    /// Sizes of rows (rows, entries), or of images (samples, channels, positions).
    rows: &'static [[usize; 2]],
    images: &'static [[usize; 3]],
    /// Values of eps; the operator's default if there are none.
    eps: &'static [f64],
    /// An input, from one of bell-shaped random numbers.
    values: fn(&Problem, &Tensor, Vec<f64>) -> Vec<f64>,
    /// Whether all outputs are compared, or the first one only.
    all_outputs: bool,
    /// Whether an output is accepted: reference, result.
    accepts: fn(Direction, Dtype, &[f64], &[f64]) -> bool,
}

const RULES: [Rule; 4] = [
    Rule {
        name: "KernelBench (1 trial, default weights, atol = rtol 1e-4, 1e-2 for half)",
        covers: |_, direction, _| direction == Direction::Forward,
        // Smaller than its sizes, and powers of two as they are.
        rows: &[[16, 512]],
        images: &[[8, 16, 64]],
        eps: &[],
        values: |_, tensor, values| match (tensor.role, tensor.name.as_str()) {
            (Role::Data, _) => values,
            (_, "weight" | "running_var") => vec![1.0; values.len()],
            _ => vec![0.0; values.len()],
        },
        all_outputs: false,
        accepts: |_, dtype, reference, got| {
            let tolerance = if dtype.size() > 2 { 1e-4 } else { 1e-2 };
            close(reference, got, tolerance, tolerance)
        },
    },
    Rule {
        name: "test-backend-ops (its shapes and eps, f32, NMSE 1e-7)",
        covers: |operator, direction, dtypes| {
            let forward =
                ["layer_norm", "rms_norm", "group_norm", "l2_normalize", "add_rms_norm"].contains(&operator.name);
            let backward = operator.name == "rms_norm";
            dtypes == DtypeSet::uniform(Dtype::F32) && if direction == Direction::Forward { forward } else { backward }
        },
        rows: &[[60, 64], [6, 1025]],
        // Smaller than its images, whose sizes change nothing in a normalized mean square.
        images: &[[1, 320, 64], [1, 1280, 9]],
        eps: &[0.0, 1e-6, 1e-4, 1e-1, 10.0],
        values: |_, tensor, values| match tensor.role {
            // Its numbers are even in (-1, 1); the distribution function of the normal one makes them so, roughly.
            Role::Data => values.into_iter().map(|value| (0.8 * value).tanh()).collect(),
            _ => values,
        },
        all_outputs: false,
        accepts: |_, _, reference, got| {
            let error: f64 = reference.iter().zip(got).map(|(reference, got)| (reference - got).powi(2)).sum();
            let size: f64 = reference.iter().map(|reference| reference.powi(2)).sum();
            error <= 1e-7 * size
        },
    },
    Rule {
        name: "benchdnn (exact small integers, its thresholds)",
        covers: |operator, _, _| {
            ["layer_norm", "rms_norm", "batch_norm", "batch_norm_inference", "group_norm"].contains(&operator.name)
        },
        rows: &[[2, 16], [12, 64], [7, 100], [3, 768]],
        images: &[[2, 16, 9], [5, 24, 16], [4, 32, 30]],
        eps: &[1.0 / 16.0],
        values: integers,
        all_outputs: true,
        accepts: |direction, dtype, reference, got| {
            let base = if direction == Direction::Forward { 6e-7 } else { 5e-6 };
            let threshold = base
                * match dtype {
                    Dtype::F16 => 8192.0,
                    Dtype::Bf16 => 65536.0,
                    _ => 1.0,
                };
            let near = |(reference, got): (&f64, &f64)| {
                let scale = if reference.abs() > 1e-5 { reference.abs() } else { 1.0 };
                (reference - got).abs() / scale <= threshold
            };
            let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
            let distance = norm(&mut reference.iter().zip(got).map(|(reference, got)| reference - got));
            let whole =
                direction == Direction::Backward && distance <= threshold * norm(&mut reference.iter().copied());
            whole || reference.iter().zip(got).all(near)
        },
    },
    Rule {
        name: "assert_close (defaults, normal numbers, ordinary shapes)",
        covers: |_, _, _| true,
        rows: &[[2, 3], [4, 16], [3, 17], [8, 64], [3, 100], [2, 1000]],
        images: &[[2, 3, 4], [4, 6, 9], [3, 8, 25], [2, 32, 16]],
        eps: &[],
        values: |_, _, values| values,
        all_outputs: true,
        accepts: |_, dtype, reference, got| {
            let (rtol, atol) = match dtype {
                Dtype::F32 => (1.3e-6, 1e-5),
                Dtype::F64 => (1e-7, 1e-7),
                Dtype::F16 => (1e-3, 1e-5),
                Dtype::Bf16 => (1.6e-2, 1e-5),
            };
            close(reference, got, rtol, atol)
        },
    },
];

/// How a rule fares on the corpus.
pub struct Score {
    /// The rule.
    pub rule: String,
    /// Bugs that it catches.
    pub caught: usize,
    /// Bugs in kernels that it has cases for.
    pub covered: usize,
    /// All bugs.
    pub bugs: usize,
    /// Kinds of clean kernels that it rejects.
    pub rejected: BTreeSet<String>,
    /// All kinds of clean kernels.
    pub clean: usize,
}

fn close(reference: &[f64], got: &[f64], rtol: f64, atol: f64) -> bool {
    reference.iter().zip(got).all(|(reference, got)| (reference - got).abs() <= atol + rtol * reference.abs())
}

/// Numbers of which sums of any order are exact: small integers in pairs around an integer mean, scales of one bit, and
/// shifts that do not cancel what they are added to.
fn integers(problem: &Problem, tensor: &Tensor, values: Vec<f64>) -> Vec<f64> {
    let size = |axis: &str| if problem.dims.contains_key(axis) { problem.size(axis) } else { 1 };
    let (entries, positions, together) = (size("d"), size("s"), size("k"));
    let channels = size("c") * size("g") * together;
    let samples = if problem.dims.contains_key("c") { size("n") } else { 1 };
    let count = entries * positions * together * samples;
    let element = |index: usize| {
        // Rows have one channel and one position, images one entry.
        let (sample, channel) = (index / (entries * positions * channels), index / (entries * positions) % channels);
        let own = if samples > 1 { sample } else { 0 };
        let place = (own * together + channel % together) * entries * positions + index % (entries * positions);
        let group = channel / together + if samples > 1 { 0 } else { sample };
        let unpaired = count % 2 == 1 && place + 1 == count;
        let deviation = if unpaired { 0.0 } else { [1.0, 2.0, 4.0][group % 3] * [1.0, -1.0][place % 2] };
        let scale = 0.125 * f64::from(1 << (index % 7));
        match (tensor.role, tensor.name.as_str()) {
            (Role::Data, "x") => (group * 7 % 5) as f64 - 2.0 + deviation,
            (Role::Data, _) => (index * 5 % 7) as f64 - 3.0,
            (_, "weight") => scale,
            (_, "bias") => ((index % 3) as f64 - 1.0) * scale / 64.0,
            (_, "running_var") => [1.0, 4.0, 16.0][index % 3],
            _ => (index % 5) as f64 - 2.0,
        }
    };
    (0..values.len()).map(element).collect()
}

/// One call with its reference.
struct Question {
    request: Request,
    reference: Vec<(Dtype, Vec<f64>)>,
}

impl Rule {
    fn questions(&self, operator: &'static Operator, direction: Direction, dtypes: DtypeSet) -> Vec<Question> {
        let mut problems = Vec::new();
        let optional: Vec<&'static str> =
            operator.inputs.iter().filter(|input| input.optional).map(|input| input.name).collect();
        for (dims, given) in self.sizes(operator).into_iter().flat_map(|dims| [(dims.clone(), true), (dims, false)]) {
            let given = optional.iter().copied().filter(|_| given).collect();
            let attributes = operator.default_attributes();
            let mut problem = Problem { operator, direction, dtypes, dims, attributes, given };
            for attribute in operator.attributes.iter().filter(|attribute| attribute.optional) {
                if problem.validate().is_err() {
                    problem.attributes.insert(attribute.name, attribute.domain.default());
                }
            }
            problems.push(problem);
        }
        // Every word of an attribute such as `cast`, and every eps.
        for attribute in operator.attributes {
            let values: Vec<Value> = match (&attribute.domain, attribute.name) {
                (Domain::Choice(_), _) => attribute.domain.samples(),
                (_, "eps") => self.eps.iter().map(|&eps| Value::Real(eps)).collect(),
                _ => Vec::new(),
            };
            let vary = |problem: &Problem| -> Vec<Problem> {
                let with = |value: &Value| {
                    let mut problem = problem.clone();
                    problem.attributes.insert(attribute.name, value.clone());
                    problem
                };
                if values.is_empty() { vec![problem.clone()] } else { values.iter().map(with).collect() }
            };
            problems = problems.iter().flat_map(vary).collect();
        }
        problems
            .into_iter()
            .filter(|problem| problem.validate().is_ok())
            .map(|problem| self.question(problem))
            .collect()
    }

    fn sizes(&self, operator: &Operator) -> Vec<BTreeMap<&'static str, Vec<usize>>> {
        let with = |sizes: &[(&'static str, usize)]| {
            let size = |name: &str| sizes.iter().find(|(axis, _)| *axis == name).map_or(1, |(_, size)| *size);
            operator.axes.iter().map(|axis| (axis.name, vec![size(axis.name)])).collect()
        };
        let has = |name: &str| operator.axes.iter().any(|axis| axis.name == name);
        if has("d") {
            return self.rows.iter().map(|&[r, d]| with(&[("r", r), ("d", d)])).collect();
        }
        let groups = |channels: usize| if channels.is_multiple_of(4) { 4 } else { 3 };
        let image =
            |&[n, c, s]: &[usize; 3]| with(&[("n", n), ("c", c), ("g", groups(c)), ("k", c / groups(c)), ("s", s)]);
        self.images.iter().map(image).collect()
    }

    fn question(&self, problem: Problem) -> Question {
        let ordinary = materialise(&Case::plain(problem.clone(), 1)).inputs;
        let stored = |(tensor, values): (Tensor, Vec<f64>)| {
            let format = Format::of(tensor.dtype);
            (self.values)(&problem, &tensor, values).into_iter().map(|value| format.round(value)).collect()
        };
        let inputs: Vec<Vec<f64>> = problem.inputs().into_iter().zip(ordinary).map(stored).collect();
        let truth = Truth::of(&problem, &inputs.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let compared = if self.all_outputs { problem.outputs().len() } else { 1 };
        let reference = (0..compared)
            .map(|output| {
                let format = Format::of(truth.dtype(output));
                (truth.dtype(output), truth.output(output).iter().map(|&value| format.round_dd(value)).collect())
            })
            .collect();
        Question { request: refill(&problem, inputs, 1), reference }
    }

    fn passes(&self, kernel: &Arc<dyn Kernel>, direction: Direction, questions: &[Question]) -> bool {
        let entry = Entry::new(Arc::new(InProcess::new(kernel.clone())), 1).expect("the corpus knows the operators");
        let mut runner = entry.contender.open().expect("a kernel in this process opens");
        questions.iter().all(|Question { request, reference }| {
            let Outcome::Answered(answer) = runner.run(request) else { return false };
            let outputs = request.outputs.iter().zip(&answer.outputs).map(|(spec, memory)| dense(spec, memory));
            let accepted = |((dtype, reference), got): (&(Dtype, Vec<f64>), Vec<f64>)| {
                (self.accepts)(direction, *dtype, reference, &got)
            };
            reference.iter().zip(outputs).all(accepted)
        })
    }

    fn has_cases(&self, kernel: &Arc<dyn Kernel>) -> bool {
        let info = kernel.info();
        let operator = operators::find(&info.operator).expect("the corpus knows the operators");
        info.dtypes.iter().any(|dtypes| (self.covers)(operator, info.direction, *dtypes))
    }

    /// Which of these kernels pass.
    fn judge(&self, kernels: &[Arc<dyn Kernel>]) -> Vec<bool> {
        let mut groups: BTreeMap<(String, Direction, DtypeSet), Vec<usize>> = BTreeMap::new();
        for (place, kernel) in kernels.iter().enumerate() {
            for dtypes in &kernel.info().dtypes {
                groups
                    .entry((kernel.info().operator.clone(), kernel.info().direction, *dtypes))
                    .or_default()
                    .push(place);
            }
        }
        let groups: Vec<_> = groups.into_iter().collect();
        let failed = parallel(&groups, |((operator, direction, dtypes), places)| {
            let operator = operators::find(operator).expect("the corpus knows the operators");
            if !(self.covers)(operator, *direction, *dtypes) {
                return Vec::new();
            }
            let questions = self.questions(operator, *direction, *dtypes);
            places.iter().copied().filter(|&place| !self.passes(&kernels[place], *direction, &questions)).collect()
        });
        let failed: BTreeSet<usize> = failed.into_iter().flatten().collect();
        (0..kernels.len()).map(|place| !failed.contains(&place)).collect()
    }
}

#[test]
fn the_derived_bound_beside_published_rules() {
    let bugs: Vec<&Bug> = bugs().collect();
    let planted: Vec<Arc<dyn Kernel>> = bugs.iter().map(|bug| bug.kernel()).collect();
    let clean: Vec<Arc<dyn Kernel>> = CLEAN.iter().flat_map(|clean| clean.kernels()).collect();
    let score = |rule: &str, covered: usize, of_planted: Vec<bool>, of_clean: Vec<bool>| {
        let names =
            clean.iter().zip(of_clean).filter(|(_, passes)| !passes).map(|(kernel, _)| kernel.info().name.clone());
        let (rule, bugs) = (rule.to_owned(), bugs.len());
        let caught = of_planted.iter().filter(|passes| !**passes).count();
        Score { rule, caught, covered, bugs, rejected: names.collect(), clean: CLEAN.len() }
    };
    let covered = |rule: &Rule| planted.iter().filter(|kernel| rule.has_cases(kernel)).count();
    let mut scores: Vec<Score> =
        RULES.iter().map(|rule| score(rule.name, covered(rule), rule.judge(&planted), rule.judge(&clean))).collect();
    let ours = score(
        "isonorm (derived bound)",
        bugs.len(),
        parallel(&planted, |kernel| Accused::of(kernel.clone()).first(1, BUDGET).is_none()),
        parallel(&clean, |kernel| {
            let mut accused = Accused::of(kernel.clone());
            (0..8).all(|index| {
                let case = accused.case(1, index);
                !accused.ask(&case).failed()
            })
        }),
    );
    let (caught, rejected) = (ours.caught, ours.rejected.len());
    scores.push(ours);
    println!("{}", tables::scores(&scores));
    assert!(rejected == 0 && scores.iter().all(|other| other.caught <= caught), "another rule is better than ours");
    // The emulations are not straw men: each catches what its authors would expect.
    assert!(scores.iter().all(|score| score.caught > bugs.len() / 10), "an emulated rule catches next to nothing");
}
