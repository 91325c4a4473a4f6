//! How things stand: what a gate compares, and what a baseline keeps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GateError;
use crate::record::{self, Bench, Finding, Machine, Number, Record, Setting, files, read_lossy, size_class_lengths};
use crate::summary::{Summary, Verdict};

/// Version of the baseline's format.
pub const BASELINE_VERSION: u32 = 1;

/// How kernels stood in a set of records. A baseline is the snapshot of a set that was good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Version of this format.
    pub baseline: u32,
    /// Version of isonorm.
    pub isonorm: String,
    /// When the records were begun, RFC 3339; empty if there were none.
    pub taken: String,
    /// What was asked; null if only speed was.
    pub asked: Option<Asked>,
    /// What was found out about each kernel.
    pub kernels: BTreeMap<String, Standing>,
    /// What was measured about speed, machine by machine.
    pub speed: Vec<Speed>,
    /// The files that the kernels were loaded from, with the SHA-256 of each, where the records were just read.
    #[serde(skip)]
    pub libraries: BTreeMap<String, String>,
}

/// What decides the cases of a campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Cases that each kernel was asked.
    pub cases: u64,
    /// Their seed.
    pub seed: u64,
}

/// What was found out about a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// The answer.
    pub verdict: Verdict,
    /// Why it is not certified.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// What it got wrong, by property and dtype.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub findings: BTreeMap<String, Known>,
    /// Its errors, by dtype, and by value family and length of the longest reduction (`normal 64-`).
    pub errors: BTreeMap<String, BTreeMap<String, Error>>,
    /// What its launches did, by dtype and figure, where the PTX executor ran it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub traffic: BTreeMap<String, BTreeMap<String, Number>>,
}

/// A finding of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Cases that showed it.
    pub cases: u64,
    /// The finding itself, where it was just made.
    #[serde(skip)]
    pub finding: Option<Box<Finding>>,
}

/// Errors as multiples of the bound; kept as an array of the two numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "(Number, Number)", into = "(Number, Number)")]
#[schemars(with = "(Number, Number)")]
pub struct Error {
    /// The largest.
    pub worst: Number,
    /// What 99.9 % of the elements do not exceed; overstated by less than a factor of 1.5.
    pub p999: Number,
    /// A case that has the largest, where that was just measured.
    pub case: String,
}

impl From<(Number, Number)> for Error {
    fn from((worst, p999): (Number, Number)) -> Error {
        Error { worst, p999, case: String::new() }
    }
}

impl From<Error> for (Number, Number) {
    fn from(error: Error) -> (Number, Number) {
        (error.worst, error.p999)
    }
}

/// What was measured on a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Speed {
    /// The machine.
    pub machine: Machine,
    /// By workload and yardstick.
    pub cells: BTreeMap<String, Cell>,
}

/// What several processes measured about a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Time of the yardstick over time of the kernel: of the processes' mean logarithms the mean without a fifth at either end.
    pub ratio: Number,
    /// Standard error of its logarithm (Yuen, Biometrika 61, 1974): of the mean that is left, from what is left and the ends
    /// drawn in.
    pub error: Number,
    /// Processes that measured it.
    pub processes: u32,
    /// Seconds of one call: median of the processes' medians. Shown, and never compared.
    pub seconds: Number,
}

/// Where long reductions begin, as a size class. Together they would hide each other's errors, as value families would: short
/// ones come near to their bound, long ones show what a sum loses.
const LONG: u8 = 7;

impl Snapshot {
    /// The snapshot of files of records and folders with such files.
    ///
    /// # Errors
    /// [`GateError`] if they cannot be read, or belong to campaigns that asked different cases.
    pub fn of(paths: &[PathBuf]) -> Result<Snapshot, GateError> {
        let summary = Summary::read(paths)?;
        if let Some(problem) = summary.problems.first() {
            return Err(GateError::Records(problem.to_string()));
        }
        let mut benches = Vec::new();
        for path in paths {
            for file in files(path)? {
                benches.extend(measurements(read_lossy(&file)?.0));
            }
        }
        let judged = |run: &usize| &summary.runs[*run].campaign;
        let mut asked: Option<Asked> = None;
        for campaign in summary.kernels.iter().flat_map(|kernel| &kernel.runs).map(judged) {
            let record::Budget::Cases(cases) = campaign.budget else {
                // A benchmark that found its kernel wrong: the finding counts, and nothing else is told by it.
                if campaign.selection.starts_with("bench") {
                    continue;
                }
                return Err(GateError::Timed);
            };
            let own = Asked { cases, seed: campaign.seed };
            if asked.get_or_insert_with(|| own.clone()) != &own {
                return Err(GateError::SeveralCampaigns);
            }
        }
        let kernels = summary.kernels.iter().map(|kernel| {
            let findings = kernel.findings.iter().map(|finding| {
                let known = Known { cases: finding.further + 1, finding: Some(Box::new(finding.clone())) };
                (format!("{} {}", finding.property, finding.dtype), known)
            });
            let standing = Standing {
                verdict: kernel.verdict,
                reasons: kernel.reasons.clone(),
                findings: findings.collect(),
                errors: errors(kernel),
                traffic: kernel.traffic.iter().map(|(dtype, counts)| (dtype.clone(), counts.figures())).collect(),
            };
            (kernel.kernel.name.clone(), standing)
        });
        let libraries = summary.kernels.iter().filter_map(|kernel| kernel.kernel.library.as_ref());
        Ok(Snapshot {
            baseline: BASELINE_VERSION,
            isonorm: env!("CARGO_PKG_VERSION").to_owned(),
            taken: summary.runs.iter().map(|run| run.campaign.started.clone()).min().unwrap_or_default(),
            asked,
            kernels: kernels.collect(),
            speed: speed(benches),
            libraries: libraries.map(|library| (library.file.clone(), library.sha256.clone())).collect(),
        })
    }

