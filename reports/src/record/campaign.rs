use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Number;

/// Opens the records of one run: who asked what, with which program, on which machine. All records up to the next
/// campaign record belong to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Campaign {
    /// Version of the record schema.
    pub schema: u32,
    /// Version of isonorm.
    pub isonorm: String,
    /// Git revision that isonorm was built from, if known.
    pub revision: Option<String>,
    /// Seed of the cases.
    pub seed: u64,
    /// Which part of the campaign this is.
    pub shard: Shard,
    /// How long the campaign goes on.
    pub budget: Budget,
    /// What was asked, without seed, shard, budget and output folder. Shards belong together if they agree in this, in
    /// the version, the seed, the budget and the number of shards.
    pub selection: String,
    /// Threads that judged cases.
    pub threads: u32,
    /// Where it ran.
    pub machine: Machine,
    /// Version of libtorch, if it was asked.
    pub libtorch: Option<String>,
    /// When it began, RFC 3339.
    pub started: String,
    /// The command line.
    pub command: String,
}

/// One of several parts of a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Which part, counted from 1.
    pub index: u32,
    /// How many parts there are.
    pub of: u32,
}

/// How long a campaign goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Until so many cases were judged.
    Cases(u64),
    /// For so many seconds.
    Seconds(Number),
}

/// The machine a campaign ran on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Logical cores.
    pub cores: u32,
    /// Instruction set extensions that kernels may use.
    pub isa: Vec<String>,
    /// Operating system.
    pub os: String,
    /// The GPU that kernels ran on; none if they ran elsewhere.
    #[serde(default)]
    pub gpu: Option<Gpu>,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Its name, as the driver has it.
    pub name: String,
    /// The architecture that kernels were compiled for unless something else was asked for, such as `sm_90`.
    pub arch: String,
    /// Multiprocessors.
    pub sms: u32,
    /// Bytes of its second-level cache.
    pub l2: u64,
    /// The newest version of CUDA that the driver knows.
    pub cuda: String,
}

impl Machine {
    /// The machine in a line.
    pub fn text(&self) -> String {
        let Machine { cpu, cores, isa, os, gpu } = self;
        let gpu = gpu.as_ref().map_or_else(String::new, |gpu| format!("; {}", gpu.text()));
        format!("{cpu}, {cores} cores, {}, {os}{gpu}", isa.join(" "))
    }

    /// What does the work, for tables: the GPU if there is one, or else the processor.
    pub fn processor(&self) -> &str {
        self.gpu.as_ref().map_or(&self.cpu, |gpu| &gpu.name)
    }
}

impl Gpu {
    /// The GPU in a line.
    pub fn text(&self) -> String {
        let Gpu { name, arch, sms, l2, cuda } = self;
        format!("GPU {name}, {arch}, {sms} multiprocessors, {} MiB L2, driver for CUDA {cuda}", l2 >> 20)
    }
}

/// A kernel under test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Name of the kernel, by which all other records of the campaign refer to it. Two kernels (two directions of one
    /// operator, two devices) never share a name.
    pub name: String,
    /// Operator it claims to compute.
    pub operator: String,
    /// `forward` or `backward`.
    pub direction: String,
    /// `cpu`, `cuda` or `ptx`.
    pub device: String,
    /// The dtypes the campaign asks about, as tallies name them. The kernel is certified for these, and only if each
    /// of them was judged.
    pub dtypes: Vec<String>,
    /// Memory layouts it takes.
    pub layouts: Vec<String>,
    /// Precision it computes in.
    pub working_precision: String,
    /// Order in which it says that it reduces, such as `any order` or `blocks of 16`.
    pub reduction: String,
    /// The formula that it is held to, as people read it.
    pub formula: String,
    /// Version of the kernel, if it states one.
    pub version: Option<String>,
    /// The file it was loaded from; none for a built-in kernel.
    pub library: Option<Library>,
}

/// A file that kernels were loaded from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Library {
    /// Name of the file.
    pub file: String,
    /// SHA-256 of its bytes, 64 hexadecimal digits.
    pub sha256: String,
}

/// On which scale of inputs a kernel stays within its bound. Outside of it an intermediate overflows or underflows
/// in the working precision: that is measured, and is not an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// Name of the kernel.
    pub kernel: String,
    /// One of its dtypes.
    pub dtype: String,
    /// Smallest scale |x| that works; none if no scale does.
    pub smallest: Option<Number>,
    /// Largest scale |x| that works; none if no scale does.
    pub largest: Option<Number>,
}

/// How fast cases were judged, and where the time went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Throughput {
    /// Cases that were judged.
    pub cases: u64,
    /// Wall-clock time that it took.
    pub seconds: Number,
    /// Seconds spent in each stage, summed over threads: `generate`, `exact`, `bound`, `torch`, `kernel`, `judge`, ...
    pub stages: BTreeMap<String, Number>,
}

/// How often a property was checked on a kernel: that its outputs are within the bound, that it is deterministic, leaves
/// its inputs alone, writes every output, or satisfies one of the operator's metamorphic relations. Merges by adding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Property {
    /// Name of the kernel.
    pub kernel: String,
    /// Name of the property.
    pub property: String,
    /// Whether a kernel that lacks it is wrong. Others are worth knowing: that results do not depend on the batch to the
    /// bit, say.
    pub required: bool,
    /// Checks that were made.
    pub checked: u64,
    /// Checks that failed.
    pub failed: u64,
}

/// Closes the records of one run. A run without it was cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct End {
    /// Whether the campaign did what was asked.
    pub outcome: Outcome,
    /// When it ended, RFC 3339.
    pub finished: String,
}

/// How a campaign ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did what was asked.
    Complete,
    /// Someone stopped it.
    Interrupted,
}
