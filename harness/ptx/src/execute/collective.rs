//! What lanes of a mask do together: shuffles, votes, matches, reductions, and the warp's own barrier.

use crate::{
    check::finding::Kind,
    execute::{
        group::Group,
        warp::{Next, Wait, Warp, lanes},
    },
    program::{Collective, Lanes, Op, Reduction, Shuffle, WARP},
};

impl Group<'_> {
    fn collective_of(&self, pc: u32) -> (&Collective, [crate::program::Slot; 3], crate::program::Slot) {
        match &self.context.program.code[pc as usize].op {
            Op::Collective { what, operands, mask, .. } => (what, *operands, *mask),
            _ => unreachable!("lanes wait at a collective instruction"),
        }
    }

    /// Lanes arrive at a collective instruction.
    pub(crate) fn collective(&mut self, warp: &mut Warp, active: u32, pc: u32) -> Next {
        let (what, _, slot) = self.collective_of(pc);
        let name = describe(what);
        let masks = *warp.get(slot, &self.context.program.constants);
        let mut fits = active;
        for lane in lanes(active) {
            if masks[lane] as u32 >> lane & 1 == 0 {
                let message = || format!("{name} by lane {lane}, which is not in its mask {:#010x}", masks[lane]);
                self.find(Kind::WrongMask, warp.first + lane, pc, "", message);
                fits &= !(1 << lane);
            }
        }
        // Lanes outside of their own mask go on, with whatever they had.
        warp.set_pc(active & !fits, pc + 1);
        let first = masks[fits.trailing_zeros() as usize % WARP] as u32;
        if fits == active && first & warp.live() == active && lanes(active).all(|l| masks[l] as u32 == first) {
            self.complete(warp, active);
            return Next::Straight;
        }
        warp.block_lanes(fits, Wait::Collective);
        self.complete_collectives(warp);
        Next::Choose
    }

    /// Lets those lanes go on whose masks are complete.
    pub(crate) fn complete_collectives(&mut self, warp: &mut Warp) {
        let waits = |warp: &Warp, lane: usize| warp.wait[lane] == Some(Wait::Collective);
        let constants = &self.context.program.constants;
        let mask_of = |group: &Self, warp: &Warp, lane: usize| {
            warp.get(group.collective_of(warp.pc[lane]).2, constants)[lane] as u32
        };
        let mut seen = 0;
        while let Some(lane) = lanes(warp.waiting() & !seen).find(|l| waits(warp, *l)) {
            let mask = mask_of(self, warp, lane);
            let needed = mask & warp.live();
            seen |= needed | 1 << lane;
            let what = self.collective_of(warp.pc[lane]).0;
            let complete = lanes(needed)
                .all(|l| waits(warp, l) && mask_of(self, warp, l) == mask && self.collective_of(warp.pc[l]).0 == what);
            if complete {
                self.complete(warp, needed);
                lanes(needed).for_each(|l| warp.pc[l] += 1);
                warp.wake(needed);
            }
        }
    }

    /// Runs a collective for all lanes that take part; each stands at its instruction.
    fn complete(&mut self, warp: &mut Warp, active: u32) {
        let constants = &self.context.program.constants;
        let leader = active.trailing_zeros() as usize;
        let (what, ..) = self.collective_of(warp.pc[leader]);
        let what = what.clone();
        // Lanes at one instruction, mostly all.
        let mut parts = Vec::with_capacity(1);
        let mut rest = active;
        while rest != 0 {
            let pc = warp.pc[rest.trailing_zeros() as usize];
            let mask = lanes(rest).filter(|l| warp.pc[*l] == pc).fold(0u32, |m, l| m | 1 << l);
            parts.push((pc, mask));
            rest &= !mask;
        }
        let mut operands = [[0u64; WARP]; 3];
        for (pc, mask) in &parts {
            let (_, slots, _) = self.collective_of(*pc);
            for (operand, slot) in operands.iter_mut().zip(slots) {
                let values = warp.get(slot, constants);
                lanes(*mask).for_each(|l| operand[l] = values[l]);
            }
        }
        let [a, b, c] = operands;
        let (first, second) = match &what {
            Collective::Shuffle(kind) => self.shuffle(warp, active, *kind, a, b, c),
            Collective::Barrier => {
                let first = warp.first;
                self.clocks.meet(lanes(active).map(|l| first + l));
                return;
            }
            other => evaluate(other, active, a, b),
        };
        for (pc, mask) in parts {
            if let Op::Collective { result, second: also, .. } = &self.context.program.code[pc as usize].op {
                for (slot, values) in [(result, &first), (also, &second)] {
                    if let Some(slot) = slot {
                        warp.set(*slot, mask, values);
                    }
                }
            }
        }
    }

    fn shuffle(&mut self, warp: &Warp, active: u32, kind: Shuffle, a: Lanes, b: Lanes, c: Lanes) -> (Lanes, Lanes) {
        let (mut values, mut inside) = ([0; WARP], [0; WARP]);
        for lane in lanes(active) {
            let (clamp, segment) = (c[lane] as u32 & 31, c[lane] as u32 >> 8 & 31);
            let (own, by) = (lane as u32, b[lane] as u32 & 31);
            let (least, most) = (own & segment, own & segment | clamp & !segment);
            let (from, valid) = match kind {
                Shuffle::Up => (own.wrapping_sub(by), own as i32 - by as i32 >= most as i32),
                Shuffle::Down => (own + by, own + by <= most),
                Shuffle::Butterfly => (own ^ by, own ^ by <= most),
                Shuffle::Index => (least | by & !segment, (least | by & !segment) <= most),
            };
            let from = if valid { from } else { own };
            inside[lane] = valid.into();
            if active >> from & 1 == 1 {
                values[lane] = a[from as usize];
            } else {
                let pc = warp.pc[lane];
                self.find(Kind::WrongMask, warp.first + lane, pc, "source", || {
                    format!("shuffle: lane {lane} reads from lane {from}, which does not take part")
                });
                values[lane] = 0xffff_ffff;
            }
        }
        (values, inside)
    }
}

