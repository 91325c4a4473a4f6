//! What a gate is strict about: a small TOML file.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Kind;

/// What a gate asks, what it holds against a kernel, and what it lets pass for a while. Every field has a default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// What is asked.
    pub ask: Ask,
    /// When errors have grown too much.
    pub accuracy: AccuracyPolicy,
    /// When a kernel has become slower.
    pub speed: SpeedPolicy,
    /// When launches move too much.
    pub traffic: TrafficPolicy,
    /// What is to be done about each kind of regression.
    pub on: On,
    /// Regressions that are known and let pass until a date.
    pub waiver: Vec<Waiver>,
    /// Where kernels are written.
    pub source: Vec<Source>,
}

/// What is asked. `operators`, `dtypes` and `kernels` are all unless some are named.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ask {
    /// Operators.
    pub operators: Vec<String>,
    /// Kernels.
    pub kernels: Vec<String>,
    /// Element types.
    pub dtypes: Vec<String>,
    /// Cases that each kernel is asked.
    pub cases: u64,
    /// Seed of the cases.
    pub seed: u64,
}

impl Default for Ask {
    fn default() -> Self {
        Ask { operators: Vec::new(), kernels: Vec::new(), dtypes: Vec::new(), cases: 500, seed: 1 }
    }
}

/// When errors have grown too much.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccuracyPolicy {
    /// By more than this factor must an error grow to be held against a kernel.
    pub growth: f64,
    /// Errors below this multiple of the bound are as good as none.
    pub floor: f64,
}

impl Default for AccuracyPolicy {
    fn default() -> Self {
        AccuracyPolicy { growth: 2.0, floor: 0.02 }
    }
}

/// When launches move too much, counted by the PTX executor: the same cases give the same counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrafficPolicy {
    /// By more than this factor must a figure grow to be held against a kernel. Another version of the compiler may need a few
    /// instructions more.
    pub growth: f64,
    /// Figures below this are as good as none: instructions and bytes for each element, multiples of a tensor's bytes, parts
    /// of its accesses.
    pub floor: f64,
}

impl Default for TrafficPolicy {
    fn default() -> Self {
        TrafficPolicy { growth: 1.1, floor: 0.02 }
    }
}

/// When a kernel has become slower, and how that is measured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpeedPolicy {
    /// The probability that a run raises any alarm about kernels that have not changed.
    pub false_alarms: f64,
    /// A slowdown of this part of the time is not worth an alarm: 0.02 for 2 %.
    pub tolerance: f64,
    /// Standard deviation of log ratios between runs at different times, beyond what the spread within a run explains.
    pub drift: f64,
    /// Where a slowdown below this part of the time would probably be missed, the answer is "undecided".
    pub resolution: f64,
    /// The yardstick that decides: `copy` or `libtorch`.
    pub versus: String,
    /// Processes that measure each workload.
    pub processes: u32,
    /// Placements of the tensors in each process.
    pub placements: u16,
    /// How long each placement is timed, in milliseconds.
    pub milliseconds: u64,
    /// Shapes: of two sizes for operators on rows, of more for operators on channels.
    pub shapes: Vec<String>,
    /// Element types that are timed.
    pub dtypes: Vec<String>,
    /// Numbers of threads.
    pub threads: Vec<u16>,
}

impl Default for SpeedPolicy {
    fn default() -> Self {
        SpeedPolicy {
            false_alarms: 0.01,
            tolerance: 0.02,
            drift: 0.005,
            resolution: 0.25,
            versus: "copy".to_owned(),
            processes: 8,
            placements: 8,
            milliseconds: 4,
            shapes: vec!["8x4096".to_owned(), "1x64x28x28".to_owned()],
            dtypes: vec!["f32".to_owned()],
            threads: vec![1],
        }
    }
}

/// What is to be done about each kind of regression.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct On {
    /// A case that passed fails.
    pub correctness: Action,
    /// Errors have grown.
    pub accuracy: Action,
    /// A kernel has become slower.
    pub speed: Action,
    /// Launches move more, or need more instructions.
    pub traffic: Action,
}

impl On {
    /// What is to be done about a kind.
    pub fn of(&self, kind: Kind) -> Action {
        match kind {
            Kind::Correctness => self.correctness,
            Kind::Accuracy => self.accuracy,
            Kind::Speed => self.speed,
            Kind::Traffic => self.traffic,
        }
    }
}

/// What is to be done about a regression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The gate fails.
    #[default]
    Fail,
    /// It is told, and the gate does not fail.
    Report,
    /// Nobody asks.
    Off,
}

