//! What a set of records says about speed.
//!
//! Ratios are times of the other over times of the kernel: above 1 the kernel is faster. They are averaged by their
//! geometric mean, and never over machines, settings or opponents.

mod document;
mod tables;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

pub use document::{Document, document};
pub(crate) use tables::{bytes, repeated, shape, workload};
pub use tables::{markdown, tables, text};

use crate::record::{Bench, Ceiling, Machine, Number, Record, Setting};

/// Name of the opponent that only moves bytes: no kernel has to beat it.
pub const COPY: &str = "copy";

/// All that was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Benches {
    /// The machines that it was measured on.
    pub machines: Vec<Machine>,
    /// What was measured about kernels: each workload, opponent and setting once per machine, by operator, direction,
    /// kernel, dtype, shape and threads.
    pub cells: Vec<Cell>,
    /// The machines' ceilings, by machine, threads, working set and access.
    pub ceilings: Vec<Limit>,
    /// How many measurements are not among the cells because another one of the same thing was quieter.
    pub repeated: usize,
}

/// What was measured about a kernel on one workload against one opponent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The measurement.
    pub bench: Bench,
    /// The machine, as an index into [`Benches::machines`].
    pub machine: usize,
    /// The level of memory that the bytes fit in, if the machine's ceilings say so.
    pub level: Option<String>,
}

/// A ceiling of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The measurement.
    pub ceiling: Ceiling,
    /// The machine, as an index into [`Benches::machines`].
    pub machine: usize,
}

/// How a kernel stands against its opponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is slower.
    Slower,
    /// It was slower, but the interval of the ratio includes 1 or the measurement is in doubt.
    PerhapsSlower,
    /// Nothing can be said.
    Unknown,
    /// It was at least as fast, but the interval of the ratio includes 1 or the measurement is in doubt.
    PerhapsFaster,
    /// It is faster.
    Faster,
}

impl Standing {
    /// Of a measurement.
    pub fn of(bench: &Bench) -> Standing {
        let (value, one) = (bench.ratio.value, Number(1.0));
        match bench.doubt {
            _ if value.0.is_nan() => Standing::Unknown,
            None if bench.ratio.high < one => Standing::Slower,
            None if bench.ratio.low > one && value > one => Standing::Faster,
            _ if value < one => Standing::PerhapsSlower,
            _ => Standing::PerhapsFaster,
        }
    }

    /// Whether the kernel was slower, surely or perhaps.
    pub fn is_slower(self) -> bool {
        matches!(self, Standing::Slower | Standing::PerhapsSlower)
    }
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.pad(match self {
            Standing::Slower => "slower",
            Standing::PerhapsSlower => "slower?",
            Standing::Unknown => "unknown",
            Standing::PerhapsFaster => "faster?",
            Standing::Faster => "faster",
        })
    }
}

/// The cells of one kernel and dtype against one opponent in one setting on one machine.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// The cells, of which there is at least one.
    pub cells: Vec<&'a Cell>,
    /// The cell with the smallest ratio.
    pub worst: &'a Cell,
    /// The cell with the largest ratio.
    pub best: &'a Cell,
}

impl<'a> Group<'a> {
    fn new(cells: Vec<&'a Cell>) -> Option<Group<'a>> {
        let ratio = |cell: &&Cell| cell.bench.ratio.value;
        let worst = cells.iter().copied().min_by_key(ratio)?;
        let best = cells.iter().copied().max_by_key(ratio)?;
        Some(Group { cells, worst, best })
    }

    /// Geometric mean of the ratios.
    pub fn mean(&self) -> Number {
        geometric_mean(self.cells.iter().copied()).unwrap_or(Number(f64::NAN))
    }

    /// Geometric mean of the ratios of the cells whose bytes fit in the given level of memory; none if there are none.
    pub fn mean_in(&self, level: &str) -> Option<Number> {
        geometric_mean(self.cells.iter().copied().filter(|cell| cell.level.as_deref() == Some(level)))
    }

    /// How many cells have a standing for which the condition holds.
    pub fn count(&self, condition: impl Fn(Standing) -> bool) -> usize {
        self.cells.iter().filter(|cell| condition(Standing::of(&cell.bench))).count()
    }
}

/// Geometric mean of the cells' ratios; none of no cells.
pub fn geometric_mean<'a>(cells: impl IntoIterator<Item = &'a Cell>) -> Option<Number> {
    let logarithms: Vec<_> = cells.into_iter().map(|cell| cell.bench.ratio.value.0.ln()).collect();
    let sum: f64 = logarithms.iter().sum();
    (!logarithms.is_empty()).then(|| Number((sum / logarithms.len() as f64).exp()))
}

