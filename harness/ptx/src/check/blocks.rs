//! What whole blocks did to global memory: blocks run in parallel and in any order, so what one writes no other may touch.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// More than one block has read.
const MANY: u64 = 0x7fff_ffff;

/// The low half: the reading block + 1, or [`MANY`]. The high half: the writing block + 1; the top bit: atomically.
const ATOMIC: u64 = 1 << 63;

/// The units of one buffer.
pub(crate) struct Blocks {
    units: Vec<AtomicU64>,
    shift: u32,
}

/// How a block accesses global memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockAccess {
    Read,
    Write,
    Atomic,
}

/// What is wrong with an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockConflict {
    /// Nobody has written.
    Unwritten,
    /// The block of this number has written.
    Write(u64),
    /// The block of this number has read; none if several have.
    Read(Option<u64>),
}

impl Blocks {
    pub fn new(bytes: usize, grain: u32) -> Self {
        let units = (0..bytes.div_ceil(grain as usize)).map(|_| AtomicU64::new(0)).collect();
        Self { units, shift: grain.trailing_zeros() }
    }

    /// Notes an access of `block` and says what is wrong with it, if anything.
    pub fn access(
        &self,
        start: u64,
        bytes: u64,
        access: BlockAccess,
        block: u64,
        initialised: bool,
    ) -> Option<BlockConflict> {
        let mut found = None;
        for unit in &self.units[(start >> self.shift) as usize..=((start + bytes - 1) >> self.shift) as usize] {
            let mut old = unit.load(Relaxed);
            loop {
                let (new, conflict) = note(old, access, block + 1, initialised);
                if new != old
                    && let Err(now) = unit.compare_exchange_weak(old, new, Relaxed, Relaxed)
                {
                    old = now;
                    continue;
                }
                found = found.or(conflict);
                break;
            }
        }
        found
    }

    /// The bytes of each unit that somebody wrote.
    pub fn written(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let written = |unit: &AtomicU64| unit.load(Relaxed) >> 32 != 0;
        let units = self.units.iter().enumerate().filter(move |(_, unit)| written(unit));
        units.map(|(unit, _)| (unit as u64) << self.shift..(unit as u64 + 1) << self.shift)
    }

    /// The bytes of units that `was_written` does not know, and the first of them.
    pub fn unwritten(&self, from: u64, bytes: u64, was_written: impl Fn(Range<u64>) -> bool) -> Option<(u64, u64)> {
        let range = from >> self.shift..((from + bytes - 1) >> self.shift) + 1;
        let mut missing = range.filter(|unit| {
            let bytes = (unit << self.shift).max(from)..((unit + 1) << self.shift).min(from + bytes);
            !was_written(bytes)
        });
        let first = missing.next()?;
        Some((first << self.shift, (missing.count() as u64 + 1) << self.shift))
    }
}

fn note(old: u64, access: BlockAccess, me: u64, initialised: bool) -> (u64, Option<BlockConflict>) {
    let (reader, writer, atomic) = (old & 0xffff_ffff, old >> 32 & 0x7fff_ffff, old & ATOMIC != 0);
    let foreign = writer != 0 && writer != me;
    match access {
        BlockAccess::Read => {
            let conflict = match writer {
                0 if initialised => Some(BlockConflict::Unwritten),
                _ => foreign.then_some(BlockConflict::Write(writer - 1)),
            };
            let readers = if reader == 0 || reader == me { me } else { MANY };
            (old & !0xffff_ffff | readers, conflict)
        }
        BlockAccess::Write | BlockAccess::Atomic => {
            let both_atomic = atomic && access == BlockAccess::Atomic;
            let conflict = if foreign && !both_atomic {
                Some(BlockConflict::Write(writer - 1))
            } else if reader != 0 && reader != me {
                Some(BlockConflict::Read((reader != MANY).then(|| reader - 1)))
            } else {
                None
            };
            let kind = if access == BlockAccess::Atomic { ATOMIC } else { 0 };
            (kind | me << 32 | reader, conflict)
        }
    }
}
