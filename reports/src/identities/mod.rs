//! What the checks of identities gave, told for people and for programs.

mod document;

use std::fmt::Write;

pub use document::{Document, document};

use crate::record::{Experiment, Identity, IdentityVerdict, Number};
use crate::table::{Entry, Mark, Table};

const NOTE: &str = "Differences of both sides relative to the largest value, in double-double arithmetic; then the largest \
                    difference in f64, f32 and bf16, through libtorch and the kernels, as a multiple of the sum of both sides' \
                    derived bounds. Decided: cases in f64, f32 and bf16 in which the bound is below the largest value. Caught: what \
                    is wrong on purpose, in double-double arithmetic.";

/// All identities as a table.
pub fn summary(identities: &[Identity]) -> Table {
    let columns = [
        "identity",
        "verdict",
        "#values apart",
        "#gradients apart",
        "#of the bound",
        "#decided",
        "#caught",
        "#trained",
        "#s",
    ];
    let mut table = Table::new("identities", "Identities", NOTE, &columns);
    table.rows.extend(identities.iter().map(row));
    table
}

fn row(identity: &Identity) -> Vec<Entry> {
    let number = |value: Number| Entry::number(value.to_string(), value);
    let share = |(part, whole): (u32, u32)| {
        let entry = Entry::number(format!("{part} of {whole}"), Number(f64::from(part) / f64::from(whole.max(1))));
        if whole == 0 { Entry::default() } else { entry }
    };
    let sum = |pairs: &mut dyn Iterator<Item = (u32, u32)>| pairs.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    let bad = |entry: Entry, wrong: bool| if wrong { entry.marked(Mark::Bad) } else { entry };
    let decided = sum(&mut identity.arithmetic.iter().map(|found| (found.decided, found.cases)));
    let caught = sum(&mut identity.deviations.iter().map(|found| (found.caught, found.cases)));
    let trained = sum(&mut identity.training.iter().map(|found| (u32::from(found.confirmed), 1)));
    let fails = identity.verdict == IdentityVerdict::Fails;
    vec![
        Entry::words(&*identity.name),
        bad(Entry::words(identity.verdict.to_string()), fails),
        number(identity.exact_discrepancy),
        number(identity.gradient_discrepancy),
        bad(number(identity.worst_ratio_to_bound()), identity.worst_ratio_to_bound().0 > 1.0),
        share(decided),
        bad(share(caught), caught.0 < caught.1),
        bad(share(trained), trained.0 < trained.1),
        number(identity.seconds),
    ]
}

/// How all of them stand, in a sentence.
pub fn headline(identities: &[Identity]) -> String {
    let fail = identities.iter().filter(|identity| identity.verdict == IdentityVerdict::Fails).count();
    match (identities.len(), fail) {
        (1, 0) => "The identity holds".to_owned(),
        (all, 0) => format!("All {all} identities hold"),
        (all, fail) => format!("{fail} of {all} identities fail"),
    }
}

/// All identities for a terminal.
pub fn table(identities: &[Identity]) -> String {
    let mut text = summary(identities).without_empty_columns().text();
    for identity in identities {
        for reason in &identity.reasons {
            let _ = writeln!(text, "{}: {reason}", identity.name);
        }
    }
    text + "\n" + &headline(identities) + "\n"
}

/// Properties of networks for a terminal.
pub fn networks_text(experiments: &[Experiment]) -> String {
    let line = |experiment: &Experiment| {
        let agrees = if experiment.agrees { "as predicted" } else { "NOT as predicted" };
        format!("{}: {agrees}, within a factor of {}: {}\n", experiment.name, experiment.within, experiment.statement)
    };
    experiments.iter().map(line).collect()
}

/// One identity for a terminal: both sides, the map, the condition, the paper, and what the checks gave.
pub fn explanation(identity: &Identity) -> String {
    let mut out = format!("{}: {}\n", identity.name, identity.summary);
    let mut part = |title: &str, lines: Vec<String>| {
        if lines.iter().all(String::is_empty) {
            return;
        }
        let _ = writeln!(out, "\n{title}");
        for line in lines.iter().flat_map(|line| line.lines()) {
            let _ = writeln!(out, "  {line}");
        }
    };
    let formulas = &identity.formulas;
    part("one side", vec![formulas.left.clone()]);
    part("the other", vec![formulas.right.clone()]);
    part("parameters of the other", vec![formulas.map_in_words.clone(), formulas.map.clone()]);
    part("condition", vec![identity.condition.clone()]);
    part("papers", identity.papers.clone());
    let exact = format!(
        "values {} apart, gradients {} apart, over {} cases",
        identity.exact_discrepancy, identity.gradient_discrepancy, identity.cases
    );
    part("in double-double arithmetic", vec![exact]);
    let arithmetic = identity.arithmetic.iter().map(|found| {
        format!(
            "{:4} {:8} through {:8}: {} of the bounds, {} apart; decided in {} of {} cases",
            found.dtype, found.half, found.through, found.ratio_to_bound, found.discrepancy, found.decided, found.cases
        )
    });
    part("in the arithmetic of an element type", arithmetic.collect());
    let deviations = identity.deviations.iter().map(|found| {
        let caught_in: Vec<String> = found.caught_in.iter().map(|(dtype, n)| format!("{n} in {dtype}")).collect();
        let kind = if found.kind == "condition" { "condition broken" } else { "planted" };
        format!(
            "{kind}: {}: caught in {} of {} cases ({}), at least {} apart",
            found.name,
            found.caught,
            found.cases,
            caught_in.join(", "),
            found.least_discrepancy
        )
    });
    part("what it must not survive", deviations.collect());
    let training = identity.training.iter().map(|found| {
        let holds = if found.holds { "equal" } else { "different" };
        let as_it_must = if found.confirmed { "as it must be" } else { "NOT AS IT MUST BE" };
        format!(
            "after {} steps of {}, {}: {} apart ({} in f64 by libtorch), {holds}, {as_it_must}: {}",
            found.steps, found.optimizer, found.scheme, found.discrepancy, found.f64_discrepancy, found.why
        )
    });
    part("in training", training.collect());
    part("verdict", std::iter::once(identity.verdict.to_string()).chain(identity.reasons.iter().cloned()).collect());
    out
}
