//! What a group of threads did to memory, place by place: who wrote last and who has read since, and when.

use super::clocks::Clocks;
use std::collections::HashMap;

/// Units of a page of a sparse shadow.
const PAGE: u64 = 512;

/// Of many readers there is a list.
const MANY: u32 = u32::MAX;

/// A unit of memory, as wide as the narrowest access of the module.
#[derive(Clone, Copy, Default)]
struct Cell {
    /// Thread + 1; 0 for nobody.
    writer: u32,
    write_time: u32,
    write_pc: u32,
    /// Thread + 1, 0 for nobody, or [`MANY`].
    reader: u32,
    /// The time of the one reader, or the latest of many.
    read_time: u32,
    /// The instruction that read last.
    read_pc: u32,
    /// Which list has the many readers.
    list: u32,
    strong_write: bool,
    strong_reads: bool,
    /// An asynchronous copy is under way.
    in_flight: bool,
}

/// How memory is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// What is wrong with an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    Unwritten,
    InFlight,
    /// With another thread's write, made by the instruction there.
    Write {
        thread: u32,
        pc: u32,
    },
    /// With another thread's read, made by the instruction there.
    Read {
        thread: u32,
        pc: u32,
    },
}

/// The units of a memory.
#[derive(Default)]
pub(crate) struct Shadow {
    cells: Vec<Cell>,
    /// Sparse: the pages that were touched. Dense: none.
    pages: Option<HashMap<u64, usize>>,
    last_page: (u64, usize),
    shift: u32,
    /// Sorted by thread.
    lists: Vec<Vec<(u32, u32)>>,
    free: Vec<u32>,
}

/// Who accesses, and from which instruction.
#[derive(Clone, Copy)]
pub(crate) struct Who {
    pub thread: usize,
    pub pc: u32,
    /// Atomic or volatile: such accesses do not race with each other.
    pub strong: bool,
    /// A store of what is there already. Where another thread's store by the same instruction put it there, the two do not
    /// race: whichever comes last, the result is the same. Compilers leave several threads to store what all of them have.
    pub same: bool,
}

impl Shadow {
    /// For a memory of `bytes` bytes of which nothing is written.
    pub fn reset_dense(&mut self, bytes: usize, grain: u32) {
        self.shift = grain.trailing_zeros();
        self.cells.clear();
        self.cells.resize(bytes.div_ceil(grain as usize), Cell::default());
        self.pages = None;
        self.lists.clear();
        self.free.clear();
    }

    /// For a large memory of which little is touched.
    pub fn reset_sparse(&mut self, grain: u32) {
        self.reset_dense(0, grain);
        self.pages = Some(HashMap::new());
        self.last_page = (u64::MAX, 0);
    }

    #[inline]
    fn index(&mut self, unit: u64) -> usize {
        let Some(pages) = &mut self.pages else { return unit as usize };
        let page = unit / PAGE;
        if self.last_page.0 != page {
            let cells = &mut self.cells;
            let start = *pages.entry(page).or_insert_with(|| {
                cells.resize(cells.len() + PAGE as usize, Cell::default());
                cells.len() - PAGE as usize
            });
            self.last_page = (page, start);
        }
        self.last_page.1 + (unit % PAGE) as usize
    }

    fn units(&self, start: u64, bytes: u64) -> std::ops::Range<u64> {
        start >> self.shift..((start + bytes - 1) >> self.shift) + 1
    }

    /// Notes an access and says what is wrong with it, if anything. `initialised`: reads need an earlier write.
    pub fn access(
        &mut self,
        (start, bytes): (u64, u64),
        access: Access,
        who: Who,
        clocks: &Clocks,
        initialised: bool,
    ) -> Option<Conflict> {
        let mut found = None;
        for unit in self.units(start, bytes) {
            let at = self.index(unit);
            let conflict = match access {
                Access::Read => self.read(at, who, clocks, initialised),
                Access::Write => self.write(at, who, clocks),
            };
            found = found.or(conflict);
        }
        found
    }

    fn earlier_write(cell: &Cell, who: Who, clocks: &Clocks) -> Option<Conflict> {
        let repeated = who.same && cell.write_pc == who.pc;
        if cell.writer == 0 || (cell.strong_write && who.strong) || repeated {
            return None;
        }
        let thread = cell.writer - 1;
        let ordered = clocks.ordered(thread as usize, cell.write_time, who.thread);
        (!ordered).then_some(Conflict::Write { thread, pc: cell.write_pc })
    }

