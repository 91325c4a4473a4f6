//! Loads and stores: from an address to a place, its checks, and the bytes.

use crate::{
    check::{
        blocks::{BlockAccess, BlockConflict},
        finding::Kind,
        shadow::{Access, Conflict, Who},
    },
    execute::{
        group::Group,
        space::{CONST_START, GLOBALS_START, SHARED_START, from_generic, rank_of, to_generic, with_rank},
        warp::{Warp, lanes},
    },
    memory::{Rights, place},
    program::{Address, Op, Ordering, Slot, Space, WARP},
};

/// What an access moves: `count` elements of `bytes`.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    pub bytes: u32,
    pub count: u32,
    pub strong: bool,
    pub ordering: Ordering,
}

impl Form {
    pub fn total(self) -> u64 {
        u64::from(self.bytes * self.count)
    }
}

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Buffer(usize, u64),
    /// The block of the group, and the offset in its window.
    Shared(usize, u64),
    Local(u64),
    Param(u64),
    Const(u64),
}

/// The little-endian number in up to eight bytes.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

impl Group<'_> {
    /// The place of `bytes` at `address`, or nothing, which is a finding.
    pub(crate) fn place(
        &mut self,
        warp: &Warp,
        lane: usize,
        pc: u32,
        (space, address): (Space, u64),
        bytes: u64,
    ) -> Option<Place> {
        let (space, address) = if space == Space::Generic { from_generic(address) } else { (space, address) };
        let thread = warp.first + lane;
        if bytes.is_power_of_two() && address % bytes != 0 {
            self.find(Kind::Misaligned, thread, pc, "", || {
                format!("access of {bytes} bytes at {} is not aligned", described(space, address))
            });
            return None;
        }
        let inside =
            |start: u64, size: u64, at: u64| at >= start && at.checked_add(bytes).is_some_and(|e| e <= start + size);
        let context = self.context;
        let (found, what) = match space {
            Space::Global => {
                let (index, at) = match address.checked_sub(GLOBALS_START) {
                    Some(at) => (context.buffers.len() - 1, at),
                    None => place(address).unwrap_or((usize::MAX, address)),
                };
                match context.buffers.get(index) {
                    None => (None, format!("{address:#x}, where no buffer is")),
                    Some(b) if inside(b.offset, b.bytes, at) => return Some(Place::Buffer(index, at)),
                    Some(b) => {
                        let relative = at.wrapping_sub(b.offset) as i64;
                        (None, format!("byte {relative} of buffer {}, which has {} bytes", b.name, b.bytes))
                    }
                }
            }
            Space::Shared | Space::Cluster => {
                let (rank, at) = rank_of(address, warp.block as u64);
                let own = rank == warp.block as u64;
                let statics = context.kernel.shared_bytes.max(SHARED_START);
                match self.blocks.get(rank as usize) {
                    Some(b) if own || space == Space::Cluster => {
                        let dynamic = b.shared.len() as u64 - u64::from(context.launch.shared);
                        let in_statics = inside(SHARED_START, statics - SHARED_START, at);
                        let fits = in_statics || inside(dynamic, context.launch.shared.into(), at);
                        let sizes =
                            format!("{} static and {} dynamic bytes", statics - SHARED_START, context.launch.shared);
                        let relative = at as i64 - dynamic as i64;
                        let what = || format!("byte {relative} of dynamic shared memory; the block has {sizes}");
                        if fits { (Some(Place::Shared(rank as usize, at)), String::new()) } else { (None, what()) }
                    }
                    _ => (None, format!("shared memory of block {rank} of the cluster")),
                }
            }
            Space::Local => {
                let fits = warp.local_range(lane, address, bytes).is_some();
                (fits.then_some(Place::Local(address)), format!("byte {address} of local memory"))
            }
            Space::Param => {
                let fits = inside(0, context.params.len() as u64, address);
                (fits.then_some(Place::Param(address)), format!("byte {address} of the parameters"))
            }
            Space::Const => {
                let fits = inside(CONST_START, context.program.constant_bytes.len() as u64, address);
                (
                    fits.then_some(Place::Const(address - CONST_START.min(address))),
                    format!("byte {address} of constant memory"),
                )
            }
            Space::Generic => (None, "a generic address of no space".into()),
        };
        if found.is_none() {
            self.find(Kind::OutOfBounds, thread, pc, "", || format!("access of {bytes} bytes at {what}"));
        }
        found
    }

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
        let who = Who { thread, pc, strong: form.strong || atomic };
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
                let initialised = buffer.rights == Rights::Write && access == BlockAccess::Read;
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

    /// Instructions on addresses.
    pub(crate) fn addresses(&mut self, warp: &mut Warp, active: u32, pc: u32) {
        let constants = &self.context.program.constants;
        let own = warp.block as u64;
        let (result, out) = match self.context.program.code[pc as usize].op {
            Op::MapShared { result, address, rank, generic } => {
                let rank = *warp.get(rank, constants);
                let map = |(a, r): (&u64, u64)| {
                    let shared = if generic { from_generic(*a).1 } else { *a };
                    // A rank that does not exist stays one, for the access to tell.
                    let shared = with_rank(shared, r.min(62));
                    if generic { to_generic(Space::Cluster, shared, own) } else { shared }
                };
                let mapped: Vec<u64> = warp.get(address, constants).iter().zip(rank).map(map).collect();
                (result, mapped.try_into().unwrap_or([0; WARP]))
            }
            Op::BlockOfShared { result, address, generic } => {
                let shared = |a: u64| if generic { from_generic(a).1 } else { a };
                (result, warp.get(address, constants).map(|a| rank_of(shared(a), own).0))
            }
            Op::ToGeneric { result, address, space } => {
                (result, warp.get(address, constants).map(|a| to_generic(space, a, own)))
            }
            Op::FromGeneric { result, address, space } => {
                // A shared address of the own block loses its rank: it is what the block itself would write.
                let back = |a: u64| match (space, from_generic(a).1) {
                    (Space::Global, _) => a,
                    (Space::Shared, shared) if rank_of(shared, own).0 == own => rank_of(shared, own).1,
                    (_, plain) => plain,
                };
                (result, warp.get(address, constants).map(back))
            }
            Op::InSpace { result, address, space } => {
                let inside = |a: u64| match (from_generic(a), space) {
                    ((Space::Cluster, shared), Space::Shared) => rank_of(shared, own).0 == own,
                    ((found, _), space) => found == space,
                };
                (result, warp.get(address, constants).map(|a| inside(a).into()))
            }
            _ => return,
        };
        warp.set(result, active, &out);
    }
}

/// An address in words.
fn described(space: Space, address: u64) -> String {
    match (space, place(address)) {
        (Space::Global, Some((index, at))) => format!("byte {at} of global buffer {index}"),
        _ => format!("{address:#x} of {space:?} memory"),
    }
}

/// The place some bytes further.
pub(crate) fn advance(at: Place, bytes: u32) -> Place {
    let by = u64::from(bytes);
    match at {
        Place::Buffer(index, offset) => Place::Buffer(index, offset + by),
        Place::Shared(block, offset) => Place::Shared(block, offset + by),
        Place::Local(offset) => Place::Local(offset + by),
        Place::Param(offset) => Place::Param(offset + by),
        Place::Const(offset) => Place::Const(offset + by),
    }
}
