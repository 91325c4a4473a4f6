//! What was measured as tables: ceilings, geometric means, workloads, and the workloads as a user calls them.

use std::collections::BTreeMap;

use super::{Benches, COPY, Cell, Standing};
use crate::record::{Access, Bench, Interval, Number, Setting};
use crate::render;
use crate::table::{Entry, Mark, Table};

const GROUPS: &str = "Geometric means over shapes and threads of time of the other over time of the kernel: above 1 the \
                      kernel is faster. Against a copy of as many bytes, 1 is as fast as memory allows.";
const WORKLOADS: &str = "Outputs allocated and touched before, for everybody. Each ratio is a median with its 95 % interval; \
                         a question mark says that the interval includes 1 or that there is doubt. Noise is the \
                         interquartile range of a copy timed in the same rounds.";
const AS_CALLED: &str = "The same with the allocation of the outputs as part of each call: what an application sees that \
                         does not reuse its memory.";
const CEILINGS: &str = "Bytes read plus bytes written per second, in GB/s: median and quartiles. Of ordinary and streaming \
                        stores the faster count; (s) marks streaming ones.";

/// The tables that there is something to say in: geometric means, workloads, workloads as called, ceilings.
pub fn tables(benches: &Benches) -> Vec<Table> {
    let workloads = workloads(benches, Setting::Warm, "workloads", "Workloads", WORKLOADS);
    let as_called = self::workloads(benches, Setting::AsCalled, "as-called", "As a user calls it", AS_CALLED);
    let groups = |setting, name, title| groups(benches, setting, name, title);
    let tables = [
        groups(Setting::Warm, "means", "Speed-ups by kernel"),
        workloads,
        groups(Setting::AsCalled, "means-as-called", "Speed-ups by kernel, as a user calls it"),
        as_called,
        ceilings(benches),
    ];
    tables.into_iter().filter(|table| !table.rows.is_empty()).map(Table::without_empty_columns).collect()
}

/// What was measured as plain text, for a terminal.
pub fn text(benches: &Benches) -> String {
    let line = |text: String| text.replace(char::is_control, " ") + "\n";
    let mut parts: Vec<_> = benches.machines.iter().map(|machine| line(machine.text())).collect();
    parts.extend(tables(benches).iter().map(Table::text));
    parts.extend(repeated(benches).into_iter().chain([benches.headline()]).map(line));
    parts.join("\n")
}

/// What was measured as Markdown.
pub fn markdown(benches: &Benches) -> String {
    let mut parts = vec![format!("# {}\n", render::markdown(&benches.headline()))];
    parts.extend(benches.machines.iter().map(|machine| render::markdown(&machine.text()) + "\n"));
    parts.extend(repeated(benches).map(|text| text + "\n"));
    parts.extend(tables(benches).iter().map(Table::markdown));
    parts.join("\n")
}

/// What is said about measurements that are left out.
pub(crate) fn repeated(benches: &Benches) -> Option<String> {
    let n = benches.repeated;
    (n > 0)
        .then(|| format!("{n} further measurements of the same workloads are left out: the quietest of each counts."))
}

/// The machine's name in a table, if there is more than one.
fn machine_entry(benches: &Benches, machine: usize) -> Entry {
    let several = benches.machines.len() > 1;
    Entry::words(if several {
        format!("{}: {}", machine + 1, benches.machines[machine].processor())
    } else {
        String::new()
    })
}

const LEVELS: [&str; 4] = ["L1", "L2", "L3", "memory"];