    /// Reads a baseline.
    ///
    /// # Errors
    /// [`GateError`] if there is none, or if it is not one that this version reads.
    pub fn read(path: &Path) -> Result<Snapshot, GateError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| GateError::NoBaseline { path: path.to_owned(), source })?;
        Snapshot::parse(&text).map_err(|reason| GateError::Baseline { path: path.to_owned(), reason })
    }

    /// Reads the text of a baseline; the error says what is wrong with it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Snapshot, String> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match value.get("baseline").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(BASELINE_VERSION) => {
                serde_json::from_value(value).map_err(|error| error.to_string())
            }
            Some(version) => Err(format!("it has format version {version}, and this isonorm reads {BASELINE_VERSION}")),
            None => Err("it is not a baseline: the field `baseline` is missing".to_owned()),
        }
    }

    /// As it is kept: sorted, numbers with four digits, one line for each thing that changes on its own.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn text(&self) -> Result<String, serde_json::Error> {
        let mut value = serde_json::to_value(self)?;
        round(&mut value);
        let mut out = String::new();
        write(&value, 0, &mut out);
        out.push('\n');
        Ok(out)
    }

    /// What was measured on such a machine.
    pub fn on(&self, machine: &Machine) -> Option<&Speed> {
        self.speed.iter().find(|speed| alike(&speed.machine, machine))
    }

    /// Takes from an older baseline what was measured on other machines.
    pub fn keep_other_machines(&mut self, older: &Snapshot) {
        let others = older.speed.iter().filter(|speed| self.on(&speed.machine).is_none());
        let others: Vec<Speed> = others.cloned().collect();
        self.speed.extend(others);
        self.speed.sort_by(|one, other| one.machine.cpu.cmp(&other.machine.cpu));
    }
}

/// Whether times on two machines can be compared. Systems are updated, and are not compared.
fn alike(one: &Machine, other: &Machine) -> bool {
    (&one.cpu, one.cores, &one.isa, &one.gpu) == (&other.cpu, other.cores, &other.isa, &other.gpu)
}

fn errors(kernel: &crate::summary::KernelSummary) -> BTreeMap<String, BTreeMap<String, Error>> {
    let mut errors = BTreeMap::<String, BTreeMap<String, Error>>::new();
    let groups = kernel.by(|tally| (tally.dtype.clone(), tally.family.clone(), tally.size_class >= LONG));
    for ((dtype, family, long), counts) in groups {
        let first = size_class_lengths(LONG).0;
        let lengths = if long { format!("{first}-") } else { format!("0-{}", first - 1) };
        let Some(worst) = &counts.errors.worst_ratio_to_bound else { continue };
        let p999 = counts.errors.ratio_quantile(0.999).unwrap_or_default();
        let error = Error { worst: worst.value, p999, case: worst.case.clone() };
        errors.entry(dtype).or_default().insert(format!("{family} {lengths}"), error);
    }
    errors
}

/// What one process measured about one workload.
struct Measured {
    machine: Machine,
    name: String,
    /// The logarithm of the ratio in each placement of the tensors, and the seconds of a call.
    placements: Vec<(f64, f64)>,
}

fn measurements(records: Vec<Record>) -> Vec<Measured> {
    let mut machine = None;
    let mut found = Vec::<Measured>::new();
    let mut first = 0;
    for record in records {
        match (record, &machine) {
            (Record::Campaign(campaign), _) => (machine, first) = (Some(campaign.machine), found.len()),
            (Record::Bench(bench), Some(machine)) if bench.setting == Setting::Warm => {
                let name = cell_name(&bench);
                let placement = (bench.ratio.value.0.ln(), bench.seconds.value.0);
                match found[first..].iter_mut().find(|measured| measured.name == name) {
                    Some(measured) => measured.placements.push(placement),
                    None => found.push(Measured { machine: machine.clone(), name, placements: vec![placement] }),
                }
            }
            _ => {}
        }
    }
    found
}

