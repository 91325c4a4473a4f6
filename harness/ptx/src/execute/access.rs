//! Loads and stores: the checks of a place, and the bytes.

use crate::{
    check::{
        blocks::{BlockAccess, BlockConflict},
        finding::Kind,
        shadow::{Access, Conflict, Who},
    },
    execute::{
        group::Group,
        place::{Place, advance},
        warp::{Warp, lanes},
    },
    program::{Address, Ordering, Slot, WARP},
};

/// What an access moves: `count` elements of `bytes`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Form {
    pub bytes: u32,
    pub count: u32,
    pub strong: bool,
    pub ordering: Ordering,
    /// A store of what is there already.
    pub same: bool,
}

impl Form {
    pub fn total(self) -> u64 {
        u64::from(self.bytes * self.count)
    }
}

/// The little-endian number in up to eight bytes.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

impl Group<'_> {
    /// Notes an access to shared or global memory, and whether it may be made.
    pub(crate) fn note(
        &mut self,
        thread: usize,
        pc: u32,
        at: Place,
        bytes: u64,
        access: BlockAccess,
        form: Form,
    ) -> bool {
        let atomic = access == BlockAccess::Atomic;
        let who = Who { thread, pc, strong: form.strong || atomic, same: form.same };
        let kind = if access == BlockAccess::Read { Access::Read } else { Access::Write };
        let (conflict, name) = match at {
            Place::Shared(block, offset) => {
                let shadow = &mut self.blocks[block].shadow;
                // An atomic operation reads too: there must be something.
                let mut conflict = None;
                if atomic {
                    conflict = shadow.access((offset, bytes), Access::Read, who, &self.clocks, true);
                }
                let other = shadow.access((offset, bytes), kind, who, &self.clocks, true);
                (conflict.or(other), "shared memory")
            }
            Place::Buffer(index, offset) => {
                let context = self.context;
                let buffer = context.buffers[index];
                let Some(blocks) = &context.blocks[index] else {
                    if access == BlockAccess::Read {
                        return true;
                    }
                    self.find(Kind::WriteToInput, thread, pc, &buffer.name, || {
                        format!("store to input {}", buffer.name)
                    });
                    return false;
                };
                let block = self.spot(thread, pc).block;
                let initialised = buffer.rights.starts_unwritten()
                    && access == BlockAccess::Read
                    && !buffer.was_written(offset..offset + bytes);
                if let Some(conflict) = blocks.access(offset, bytes, access, block, initialised) {
                    self.blocks_conflict(thread, pc, index, offset, access, conflict);
                }
                (
                    self.global_shadows[index].access((offset, bytes), kind, who, &self.clocks, false),
                    buffer.name.as_str(),
                )
            }
            _ => return true,
        };
        if form.ordering.release {
            self.clocks.release(thread, self.handed_over.entry(at).or_default());
        }
        if form.ordering.acquire
            && let Some(gathered) = self.handed_over.get(&at)
        {
            let all = self.clocks.finish(&mut gathered.clone());
            self.clocks.acquire(thread, &all);
        }
        if let Some(conflict) = conflict {
            self.conflict(thread, pc, name, kind, conflict);
        }
        true
    }

    fn conflict(&mut self, thread: usize, pc: u32, name: &str, access: Access, conflict: Conflict) {
        let me = if access == Access::Read { "read" } else { "write" };
        match conflict {
            Conflict::Unwritten => {
                self.find(Kind::UnwrittenRead, thread, pc, name, || format!("read of {name} that nobody wrote"))
            }
            Conflict::InFlight => {
                self.find(Kind::CopyInFlight, thread, pc, name, || {
                    format!("{me} of {name} that an asynchronous copy still fills")
                });
            }
            Conflict::Write { thread: other, pc: there } => {
                let (other, line) = (self.name(other as usize), self.line(there));
                self.find(Kind::Race, thread, pc, name, || {
                    format!(
                        "race: {me} of {name} that thread {other} wrote at PTX line {line}, with no barrier between"
                    )
                });
            }
            Conflict::Read { thread: other, pc: there } => {
                let (other, line) = (self.name(other as usize), self.line(there));
                self.find(Kind::Race, thread, pc, name, || {
                    format!(
                        "race: write of {name} that thread {other} has read at PTX line {line}, with no barrier between"
                    )
                });
            }
        }
    }

    fn blocks_conflict(
        &mut self,
        thread: usize,
        pc: u32,
        index: usize,
        at: u64,
        access: BlockAccess,
        conflict: BlockConflict,
    ) {
        let buffer = self.context.buffers[index];
        let (name, at) = (&buffer.name, at - buffer.offset);
        let me = if access == BlockAccess::Read { "reads" } else { "writes" };
        match conflict {
            BlockConflict::Unwritten => self.find(Kind::UnwrittenRead, thread, pc, name, || {
                format!("read of byte {at} of output {name} that nobody wrote")
            }),
            BlockConflict::Write(other) => self.find(Kind::BlocksConflict, thread, pc, name, || {
                format!("block {me} byte {at} of {name}, which block {other} writes in the same launch")
            }),
            BlockConflict::Read(other) => self.find(Kind::BlocksConflict, thread, pc, name, || {
                let other = other.map_or("other blocks read".into(), |b| format!("block {b} reads"));
                format!("block {me} byte {at} of {name}, which {other} in the same launch")
            }),
        }
    }

    /// The element of a place that has been checked.
    pub(crate) fn read(&self, warp: &Warp, lane: usize, at: Place, bytes: u32) -> u64 {
        let slice = |all: &[u8], offset: u64| number(&all[offset as usize..][..bytes as usize]);
        match at {
            Place::Buffer(index, offset) => self.context.buffers[index].load(offset, bytes),
            Place::Shared(block, offset) => slice(&self.blocks[block].shared, offset),
            Place::Param(offset) => slice(self.context.params, offset),
            Place::Const(offset) => slice(&self.context.program.constant_bytes, offset),
            Place::Local(address) => {
                warp.local_range(lane, address, bytes.into()).map_or(0, |(b, r)| number(warp.local_bytes(b, r)))
            }
        }
    }

    pub(crate) fn write(&mut self, warp: &mut Warp, lane: usize, at: Place, bytes: u32, value: u64) {
        let value_bytes = value.to_le_bytes();
        let value_bytes = &value_bytes[..bytes as usize];
        match at {
            Place::Buffer(index, offset) => self.context.buffers[index].store(offset, bytes, value),
            Place::Shared(block, offset) => {
                self.blocks[block].shared[offset as usize..][..bytes as usize].copy_from_slice(value_bytes);
            }
            Place::Local(address) => {
                if let Some((bank, range)) = warp.local_range(lane, address, bytes.into()) {
                    warp.local(bank, range).copy_from_slice(value_bytes);
                }
            }
            // Reported by `store`.
            Place::Param(_) | Place::Const(_) => {}
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one instruction")]
    pub(crate) fn load(
        &mut self,
        warp: &mut Warp,
        active: u32,
        pc: u32,
        address: Address,
        form: Form,
        results: &[Option<Slot>],
        extend: Option<u32>,
    ) {
        let base = *warp.get(address.base, &self.context.program.constants);
        let mut values = [[0u64; WARP]; 8];
        let mut places = [None; WARP];
        for lane in lanes(active) {
            let target = (address.space, base[lane].wrapping_add(address.offset));
            let at = self.place(warp, lane, pc, target, form.total());
            let noted = at.filter(|at| self.note(warp.first + lane, pc, *at, form.total(), BlockAccess::Read, form));
            places[lane] = noted;
            for i in 0..form.count {
                values[i as usize][lane] = match noted {
                    Some(at) => self.read(warp, lane, advance(at, i * form.bytes), form.bytes),
                    None => u64::MAX >> (64 - 8 * form.bytes),
                };
            }
        }
        self.count(active, &places, form, false);
        for (slot, mut value) in results.iter().zip(values) {
            let Some(slot) = slot else { continue };
            if let Some(width) = extend {
                value = value.map(|v| {
                    let shift = 64 - 8 * form.bytes;
                    ((v << shift) as i64 >> shift) as u64 & (u64::MAX >> (64 - width))
                });
            }
            warp.set(*slot, active, &value);
        }
    }

    pub(crate) fn store(
        &mut self,
        warp: &mut Warp,
        active: u32,
        pc: u32,
        address: Address,
        form: Form,
        sources: &[Slot],
    ) {
        let constants = &self.context.program.constants;
        let base = *warp.get(address.base, constants);
        let mut places = [None; WARP];
        for lane in lanes(active) {
            let target = (address.space, base[lane].wrapping_add(address.offset));
            let Some(at) = self.place(warp, lane, pc, target, form.total()) else { continue };
            if matches!(at, Place::Param(_) | Place::Const(_)) {
                self.find(Kind::WriteToInput, warp.first + lane, pc, "", || {
                    "store to constant memory or a parameter".into()
                });
                continue;
            }
            let same = matches!(at, Place::Shared(..))
                && sources.iter().enumerate().all(|(i, source)| {
                    let there = self.read(warp, lane, advance(at, i as u32 * form.bytes), form.bytes);
                    there == warp.get(*source, constants)[lane] & (u64::MAX >> (64 - 8 * form.bytes))
                });
            let form = Form { same, ..form };
            if !self.note(warp.first + lane, pc, at, form.total(), BlockAccess::Write, form) {
                continue;
            }
            places[lane] = Some(at);
            for (i, source) in sources.iter().enumerate() {
                let value = warp.get(*source, constants)[lane];
                self.write(warp, lane, advance(at, i as u32 * form.bytes), form.bytes, value);
            }
        }
        self.count(active, &places, form, true);
    }

    /// Counts a warp's request: all lanes' places that lie in the same buffer are one.
    pub(crate) fn count(&mut self, active: u32, places: &[Option<Place>; WARP], form: Form, store: bool) {
        let bytes = form.total();
        let mut rest = active;
        while let Some(first) = lanes(rest).find_map(|l| places[l]) {
            let mut starts = [0; WARP];
            let mut n = 0;
            let mut taken = 0;
            for lane in lanes(rest) {
                let offset = match (first, places[lane]) {
                    (_, None) => {
                        taken |= 1 << lane;
                        continue;
                    }
                    (Place::Buffer(a, _), Some(Place::Buffer(b, offset))) if a == b => offset,
                    (Place::Shared(..), Some(Place::Shared(_, offset))) => offset,
                    (Place::Local(_), Some(Place::Local(offset))) => offset,
                    (Place::Param(_) | Place::Const(_), Some(Place::Param(offset) | Place::Const(offset))) => offset,
                    _ => continue,
                };
                taken |= 1 << lane;
                starts[n] = offset;
                n += 1;
            }
            match first {
                Place::Buffer(index, _) => self.buffer_counters[index].request(&mut starts[..n], bytes, store),
                Place::Shared(..) => self.counters.shared.request(&starts[..n], bytes, store),
                Place::Local(_) => self.counters.local_bytes += n as u64 * bytes,
                Place::Param(_) | Place::Const(_) => {}
            }
            rest &= !taken;
        }
    }
}
