//! Matrices of 8 rows of 8 halves that a warp moves between shared memory and its registers.

use crate::{
    check::{blocks::BlockAccess, finding::Kind},
    execute::{
        access::Form,
        group::Group,
        place::advance,
        warp::{Warp, lanes},
    },
    program::{Address, Slot, WARP},
};

/// Rows and columns of a matrix.
const SIDE: usize = 8;

/// Row and column of the element that a lane holds in one half of its register.
fn element(lane: usize, half: usize, transposed: bool) -> (usize, usize) {
    let (row, column) = (lane / 4, lane % 4 * 2 + half);
    if transposed { (column, row) } else { (row, column) }
}

impl Group<'_> {
    /// One matrix for each register. Lane `8 m + i` gives the address of row `i` of matrix `m`.
    #[expect(clippy::too_many_arguments, reason = "the parts of one instruction")]
    pub(crate) fn matrices(
        &mut self,
        warp: &mut Warp,
        active: u32,
        pc: u32,
        address: Address,
        registers: &[Slot],
        transposed: bool,
        store: bool,
    ) {
        let name = if store { "stmatrix" } else { "ldmatrix" };
        if active != u32::MAX {
            let first = warp.first + active.trailing_zeros() as usize;
            let message = || format!("{name} by the lanes {active:#010x}: a whole warp must run it");
            self.find(Kind::WrongMask, first, pc, "", message);
        }
        let constants = &self.context.program.constants;
        let base = *warp.get(address.base, constants);
        // Of every row its eight halves; what cannot be read is all ones.
        let mut rows = [[0xffff_u16; SIDE]; WARP];
        if store {
            for (matrix, register) in registers.iter().enumerate() {
                let values = warp.get(*register, constants);
                for (lane, half) in lanes(active).flat_map(|lane| [(lane, 0), (lane, 1)]) {
                    let (row, column) = element(lane, half, transposed);
                    rows[SIDE * matrix + row][column] = (values[lane] >> (16 * half)) as u16;
                }
            }
        }
        let form = Form { bytes: 8, count: 2, ..Form::default() };
        let access = if store { BlockAccess::Write } else { BlockAccess::Read };
        let mut places = [None; WARP];
        for lane in lanes(active).take_while(|lane| *lane < SIDE * registers.len()) {
            let target = (address.space, base[lane].wrapping_add(address.offset));
            let Some(at) = self.place(warp, lane, pc, target, form.total()) else { continue };
            let parts = [at, advance(at, form.bytes)];
            let there = parts.map(|at| self.read(warp, lane, at, form.bytes));
            let row = &mut rows[lane];
            let new = [0, 4].map(|first| (first..first + 4).rev().fold(0, |all, i| all << 16 | u64::from(row[i])));
            let form = Form { same: store && new == there, ..form };
            if !self.note(warp.first + lane, pc, at, form.total(), access, form) {
                continue;
            }
            places[lane] = Some(at);
            if store {
                parts.into_iter().zip(new).for_each(|(at, value)| self.write(warp, lane, at, form.bytes, value));
            } else {
                row.iter_mut().enumerate().for_each(|(i, half)| *half = (there[i / 4] >> (16 * (i % 4))) as u16);
            }
        }
        self.count(active, &places, form, store);
        if store {
            return;
        }
        for (matrix, register) in registers.iter().enumerate() {
            let mut values = [0; WARP];
            for (lane, half) in lanes(active).flat_map(|lane| [(lane, 0), (lane, 1)]) {
                let (row, column) = element(lane, half, transposed);
                values[lane] |= u64::from(rows[SIDE * matrix + row][column]) << (16 * half);
            }
            warp.set(*register, active, &values);
        }
    }
}
