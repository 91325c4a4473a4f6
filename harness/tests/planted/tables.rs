//! The tables that the tests print, in Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use isonorm_harness::generate::families::FAMILIES;

use crate::corpus::Bug;
use crate::rules::Score;
use crate::trial::Finding;

/// Each bug, and what caught it.
pub fn caught(bugs: &[&Bug], found: &[Option<Finding>]) -> String {
    let mut table = "| bug | kernel | what is wrong | seen in | family | property | cases |\n".to_owned();
    table += "|---|---|---|---|---|---|---|\n";
    for (Bug { id, of, what, known, .. }, found) in bugs.iter().zip(found) {
        let (family, property, after) = match found {
            Some(found) => (found.case.family.name, found.property, found.after.to_string()),
            None => ("", "not caught", String::new()),
        };
        let _ = writeln!(table, "| {id} | {of} | {what} | {known} | {family} | {property} | {after} |");
    }
    let mut cases: Vec<u64> = found.iter().flatten().map(|found| found.after).collect();
    cases.sort_unstable();
    if let (Some(middle), Some(most)) = (cases.get(cases.len() / 2), cases.last()) {
        let _ = writeln!(
            table,
            "\n{} of {} bugs caught, half of them within {middle} cases, all within {most}.",
            cases.len(),
            bugs.len()
        );
    }
    table
}

/// For each value family, how many bugs it catches, which of them show in more of its cases than in those of any other,
/// and which show in no other; from the failed cases of each bug by family.
pub fn families(bugs: &[&Bug], failed: &[BTreeMap<&str, u64>]) -> String {
    let mut table = "| family | catches | most often | alone |\n|---|---|---|---|\n".to_owned();
    for family in FAMILIES {
        let of = |choose: &dyn Fn(&BTreeMap<&str, u64>, u64) -> bool| {
            let chosen =
                bugs.iter().zip(failed).filter(|(_, by)| by.get(family.name).is_some_and(|own| choose(by, *own)));
            chosen.map(|(bug, _)| bug.id).collect::<Vec<_>>()
        };
        let catches = of(&|_, _| true).len();
        let most = of(&|by, own| by.iter().all(|(name, others)| *name == family.name || *others < own));
        let alone = of(&|by, _| by.len() == 1);
        let _ = writeln!(table, "| {} | {catches} | {} | {} |", family.name, most.join(", "), alone.join(", "));
    }
    table
}

/// The score of each rule.
pub fn scores(scores: &[Score]) -> String {
    let mut table =
        "| rule | bugs caught | of those in its operators | clean kernels rejected |\n|---|---|---|---|\n".to_owned();
    for Score { rule, caught, covered, bugs, rejected, clean } in scores {
        let share = |all: &usize| format!("{caught} of {all} ({:.0} %)", 100.0 * *caught as f64 / *all as f64);
        let rejected = rejected.len();
        let _ = writeln!(table, "| {rule} | {} | {} | {rejected} of {clean} |", share(bugs), share(covered));
    }
    table
}