impl Benches {
    /// Takes the measurements among records, each with the machine that it was made on. Their order does not matter.
    pub(crate) fn new(records: impl IntoIterator<Item = (Machine, Record)>) -> Benches {
        let mut cells = BTreeMap::<String, (Machine, Bench)>::new();
        let mut ceilings = BTreeMap::<String, (Machine, Ceiling)>::new();
        let mut repeated = 0;
        for (machine, record) in records {
            match record {
                Record::Bench(bench) => match cells.get_mut(&identity(&machine, &bench)) {
                    Some(known) => {
                        repeated += 1;
                        if quietness(&bench) < quietness(&known.1) {
                            *known = (machine, bench);
                        }
                    }
                    None => drop(cells.insert(identity(&machine, &bench), (machine, bench))),
                },
                Record::Ceiling(ceiling) => {
                    let Ceiling { access, working_set, threads, .. } = ceiling;
                    let place = format!("{machine:?} {:?}", (access, working_set, threads));
                    // A ceiling is the most that anybody saw.
                    let height = |c: &Ceiling| (c.bytes_per_second.value, format!("{c:?}"));
                    match ceilings.get(&place) {
                        Some((_, known)) if height(known) >= height(&ceiling) => {}
                        _ => drop(ceilings.insert(place, (machine, ceiling))),
                    }
                }
                _ => {}
            }
        }
        let seen = cells.values().map(|(machine, _)| machine).chain(ceilings.values().map(|(machine, _)| machine));
        let machines: BTreeMap<_, _> = seen.map(|machine| (format!("{machine:?}"), machine.clone())).collect();
        let index: BTreeMap<_, _> = machines.keys().cloned().zip(0..).collect();
        let index = |machine: &Machine| index[&format!("{machine:?}")];

        let limit = |(machine, ceiling)| Limit { machine: index(&machine), ceiling };
        let mut ceilings: Vec<_> = ceilings.into_values().map(limit).collect();
        ceilings.sort_by_key(|l| (l.machine, l.ceiling.threads, l.ceiling.working_set, l.ceiling.access));
        let cell = |(machine, bench): (Machine, Bench)| {
            let machine = index(&machine);
            Cell { level: level(&ceilings, machine, &bench), bench, machine }
        };
        let mut cells: Vec<_> = cells.into_values().map(cell).collect();
        cells.sort_by_cached_key(|cell| {
            let b = cell.bench.clone();
            let place = (b.operator, b.direction != "forward", b.direction, b.kernel, b.dtype);
            (place, cell.machine, b.bytes, b.shape, b.layout != "contiguous", b.layout, b.threads, b.setting, b.versus)
        });
        Benches { machines: machines.into_values().collect(), cells, ceilings, repeated }
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty() && self.ceilings.is_empty()
    }

    /// The cells by kernel, dtype, opponent, setting and machine.
    pub fn groups(&self) -> Vec<Group<'_>> {
        let mut groups = BTreeMap::<_, Vec<&Cell>>::new();
        for cell in &self.cells {
            let b = &cell.bench;
            let place = (b.setting, cell.machine, &b.operator, b.direction != "forward", &b.direction);
            groups.entry((place, &b.kernel, &b.dtype, b.versus == COPY, &b.versus)).or_default().push(cell);
        }
        groups.into_values().filter_map(Group::new).collect()
    }

    /// All opponents, a copy last.
    pub fn opponents(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.cells.iter().map(|cell| cell.bench.versus.as_str()).collect();
        names.sort_by_key(|name| (*name == COPY, *name));
        names.dedup();
        names
    }

    /// The cells against one opponent with outputs allocated before.
    pub fn against<'a>(&'a self, opponent: &'a str) -> impl Iterator<Item = &'a Cell> {
        self.cells.iter().filter(move |c| c.bench.setting == Setting::Warm && c.bench.versus == opponent)
    }

    /// The answer in a sentence.
    pub fn headline(&self) -> String {
        let workloads = |n: usize| format!("{n} workload{}", if n == 1 { "" } else { "s" });
        let told: Vec<_> = self
            .opponents()
            .into_iter()
            .filter(|opponent| *opponent != COPY)
            .filter_map(|opponent| {
                let standings: Vec<_> = self.against(opponent).map(|cell| Standing::of(&cell.bench)).collect();
                let count = |which: &[Standing]| standings.iter().filter(|standing| which.contains(standing)).count();
                let (faster, slower) = (count(&[Standing::Faster]), count(&[Standing::Slower]));
                let open = standings.len() - faster - slower;
                let mut text = format!("faster than {opponent} in {faster} of {}", workloads(standings.len()));
                if slower > 0 {
                    text += &format!(", slower in {slower}");
                }
                if open > 0 {
                    text += &format!(", undecided in {open}");
                }
                (!standings.is_empty()).then_some(text)
            })
            .collect();
        match (told.is_empty(), self.cells.len()) {
            (false, _) => capital(&told.join("; ")),
            (true, 0) if self.ceilings.is_empty() => "Nothing was measured".to_owned(),
            (true, 0) => "The machine was measured, and no kernel".to_owned(),
            (true, n) => format!("{} measured", workloads(n)),
        }
    }

    /// Whether a kernel was slower than an opponent that it should beat, surely or perhaps.
    pub fn any_slower(&self) -> bool {
        self.cells.iter().any(|cell| cell.bench.versus != COPY && Standing::of(&cell.bench).is_slower())
    }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// What two measurements of the same thing agree in.
fn identity(machine: &Machine, b: &Bench) -> String {
    let what = (&b.kernel, &b.operator, &b.direction, &b.dtype, &b.layout, &b.shape);
    format!("{machine:?} {what:?} {:?}", (b.threads, &b.versus, b.setting))
}

/// Of several measurements of the same thing the one with the smallest of these counts. It does not look at the ratio, or
/// measuring often would be a way to a better one; the last part only makes the choice independent of the order.
fn quietness(b: &Bench) -> (bool, Number, std::cmp::Reverse<u32>, String) {
    (b.doubt.is_some(), b.noise, std::cmp::Reverse(b.rounds), format!("{b:?}"))
}

/// The level of memory that a workload's bytes fit in: that of the ceiling whose working set is nearest.
fn level(ceilings: &[Limit], machine: usize, bench: &Bench) -> Option<String> {
    let distance = |limit: &&Limit| Number((limit.ceiling.working_set as f64 / bench.bytes as f64).ln().abs());
    let here = |limit: &&Limit| limit.machine == machine && limit.ceiling.threads == bench.threads;
    ceilings.iter().filter(here).min_by_key(distance)?.ceiling.level.clone()
}
