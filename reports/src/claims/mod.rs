//! What was measured of papers' claims, told for people and for programs.

mod document;

use std::fmt::Write;

pub use document::{Document, document};

use crate::record::{Claim, ClaimVerdict, Interval, Measurement, Number};
use crate::table::{Entry, Mark, Table};

const NOTE: &str = "The paper's figure and ours, as a mean over the sizes and pairs that decide, with its 95 % interval. At most: the \
                    same for programs without what is made better, which no norm can beat (where nothing is said to be added: the \
                    cost that is said to go away). Error: the largest distance of any program from f64, relative to the largest value.";

/// All claims as a table.
pub fn summary(claims: &[Claim]) -> Table {
    let columns = ["claim", "verdict", "metric", "paper", "#here", "#interval", "#at most", "#error", "why", "#s"];
    let mut table = Table::new("claims", "Claims", NOTE, &columns);
    table.rows.extend(claims.iter().map(row));
    table
}

fn row(claim: &Claim) -> Vec<Entry> {
    let deciding = || claim.measurements.iter().filter(|measurement| measurement.decides);
    let limit = deciding().filter_map(|measurement| measurement.limit).map(|limit| limit.value).max();
    let errors = claim.measurements.iter().flat_map(|measurement| &measurement.programs).map(|program| program.error);
    let error = errors.max();
    vec![
        Entry::words(&*claim.name),
        Entry::words(claim.verdict.to_string()).marked(mark(claim)),
        Entry::words(&*claim.metric),
        Entry::words(&*claim.stated.text),
        claim.measured.map_or(Entry::default(), |found| Entry::number(percent(found.value), found.value)),
        claim.measured.map_or(Entry::default(), |found| Entry::words(ends(&found))),
        limit.map_or(Entry::default(), |limit| Entry::number(percent(limit), limit)),
        error.map_or(Entry::default(), |error| Entry::number(error.to_string(), error)),
        Entry::words(&*claim.why),
        Entry::number(claim.seconds.to_string(), claim.seconds),
    ]
}

/// Only a wrong program is bad: that a claim is not reproduced is an answer.
fn mark(claim: &Claim) -> Mark {
    match claim.verdict {
        _ if !claim.wrong.is_empty() => Mark::Bad,
        ClaimVerdict::NotTestable => Mark::Unsure,
        _ => Mark::Plain,
    }
}

/// A fraction as people read it.
pub(crate) fn percent(share: Number) -> String {
    format!("{} %", Number(100.0 * share.0))
}

fn ends(interval: &Interval) -> String {
    format!("{} to {}", Number(100.0 * interval.low.0), percent(interval.high))
}

/// How all of them stand, in a sentence.
pub fn headline(claims: &[Claim]) -> String {
    use ClaimVerdict::{DirectionOnly, NotReproduced, NotTestable, Reproduced};
    let count = |verdict| claims.iter().filter(|claim| claim.verdict == verdict).count();
    let all = [Reproduced, DirectionOnly, NotReproduced, NotTestable].map(|verdict| (count(verdict), verdict));
    let said: Vec<String> =
        all.iter().filter(|(count, _)| *count > 0).map(|(count, verdict)| format!("{count} {verdict}")).collect();
    format!("Of {} claims: {}", claims.len(), said.join(", "))
}

/// All claims for a terminal.
pub fn table(claims: &[Claim]) -> String {
    let mut text = summary(claims).without_empty_columns().text();
    for (claim, wrong) in claims.iter().flat_map(|claim| claim.wrong.iter().map(move |wrong| (claim, wrong))) {
        let _ = writeln!(text, "WRONG, and therefore not measured: {}: {wrong}", claim.name);
    }
    text + "\n" + &headline(claims) + "\n"
}

