//! A certificate: the whole answer about one kernel, for programs (JSON) and for people (Markdown).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::record::{
    Budget, Counts, Elements, Errors, Finding, Kernel, Machine, Number, Outcome, Property, Range, Shard, TrafficCounts,
};
use crate::summary::{KernelSummary, Run, Summary, Verdict};
use crate::{Error, render};

/// The whole answer about one kernel. Its JSON form is the certificate for programs.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Certificate {
    /// Who: name, operator, dtypes, formula, and the file with its SHA-256.
    pub kernel: Kernel,
    /// The answer.
    pub verdict: Verdict,
    /// Why it is not certified; empty if it is.
    pub reasons: Vec<String>,
    /// All cases together.
    pub total: Figures,
    /// Output elements of these cases, and how they were judged.
    pub elements: Elements,
    /// Cases in which every intermediate is representable, so that the answer had to match to the bit.
    pub in_exact_range: u64,
    /// By dtype.
    pub dtypes: Vec<Figures>,
    /// By value family of the inputs.
    pub families: Vec<Figures>,
    /// Declined cases, by dtype and reason.
    pub declined: Vec<Declined>,
    /// On which scale of inputs it works.
    pub ranges: Vec<Range>,
    /// What was checked beside the error of each element.
    pub properties: Vec<Property>,
    /// What its launches did on the PTX executor, by dtype; empty for a kernel that ran elsewhere.
    pub traffic: Vec<Traffic>,
    /// What it got wrong.
    pub findings: Vec<Finding>,
    /// Who asked what, where and with which seed; running these commands again gives this certificate again.
    pub runs: Vec<Asked>,
}

/// What was measured over a set of cases.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Figures {
    /// What the cases have in common.
    pub name: String,
    /// Judged cases.
    pub cases: u64,
    /// Of these, those that failed.
    pub failed: u64,
    /// Cases that the kernel declined.
    pub declined: u64,
    /// The kernel's errors.
    pub errors: Size,
    /// libtorch's errors on the same cases.
    pub libtorch: Size,
}

/// How large errors are. The 99.9th percentiles are read from histograms and overstated by less than a factor of 1.5.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Size {
    /// The largest, as a multiple of the bound.
    pub worst_ratio_to_bound: Option<Number>,
    /// The case with the largest multiple of the bound.
    pub worst_case: Option<String>,
    /// What 99.9 % of the elements do not exceed, as a multiple of the bound.
    pub p999_ratio_to_bound: Option<Number>,
    /// The largest, in units in the last place.
    pub worst_ulps: Option<Number>,
    /// What 99.9 % of the elements do not exceed, in units in the last place.
    pub p999_ulps: Option<Number>,
}

/// What the launches of a kernel did on all cases of a dtype, counted by the PTX executor: never measured on a GPU.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Traffic {
    /// The dtype.
    pub dtype: String,
    /// Instructions of threads, for each element of the first input.
    pub instructions_per_element: Option<Number>,
    /// Bytes of the threads' own memory (spilled registers, arrays) that are moved, for each element of the first input.
    pub local_bytes_per_element: Option<Number>,
    /// Passes over shared memory that conflicts of its banks cost, for each request.
    pub bank_conflicts_per_request: Option<Number>,
    /// For each tensor, and each scratch buffer, what was done to it.
    pub tensors: Vec<TensorTraffic>,
    /// The sums behind them.
    pub counts: TrafficCounts,
}

/// What was done to a tensor.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TensorTraffic {
    /// Its name, or `scratch.NAME`.
    pub name: String,
    /// Bytes read, as a multiple of its own.
    pub read: Option<Number>,
    /// The most of a single case.
    pub most_read: Option<Number>,
    /// Bytes written, as a multiple of its own.
    pub written: Option<Number>,
    /// Of the accesses, those that moved fewer than 16 bytes.
    pub narrow: Option<Number>,
    /// Of the requests, those that touched at least two sectors more than they had to.
    pub uncoalesced: Option<Number>,
    /// Atomic operations.
    pub atomics: u64,
}

impl Traffic {
    /// What can be read off the counts of a dtype.
    pub fn new(dtype: &str, counts: &TrafficCounts) -> Traffic {
        let figures = counts.figures();
        let tensors = counts.buffers.iter().map(|(name, buffer)| {
            let figure = |what: &str| figures.get(&format!("{name} {what}")).copied();
            TensorTraffic {
                read: figure("read"),
                most_read: buffer.most_read.as_ref().map(|most| most.value),
                written: figure("written"),
                narrow: figure("narrow"),
                uncoalesced: figure("uncoalesced"),
                atomics: buffer.atomics,
                name: name.clone(),
            }
        });
        let figure = |name: &str| figures.get(name).copied();
        Traffic {
            dtype: dtype.to_owned(),
            instructions_per_element: figure("instructions per element"),
            local_bytes_per_element: figure("local bytes per element"),
            bank_conflicts_per_request: figure("bank conflicts per request"),
            tensors: tensors.collect(),
            counts: counts.clone(),
        }
    }
}

