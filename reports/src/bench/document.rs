//! The document that `bench --format json` prints.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Benches, Standing};
use crate::record::{Number, Setting};

/// What was measured about a kernel on one workload against one opponent, for other programs. Numbers that JSON has none
/// for are the strings of [`Number`].
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Document {
    /// Operator.
    pub operator: String,
    /// `forward` or `backward`.
    pub direction: String,
    /// Shape of the main input, such as `4096x4096`.
    pub shape: String,
    /// `contiguous` or `channels_last`.
    pub layout: String,
    /// dtype.
    pub dtype: String,
    /// Threads that both had.
    pub threads: u32,
    /// Name of the kernel.
    pub contender: String,
    /// What it is compared with: `libtorch`, or `copy` for a copy of as many bytes.
    pub versus: String,
    /// `warm` if outputs were allocated before, `as_called` if their allocation is part of the call.
    pub setting: Setting,
    /// Time of `versus` over time of the contender: above 1 the contender is faster. Median of the rounds' ratios.
    pub ratio: Number,
    /// Lower limit of its 95 % bootstrap interval.
    pub ratio_low: Number,
    /// Upper limit of its 95 % bootstrap interval.
    pub ratio_high: Number,
    /// How the contender stands.
    pub standing: Standing,
    /// Why the ratio means little; null if nothing is against it.
    pub doubt: Option<String>,
    /// Bytes per second that the contender reaches, of the least that must move.
    pub bytes_per_second: Number,
    /// Bytes per second that `versus` reaches, by the same count.
    pub versus_bytes_per_second: Number,
    /// Seconds of one call of the contender: median of the rounds.
    pub seconds: Number,
    /// Seconds of one call of `versus`: median of the rounds.
    pub versus_seconds: Number,
    /// Least bytes that must move.
    pub bytes: u64,
    /// Operations that the formula asks for.
    pub operations: u64,
    /// Level of memory that so many bytes fit in; null if the ceilings were not measured.
    pub level: Option<String>,
    /// Rounds.
    pub rounds: u32,
    /// Rounds beyond Tukey's far fences; they count like all others.
    pub outliers: u32,
    /// Interquartile range over median of the time of a copy in the same rounds.
    pub noise: Number,
    /// Instructions per output element; null if nobody counted.
    pub instructions_per_element: Option<Number>,
    /// Model of the processor.
    pub machine: String,
}

/// The document: one entry for each cell.
pub fn document(benches: &Benches) -> Vec<Document> {
    let entry = |cell: &super::Cell| {
        let b = cell.bench.clone();
        Document {
            standing: Standing::of(&b),
            bytes_per_second: b.bytes_per_second(),
            versus_bytes_per_second: b.versus_bytes_per_second(),
            shape: b.shape_text(),
            operator: b.operator,
            direction: b.direction,
            layout: b.layout,
            dtype: b.dtype,
            threads: b.threads,
            contender: b.kernel,
            versus: b.versus,
            setting: b.setting,
            ratio: b.ratio.value,
            ratio_low: b.ratio.low,
            ratio_high: b.ratio.high,
            doubt: b.doubt,
            seconds: b.seconds.value,
            versus_seconds: b.versus_seconds.value,
            bytes: b.bytes,
            operations: b.operations,
            level: cell.level.clone(),
            rounds: b.rounds,
            outliers: b.outliers,
            noise: b.noise,
            instructions_per_element: b.instructions_per_element,
            machine: benches.machines[cell.machine].processor().to_owned(),
        }
    };
    benches.cells.iter().map(entry).collect()
}
