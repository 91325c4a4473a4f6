//! The records of a campaign: one JSON object per line, written once, read by everything else.
//!
//! A file opens with a [`Campaign`] and, unless it was cut off, closes with an [`End`]. The schema is versioned by the
//! campaign record's `schema` field; a change of any field raises [`SCHEMA_VERSION`]. `schema/records.schema.json`
//! describes one line for programs in other languages.

mod bench;
mod campaign;
mod claim;
mod experiment;
mod finding;
mod histogram;
mod identity;
mod io;
mod number;
mod tally;
#[cfg(test)]
mod tests;
mod traffic;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use bench::{Access, Bench, Ceiling, Interval, Setting};
pub use campaign::{Budget, Campaign, End, Gpu, Kernel, Library, Machine, Outcome, Property, Range, Shard, Throughput};
pub use claim::{Claim, ClaimProgram, ClaimVerdict, Measurement, Stated};
pub use experiment::{Experiment, Series};
pub use finding::{Case, Finding, Value, Verdict, Wrong, plainer};
pub use histogram::Histogram;
pub use identity::{Arithmetic, Deviation, Formulas, Identity, IdentityVerdict, Point, Training};
pub use io::{Writer, files, read, read_lossy};
pub use number::Number;
pub use tally::{Counts, Elements, Errors, Extreme, Tallies, Tally, size_class, size_class_lengths};
pub use traffic::{BufferTraffic, Traffic, TrafficCounts};

/// Version of the record schema that this program writes and reads.
pub const SCHEMA_VERSION: u32 = 6;

/// The JSON Schema of one line of records.
pub const SCHEMA: &str = include_str!("../../schema/records.schema.json");

/// One line of `records.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// Opens the records of one run.
    Campaign(Campaign),
    /// A kernel under test.
    Kernel(Kernel),
    /// One case that is worth a line of its own.
    Case(Case),
    /// What a kernel did on many cases.
    Tally(Tally),
    /// A property that a kernel does not have.
    Finding(Finding),
    /// On which scale of inputs a kernel works.
    Range(Range),
    /// How fast cases were judged.
    Throughput(Throughput),
    /// How often a property was checked.
    Property(Property),
    /// What launches did, counted by the PTX executor.
    Traffic(Traffic),
    /// How one contender did against another on one workload.
    Bench(Bench),
    /// What the machine's memory system reaches at most.
    Ceiling(Ceiling),
    /// What the checks of an identity gave.
    Identity(Identity),
    /// A property of networks.
    Experiment(Experiment),
    /// What was measured of a paper's claim.
    Claim(Claim),
    /// Closes the records of one run.
    End(End),
}

impl Record {
    /// Name of the kernel that the record is about.
    pub fn kernel(&self) -> Option<&str> {
        match self {
            Record::Kernel(kernel) => Some(&kernel.name),
            Record::Case(Case { kernel, .. })
            | Record::Tally(Tally { kernel, .. })
            | Record::Finding(Finding { kernel, .. })
            | Record::Range(Range { kernel, .. })
            | Record::Property(Property { kernel, .. })
            | Record::Traffic(Traffic { kernel, .. })
            | Record::Bench(Bench { kernel, .. }) => Some(kernel),
            Record::Campaign(_)
            | Record::Throughput(_)
            | Record::Ceiling(_)
            | Record::Identity(_)
            | Record::Experiment(_)
            | Record::Claim(_)
            | Record::End(_) => None,
        }
    }
}

/// Lets a typed record be passed where a [`Record`] is asked for.
macro_rules! into_record {
    ($($kind:ident),*) => {
        $(impl From<$kind> for Record {
            fn from(record: $kind) -> Record {
                Record::$kind(record)
            }
        })*
    };
}
into_record!(
    Campaign, Kernel, Case, Tally, Finding, Range, Throughput, Property, Traffic, Bench, Ceiling, Identity, Experiment,
    Claim, End
);