/// The pairs of a claim in all sizes as a table.
pub fn pairs(claim: &Claim) -> Table {
    let note = format!(
        "{}, as a share of what the baseline takes. Pairs with a star decide. Noise: the same between the baseline and itself.",
        claim.metric
    );
    let columns = [
        "pair",
        "level",
        "size",
        "in",
        "contender",
        "baseline",
        "#here",
        "#interval",
        "#at most",
        "#noise",
        "verdict",
        "why",
    ];
    let mut table = Table::new(&format!("claim-{}", claim.name), &claim.name, &note, &columns);
    let entries = |m: &Measurement| {
        let star = if m.decides { "* " } else { "" };
        vec![
            Entry::words(format!("{star}{}", m.title)),
            Entry::words(format!("{}, {}", m.level, m.pass)),
            Entry::words(format!("{}x{}x{}", m.batch, m.tokens, m.width)),
            Entry::words(m.regime.clone().unwrap_or_default()),
            Entry::words(&*m.contender),
            Entry::words(&*m.baseline),
            Entry::number(percent(m.measured.value), m.measured.value),
            Entry::words(ends(&m.measured)),
            m.limit.map_or(Entry::default(), |limit| Entry::number(percent(limit.value), limit.value)),
            Entry::number(percent(m.resolution), m.resolution),
            Entry::words(m.verdict.to_string()),
            Entry::words(&*m.why),
        ]
    };
    table.rows.extend(claim.measurements.iter().map(entries));
    table.without_empty_columns()
}

/// Every program of a claim, in all sizes, as a table.
pub fn programs(claim: &Claim) -> Table {
    let columns = ["program", "level", "size", "#error", "#takes", "#times the baseline", "#interval", "baseline"];
    let note = "Error: the distance from f64, relative to the largest value. Takes: the median of the rounds.";
    let mut table = Table::new(&format!("programs-{}", claim.name), "Programs", note, &columns);
    let mut told = std::collections::BTreeSet::new();
    for m in &claim.measurements {
        let place = (m.level.clone(), m.pass.clone(), (m.batch, m.tokens, m.width), m.quantity.clone());
        if !told.insert(place) {
            continue;
        }
        for program in &m.programs {
            table.rows.push(vec![
                Entry::words(&*program.name),
                Entry::words(format!("{}, {}", m.level, m.pass)),
                Entry::words(format!("{}x{}x{}", m.batch, m.tokens, m.width)),
                Entry::number(program.error.to_string(), program.error),
                Entry::number(amount(program.takes.value, &m.quantity), program.takes.value),
                Entry::number(program.relative.value.to_string(), program.relative.value),
                Entry::words(format!("{} to {}", program.relative.low, program.relative.high)),
                Entry::words(&*m.baseline),
            ]);
        }
    }
    table
}

/// Seconds or bytes as people read them.
fn amount(value: Number, quantity: &str) -> String {
    let (units, step): (&[&str], f64) =
        if quantity == "seconds" { (&["ns", "µs", "ms", "s"], 1e3) } else { (&["B", "KiB", "MiB", "GiB"], 1024.0) };
    let mut value = if quantity == "seconds" { value.0 * 1e9 } else { value.0 };
    let mut unit = 0;
    while value.abs() >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    format!("{} {}", Number(value), units[unit])
}

/// One claim for a terminal: what is said, by whom, on what, and what was measured.
pub fn explanation(claim: &Claim) -> String {
    let mut out = format!("{}: {}\n", claim.name, claim.sentence);
    let mut part = |title: &str, text: &str| {
        if !text.is_empty() {
            let _ = writeln!(out, "\n{title}");
            for line in text.lines() {
                let _ = writeln!(out, "  {line}");
            }
        }
    };
    part("paper", &claim.paper);
    part("stated", &format!("{} ({})", claim.stated.text, claim.metric));
    part("measured there on", &claim.hardware);
    part("here", &claim.scaling);
    let _ = write!(out, "\n{}", pairs(claim).text());
    let _ = write!(out, "\n{}", programs(claim).without_empty_columns().text());
    for wrong in &claim.wrong {
        let _ = writeln!(out, "\nWRONG, and therefore not measured: {wrong}");
    }
    let measured = claim.measured.map_or(String::new(), |found| {
        format!("{} of {}, {} in 95 %: ", percent(found.value), claim.metric, ends(&found))
    });
    let _ = writeln!(out, "\nverdict\n  {measured}{}: {}", claim.verdict, claim.why);
    out
}
