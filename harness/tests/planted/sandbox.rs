//! Faults of conduct in a C plugin, caught through the sandbox by the cases of a campaign.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use isonorm_harness::run::{Limits, Plugin};
use tempfile::TempDir;

use crate::parallel;
use crate::trial::Accused;

/// Each kernel of `plugin.c` with a fault, and the properties that it may be found to lack first.
const FAULTS: &[(&str, &[&str])] = &[
    ("reads_past_odd_rows", &["survives"]),
    ("reads_before", &["survives"]),
    ("reads_weight_past", &["survives"]),
    ("writes_past_odd_rows", &["survives", "writes_inside"]),
    ("writes_before", &["survives", "writes_inside"]),
    ("writes_input", &["survives", "unmodified_inputs"]),
    // It stores what was there: only a read-only page can tell.
    ("writes_weight", &["survives"]),
    ("leaves_tail", &["writes_everything", "within_bound"]),
    ("caches_by_address", &["fresh", "within_bound", "special_values", "repeatable", "reads_inputs_only", "survives"]),
    ("keeps_weight", &["fresh", "within_bound"]),
    ("counts_calls", &["repeatable", "fresh", "within_bound", "reads_inputs_only"]),
    ("writes_later", &["quiescent"]),
    ("flushes_to_zero", &["float_environment"]),
    ("rounds_up", &["float_environment"]),
    ("hangs_on_empty", &["returns"]),
    ("crashes_on_seven", &["survives"]),
    ("leaves_by_exit", &["survives"]),
    ("fills_the_stack", &["survives"]),
];

fn plugin() -> (TempDir, Plugin) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let library: PathBuf = folder.path().join("libplanted.so");
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(&library);
    cc.arg("-I")
        .arg(root.join("../kernels/include"))
        .arg(root.join("tests/planted/plugin.c"))
        .args(["-lm", "-pthread"]);
    let output = cc.output().expect("a C compiler called cc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let limits = Limits { time: Duration::from_secs(2), ..Limits::default() };
    let plugin = Plugin::open(&library, limits).expect("the plugin offers its kernels");
    (folder, plugin)
}

#[test]
fn every_fault_of_conduct_is_caught() {
    let (_folder, plugin) = plugin();
    let contenders = plugin.contenders();
    assert_eq!(contenders.len(), FAULTS.len() + 1, "every kernel of the plugin is expected to do something");
    let found = parallel(FAULTS, |(name, properties)| {
        let contender = contenders.iter().find(|contender| contender.info().name == *name);
        let contender = contender.unwrap_or_else(|| panic!("the plugin has no `{name}`"));
        let found = Accused::new(contender.clone()).first(1, 400);
        let found = found.unwrap_or_else(|| panic!("{name} was not caught"));
        assert!(properties.contains(&found.property), "{name}: {found:?}");
        format!("| {name} | {} | {} | {} |", found.property, found.message, found.after)
    });
    println!("| fault | property | message | cases |\n|---|---|---|---|\n{}", found.join("\n"));
}

#[test]
fn the_clean_plugin_passes() {
    let (_folder, plugin) = plugin();
    let contenders = plugin.contenders();
    let clean = contenders.iter().find(|contender| contender.info().name == "clean").expect("a clean kernel");
    let mut accused = Accused::new(clean.clone());
    for index in 0..400 {
        let case = accused.case(1, index);
        let trial = accused.ask(&case);
        assert!(!trial.failed(), "{case}: {:?}", trial.flaws);
    }
}