/// A regression that is known and let pass until a date.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiver {
    /// Which kind; every kind unless one is named.
    pub kind: Option<Kind>,
    /// The regression's name; a `*` at the end stands for anything.
    pub name: String,
    /// Why it is let pass.
    pub reason: String,
    /// The last day on which it is, such as 2027-01-31.
    pub expires: toml::value::Date,
}

/// Where a kernel is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The kernel's name; a `*` at the end stands for anything.
    pub kernel: String,
    /// Its file, relative to the root of the sources.
    pub file: String,
    /// Where in the file it begins.
    pub line: Option<u32>,
}

impl Source {
    /// Whether it is about a kernel.
    pub fn matches(&self, kernel: &str) -> bool {
        is(&self.kernel, kernel)
    }
}

/// Whether a name is meant by a pattern, whose `*` at the end stands for anything.
fn is(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(name == pattern, |start| name.starts_with(start))
}

impl Waiver {
    /// Whether it is about a regression.
    pub fn matches(&self, kind: Kind, name: &str) -> bool {
        is(&self.name, name) && self.kind.is_none_or(|own| own == kind)
    }

    /// Whether its last day is over. `today` is a date or time in RFC 3339, whose texts are ordered as the days are.
    pub fn expired(&self, today: &str) -> bool {
        self.expires.to_string().as_str() < today.get(..10).unwrap_or(today)
    }
}

/// A policy that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("cannot read the policy {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It is not TOML, or says something that a policy cannot say.
    #[error("the policy {} cannot be used: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<toml::de::Error>,
    },
    /// A value is out of its range.
    #[error("the policy says {field} = {value}: {expected}")]
    Value {
        /// The field.
        field: &'static str,
        /// What it says.
        value: String,
        /// What it can be.
        expected: &'static str,
    },
}

impl Policy {
    /// Reads and checks a policy.
    ///
    /// # Errors
    /// [`PolicyError`] if there is none, or if it says something that a policy cannot say.
    pub fn read(path: &Path) -> Result<Policy, PolicyError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| PolicyError::Read { path: path.to_owned(), source })?;
        let parsed = toml::from_str::<Policy>(&text);
        let policy = parsed.map_err(|source| PolicyError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        policy.check()?;
        Ok(policy)
    }

    fn check(&self) -> Result<(), PolicyError> {
        let Policy { ask, accuracy, speed, traffic, waiver, .. } = self;
        let positive = "give a number above 0";
        let checks = [
            (
                "speed.false_alarms",
                speed.false_alarms,
                0.0 < speed.false_alarms && speed.false_alarms <= 0.5,
                "give a probability above 0 and up to 0.5",
            ),
            (
                "speed.tolerance",
                speed.tolerance,
                (0.0..1.0).contains(&speed.tolerance),
                "give a part of the time from 0 to 1",
            ),
            ("speed.drift", speed.drift, (0.0..1.0).contains(&speed.drift), "give a standard deviation from 0 to 1"),
            (
                "speed.resolution",
                speed.resolution,
                speed.resolution > speed.tolerance,
                "give more than speed.tolerance",
            ),
            (
                "speed.processes",
                f64::from(speed.processes),
                speed.processes >= 3,
                "give at least 3: from fewer no spread can be told",
            ),
            ("speed.placements", f64::from(speed.placements), speed.placements > 0, positive),
            ("speed.milliseconds", speed.milliseconds as f64, speed.milliseconds > 0, positive),
            ("accuracy.growth", accuracy.growth, accuracy.growth >= 1.0, "give a factor of at least 1"),
            (
                "accuracy.floor",
                accuracy.floor,
                (0.0..1.0).contains(&accuracy.floor),
                "give a part of the bound from 0 to 1",
            ),
            ("traffic.growth", traffic.growth, traffic.growth >= 1.0, "give a factor of at least 1"),
            ("traffic.floor", traffic.floor, traffic.floor >= 0.0, "give a number of at least 0"),
            ("ask.cases", ask.cases as f64, ask.cases > 0, positive),
        ];
        if let Some((field, value, _, expected)) = checks.into_iter().find(|(_, _, holds, _)| !holds) {
            return Err(PolicyError::Value { field, value: value.to_string(), expected });
        }
        if !["copy", "libtorch"].contains(&speed.versus.as_str()) {
            let value = speed.versus.clone();
            return Err(PolicyError::Value { field: "speed.versus", value, expected: "it can be copy or libtorch" });
        }
        match waiver.iter().find(|waiver| waiver.reason.trim().is_empty()) {
            Some(waiver) => Err(PolicyError::Value {
                field: "waiver.reason",
                value: format!("nothing about {}", waiver.name),
                expected: "say why it is let pass",
            }),
            None => Ok(()),
        }
    }
}
