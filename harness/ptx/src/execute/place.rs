//! From an address to a place: the address map and its limits; and the instructions that compute addresses.

use crate::{
    check::finding::Kind,
    execute::{
        group::Group,
        space::{CONST_START, GLOBALS_START, SHARED_START, from_generic, rank_of, to_generic, with_rank},
        warp::Warp,
    },
    memory::place,
    program::{Op, Space, WARP},
};

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
        let aligned = !bytes.is_power_of_two() || address & (bytes - 1) == 0;
        let found = self.locate(warp, lane, (space, address), bytes).filter(|_| aligned);
        if found.is_none() {
            let kind = if aligned { Kind::OutOfBounds } else { Kind::Misaligned };
            let place = self.described(warp, space, address);
            let is_not = if aligned { "" } else { " is not aligned" };
            let message = || format!("access of {bytes} bytes at {place}{is_not}");
            self.find(kind, warp.first + lane, pc, "", message);
        }
        found
    }

    fn locate(&self, warp: &Warp, lane: usize, (space, address): (Space, u64), bytes: u64) -> Option<Place> {
        let inside =
            |start: u64, size: u64, at: u64| at >= start && at.checked_add(bytes).is_some_and(|e| e <= start + size);
        let context = self.context;
        let (place, fits) = match space {
            Space::Global => {
                let (index, at) = self.buffer(address)?;
                let buffer = context.buffers.get(index)?;
                (Place::Buffer(index, at), inside(buffer.offset, buffer.bytes, at))
            }
            Space::Shared | Space::Cluster => {
                let (rank, at) = rank_of(address, warp.block as u64);
                let block = self.blocks.get(rank as usize)?;
                let reachable = rank == warp.block as u64 || space == Space::Cluster;
                let statics = context.kernel.shared_bytes.max(SHARED_START) - SHARED_START;
                let dynamic = u64::from(context.launch.shared);
                let fits =
                    inside(SHARED_START, statics, at) || inside(block.shared.len() as u64 - dynamic, dynamic, at);
                (Place::Shared(rank as usize, at), reachable && fits)
            }
            Space::Local => (Place::Local(address), warp.local_range(lane, address, bytes).is_some()),
            Space::Param => (Place::Param(address), inside(0, context.params.len() as u64, address)),
            Space::Const => {
                let fits = inside(CONST_START, context.program.constant_bytes.len() as u64, address);
                (Place::Const(address.wrapping_sub(CONST_START)), fits)
            }
            Space::Generic => return None,
        };
        fits.then_some(place)
    }

    /// The buffer that an address is in or nearest to, and the offset in its range.
    fn buffer(&self, address: u64) -> Option<(usize, u64)> {
        match address.checked_sub(GLOBALS_START) {
            Some(at) => Some((self.context.buffers.len() - 1, at)),
            None => place(address),
        }
    }

    /// An address in words.
    fn described(&self, warp: &Warp, space: Space, address: u64) -> String {
        let context = self.context;
        match space {
            Space::Global => match self.buffer(address).and_then(|(i, at)| Some((context.buffers.get(i)?, at))) {
                None => format!("{address:#x}, where no buffer is"),
                Some((b, at)) => {
                    format!("byte {} of buffer {} of {} bytes", at.wrapping_sub(b.offset) as i64, b.name, b.bytes)
                }
            },
            Space::Shared | Space::Cluster => {
                let (rank, at) = rank_of(address, warp.block as u64);
                match self.blocks.get(rank as usize) {
                    Some(block) if rank == warp.block as u64 || space == Space::Cluster => {
                        let dynamic = u64::from(context.launch.shared);
                        let relative = at as i64 - (block.shared.len() as u64 - dynamic) as i64;
                        let statics = context.kernel.shared_bytes.max(SHARED_START) - SHARED_START;
                        format!(
                            "byte {relative} of dynamic shared memory (of {dynamic} bytes, {statics} static ones before)"
                        )
                    }
                    _ => format!("shared memory of block {rank} of the cluster"),
                }
            }
            _ => format!("{address:#x} of {space:?} memory"),
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