/// Cases that a kernel declined.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Declined {
    /// Their dtype.
    pub dtype: String,
    /// Why.
    pub reason: String,
    /// How many.
    pub cases: u64,
}

/// One run of a campaign.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Asked {
    /// Version of isonorm.
    pub isonorm: String,
    /// Git revision it was built from.
    pub revision: Option<String>,
    /// Version of libtorch.
    pub libtorch: Option<String>,
    /// Seed of the cases.
    pub seed: u64,
    /// Which part of the campaign.
    pub shard: Shard,
    /// How long it was to go on.
    pub budget: Budget,
    /// Threads that judged cases.
    pub threads: u32,
    /// Where it ran.
    pub machine: Machine,
    /// The command line.
    pub command: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// When it ended, RFC 3339; null if it was cut off.
    pub finished: Option<String>,
    /// Whether it did what was asked; null if it was cut off.
    pub outcome: Option<Outcome>,
}

impl From<&Run> for Asked {
    fn from(run: &Run) -> Asked {
        let c = run.campaign.clone();
        Asked {
            isonorm: c.isonorm,
            revision: c.revision,
            libtorch: c.libtorch,
            seed: c.seed,
            shard: c.shard,
            budget: c.budget,
            threads: c.threads,
            machine: c.machine,
            command: c.command,
            started: c.started,
            finished: run.end.as_ref().map(|end| end.finished.clone()),
            outcome: run.end.as_ref().map(|end| end.outcome),
        }
    }
}

impl Certificate {
    /// The certificate of a kernel in a summary.
    pub fn new(summary: &Summary, kernel: &KernelSummary) -> Certificate {
        let figures = |groups: BTreeMap<String, Counts>| groups.into_iter().map(|(name, c)| Figures::new(name, &c));
        let mut declined = Vec::new();
        for (dtype, counts) in kernel.by(|tally| tally.dtype.clone()) {
            let reasons = counts.declined.into_iter();
            declined.extend(reasons.map(|(reason, cases)| Declined { dtype: dtype.clone(), reason, cases }));
        }
        Certificate {
            kernel: kernel.kernel.clone(),
            verdict: kernel.verdict,
            reasons: kernel.reasons.clone(),
            total: Figures::new("all".to_owned(), &kernel.total),
            elements: kernel.total.elements,
            in_exact_range: kernel.total.in_exact_range,
            dtypes: figures(kernel.by(|tally| tally.dtype.clone())).collect(),
            families: figures(kernel.by(|tally| tally.family.clone())).collect(),
            declined,
            ranges: kernel.ranges.clone(),
            properties: kernel.properties.clone(),
            traffic: kernel.traffic.iter().map(|(dtype, counts)| Traffic::new(dtype, counts)).collect(),
            findings: kernel.findings.clone(),
            runs: kernel.runs.iter().map(|run| Asked::from(&summary.runs[*run])).collect(),
        }
    }

    /// The certificate as JSON.
    ///
    /// # Errors
    /// [`Error::Json`] if it cannot be written so.
    pub fn json(&self) -> Result<String, Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The certificate as Markdown.
    ///
    /// # Errors
    /// [`Error::Template`] if it cannot be written so.
    pub fn markdown(&self) -> Result<String, Error> {
        render::render("certificate.md", self)
    }
}

impl Figures {
    fn new(name: String, counts: &Counts) -> Figures {
        Figures {
            name,
            cases: counts.cases,
            failed: counts.failed,
            declined: counts.declined_cases(),
            errors: Size::from(&counts.errors),
            libtorch: Size::from(&counts.libtorch),
        }
    }
}

impl From<&Errors> for Size {
    fn from(errors: &Errors) -> Size {
        Size {
            worst_ratio_to_bound: errors.worst_ratio_to_bound.as_ref().map(|worst| worst.value),
            worst_case: errors.worst_ratio_to_bound.as_ref().map(|worst| worst.case.clone()),
            p999_ratio_to_bound: errors.ratio_quantile(0.999),
            worst_ulps: errors.worst_ulps.as_ref().map(|worst| worst.value),
            p999_ulps: errors.ulps_quantile(0.999),
        }
    }
}
