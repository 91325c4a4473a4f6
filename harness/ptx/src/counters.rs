//! What a launch did, in numbers.

use std::collections::BTreeMap;

/// Traffic of one buffer. A request is one warp's access; a sector is 32 bytes of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BufferCounters {
    /// Bytes that threads loaded, each time anew.
    pub bytes_read: u64,
    /// Bytes that threads stored.
    pub bytes_written: u64,
    /// Loads and stores of threads.
    pub accesses: u64,
    /// Loads and stores of threads that moved fewer than 16 bytes.
    pub narrow_accesses: u64,
    /// Loads and stores of warps.
    pub requests: u64,
    /// Sectors that the requests touched.
    pub sectors: u64,
    /// The fewest sectors that could hold what the requests moved.
    pub least_sectors: u64,
    /// Requests that touched at least two sectors more than they had to.
    pub uncoalesced_requests: u64,
    /// Atomic operations of threads.
    pub atomics: u64,
}

/// Traffic of shared memory. A wavefront is one pass over the 32 banks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedCounters {
    /// Bytes that threads loaded.
    pub bytes_read: u64,
    /// Bytes that threads stored.
    pub bytes_written: u64,
    /// Loads and stores of warps.
    pub requests: u64,
    /// Passes that the requests took.
    pub wavefronts: u64,
    /// Passes beyond those that a request without bank conflicts takes.
    pub conflicts: u64,
}

/// What a launch did, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Threads of the launch.
    pub threads: u64,
    /// Instructions that threads ran, those with a false guard left out.
    pub instructions: u64,
    /// Instructions that warps ran, however many lanes took part.
    pub warp_instructions: u64,
    /// Barriers of blocks and clusters that were completed.
    pub barriers: u64,
    /// Per buffer, by its name; the module's own variables are `(variables)`.
    pub buffers: BTreeMap<String, BufferCounters>,
    /// Shared memory, that of other blocks of the cluster included.
    pub shared: SharedCounters,
    /// Bytes that threads loaded from and stored to their own memory: spilled registers and arrays.
    pub local_bytes: u64,
}

impl Counters {
    /// Instructions of a thread, on average.
    pub fn instructions_per_thread(&self) -> f64 {
        self.instructions as f64 / self.threads.max(1) as f64
    }

    /// The traffic of a buffer; nothing if there is no such name.
    pub fn buffer(&self, name: &str) -> BufferCounters {
        self.buffers.get(name).cloned().unwrap_or_default()
    }

    /// Adds what another launch did.
    pub fn merge(&mut self, other: Self) {
        self.threads += other.threads;
        self.instructions += other.instructions;
        self.warp_instructions += other.warp_instructions;
        self.barriers += other.barriers;
        self.local_bytes += other.local_bytes;
        self.shared.bytes_read += other.shared.bytes_read;
        self.shared.bytes_written += other.shared.bytes_written;
        self.shared.requests += other.shared.requests;
        self.shared.wavefronts += other.shared.wavefronts;
        self.shared.conflicts += other.shared.conflicts;
        for (name, b) in other.buffers {
            self.buffers.entry(name).or_default().merge(&b);
        }
    }
}

impl BufferCounters {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        self.accesses += other.accesses;
        self.narrow_accesses += other.narrow_accesses;
        self.requests += other.requests;
        self.sectors += other.sectors;
        self.least_sectors += other.least_sectors;
        self.uncoalesced_requests += other.uncoalesced_requests;
        self.atomics += other.atomics;
    }

    /// Notes a request of a warp: where each lane's `bytes` start.
    pub(crate) fn request(&mut self, starts: &mut [u64], bytes: u64, store: bool) {
        let lanes = starts.len() as u64;
        *(if store { &mut self.bytes_written } else { &mut self.bytes_read }) += lanes * bytes;
        self.accesses += lanes;
        self.requests += 1;
        if bytes < 16 {
            self.narrow_accesses += lanes;
        }
        let (sectors, distinct) = if starts.windows(2).all(|w| w[1] == w[0] + bytes) {
            let last = starts[starts.len() - 1] + bytes - 1;
            (last / 32 - starts[0] / 32 + 1, lanes)
        } else {
            starts.sort_unstable();
            let distinct = 1 + starts.windows(2).filter(|w| w[0] != w[1]).count() as u64;
            let (mut count, mut next) = (0, 0);
            for start in starts.iter() {
                let (first, last) = (start / 32, (start + bytes - 1) / 32);
                count += (last + 1).saturating_sub(first.max(next));
                next = next.max(last + 1);
            }
            (count, distinct)
        };
        let least = (distinct * bytes).div_ceil(32);
        self.sectors += sectors;
        self.least_sectors += least;
        self.uncoalesced_requests += u64::from(sectors >= least + 2);
    }
}

impl SharedCounters {
    /// Notes a request of a warp: where each lane's `bytes` start.
    pub(crate) fn request(&mut self, starts: &[u64], bytes: u64, store: bool) {
        *(if store { &mut self.bytes_written } else { &mut self.bytes_read }) += starts.len() as u64 * bytes;
        self.requests += 1;
        // Wide accesses take a pass per 128 bytes: eight lanes of 16 bytes, sixteen of 8.
        let at_once = (128 / bytes.max(4)).max(1) as usize;
        for lanes in starts.chunks(at_once) {
            self.wavefronts += 1;
            let step = bytes.max(4);
            if lanes.windows(2).all(|w| w[1] == w[0] + step || w[1] == w[0]) {
                continue;
            }
            let mut words: Vec<u64> = lanes.iter().flat_map(|s| s / 4..(s + bytes - 1) / 4 + 1).collect();
            words.sort_unstable();
            words.dedup();
            let mut banks = [0u64; 32];
            words.iter().for_each(|w| banks[(w % 32) as usize] += 1);
            let worst = banks.iter().max().copied().unwrap_or(1).max(1);
            self.wavefronts += worst - 1;
            self.conflicts += worst - 1;
        }
    }
}
