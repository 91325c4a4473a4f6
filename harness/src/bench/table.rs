//! Measurements as tables for people and as rows for programs.

use std::collections::BTreeMap;
use std::fmt::Write;

use isonorm_reports::record::{Access, Bench, Ceiling, Number, Setting};
use serde::Serialize;

/// One comparison, as `bench --format json` prints it.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    operator: &'a str,
    direction: &'a str,
    shape: String,
    layout: &'a str,
    dtype: &'a str,
    threads: u32,
    contender: &'a str,
    versus: &'a str,
    setting: Setting,
    /// Time of `versus` over time of `contender`, with its 95 % interval.
    ratio: Number,
    ratio_low: Number,
    ratio_high: Number,
    bytes_per_second: Number,
    seconds: Number,
    versus_seconds: Number,
    rounds: u32,
    outliers: u32,
    noise: Number,
    doubt: Option<&'a str>,
    instructions_per_element: Option<Number>,
}

impl<'a> From<&'a Bench> for Row<'a> {
    fn from(bench: &'a Bench) -> Self {
        Row {
            operator: &bench.operator,
            direction: &bench.direction,
            shape: bench.shape_text(),
            layout: &bench.layout,
            dtype: &bench.dtype,
            threads: bench.threads,
            contender: &bench.kernel,
            versus: &bench.versus,
            setting: bench.setting,
            ratio: bench.ratio.value,
            ratio_low: bench.ratio.low,
            ratio_high: bench.ratio.high,
            bytes_per_second: bench.bytes_per_second(),
            seconds: bench.seconds.value,
            versus_seconds: bench.versus_seconds.value,
            rounds: bench.rounds,
            outliers: bench.outliers,
            noise: bench.noise,
            doubt: bench.doubt.as_deref(),
            instructions_per_element: bench.instructions_per_element,
        }
    }
}

/// All comparisons as rows.
pub fn rows(benches: &[Bench]) -> Vec<Row<'_>> {
    benches.iter().map(Row::from).collect()
}

/// The comparisons of one kernel on one workload.
type Workload<'a> = (&'a str, String, &'a str, u32);

/// A table for each setting, kernel and element type: a line for each workload, the geometric means below.
pub fn benches(benches: &[Bench]) -> String {
    let mut tables: BTreeMap<(Setting, &str, &str), Vec<&Bench>> = BTreeMap::new();
    for bench in benches {
        tables.entry((bench.setting, &bench.kernel, &bench.dtype)).or_default().push(bench);
    }
    let mut out = String::new();
    for ((setting, kernel, dtype), benches) in tables {
        let how = match setting {
            Setting::Warm => "outputs there already",
            Setting::AsCalled => "as called: with the allocation of outputs",
        };
        let _ = writeln!(out, "\n{kernel} {dtype}, {how}");
        table(&mut out, &benches);
    }
    if !out.is_empty() {
        out += "\n(vs: time of the other over time of the kernel, median of the rounds' ratios and its 95 % interval; GB/s: inputs \
                read once and outputs written once; ?: see below)\n";
    }
    let doubts: Vec<String> = benches
        .iter()
        .filter_map(|bench| {
            let Bench { kernel, dtype, layout, threads, versus, doubt, .. } = bench;
            let shape = bench.shape_text();
            Some(format!("? {kernel} {dtype} {shape} {layout} t{threads} vs {versus}: {}\n", doubt.as_ref()?))
        })
        .collect();
    out + &doubts.concat()
}