/// The collectives whose result is one for all, or needs no check.
fn evaluate(what: &Collective, active: u32, a: Lanes, b: Lanes) -> (Lanes, Lanes) {
    let ballot = lanes(active).filter(|l| (a[*l] ^ b[*l]) & 1 == 1).fold(0u32, |m, l| m | 1 << l);
    let same = |value: u64| lanes(active).filter(|l| a[*l] == value).fold(0u32, |m, l| m | 1 << l);
    let all = |value: u32| ([u64::from(value); WARP], [0; WARP]);
    match what {
        Collective::VoteAll => all((ballot == active).into()),
        Collective::VoteAny => all((ballot != 0).into()),
        Collective::VoteUniform => all((ballot == active || ballot == 0).into()),
        Collective::Ballot => all(ballot),
        Collective::MatchAny(_) => (a.map(|v| same(v).into()), [0; WARP]),
        Collective::MatchAll(_) => {
            let agree = same(a[active.trailing_zeros() as usize]) == active;
            ([if agree { active.into() } else { 0 }; WARP], [agree.into(); WARP])
        }
        Collective::Reduce(kind) => all(reduce(*kind, lanes(active).map(|l| a[l] as u32))),
        Collective::Elect => {
            let leader = active.trailing_zeros();
            ([leader.into(); WARP], std::array::from_fn(|l| (l as u32 == leader).into()))
        }
        Collective::Shuffle(_) | Collective::Barrier => unreachable!("completed above"),
    }
}

fn reduce(kind: Reduction, values: impl Iterator<Item = u32>) -> u32 {
    let signed = |f: fn(i32, i32) -> i32| move |x: u32, y: u32| f(x as i32, y as i32) as u32;
    let result = match kind {
        Reduction::Add => values.reduce(u32::wrapping_add),
        Reduction::MinUnsigned => values.reduce(u32::min),
        Reduction::MaxUnsigned => values.reduce(u32::max),
        Reduction::MinSigned => values.reduce(signed(i32::min)),
        Reduction::MaxSigned => values.reduce(signed(i32::max)),
        Reduction::And => values.reduce(|x, y| x & y),
        Reduction::Or => values.reduce(|x, y| x | y),
        Reduction::Xor => values.reduce(|x, y| x ^ y),
    };
    result.unwrap_or(0)
}

/// The instruction in words.
fn describe(what: &Collective) -> &'static str {
    match what {
        Collective::Shuffle(_) => "shuffle",
        Collective::VoteAll | Collective::VoteAny | Collective::VoteUniform | Collective::Ballot => "vote",
        Collective::MatchAny(_) | Collective::MatchAll(_) => "match",
        Collective::Reduce(_) => "reduction",
        Collective::Elect => "election",
        Collective::Barrier => "barrier of a warp",
    }
}
