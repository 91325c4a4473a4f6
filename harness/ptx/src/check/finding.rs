//! What a launch is found to do wrong.

use std::{collections::BTreeMap, fmt};

/// What kind of mistake a [`Finding`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// An access to memory that belongs to no buffer, array or variable.
    OutOfBounds,
    /// An address that is no multiple of the access's size.
    Misaligned,
    /// A store to a buffer that is an input.
    WriteToInput,
    /// Two threads of a block (or cluster) access one place, one of them writes, and no barrier orders them.
    Race,
    /// Two blocks access one place and one of them writes. Blocks run in parallel: which of the two is named may change
    /// from run to run.
    BlocksConflict,
    /// A load from memory that nobody wrote.
    UnwrittenRead,
    /// An output that no thread wrote, in whole or in part.
    UnwrittenOutput,
    /// Memory that an asynchronous copy still fills or reads.
    CopyInFlight,
    /// A barrier that some of a warp's threads reach and others do not.
    DivergentBarrier,
    /// A barrier with a count that is no multiple of the warp or with a number that does not exist.
    BarrierCount,
    /// Threads that wait for what never comes.
    Deadlock,
    /// A shuffle, vote or similar whose mask is not the set of lanes that run it.
    WrongMask,
    /// Blocks in another order gave another result.
    OrderDependence,
    /// A thread ran more instructions than allowed.
    InstructionLimit,
    /// An mbarrier used before its initialisation or against its rules.
    Mbarrier,
    /// A `trap` instruction.
    Trap,
}

/// A place in the source that `.loc` directives name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file's name, as the compiler wrote it.
    pub file: String,
    /// 1-based.
    pub line: u32,
    /// Where the function was inlined: file and line.
    pub inlined_at: Option<(String, u32)>,
}

/// A mistake, where it was made first, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// The kernel's name, as in the PTX.
    pub kernel: String,
    /// The block, where one is to blame.
    pub block: Option<[u32; 3]>,
    /// The thread in its block, where one is to blame.
    pub thread: Option<[u32; 3]>,
    /// The 1-based line of the PTX; 0 where none is to blame.
    pub line: u32,
    /// The line of the source, where the PTX has line information.
    pub source: Option<Source>,
    /// In words.
    pub message: String,
    /// How many times: by threads, at this instruction.
    pub count: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kernel, self.message)?;
        let list = |v: [u32; 3]| format!("({}, {}, {})", v[0], v[1], v[2]);
        if let Some(block) = self.block {
            write!(f, "; block {}", list(block))?;
        }
        if let Some(thread) = self.thread {
            write!(f, ", thread {}", list(thread))?;
        }
        if self.line > 0 {
            write!(f, "; PTX line {}", self.line)?;
        }
        if let Some(source) = &self.source {
            write!(f, ", {}:{}", source.file, source.line)?;
            if let Some((file, line)) = &source.inlined_at {
                write!(f, " (inlined at {file}:{line})")?;
            }
        }
        if self.count > 1 { write!(f, "; {} times", self.count) } else { Ok(()) }
    }
}

/// Where a mistake was made: the block's number in the grid, the thread's in the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub block: u64,
    pub thread: Option<u32>,
    pub pc: u32,
}

/// Mistakes, each instruction's first of a kind.
#[derive(Default)]
pub(crate) struct Findings {
    list: BTreeMap<(Kind, u32, String), (Spot, String, u64)>,
}

impl Findings {
    /// `subject` tells mistakes of one instruction apart: the buffer's name, usually.
    pub fn add(&mut self, kind: Kind, spot: Spot, subject: &str, message: impl FnOnce() -> String) {
        let entry = self.list.entry((kind, spot.pc, subject.to_string()));
        entry.or_insert_with(|| (spot, message(), 0)).2 += 1;
    }

    /// Whether there is a mistake of this kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.list.keys().any(|(own, ..)| *own == kind)
    }

    /// Joins what another worker found; the lowest block's words stay.
    pub fn merge(&mut self, other: Self) {
        for (key, (spot, message, count)) in other.list {
            let entry = self.list.entry(key).or_insert_with(|| (spot, message.clone(), 0));
            if spot.block < entry.0.block {
                (entry.0, entry.1) = (spot, message);
            }
            entry.2 += count;
        }
    }

    pub fn into_iter(self) -> impl Iterator<Item = (Kind, Spot, String, u64)> {
        self.list.into_iter().map(|((kind, ..), (spot, message, count))| (kind, spot, message, count))
    }
}