fn groups(benches: &Benches, setting: Setting, name: &str, title: &str) -> Table {
    let columns = ["Kernel", "dtype", "Against", "#Cells", "#Mean", "#Worst"];
    let levels = LEVELS.map(|level| format!("#{level}"));
    let rest = ["#Slower", "#In doubt", "Worst workload", "Operator", "Machine"];
    let columns: Vec<_> = columns.into_iter().chain(levels.iter().map(String::as_str)).chain(rest).collect();
    let mut table = Table::new(name, title, GROUPS, &columns);
    for group in benches.groups().into_iter().filter(|group| group.worst.bench.setting == setting) {
        let b = &group.worst.bench;
        let beaten = b.versus != COPY;
        let mark = |bad| if beaten && bad { Mark::Bad } else { Mark::Plain };
        let slower = group.count(Standing::is_slower);
        let doubtful = group.cells.iter().filter(|cell| cell.bench.doubt.is_some()).count();
        let times = |ratio: Number| ratio_entry(ratio, beaten);
        let mut row: Vec<_> = [&b.kernel, &b.dtype, &b.versus].into_iter().map(Entry::words).collect();
        row.extend([count(group.cells.len()), times(group.mean()), times(b.ratio.value)]);
        row.extend(LEVELS.map(|level| group.mean_in(level).map(times).unwrap_or_default()));
        row.push(if beaten { count(slower).marked(mark(slower > 0)) } else { Entry::default() });
        row.push(count(doubtful).marked(if doubtful > 0 { Mark::Unsure } else { Mark::Plain }));
        row.extend([workload(b), format!("{} {}", b.operator, b.direction)].map(Entry::words));
        row.push(machine_entry(benches, group.worst.machine));
        table.rows.push(row);
    }
    table
}

/// A ratio, marked if it is below 1 and should not be.
fn ratio_entry(ratio: Number, beaten: bool) -> Entry {
    let bad = beaten && ratio < Number(1.0);
    Entry::number(format!("{ratio}×"), ratio).marked(if bad { Mark::Bad } else { Mark::Plain })
}

fn count(n: usize) -> Entry {
    Entry::number(n.to_string(), Number(n as f64))
}

/// Shape, layout and threads in a few words.
pub(crate) fn workload(b: &Bench) -> String {
    format!("{}, {} thread{}", shape(b), b.threads, if b.threads == 1 { "" } else { "s" })
}

/// Shape, and layout if it is not the ordinary one.
pub(crate) fn shape(b: &Bench) -> String {
    let layout = if b.layout == "contiguous" { String::new() } else { format!(" {}", b.layout) };
    b.shape_text() + &layout
}

/// One row for each workload, with all of its opponents.
fn workloads(benches: &Benches, setting: Setting, name: &str, title: &str, note: &str) -> Table {
    let opponents = benches.opponents();
    let mut columns: Vec<_> =
        ["Kernel", "dtype", "Shape", "#Threads", "#Time", "#GB/s", "Fits in"].map(str::to_owned).to_vec();
    for opponent in &opponents {
        columns.extend([format!("#× {opponent}"), "#95 %".to_owned()]);
        columns.push(if *opponent == COPY { String::new() } else { format!("Than {opponent}") });
    }
    columns
        .extend(["#Rounds", "#Outliers", "#Noise", "#Instructions / element", "Doubt", "Machine"].map(str::to_owned));
    let mut table = Table::new(name, title, note, &columns.iter().map(String::as_str).collect::<Vec<_>>());

    let mut rows = BTreeMap::<_, BTreeMap<&str, &Cell>>::new();
    let mut order = Vec::new();
    for cell in benches.cells.iter().filter(|cell| cell.bench.setting == setting) {
        let b = &cell.bench;
        let place = (cell.machine, &b.kernel, &b.dtype, &b.shape, &b.layout, b.threads);
        if !rows.contains_key(&place) {
            order.push(place);
        }
        rows.entry(place).or_default().insert(&b.versus, cell);
    }
    for place in order {
        let against = &rows[&place];
        // Against the first opponent, what all have in common was measured too.
        let Some(cell) = opponents.iter().find_map(|opponent| against.get(opponent)) else { continue };
        let b = &cell.bench;
        let mut row = vec![
            Entry::words(&b.kernel),
            Entry::words(&b.dtype),
            Entry::words(shape(b)),
            count(b.threads as usize),
            Entry::number(time(b.seconds.value), b.seconds.value),
            gigabytes(b.bytes_per_second()),
            Entry::words(cell.level.clone().unwrap_or_default()),
        ];
        for opponent in &opponents {
            row.extend(against.get(opponent).map_or_else(Default::default, |cell| duel(&cell.bench)));
        }
        let doubts: Vec<_> = against.values().filter_map(|cell| cell.bench.doubt.as_deref()).collect();
        let all = |number: fn(&Bench) -> u32| against.values().map(move |cell| number(&cell.bench));
        let (rounds, outliers) = (all(|b| b.rounds).min().unwrap_or(0), all(|b| b.outliers).max().unwrap_or(0));
        let noise = against.values().map(|cell| cell.bench.noise).max().unwrap_or_default();
        let noise = Entry::number(format!("{} %", Number(100.0 * noise.0)), noise);
        row.extend([count(rounds as usize), count(outliers as usize), noise]);
        let instructions = b.instructions_per_element;
        row.push(instructions.map(|n| Entry::number(n.to_string(), n)).unwrap_or_default());
        row.push(Entry::words(unique(&doubts)).marked(Mark::Unsure));
        row.push(machine_entry(benches, cell.machine));
        table.rows.push(row);
    }
    table
}