/// The name of what a measurement is about.
fn cell_name(bench: &Bench) -> String {
    let Bench { kernel, dtype, threads, versus, .. } = bench;
    let layout = if bench.layout == "contiguous" { String::new() } else { format!("-{}", bench.layout) };
    format!("{kernel} {dtype} {}{layout} t{threads} vs {versus}", bench.shape_text())
}

fn speed(measured: Vec<Measured>) -> Vec<Speed> {
    let mut machines = Vec::<(Machine, BTreeMap<String, Vec<Measured>>)>::new();
    for one in measured {
        let place = machines.iter().position(|(other, _)| alike(other, &one.machine)).unwrap_or_else(|| {
            machines.push((one.machine.clone(), BTreeMap::new()));
            machines.len() - 1
        });
        machines[place].1.entry(one.name.clone()).or_default().push(one);
    }
    let speed = |(machine, cells): (Machine, BTreeMap<String, Vec<Measured>>)| Speed {
        machine,
        cells: cells.into_iter().map(|(name, processes)| (name, Cell::of(&processes))).collect(),
    };
    machines.into_iter().map(speed).collect()
}

impl Cell {
    fn of(processes: &[Measured]) -> Cell {
        let mean = |process: &Measured| {
            let logs = process.placements.iter().map(|(log, _)| log);
            (logs.sum::<f64>() / process.placements.len() as f64).exp()
        };
        let ratios: Vec<f64> = processes.iter().map(mean).collect();
        let mut seconds: Vec<f64> =
            processes.iter().flat_map(|process| &process.placements).map(|(_, seconds)| *seconds).collect();
        seconds.sort_by(f64::total_cmp);
        Cell { seconds: Number(seconds[seconds.len() / 2]), ..Cell::of_ratios(&ratios) }
    }

    /// The cell of processes that measured these ratios; the time of a call is not known.
    pub fn of_ratios(ratios: &[f64]) -> Cell {
        let mut logs: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).collect();
        logs.sort_by(f64::total_cmp);
        let processes = logs.len() as u32;
        let cut = (processes - left(processes)) as usize / 2;
        let kept = &logs[cut..logs.len() - cut];
        let mean = kept.iter().sum::<f64>() / kept.len() as f64;
        // The ends count as if they were the last that are left.
        let ends = (kept[0], kept[kept.len() - 1]);
        let drawn: Vec<f64> = logs.iter().map(|log| log.clamp(ends.0, ends.1)).collect();
        let centre = drawn.iter().sum::<f64>() / drawn.len() as f64;
        let square: f64 = drawn.iter().map(|log| (log - centre).powi(2)).sum();
        let kept = kept.len() as f64;
        Cell {
            ratio: Number(mean.exp()),
            // Of one process it is not a number: nothing can be decided.
            error: Number((square / (kept * (kept - 1.0))).sqrt()),
            processes,
            seconds: Number(f64::NAN),
        }
    }

    /// Degrees of freedom of the error.
    pub fn freedom(&self) -> f64 {
        f64::from(left(self.processes)) - 1.0
    }
}

/// Of so many, how many are left without a fifth at either end.
fn left(count: u32) -> u32 {
    count - 2 * (count / 5)
}

/// Cuts numbers to four significant digits: more would change without meaning anything.
fn round(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Array(items) => items.iter_mut().for_each(round),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(round),
        serde_json::Value::Number(number) if number.is_f64() => {
            let short = number.as_f64().and_then(|number| format!("{number:.3e}").parse::<f64>().ok());
            if let Some(short) = short.and_then(serde_json::Number::from_f64) {
                *number = short;
            }
        }
        _ => {}
    }
}

/// Below so many objects everything stands on one line.
const LINES: usize = 4;

/// Objects of objects and arrays of objects get a line for each entry, everything else one line.
fn write(value: &serde_json::Value, depth: usize, out: &mut String) {
    use serde_json::Value;
    let nested =
        |inner: &Value| inner.is_object() || matches!(inner, Value::Array(items) if items.iter().any(Value::is_object));
    let indent = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&" ".repeat(depth));
    };
    match value {
        Value::Object(fields) if depth == 0 || (depth < LINES && fields.values().any(nested)) => {
            out.push('{');
            for (place, (name, inner)) in fields.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                indent(out, depth + 1);
                out.push_str(&format!("{}: ", Value::from(name.as_str())));
                write(inner, depth + 1, out);
            }
            indent(out, depth);
            out.push('}');
        }
        Value::Array(items) if nested(value) => {
            out.push('[');
            for (place, inner) in items.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                indent(out, depth + 1);
                write(inner, depth + 1, out);
            }
            indent(out, depth);
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}
