use isonorm_oracles::identities::{IDENTITIES, Wrong};
use isonorm_reports::record::IdentityVerdict;

use super::{Plan, check};

#[test]
fn every_identity_holds_and_nothing_wrong_survives() {
    tch::set_num_threads(1);
    let mut failures = Vec::new();
    for identity in IDENTITIES {
        let found = check(identity, &Plan::quick(3)).unwrap_or_else(|error| panic!("{}: {error}", identity.name));
        println!(
            "{}: {} exact, {} gradient, {} of the bounds, {} s",
            found.name,
            found.exact_discrepancy,
            found.gradient_discrepancy,
            found.worst_ratio_to_bound(),
            found.seconds
        );
        if found.verdict == IdentityVerdict::Fails {
            failures.push(format!("{}: {}", identity.name, found.reasons.join("; ")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_identity_has_a_condition_to_break_and_something_planted() {
    for identity in IDENTITIES {
        for wrong in [Wrong::Condition, Wrong::Planted] {
            let has = identity.deviations.iter().any(|deviation| deviation.wrong == wrong);
            assert!(has, "{} has no deviation of the kind {wrong:?}", identity.name);
        }
        assert!(!identity.papers.is_empty(), "{} has no source", identity.name);
    }
}
