//! Atomic operations: lane after lane, each element in one step.

use crate::{
    check::blocks::BlockAccess,
    execute::{
        access::Form,
        group::Group,
        place::{Place, advance},
        warp::{Warp, lanes},
    },
    program::{Op, WARP},
};

impl Group<'_> {
    pub(crate) fn atomic(&mut self, warp: &mut Warp, active: u32, pc: u32) {
        let program = self.context.program;
        let Op::Atomic { address, bytes, combine, results, b, c, ordering } = &program.code[pc as usize].op else {
            return;
        };
        let form = Form { bytes: *bytes, count: results.len() as u32, strong: true, ordering: *ordering, same: false };
        let base = *warp.get(address.base, &program.constants);
        let c = *warp.get(*c, &program.constants);
        let mut old = [[0u64; WARP]; 8];
        for lane in lanes(active) {
            let target = (address.space, base[lane].wrapping_add(address.offset));
            let Some(at) = self.place(warp, lane, pc, target, form.total()) else { continue };
            if !matches!(at, Place::Buffer(..) | Place::Shared(..)) {
                self.find(crate::check::finding::Kind::OutOfBounds, warp.first + lane, pc, "", || {
                    "atomic operation on memory that is neither global nor shared".into()
                });
                continue;
            }
            if !self.note(warp.first + lane, pc, at, form.total(), BlockAccess::Atomic, form) {
                continue;
            }
            for (i, source) in b.iter().enumerate() {
                let b = warp.get(*source, &program.constants)[lane];
                let at = advance(at, i as u32 * bytes);
                old[i][lane] = match at {
                    Place::Buffer(index, offset) => {
                        self.context.buffers[index].update(offset, *bytes, |old| combine(old, b, c[lane]))
                    }
                    _ => {
                        let old = self.read(warp, lane, at, *bytes);
                        self.write(warp, lane, at, *bytes, combine(old, b, c[lane]));
                        old
                    }
                };
            }
            if let Place::Buffer(index, _) = at {
                self.buffer_counters[index].atomics += 1;
            }
        }
        for (slot, old) in results.iter().zip(&old) {
            if let Some(slot) = slot {
                warp.set(*slot, active, old);
            }
        }
    }
}
