//! What the parser makes of PTX text: instructions whose operands are register numbers, and the tables beside them.

use std::{collections::HashMap, sync::Arc};

use crate::execute::approximate::Approximate;

/// Lanes of a warp.
pub(crate) const WARP: usize = 32;

/// One value for every lane. A value narrower than 64 bits is zero-extended; a predicate is 0 or 1.
pub(crate) type Lanes = [u64; WARP];

/// Where an operand lies: a bank (two high bits) and an index in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(pub u32);

impl Slot {
    pub const KERNEL: u32 = 0;
    pub const FUNCTION: u32 = 1;
    pub const CONSTANT: u32 = 2;

    pub fn new(bank: u32, index: usize) -> Self {
        Self(bank << 30 | index as u32)
    }

    pub fn bank(self) -> u32 {
        self.0 >> 30
    }

    pub fn index(self) -> usize {
        (self.0 & 0x3fff_ffff) as usize
    }
}

/// The state space that an instruction names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Generic,
    Global,
    /// The block's own shared memory.
    Shared,
    /// The shared memory of any block of the cluster.
    Cluster,
    Local,
    Param,
    Const,
}

/// `[base + offset]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub space: Space,
    pub base: Slot,
    pub offset: u64,
}

/// Evaluates an instruction on all lanes at once: `(a, b, c, result)`.
pub(crate) type Alu = Arc<dyn Fn(&Lanes, &Lanes, &Lanes, &mut Lanes) + Send + Sync>;

/// How an atomic operation combines the old value with its operands: `(old, b, c) -> new`, on one element.
pub(crate) type Combine = Arc<dyn Fn(u64, u64, u64) -> u64 + Send + Sync>;

/// Which lanes' values a shuffle reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

/// What lanes of a mask compute together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Collective {
    /// a, b (lane or distance), c (clamp and segment)
    Shuffle(Shuffle),
    VoteAll,
    VoteAny,
    VoteUniform,
    Ballot,
    MatchAny(u32),
    MatchAll(u32),
    Reduce(Reduction),
    Elect,
    /// `bar.warp.sync`
    Barrier,
}

/// The operation of `redux.sync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    Add,
    MinUnsigned,
    MaxUnsigned,
    MinSigned,
    MaxSigned,
    And,
    Or,
    Xor,
}

/// What happens at a block's barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BarrierKind {
    Sync,
    Arrive,
    /// With a predicate that is counted over the threads: the result is the count, or whether all or any were true.
    Count,
    And,
    Or,
}

/// What an instruction does to an mbarrier.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mbarrier {
    Init {
        count: Slot,
    },
    Invalidate,
    /// Arrivals, and bytes expected beforehand. `state` receives the phase before.
    Arrive {
        count: Slot,
        expect: Option<Slot>,
        state: Option<Slot>,
        remote: bool,
        drop: bool,
    },
    Expect {
        bytes: Slot,
    },
    /// `done` receives whether the phase is over; with `wait` the thread may be suspended until it is.
    Test {
        state: Slot,
        parity: bool,
        done: Slot,
        wait: bool,
    },
    /// Arrives when the thread's earlier `cp.async` are complete.
    ArriveAfterCopies {
        counted: bool,
    },
}

/// The operation of an instruction.
#[derive(Clone)]
pub(crate) enum Op {
    /// One result from up to three operands; bit 1 of the result goes to `second` (a predicate).
    Alu {
        run: Alu,
        result: Slot,
        second: Option<Slot>,
        operands: [Slot; 3],
    },
    /// An instruction with a documented error rather than a defined result.
    Approximate {
        function: Approximate,
        result: Slot,
        operands: [Slot; 2],
    },
    /// Copies 16-, 32- or 64-bit pieces of one register into several, low bits first.
    Unpack {
        source: Slot,
        results: Box<[Option<Slot>]>,
        bits: u32,
    },
    Pack {
        sources: Box<[Slot]>,
        result: Slot,
        bits: u32,
    },
    /// Elements of `bytes`; `extend` is the sign bit's place and the register's width for signed elements.
    Load {
        address: Address,
        bytes: u32,
        results: Box<[Option<Slot>]>,
        extend: Option<u32>,
        strong: bool,
        ordering: Ordering,
    },
    Store {
        address: Address,
        bytes: u32,
        sources: Box<[Slot]>,
        strong: bool,
        ordering: Ordering,
    },
    /// `ldmatrix` and `stmatrix`: one matrix for each register, to or from shared memory.
    Matrices {
        address: Address,
        registers: Box<[Slot]>,
        transposed: bool,
        store: bool,
    },
    Atomic {
        address: Address,
        bytes: u32,
        combine: Combine,
        results: Box<[Option<Slot>]>,
        b: Box<[Slot]>,
        c: Slot,
        ordering: Ordering,
    },
    /// Global (or cluster) to shared memory; `from` bytes are read, the rest is zero.
    CopyAsync {
        to: Address,
        from: Address,
        bytes: u32,
        source_bytes: Option<Slot>,
        skip: Option<Slot>,
    },
    CommitCopies,
    /// Waits until at most this many groups of copies are pending; `None`: until every copy is complete.
    WaitCopies(Option<u64>),
    BulkCopy {
        to: Address,
        from: Address,
        bytes: Slot,
        barrier: Option<Address>,
    },
    BulkCommit,
    BulkWait(u64),
    Mbarrier {
        address: Address,
        action: Mbarrier,
    },
    Branch(u32),
    Call {
        target: u32,
        arguments: Box<[Piece]>,
        results: Box<[Piece]>,
    },
    Return,
    Exit,
    Trap,
    Collective {
        what: Collective,
        result: Option<Slot>,
        second: Option<Slot>,
        operands: [Slot; 3],
        mask: Slot,
    },
    ActiveMask(Slot),
    Barrier {
        kind: BarrierKind,
        aligned: bool,
        id: Slot,
        count: Option<Slot>,
        predicate: Slot,
        result: Option<Slot>,
    },
    ClusterArrive {
        aligned: bool,
        relaxed: bool,
    },
    ClusterWait,
    /// Maps an address to another block's shared memory, or tells whose it is.
    MapShared {
        result: Slot,
        address: Slot,
        rank: Slot,
        generic: bool,
    },
    BlockOfShared {
        result: Slot,
        address: Slot,
        generic: bool,
    },
    InSpace {
        result: Slot,
        address: Slot,
        space: Space,
    },
    /// Adds the start of a space's window to an address, or takes it away.
    ToGeneric {
        result: Slot,
        address: Slot,
        space: Space,
    },
    FromGeneric {
        result: Slot,
        address: Slot,
        space: Space,
    },
    Fence,
    Nothing,
}