fn table(out: &mut String, benches: &[&Bench]) {
    let mut lines: Vec<(Workload<'_>, BTreeMap<&str, &Bench>)> = Vec::new();
    for bench in benches {
        let workload = (&*bench.operator, bench.shape_text(), &*bench.layout, bench.threads);
        let place = lines.iter().position(|(other, _)| *other == workload).unwrap_or_else(|| {
            lines.push((workload, BTreeMap::new()));
            lines.len() - 1
        });
        lines[place].1.insert(&bench.versus, bench);
    }
    let others: Vec<&str> =
        ["libtorch", "copy"].into_iter().filter(|other| lines.iter().any(|(_, by)| by.contains_key(other))).collect();
    let counted = benches.iter().any(|bench| bench.instructions_per_element.is_some());
    let _ = write!(out, "{:>14} {:13} {:>3} {:>9} {:>6}", "shape", "layout", "t", "time", "GB/s");
    for other in &others {
        let _ = write!(out, "  {:>23}", format!("vs {other}"));
    }
    let _ = writeln!(out, "{}", if counted { "  instr/element" } else { "" });
    let mut logs: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for ((_, shape, layout, threads), by) in &lines {
        let Some(any) = by.values().next() else { continue };
        let speed = any.bytes_per_second().0 / 1e9;
        let _ = write!(out, "{shape:>14} {layout:13} {threads:>3} {:>9} {speed:>6.1}", time(any.seconds.value.0));
        for other in &others {
            let Some(bench) = by.get(other) else {
                let _ = write!(out, "  {:>23}", "-");
                continue;
            };
            let ratio = &bench.ratio;
            logs.entry(other).or_default().push(ratio.value.0.ln());
            let doubt = if bench.doubt.is_some() { "?" } else { " " };
            let text = format!("{:.2} [{:.2} {:.2}]{doubt}", ratio.value.0, ratio.low.0, ratio.high.0);
            let _ = write!(out, "  {text:>23}");
        }
        let count = any.instructions_per_element.map_or_else(String::new, |count| format!("  {count:>13}"));
        let _ = writeln!(out, "{}", if counted { count } else { String::new() });
    }
    let _ = write!(out, "{:>49}", "geometric mean");
    for other in &others {
        let mean = logs.get(other).map_or_else(
            || "-".to_owned(),
            |logs| format!("{:.2}               ", (logs.iter().sum::<f64>() / logs.len() as f64).exp()),
        );
        let _ = write!(out, "  {mean:>23}");
    }
    out.push('\n');
}

/// Bytes per second by working set: a column for each access and number of threads.
pub fn ceilings(ceilings: &[Ceiling]) -> String {
    let mut columns: Vec<(u32, Access)> = ceilings.iter().map(|ceiling| (ceiling.threads, ceiling.access)).collect();
    columns.sort_unstable();
    columns.dedup();
    let mut sets: BTreeMap<u64, Vec<&Ceiling>> = BTreeMap::new();
    ceilings.iter().for_each(|ceiling| sets.entry(ceiling.working_set).or_default().push(ceiling));
    let mut out = "ceilings, GB/s read plus written (*: streaming stores)\n".to_owned();
    let _ = write!(out, "{:>12} {:7}", "working set", "level");
    for (threads, access) in &columns {
        let _ = write!(out, " {:>10}", format!("{} t{threads}", format!("{access:?}").to_lowercase()));
    }
    out.push('\n');
    for (set, ceilings) in sets {
        let level = ceilings.iter().find_map(|ceiling| ceiling.level.as_deref()).unwrap_or("-");
        let _ = write!(out, "{:>8} KiB {level:7}", set >> 10);
        for column in &columns {
            let found = ceilings.iter().find(|ceiling| (ceiling.threads, ceiling.access) == *column);
            let text = found.map_or_else(String::new, |ceiling| {
                let star = if ceiling.streaming { "*" } else { " " };
                format!("{:.1}{star}", ceiling.bytes_per_second.value.0 / 1e9)
            });
            let _ = write!(out, " {text:>10}");
        }
        out.push('\n');
    }
    out
}

/// A time for people.
fn time(seconds: f64) -> String {
    match seconds {
        below if below < 1e-6 => format!("{:.0} ns", seconds * 1e9),
        below if below < 1e-3 => format!("{:.2} µs", seconds * 1e6),
        below if below < 1.0 => format!("{:.2} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}
