//! Barriers in shared memory: arrivals and bytes that are still expected, phase after phase.

use std::rc::Rc;

use crate::{
    check::{blocks::BlockAccess, clocks::Gathered, finding::Kind},
    execute::{
        access::Form,
        group::Group,
        place::Place,
        warp::{Next, Wait, Warp, lanes},
    },
    program::{Address, Mbarrier, Ordering, WARP},
};

/// The state of an mbarrier.
#[derive(Default)]
pub(crate) struct MbarrierState {
    /// Arrivals of a phase, and those that are missing in the current one.
    count: u64,
    pending: i64,
    /// Bytes announced and not yet copied; copies may come before the announcement.
    bytes: i64,
    phase: u64,
    pub gathered: Gathered,
    complete: Option<Rc<Vec<u32>>>,
}

impl Group<'_> {
    pub(crate) fn mbarrier(
        &mut self,
        warp: &mut Warp,
        active: u32,
        pc: u32,
        address: Address,
        action: &Mbarrier,
    ) -> Next {
        let constants = &self.context.program.constants;
        let base = *warp.get(address.base, constants);
        let mut next = Next::Straight;
        for lane in lanes(active) {
            let thread = warp.first + lane;
            let target = (address.space, base[lane].wrapping_add(address.offset));
            let Some(Place::Shared(block, at)) = self.place(warp, lane, pc, target, 8) else {
                // The place is reported; the lane goes on as if all were done.
                continue;
            };
            let key = (block, at);
            let value = |slot: crate::program::Slot| warp.get(slot, constants)[lane];
            if !matches!(action, Mbarrier::Init { .. }) && !self.mbarriers.contains_key(&key) {
                self.find(Kind::Mbarrier, thread, pc, "", || "use of an mbarrier that is not initialised".into());
                continue;
            }
            let ordering = Ordering::default();
            match action {
                Mbarrier::Init { count } => {
                    let count = value(*count);
                    let form = Form { bytes: 8, count: 1, ordering, ..Form::default() };
                    self.note(thread, pc, Place::Shared(block, at), 8, BlockAccess::Write, form);
                    if count == 0 || count >= 1 << 20 {
                        self.find(Kind::Mbarrier, thread, pc, "", || format!("an mbarrier for {count} arrivals"));
                    }
                    let state = MbarrierState { count, pending: count as i64, ..MbarrierState::default() };
                    self.mbarriers.insert(key, state);
                }
                Mbarrier::Invalidate => {
                    self.mbarriers.remove(&key);
                }
                Mbarrier::Expect { bytes } => {
                    let bytes = value(*bytes) as i64;
                    self.see_initialised(thread, pc, key);
                    self.at(key).bytes += bytes;
                }
                Mbarrier::Arrive { count, expect, state, remote, drop } => {
                    let (count, bytes) = (value(*count) as i64, expect.map_or(0, |e| value(e) as i64));
                    if !remote && block != warp.block {
                        self.find(Kind::Mbarrier, thread, pc, "", || {
                            "arrival at another block's mbarrier needs shared::cluster".into()
                        });
                    }
                    self.see_initialised(thread, pc, key);
                    let phase = self.at(key).phase;
                    self.at(key).bytes += bytes;
                    if *drop {
                        self.at(key).count = self.at(key).count.saturating_sub(count as u64);
                    }
                    self.arrive(thread, pc, key, count);
                    if let Some(state) = state {
                        warp.set(*state, 1 << lane, &[phase; WARP]);
                    }
                }
                Mbarrier::ArriveAfterCopies { counted } => {
                    let counted = *counted;
                    self.complete_copies(warp, lane, None);
                    if counted {
                        self.at(key).pending += 1;
                    }
                    self.arrive(thread, pc, key, 1);
                }
                Mbarrier::Test { state, parity, done, wait } => {
                    let wanted = value(*state);
                    self.see_initialised(thread, pc, key);
                    let over = |current: u64| {
                        if *parity { (current & 1) != (wanted & 1) } else { current != wanted }
                    };
                    let current = self.at(key).phase;
                    // Whoever asks once and does not look is seen: the first question has no for an answer, unless the
                    // phase is over already. Copies end when someone asks again.
                    let again =
                        over(current) || warp.asked[lane].replace((block, at, current)) == Some((block, at, current));
                    if again {
                        self.complete_bulk(key);
                    }
                    let over = over(self.at(key).phase);
                    if over {
                        if let Some(all) = self.at(key).complete.clone() {
                            self.clocks.acquire(thread, &all);
                        }
                    } else {
                        next = Next::Choose;
                        if *wait && again {
                            // It runs again when something has happened there.
                            warp.block_lanes(1 << lane, Wait::Mbarrier(block, at));
                            continue;
                        }
                    }
                    warp.set(*done, 1 << lane, &[over.into(); WARP]);
                    warp.pc[lane] = pc + 1;
                }
            }
        }
        if let (Next::Choose, Mbarrier::Test { .. }) = (&next, action) {
            // Lanes that did not block go on behind; the rest of the warp's turn is another's.
            let rest = active & !warp.blocked;
            lanes(rest).for_each(|l| warp.pc[l] = pc + 1);
        }
        next
    }

    fn at(&mut self, key: (usize, u64)) -> &mut MbarrierState {
        self.mbarriers.entry(key).or_default()
    }

    /// The initialisation has to be ordered before a use, as any write.
    fn see_initialised(&mut self, thread: usize, pc: u32, (block, at): (usize, u64)) {
        let form = Form { bytes: 8, count: 1, strong: true, ..Form::default() };
        self.note(thread, pc, Place::Shared(block, at), 8, BlockAccess::Read, form);
    }

    fn arrive(&mut self, thread: usize, pc: u32, key: (usize, u64), count: i64) {
        let mut gathered = std::mem::take(&mut self.at(key).gathered);
        self.clocks.release(thread, &mut gathered);
        let state = self.at(key);
        state.gathered = gathered;
        state.pending -= count;
        if state.pending < 0 {
            let count = state.count;
            self.find(Kind::Mbarrier, thread, pc, "", || {
                format!("more arrivals than the {count} of the mbarrier's phase")
            });
        }
        self.advance(key);
    }

    /// A bulk copy of `bytes` to this mbarrier is complete.
    pub(crate) fn arrived_bytes(&mut self, key: (usize, u64), bytes: u64) {
        self.at(key).bytes -= bytes as i64;
        self.advance(key);
    }

    /// Ends the phase if nothing is missing, and wakes who waits for it.
    fn advance(&mut self, key: (usize, u64)) {
        let state = self.at(key);
        if state.pending > 0 || state.bytes != 0 {
            return;
        }
        state.phase += 1;
        state.pending = state.count as i64;
        let mut gathered = std::mem::take(&mut state.gathered);
        let all = self.clocks.finish(&mut gathered);
        self.at(key).complete = Some(all);
        // The running warp's own lanes may be among those who wait: all are woken when its turn is over.
        self.woken.push(key);
        self.unsettled = true;
    }

    pub(crate) fn wake_mbarriers(&mut self) {
        for (block, at) in std::mem::take(&mut self.woken) {
            for warp in &mut self.warps {
                let mask = lanes(warp.waiting()).filter(|l| warp.wait[*l] == Some(Wait::Mbarrier(block, at)));
                let mask = mask.fold(0, |m, l| m | 1 << l);
                warp.wake(mask);
            }
        }
    }
}