/// The memory ordering of a strong access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Ordering {
    pub acquire: bool,
    pub release: bool,
}

/// Bytes of a thread's own memory that a call hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub from: u64,
    pub to: u64,
    pub bytes: u64,
}

/// An instruction: where it stands, when it runs, what it does.
#[derive(Clone)]
pub(crate) struct Inst {
    /// Runs in lanes where this predicate is not `negated`.
    pub guard: Option<(Slot, bool)>,
    pub op: Op,
    /// 1-based line of the PTX text.
    pub line: u32,
    /// Index into [`Program::locations`]; 0 is nowhere.
    pub location: u32,
}

/// A line of the source that a `.loc` directive names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Location {
    pub file: u32,
    pub line: u32,
    /// Where the function of that line was inlined.
    pub inlined: Option<(u32, u32)>,
}

/// A parameter of a kernel or a variable, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    pub name: String,
    pub offset: u64,
    pub bytes: u64,
}

/// A kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kernel {
    pub name: String,
    pub start: u32,
    pub parameters: Vec<Variable>,
    pub parameter_bytes: u64,
    pub registers: usize,
    pub local_bytes: u64,
    /// The end of the static shared variables that it may use; the `.extern` ones all start behind.
    pub shared_bytes: u64,
    pub shared_align: u64,
    pub max_threads: Option<[u32; 3]>,
    pub required_threads: Option<[u32; 3]>,
    pub required_cluster: Option<[u32; 3]>,
    /// The narrowest element that the module moves in global and in shared memory, a power of two.
    pub global_grain: u32,
    pub shared_grain: u32,
    /// Whether several blocks can change one address: atomics on global memory.
    pub global_atomics: bool,
}

/// All of a module.
#[derive(Clone, Default)]
pub(crate) struct Program {
    pub code: Vec<Inst>,
    pub kernels: Vec<Kernel>,
    pub constants: Vec<Lanes>,
    /// Registers and own memory of the device functions, which do not recurse.
    pub function_registers: usize,
    pub function_bytes: u64,
    pub locations: Vec<Location>,
    pub files: HashMap<u32, String>,
    /// Initial contents of the `.global` and `.const` variables.
    pub globals: Vec<u8>,
    pub constant_bytes: Vec<u8>,
}

/// Registers that hold the special registers of every kernel, in this order.
pub(crate) const SPECIAL: [&str; 38] = [
    "%tid.x",
    "%tid.y",
    "%tid.z",
    "%ntid.x",
    "%ntid.y",
    "%ntid.z",
    "%ctaid.x",
    "%ctaid.y",
    "%ctaid.z",
    "%nctaid.x",
    "%nctaid.y",
    "%nctaid.z",
    "%laneid",
    "%warpid",
    "%nwarpid",
    "%lanemask_eq",
    "%lanemask_le",
    "%lanemask_lt",
    "%lanemask_ge",
    "%lanemask_gt",
    "%clusterid.x",
    "%clusterid.y",
    "%clusterid.z",
    "%nclusterid.x",
    "%nclusterid.y",
    "%nclusterid.z",
    "%cluster_ctaid.x",
    "%cluster_ctaid.y",
    "%cluster_ctaid.z",
    "%cluster_nctaid.x",
    "%cluster_nctaid.y",
    "%cluster_nctaid.z",
    "%cluster_ctarank",
    "%cluster_nctarank",
    "%is_explicit_cluster",
    "%dynamic_smem_size",
    "%total_smem_size",
    "%dynamic_smem_start",
];
