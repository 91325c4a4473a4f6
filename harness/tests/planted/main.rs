//! The corpus of planted bugs and clean kernels: every bug must be caught, no clean kernel may fail.

mod corpus;
mod engine;
mod memory;
mod number;
mod recipe;

#[test]
fn ids_are_unique() {
    let mut seen = std::collections::BTreeSet::new();
    for bug in corpus::bugs().chain(corpus::BLIND) {
        assert!(seen.insert(bug.id), "{} occurs twice", bug.id);
        assert!(!bug.kernel().info().dtypes.is_empty());
    }
    assert!(corpus::bugs().count() >= 90, "{} bugs", corpus::bugs().count());
    assert!(corpus::CLEAN.len() >= 18);
}