/// What is said about a kernel against one opponent: ratio, interval and standing.
fn duel(b: &Bench) -> [Entry; 3] {
    let beaten = b.versus != COPY;
    let Interval { low, high, .. } = b.ratio;
    let standing = Standing::of(b);
    let mark = match standing {
        Standing::Slower | Standing::PerhapsSlower => Mark::Bad,
        Standing::Unknown | Standing::PerhapsFaster => Mark::Unsure,
        Standing::Faster => Mark::Plain,
    };
    let word = Entry::number(standing.to_string(), b.ratio.value).marked(mark);
    [
        ratio_entry(b.ratio.value, beaten),
        Entry::number(format!("{low}…{high}"), Number(high.0 - low.0)),
        if beaten { word } else { Entry::default() },
    ]
}

/// The doubts, each once.
fn unique(doubts: &[&str]) -> String {
    let mut doubts = doubts.to_vec();
    doubts.sort_unstable();
    doubts.dedup();
    doubts.join("; ")
}

fn ceilings(benches: &Benches) -> Table {
    let columns = ["#Working set", "Fits in", "#Threads", "#Read", "#Write", "#Copy", "Machine"];
    let mut table = Table::new("ceilings", "Ceilings of the machine", CEILINGS, &columns);
    let accesses = [Access::Read, Access::Write, Access::Copy];
    let mut rows = BTreeMap::<_, [Entry; 3]>::new();
    let mut levels = BTreeMap::<_, String>::new();
    for limit in &benches.ceilings {
        let c = &limit.ceiling;
        let place = (limit.machine, c.threads, c.working_set);
        let Interval { value, low, high } = c.bytes_per_second;
        let [value, low, high] = [value, low, high].map(|n| Number(n.0 / 1e9));
        let streaming = if c.streaming { " (s)" } else { "" };
        if let Some(column) = accesses.iter().position(|access| *access == c.access) {
            rows.entry(place).or_default()[column] = Entry::number(format!("{value} ({low}…{high}){streaming}"), value);
        }
        levels.entry(place).or_default().clone_from(&c.level.clone().unwrap_or_default());
    }
    for (place @ (machine, threads, working_set), speeds) in rows {
        let level = levels.get(&place).cloned().unwrap_or_default();
        let size = Entry::number(bytes(working_set), Number(working_set as f64));
        let mut row = vec![size, Entry::words(level), count(threads as usize)];
        row.extend(speeds);
        row.push(machine_entry(benches, machine));
        table.rows.push(row);
    }
    table
}

fn gigabytes(bytes_per_second: Number) -> Entry {
    Entry::number(Number(bytes_per_second.0 / 1e9).to_string(), bytes_per_second)
}

/// A time in the unit that suits it.
pub(crate) fn time(seconds: Number) -> String {
    let units = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")];
    let (unit, name) = units.into_iter().find(|(unit, _)| seconds.0 >= *unit).unwrap_or((1e-9, "ns"));
    format!("{} {name}", Number(seconds.0 / unit))
}

/// A number of bytes in the unit that suits it.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let (unit, name) = units.into_iter().find(|(unit, _)| bytes >= *unit).unwrap_or((1, "B"));
    format!("{} {name}", Number(bytes as f64 / unit as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(time(Number(1.5e-3)), "1.5 ms");
        assert_eq!(time(Number(250e-9)), "250 ns");
        assert_eq!(time(Number(4e-6)), "4 µs");
        assert_eq!(time(Number(f64::NAN)), "nan ns");
        assert_eq!(bytes(32 << 10), "32 KiB");
        assert_eq!(bytes(100), "100 B");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
    }
}
