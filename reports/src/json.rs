//! The document that `certify --format json` and `report --format json` print.

use schemars::JsonSchema;
use serde::Serialize;

use crate::bench;
use crate::record::{Extreme, Number};
use crate::summary::{Summary, Verdict};

/// The answer to a campaign, for other programs. Numbers that JSON has none for are the strings of [`Number`].
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Document {
    /// Judged cases.
    pub cases: u64,
    /// Cases judged per second of wall-clock time; null if that is not known.
    pub cases_per_second: Option<Number>,
    /// Number of findings.
    pub findings: usize,
    /// Number of declined cases.
    pub declined: u64,
    /// The kernels, by operator, direction and name.
    pub kernels: Vec<Kernel>,
    /// What was measured about speed, as `bench --format json` prints it; left out if nothing was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub benches: Vec<bench::Document>,
}

/// The answer about a kernel.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// Operator it claims to compute.
    pub operator: String,
    /// `forward` or `backward`.
    pub direction: String,
    /// `cpu`, `cuda` or `ptx`.
    pub device: String,
    /// The dtypes that the verdict is about.
    pub dtypes: Vec<String>,
    /// The answer.
    pub verdict: Verdict,
    /// Judged cases.
    pub cases: u64,
    /// What it got wrong.
    pub findings: Vec<Finding>,
    /// Its largest error as a multiple of the bound; null if no error was measured.
    pub worst_ratio_to_bound: Option<Number>,
    /// libtorch's largest error on the same cases, as a multiple of the bound; null if libtorch was not asked.
    pub libtorch_worst_ratio_to_bound: Option<Number>,
}

/// A property that a kernel does not have.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Finding {
    /// Name of the property.
    pub property: String,
    /// The smallest case that shows it, in its one-line form.
    pub case: String,
    /// Largest error as a multiple of the bound; null where the property is not about errors.
    pub ratio_to_bound: Option<Number>,
    /// What is wrong, in a sentence.
    pub message: String,
}

/// The document about a summary.
pub fn document(summary: &Summary) -> Document {
    let value = |extreme: &Option<Extreme>| extreme.as_ref().map(|e| e.value);
    let kernels = summary.kernels.iter().map(|k| Kernel {
        name: k.kernel.name.clone(),
        operator: k.kernel.operator.clone(),
        direction: k.kernel.direction.clone(),
        device: k.kernel.device.clone(),
        dtypes: k.kernel.dtypes.clone(),
        verdict: k.verdict,
        cases: k.total.cases,
        findings: k
            .findings
            .iter()
            .map(|f| Finding {
                property: f.property.clone(),
                case: f.case.clone(),
                ratio_to_bound: f.ratio_to_bound,
                message: f.message.clone(),
            })
            .collect(),
        worst_ratio_to_bound: value(&k.total.errors.worst_ratio_to_bound),
        libtorch_worst_ratio_to_bound: value(&k.total.libtorch.worst_ratio_to_bound),
    });
    Document {
        cases: summary.cases(),
        cases_per_second: summary.cases_per_second(),
        findings: summary.findings(),
        declined: summary.declined(),
        kernels: kernels.collect(),
        benches: bench::document(&summary.benches),
    }
}
