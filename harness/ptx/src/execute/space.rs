//! The address map: where spaces other than global memory lie, as kernels see them.
//!
//! A shared address is an offset in the block's own window. With a rank (plus one) in bits 24 and up it names the window
//! of that block of the cluster, which is what `mapa` returns. Generic addresses have a number of the space on top.

use crate::program::Space;

/// Shared variables start here: no address of one is null.
pub(crate) const SHARED_START: u64 = 1024;
/// A thread's own arrays start here.
pub(crate) const LOCAL_START: u64 = 256;
/// Those of device functions start here.
pub(crate) const FUNCTION_LOCAL: u64 = 1 << 28;
/// Constant variables start here.
pub(crate) const CONST_START: u64 = 256;
/// `.global` variables start here, beyond every buffer.
pub(crate) const GLOBALS_START: u64 = 1 << 58;

/// Bits of a shared address below the rank.
const RANK_SHIFT: u32 = 24;
/// Bits of a generic address below the space.
const WINDOW_SHIFT: u32 = 60;

fn window(space: Space) -> u64 {
    match space {
        Space::Shared | Space::Cluster => 1,
        Space::Local => 2,
        Space::Param => 3,
        Space::Const => 4,
        Space::Generic | Space::Global => 0,
    }
}

/// From an address in `space` to a generic one. A shared address gets its block's rank, so that it keeps its meaning when
/// another block of the cluster uses it.
pub(crate) fn to_generic(space: Space, address: u64, rank: u64) -> u64 {
    let address = if matches!(space, Space::Shared) { with_rank(address, rank) } else { address };
    window(space) << WINDOW_SHIFT | address
}

/// The space of a generic address and the address in it.
pub(crate) fn from_generic(address: u64) -> (Space, u64) {
    let space = match address >> WINDOW_SHIFT {
        1 => Space::Cluster,
        2 => Space::Local,
        3 => Space::Param,
        4 => Space::Const,
        _ => return (Space::Global, address),
    };
    (space, address & ((1 << WINDOW_SHIFT) - 1))
}

/// A shared address in the window of the block `rank`.
pub(crate) fn with_rank(address: u64, rank: u64) -> u64 {
    address & ((1 << RANK_SHIFT) - 1) | (rank + 1) << RANK_SHIFT
}

/// The rank in a shared address, `own` if there is none, and the offset.
pub(crate) fn rank_of(address: u64, own: u64) -> (u64, u64) {
    let rank = (address >> RANK_SHIFT).checked_sub(1).unwrap_or(own);
    (rank, address & ((1 << RANK_SHIFT) - 1))
}
