use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Extreme, Number};

/// What the launches of a kernel for a GPU did, counted by the PTX executor, over all judged cases of one dtype. Sums: records
/// of the same kernel and dtype merge by adding. Nothing here was measured on a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Name of the kernel.
    pub kernel: String,
    /// One of its dtypes.
    pub dtype: String,
    /// What was counted.
    pub counts: TrafficCounts,
}

/// What launches did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct TrafficCounts {
    /// Cases.
    pub cases: u64,
    /// Elements of the first inputs of these cases.
    pub elements: u64,
    /// Launches.
    pub launches: u64,
    /// Instructions that threads ran.
    pub instructions: u64,
    /// Bytes that threads loaded from and stored to their own memory: spilled registers and arrays.
    pub local_bytes: u64,
    /// Loads and stores of warps on shared memory.
    pub shared_requests: u64,
    /// Passes over the banks of shared memory beyond those that requests without conflicts take.
    pub bank_conflicts: u64,
    /// By tensor, and by scratch buffer (`scratch.NAME`).
    pub buffers: BTreeMap<String, BufferTraffic>,
}

/// What launches did to one tensor. A request is one warp's access.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct BufferTraffic {
    /// Bytes of the tensor.
    pub bytes: u64,
    /// Bytes that threads loaded, each time anew.
    pub read: u64,
    /// Bytes that threads stored.
    pub written: u64,
    /// Loads and stores of threads.
    pub accesses: u64,
    /// Loads and stores of threads that moved fewer than 16 bytes.
    pub narrow: u64,
    /// Loads and stores of warps.
    pub requests: u64,
    /// Requests that touched at least two sectors of 32 bytes more than they had to.
    pub uncoalesced: u64,
    /// Atomic operations of threads.
    pub atomics: u64,
    /// The most that was read of it, as a multiple of its bytes, and a case that did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_read: Option<Extreme>,
}

impl TrafficCounts {
    /// Adds what other launches did.
    pub fn merge(&mut self, other: &TrafficCounts) {
        let pairs = [
            (&mut self.cases, other.cases),
            (&mut self.elements, other.elements),
            (&mut self.launches, other.launches),
            (&mut self.instructions, other.instructions),
            (&mut self.local_bytes, other.local_bytes),
            (&mut self.shared_requests, other.shared_requests),
            (&mut self.bank_conflicts, other.bank_conflicts),
        ];
        add(pairs);
        for (name, buffer) in &other.buffers {
            self.buffers.entry(name.clone()).or_default().merge(buffer);
        }
    }

    /// What can be compared from run to run, by name: nothing of it depends on how many cases there were.
    pub fn figures(&self) -> BTreeMap<String, Number> {
        let ratio = |part: u64, whole: u64| (whole > 0).then(|| Number(part as f64 / whole as f64));
        let mut figures = vec![
            ("instructions per element".to_owned(), ratio(self.instructions, self.elements)),
            ("local bytes per element".to_owned(), ratio(self.local_bytes, self.elements)),
            ("bank conflicts per request".to_owned(), ratio(self.bank_conflicts, self.shared_requests)),
        ];
        for (name, buffer) in &self.buffers {
            figures.extend([
                (format!("{name} read"), ratio(buffer.read, buffer.bytes)),
                (format!("{name} written"), ratio(buffer.written, buffer.bytes)),
                (format!("{name} narrow"), ratio(buffer.narrow, buffer.accesses)),
                (format!("{name} uncoalesced"), ratio(buffer.uncoalesced, buffer.requests)),
            ]);
        }
        figures.into_iter().filter_map(|(name, figure)| Some((name, figure?))).collect()
    }
}

impl BufferTraffic {
    fn merge(&mut self, other: &BufferTraffic) {
        let pairs = [
            (&mut self.bytes, other.bytes),
            (&mut self.read, other.read),
            (&mut self.written, other.written),
            (&mut self.accesses, other.accesses),
            (&mut self.narrow, other.narrow),
            (&mut self.requests, other.requests),
            (&mut self.uncoalesced, other.uncoalesced),
            (&mut self.atomics, other.atomics),
        ];
        add(pairs);
        if let Some(most) = &other.most_read {
            Extreme::raise(&mut self.most_read, most.value, &most.case);
        }
    }
}

fn add<const N: usize>(pairs: [(&mut u64, u64); N]) {
    for (sum, more) in pairs {
        *sum = sum.saturating_add(more);
    }
}