    fn read(&mut self, at: usize, who: Who, clocks: &Clocks, initialised: bool) -> Option<Conflict> {
        let (me, now) = (who.thread as u32 + 1, clocks.time(who.thread));
        let cell = &mut self.cells[at];
        let conflict = if cell.in_flight {
            Some(Conflict::InFlight)
        } else if cell.writer == 0 && initialised {
            Some(Conflict::Unwritten)
        } else {
            Self::earlier_write(cell, who, clocks)
        };
        let ordered = |reader: u32, time: u32| clocks.ordered(reader as usize - 1, time, who.thread);
        cell.read_pc = who.pc;
        if cell.reader == MANY && !clocks.all_ordered(cell.read_time) {
            let list = &mut self.lists[cell.list as usize];
            match list.binary_search_by_key(&me, |(t, _)| *t) {
                Ok(i) => list[i].1 = now,
                Err(i) => list.insert(i, (me, now)),
            }
            cell.read_time = cell.read_time.max(now);
            cell.strong_reads &= who.strong;
        } else if cell.reader == 0 || cell.reader == MANY || cell.reader == me || ordered(cell.reader, cell.read_time) {
            if cell.reader == MANY {
                self.free.push(cell.list);
            }
            (cell.reader, cell.read_time, cell.strong_reads) = (me, now, who.strong);
        } else {
            let mut pair = [(cell.reader, cell.read_time), (me, now)];
            pair.sort_unstable();
            cell.list = match self.free.pop() {
                Some(list) => {
                    self.lists[list as usize].clear();
                    self.lists[list as usize].extend(pair);
                    list
                }
                None => {
                    self.lists.push(pair.to_vec());
                    self.lists.len() as u32 - 1
                }
            };
            cell.reader = MANY;
            cell.read_time = cell.read_time.max(now);
            cell.strong_reads &= who.strong;
        }
        conflict
    }

    fn write(&mut self, at: usize, who: Who, clocks: &Clocks) -> Option<Conflict> {
        let me = who.thread as u32 + 1;
        let cell = &mut self.cells[at];
        let mut conflict =
            if cell.in_flight { Some(Conflict::InFlight) } else { Self::earlier_write(cell, who, clocks) };
        if conflict.is_none() && cell.reader != 0 && !(cell.strong_reads && who.strong) {
            let ordered = |reader: u32, time: u32| clocks.ordered(reader as usize - 1, time, who.thread);
            let reader = match cell.reader {
                MANY if clocks.all_ordered(cell.read_time) => None,
                MANY => self.lists[cell.list as usize].iter().find(|(t, time)| !ordered(*t, *time)).map(|(t, _)| *t),
                reader => (!ordered(reader, cell.read_time)).then_some(reader),
            };
            conflict = reader.map(|reader| Conflict::Read { thread: reader - 1, pc: cell.read_pc });
        }
        if cell.reader == MANY {
            self.free.push(cell.list);
        }
        cell.reader = 0;
        (cell.writer, cell.write_time, cell.write_pc) = (me, clocks.time(who.thread), who.pc);
        cell.strong_write = who.strong;
        conflict
    }

    /// An access by a thread outside of `threads` at a time that `known` has not: thread and instruction.
    pub fn beyond(&self, threads: std::ops::Range<usize>, known: &[u32]) -> Option<(usize, u32)> {
        let late = |thread: u32, time: u32| {
            let thread = thread as usize - 1;
            !threads.contains(&thread) && time > known[thread]
        };
        self.cells.iter().find_map(|cell| {
            if cell.writer != 0 && late(cell.writer, cell.write_time) {
                return Some((cell.writer as usize - 1, cell.write_pc));
            }
            let reader = match cell.reader {
                0 => None,
                MANY => self.lists[cell.list as usize].iter().find(|(t, time)| late(*t, *time)).map(|(t, _)| *t),
                reader => late(reader, cell.read_time).then_some(reader),
            };
            reader.map(|t| (t as usize - 1, cell.read_pc))
        })
    }

    /// Marks or clears memory that an asynchronous copy fills.
    pub fn set_in_flight(&mut self, start: u64, bytes: u64, in_flight: bool) {
        for unit in self.units(start, bytes) {
            let at = self.index(unit);
            self.cells[at].in_flight = in_flight;
        }
    }
}
