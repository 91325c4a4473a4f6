use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Number;

/// How one contender did against another on one workload. Both ran in the same process, in turns of random order, each
/// with its threads pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Bench {
    /// Name of the kernel: the contender.
    pub kernel: String,
    /// Operator that it computes.
    pub operator: String,
    /// `forward` or `backward`.
    pub direction: String,
    /// dtype, as tallies name it.
    pub dtype: String,
    /// `contiguous` or `channels_last`.
    pub layout: String,
    /// Shape of the main input, outermost axis first.
    pub shape: Vec<u64>,
    /// Threads that each of the two had.
    pub threads: u32,
    /// What the contender is compared with: `libtorch`, or `copy` for a copy of as many bytes.
    pub versus: String,
    /// Under which conditions.
    pub setting: Setting,
    /// Time of the other over time of the contender: above 1 the contender is faster. Median of the rounds' ratios, with
    /// its 95 % bootstrap interval.
    pub ratio: Interval,
    /// Seconds that one call of the contender takes: median and quartiles of the rounds.
    pub seconds: Interval,
    /// Seconds that one call of the other takes: median and quartiles of the rounds.
    pub versus_seconds: Interval,
    /// Least bytes that must move: every input read once, every output written once.
    pub bytes: u64,
    /// Operations that the formula asks for.
    pub operations: u64,
    /// Rounds, in each of which both were timed.
    pub rounds: u32,
    /// The ratio of every round, in order. None is left out.
    pub ratios: Vec<Number>,
    /// How many of them lie beyond Tukey's far fences, three interquartile ranges outside of the quartiles.
    pub outliers: u32,
    /// How restless the machine was: interquartile range over median of the time of a copy in the same rounds.
    pub noise: Number,
    /// Why the ratio means little, in words; none if there is nothing against it.
    pub doubt: Option<String>,
    /// Instructions per output element, counted by an instruction-level simulator, whose kernels may use fewer instruction
    /// set extensions than the machine's; none if nobody counted.
    pub instructions_per_element: Option<Number>,
}

impl Bench {
    /// Bytes per second that the contender reaches: the least that must move over the time of one call.
    pub fn bytes_per_second(&self) -> Number {
        Number(self.bytes as f64 / self.seconds.value.0)
    }

    /// Bytes per second that the other reaches on the same count of bytes.
    pub fn versus_bytes_per_second(&self) -> Number {
        Number(self.bytes as f64 / self.versus_seconds.value.0)
    }

    /// The shape as people write it: `4096x4096`.
    pub fn shape_text(&self) -> String {
        self.shape.iter().map(u64::to_string).collect::<Vec<_>>().join("x")
    }
}

/// A measured value, and between which limits it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// The value: a median.
    pub value: Number,
    /// The lower limit.
    pub low: Number,
    /// The upper limit.
    pub high: Number,
}

/// Under which conditions calls are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// Outputs are allocated and touched before, and libtorch gets back the blocks that it freed. On a GPU: its own time, from an
    /// event before the call to one behind it, after its caches were emptied.
    Warm,
    /// As a user calls it: the allocation of the outputs is part of the call. On a GPU: time on the clock of calls that are
    /// queued one behind the other, with their data in its caches where it fits.
    AsCalled,
}

/// What the machine's memory system reaches at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Ceiling {
    /// What was done with the memory.
    pub access: Access,
    /// Bytes of all arrays together.
    pub working_set: u64,
    /// Where so much fits: `L1`, `L2`, `L3` or `memory`; none if the sizes of the caches are not known.
    pub level: Option<String>,
    /// Threads.
    pub threads: u32,
    /// Whether streaming stores, which go past the caches, were faster than ordinary ones. The faster of the two is what is
    /// recorded.
    pub streaming: bool,
    /// Bytes read plus bytes written per second: median and quartiles.
    pub bytes_per_second: Interval,
}

/// What is done with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Every byte is read.
    Read,
    /// Every byte is written.
    Write,
    /// One half is read and written to the other.
    Copy,
}
