//! The gate: each kind of regression planted must be found, and what has not changed must pass.

mod common;
#[path = "common/schema.rs"]
mod schema;

use std::collections::BTreeMap;

use common::{campaign, end, finding, kernel};
use expect_test::expect_file;
use isonorm_reports::gate::{
    self, Answer, Artifact, Asked, Calibration, Cell, Consequence, Context, Gate, GateError, Kind, Policy, PolicyError,
    Said, Snapshot, Speed, SpeedPolicy, Trial, Verdict, holm, judge,
};
use isonorm_reports::record::{Budget, Campaign, Counts, Finding, Kernel, Machine, Number, Record, Tally, Writer};
use isonorm_reports::summary;

const TODAY: &str = "2026-11-23T09:12:00Z";

/// The records of one kernel whose largest error is `worst`, with what is found besides.
fn records(worst: f64, more: Vec<Record>) -> Vec<Record> {
    let mut counts = Counts { cases: 100, ..Counts::default() };
    counts.errors.raise("rms_norm:forward dtype=f32 r=1 d=100", worst, worst);
    counts.errors.ratio_to_bound.add_many(0.5 * worst, 10_000);
    counts.errors.ratio_to_bound.add(worst);
    counts.failed = more.iter().filter(|record| matches!(record, Record::Finding(_))).count() as u64;
    let asked = Campaign { budget: Budget::Cases(100), ..campaign() };
    let about = Kernel { dtypes: vec!["f32".into()], ..kernel("k", "rms_norm", "forward") };
    let tally = Tally { kernel: "k".into(), dtype: "f32".into(), family: "normal".into(), size_class: 7, counts };
    [vec![asked.into(), about.into(), tally.into()], more, vec![end().into()]].concat()
}

fn snapshot_of(records: Vec<Record>) -> Snapshot {
    taken(records).expect("a snapshot")
}

fn taken(records: Vec<Record>) -> Result<Snapshot, GateError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("records.jsonl");
    let mut writer = Writer::create(&path).expect("a file");
    records.into_iter().for_each(|record| writer.write(record).expect("written"));
    Snapshot::of(&[path])
}

#[test]
fn records_that_cannot_be_compared_are_refused() {
    let refused = |records: Vec<Record>| taken(records).expect_err("no snapshot").to_string();
    // How many cases there are in a time depends on the machine.
    assert!(refused(common::records()).contains("use --cases"));
    let mut other = records(0.5, vec![]);
    let Record::Campaign(campaign) = &mut other[0] else { panic!("{:?}", other[0]) };
    campaign.seed += 1;
    assert!(refused([records(0.5, vec![]), other].concat()).contains("asked different cases"));
    let mut cut = records(0.5, vec![]);
    cut.pop();
    assert!(refused(cut).contains("was cut off"));
}

fn found(property: &str, further: u64) -> Record {
    Finding { further, ..finding("k", property, "normal", "y[3] is wrong") }.into()
}

fn with_speed(mut snapshot: Snapshot, cells: BTreeMap<String, Cell>) -> Snapshot {
    snapshot.speed = vec![Speed { machine: campaign().machine, cells }];
    snapshot
}

fn compare(before: &Snapshot, after: &Snapshot, policy: &str) -> Gate {
    let policy = toml_policy(policy).expect("a policy");
    gate::compare(before, after, &policy, &campaign().machine, TODAY).expect("comparable")
}

fn toml_policy(text: &str) -> Result<Policy, PolicyError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("policy.toml");
    std::fs::write(&path, text).expect("written");
    Policy::read(&path)
}

fn said(gate: &Gate) -> Vec<(Kind, &str)> {
    gate.regressions.iter().map(|regression| (regression.kind, regression.name.as_str())).collect()
}

#[test]
fn a_baseline_reads_back_and_says_what_it_cannot() {
    let snapshot = with_speed(snapshot_of(records(0.5, vec![found("deterministic", 2)])), cells(&[0.01; 2], 0, 0.0));
    let text = snapshot.text().expect("JSON");
    expect_file![format!("{}/tests/snapshots/baseline.json", env!("CARGO_MANIFEST_DIR"))].assert_eq(&text);
    let kept = Snapshot::parse(&text).expect("a baseline");
    assert_eq!(kept.text().expect("JSON"), text);
    assert_eq!(compare(&kept, &snapshot, "").verdict, Verdict::Pass, "{:?}", compare(&kept, &snapshot, ""));
    for (text, mention) in [("{}", "not a baseline"), ("{\"baseline\": 99}", "version 99"), ("nonsense", "expected")] {
        let error = Snapshot::parse(text).expect_err(text);
        assert!(error.contains(mention), "{error}");
    }
}

#[test]
fn correctness() {
    let clean = snapshot_of(records(0.5, vec![]));
    let one = snapshot_of(records(0.5, vec![found("deterministic", 2)]));
    let more = snapshot_of(records(0.5, vec![found("deterministic", 3)]));
    let other = snapshot_of(records(0.5, vec![found("deterministic", 2), found("within_bound", 0)]));
    assert_eq!(said(&compare(&clean, &clean, "")), []);
    assert_eq!(compare(&clean, &clean, "").verdict, Verdict::Pass);
    assert_eq!(said(&compare(&clean, &one, "")), [(Kind::Correctness, "k deterministic f32")]);
    // What the baseline knows is no regression, unless it has spread.
    assert_eq!(compare(&one, &one, "").verdict, Verdict::Pass);
    assert_eq!(said(&compare(&one, &more, "")), [(Kind::Correctness, "k deterministic f32")]);
    assert_eq!(said(&compare(&one, &other, "")), [(Kind::Correctness, "k within_bound f32")]);
    let better = compare(&one, &clean, "");
    assert!(better.verdict == Verdict::Pass && better.notes == ["k failed, and is certified now"], "{better:?}");

    // A kernel that is gone, or was cut off, does not pass silently.
    let gone = Snapshot { kernels: BTreeMap::new(), ..clean.clone() };
    assert!(compare(&clean, &gone, "").unasked());
    let mut cut = clean.clone();
    cut.kernels.values_mut().for_each(|standing| standing.verdict = summary::Verdict::Incomplete);
    assert!(compare(&clean, &cut, "").unasked());
    // Errors of other cases are not compared.
    let asked = Some(Asked { cases: 100, seed: 1 });
    let policy = Policy::default();
    let error = gate::compare(&clean, &Snapshot { asked, ..clean.clone() }, &policy, &campaign().machine, TODAY);
    assert!(error.expect_err("other cases").to_string().contains("ask the same"));
}

#[test]
fn accuracy() {
    let then = snapshot_of(records(0.2, vec![]));
    for (worst, grown) in [(0.2, false), (0.39, false), (0.41, true), (0.8, true), (0.1, false)] {
        let gate = compare(&then, &snapshot_of(records(worst, vec![])), "");
        assert_eq!(said(&gate) == [(Kind::Accuracy, "k f32 normal 64-")], grown, "{worst}: {:?}", gate.regressions);
        if grown {
            assert_eq!(gate.regressions[0].case.as_deref(), Some("rms_norm:forward dtype=f32 r=1 d=100"));
        }
    }
    let gate = compare(&then, &snapshot_of(records(0.8, vec![])), "[accuracy]\ngrowth = 5.0");
    assert_eq!(gate.verdict, Verdict::Pass);
    // Next to nothing may grow: to the floor.
    let (tiny, small) = (snapshot_of(records(1e-6, vec![])), snapshot_of(records(1e-2, vec![])));
    assert_eq!(compare(&tiny, &small, "").verdict, Verdict::Pass);
    let strict = "[accuracy]\nfloor = 0.0";
    assert_eq!(compare(&tiny, &small, strict).verdict, Verdict::Fail);
    // Larger worst errors alone show too: the 99.9th percentile is as before.
    let mut now = then.clone();
    let errors = now.kernels.values_mut().flat_map(|kernel| kernel.errors.values_mut()).flat_map(|e| e.values_mut());
    errors.for_each(|error| error.worst = Number(0.9));
    assert_eq!(said(&compare(&then, &now, "")), [(Kind::Accuracy, "k f32 normal 64-")]);
}

/// Normal numbers, the same on every machine.
struct Normal(common::Dice);

impl Normal {
    fn next(&mut self) -> f64 {
        let (a, b) = (self.0.roll().max(1e-12), self.0.roll());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }
}

/// Workloads that eight processes measured: of each, the standard deviation of the logarithm of the ratio between processes;
/// `slower` is by how much each is slower, and `drift` what the run adds to each.
fn cells_of(spreads: &[f64], random: &mut Normal, drift: f64, slower: f64) -> BTreeMap<String, Cell> {
    let cell = |(place, spread): (usize, &f64)| {
        let run = drift * random.next();
        let ratios: Vec<f64> = (0..8).map(|_| (run + spread * random.next() - slower.ln_1p()).exp()).collect();
        (format!("k f32 {place}x4096 t1 vs copy"), Cell { seconds: Number(1e-5), ..Cell::of_ratios(&ratios) })
    };
    spreads.iter().enumerate().map(cell).collect()
}

fn cells(spreads: &[f64], seed: u64, slower: f64) -> BTreeMap<String, Cell> {
    cells_of(spreads, &mut Normal(common::Dice(seed)), 0.0, slower)
}

/// A third of the workloads are restless, one is very much so.
fn spreads() -> Vec<f64> {
    (0..22).map(|place| if place % 3 == 0 { 0.03 } else { 0.008 } * if place == 0 { 3.0 } else { 1.0 }).collect()
}

/// Unchanged kernels, with the drift that the policy knows and with less tolerance than it could have.
#[test]
fn false_alarms_are_as_rare_as_promised() {
    let policy = SpeedPolicy { tolerance: 0.0, ..SpeedPolicy::default() };
    let mut random = Normal(common::Dice(7));
    let gates = 3000;
    let alarms = (0..gates)
        .filter(|_| {
            let before = cells_of(&spreads(), &mut random, policy.drift, 0.0);
            let after = cells_of(&spreads(), &mut random, policy.drift, 0.0);
            judge(&before, &after, &policy).iter().any(|judgement| judgement.answer == Answer::Slower)
        })
        .count();
    // One in a hundred, within five standard deviations of so many gates; and not so rare that nothing is asked.
    assert!((2..=60).contains(&alarms), "{alarms} of {gates}");
}

#[test]
fn what_is_said_to_be_found_is_found() {
    let policy = SpeedPolicy::default();
    let mut random = Normal(common::Dice(11));
    for slowdown in [0.05, 0.1, 0.3] {
        let (mut said, mut found, mut all) = (0, 0, 0);
        for _ in 0..300 {
            let before = cells_of(&spreads(), &mut random, policy.drift, 0.0);
            let mut after = cells_of(&spreads(), &mut random, policy.drift, 0.0);
            // One workload is slower, and the correction for all the others holds it back.
            let place = "k f32 7x4096 t1 vs copy".to_owned();
            let slower = cells_of(&[0.008; 8], &mut random, policy.drift, slowdown);
            after.insert(place.clone(), slower[&place].clone());
            let judgements = judge(&before, &after, &policy);
            let judgement = judgements.iter().find(|judgement| judgement.name == place).expect("it was measured");
            all += u32::from(judgement.answer == Answer::Slower);
            if judgement.finds <= slowdown {
                said += 1;
                found += u32::from(judgement.answer == Answer::Slower);
            }
        }
        assert!(said == 0 || f64::from(found) >= 0.9 * f64::from(said), "{slowdown}: {found} of {said}");
        assert!(slowdown < 0.1 || all > 250, "{slowdown}: {all} of 300");
    }
}

#[test]
fn times_that_say_nothing_do_not_pass_silently() {
    let base = snapshot_of(records(0.5, vec![]));
    let of = |cells| with_speed(base.clone(), cells);
    let (calm, noisy) = (of(cells(&[0.01; 3], 3, 0.0)), of(cells(&[0.01, 0.4, 0.01], 4, 0.0)));
    assert_eq!(compare(&calm, &of(cells(&[0.01; 3], 5, 0.0)), "").verdict, Verdict::Pass);
    let gate = compare(&calm, &noisy, "");
    assert!(gate.verdict == Verdict::Undecided && !gate.unasked(), "{:?}", gate.undecided);
    assert!(gate.undecided[0].name.contains("1x4096") && gate.undecided[0].reason.contains("too noisy"));
    // One process has no spread.
    let single: BTreeMap<_, _> = [("k f32 0x4096 t1 vs copy".to_owned(), Cell::of_ratios(&[0.5]))].into();
    let gate = compare(&calm, &of(single), "");
    assert_eq!((gate.verdict, gate.undecided.len()), (Verdict::Undecided, 3), "{:?}", gate.undecided);
    // Another machine is another baseline, which an update keeps.
    let mut elsewhere = calm.clone();
    elsewhere.speed[0].machine = Machine { cpu: "another".into(), ..campaign().machine };
    let gate = compare(&elsewhere, &calm, "");
    assert!(gate.verdict == Verdict::Undecided && gate.undecided[0].reason.contains("update it here"));
    let mut both = calm.clone();
    both.keep_other_machines(&elsewhere);
    assert_eq!(both.speed.len(), 2);
    // Unless nobody asks.
    assert_eq!(compare(&elsewhere, &calm, "[on]\nspeed = \"off\"").verdict, Verdict::Pass);
}

#[test]
fn a_slower_kernel_fails_and_absolute_times_do_not() {
    let base = snapshot_of(records(0.5, vec![]));
    let before = with_speed(base.clone(), cells(&[0.01; 3], 3, 0.0));
    let mut after = with_speed(base, cells(&[0.01; 3], 4, 0.0));
    after.speed[0].cells.values_mut().for_each(|cell| cell.seconds = Number(1.0));
    assert_eq!(compare(&before, &after, "").verdict, Verdict::Pass);
    after.speed[0].cells.extend(cells(&[0.01; 2], 9, 0.2).into_iter().skip(1));
    let gate = compare(&before, &after, "");
    assert_eq!(said(&gate), [(Kind::Speed, "k f32 1x4096 t1 vs copy")]);
    assert_eq!(gate.suspects().len(), 1);
    // The same is only told where the policy says so.
    let gate = compare(&before, &after, "[on]\nspeed = \"report\"");
    assert_eq!((gate.verdict, gate.regressions[0].consequence.clone()), (Verdict::Pass, Consequence::Reported));
}

#[test]
fn holm_rejects_from_the_smallest_on() {
    assert_eq!(holm(&[0.003, 0.9, 0.004, 0.02], 0.01), [false, false, false, false]);
    assert_eq!(holm(&[0.0024, 0.9, 0.0033, 0.02], 0.01), [true, false, true, false]);
    assert_eq!(holm(&[0.001, f64::NAN], 0.01), [true, false]);
    assert_eq!(holm(&[], 0.01), [false; 0]);
}

#[test]
fn waivers_end() {
    let (then, now) = (snapshot_of(records(0.2, vec![])), snapshot_of(records(0.8, vec![])));
    let waiver = |kind: &str, name: &str, expires: &str| {
        format!("[[waiver]]\nkind = \"{kind}\"\nname = \"{name}\"\nreason = \"known\"\nexpires = {expires}\n")
    };
    let gate = compare(&then, &now, &waiver("accuracy", "k f32*", "2026-11-23"));
    assert_eq!(gate.verdict, Verdict::Pass);
    assert_eq!(gate.regressions[0].consequence, Consequence::Waived("known (until 2026-11-23)".into()));
    // The day after, another kind, another name.
    let gate = compare(&then, &now, &waiver("accuracy", "k f32*", "2026-11-22"));
    assert!(gate.verdict == Verdict::Fail && gate.errors[0].contains("expired on 2026-11-22"), "{gate:?}");
    for policy in [waiver("speed", "k f32*", "2027-01-01"), waiver("accuracy", "k f16*", "2027-01-01")] {
        let gate = compare(&then, &now, &policy);
        assert!(gate.verdict == Verdict::Fail && gate.notes[0].contains("matches nothing"), "{gate:?}");
    }
    // An expired one is an error even where nothing is worse.
    assert!(compare(&then, &then, &waiver("accuracy", "k f32*", "2026-11-22")).unasked());
}

#[test]
fn a_policy_says_nothing_by_mistake() {
    for (text, mention) in [
        ("[speed]\nfalse_alarm = 0.01", "false_alarm"),
        ("[speed]\nfalse_alarms = 0.0", "above 0"),
        ("[speed]\nprocesses = 2", "at least 3"),
        ("[speed]\nversus = \"numpy\"", "copy or libtorch"),
        ("[accuracy]\ngrowth = 0.5", "at least 1"),
        ("[on]\nspeed = \"maybe\"", "maybe"),
        ("[[waiver]]\nname = \"k\"\nreason = \" \"\nexpires = 2027-01-01", "say why"),
        ("[[waiver]]\nname = \"k\"\nreason = \"x\"", "expires"),
        ("[[waiver]]\nname = \"k\"\nreason = \"x\"\nexpires = \"soon\"", "expires"),
        ("speed", "cannot be used"),
    ] {
        let error = toml_policy(text).expect_err(text).to_string();
        assert!(error.contains(mention), "{text}: {error}");
    }
}

/// Every form of the answer shows what is worse, and nothing where nothing is.
#[test]
fn every_form_of_the_answer_shows_it() {
    let policy = "[[source]]\nkernel = \"k*\"\nfile = \"src/k.rs\"\nline = 7";
    let before = with_speed(snapshot_of(records(0.2, vec![])), cells(&[0.01; 3], 3, 0.0));
    let bad = snapshot_of(records(0.8, vec![found("within_bound", 1)]));
    let bad = with_speed(bad, cells(&[0.01; 3], 9, 0.2));
    let good = with_speed(snapshot_of(records(0.2, vec![])), cells(&[0.01; 3], 5, 0.0));
    let artifact = Artifact { name: "libk.so".into(), sha256: "ab".repeat(32) };
    let forms = |after: &Snapshot| {
        let gate = compare(&before, after, policy);
        let folder = tempfile::tempdir().expect("a folder");
        let context = Context {
            policy: &toml_policy(policy).expect("a policy"),
            history: &[before.clone(), before.clone()],
            baseline: "ci/baseline.json",
            tested: std::slice::from_ref(&artifact),
            configuration: &[],
        };
        let written = gate::write_all(folder.path(), &gate, &context).expect("written");
        let read = |path: &std::path::PathBuf| std::fs::read_to_string(path).expect("a file");
        [vec![gate::text(&gate)], written.iter().map(read).collect()].concat()
    };
    let (bad, good) = (forms(&bad), forms(&good));
    assert_eq!(bad.len(), 7);
    let plain = |form: &str| form.replace("<wbr>", "").replace('\\', "");
    for (bad, good) in bad.iter().zip(&good) {
        for name in ["k within_bound f32", "k f32 normal 64-", "k f32 1x4096 t1 vs copy"] {
            assert!(plain(bad).contains(name), "{name} is not in {bad}");
        }
        assert!(!plain(good).contains("within_bound"), "{good}");
    }
    let [_, page, _, json, junit, sarif, statement] = &bad[..] else { panic!("seven forms") };
    for figure in ["Speed, before and after", "Errors, before and after", "Speed over the baselines"] {
        assert!(page.contains(figure), "{figure}");
    }
    let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    assert_eq!(parsed(json)["verdict"], "fail");
    assert!(junit.contains("failures=\"5\""), "{junit}");
    let result = &parsed(sarif)["runs"][0]["results"][0];
    assert_eq!(result["level"], "error");
    let location = &result["locations"][0]["physicalLocation"];
    assert_eq!(
        (&location["artifactLocation"]["uri"], &location["region"]["startLine"]),
        (&"src/k.rs".into(), &7.into())
    );
    let statement = parsed(statement);
    assert_eq!(statement["predicateType"], "https://in-toto.io/attestation/test-result/v0.1");
    assert_eq!(statement["subject"][0]["digest"]["sha256"], "ab".repeat(32));
    assert_eq!(statement["predicate"]["result"], "FAILED");
    assert_eq!(statement["predicate"]["failedTests"].as_array().map(Vec::len), Some(5));
    assert_eq!(parsed(&good[6])["predicate"]["result"], "PASSED");
}

#[test]
fn documents_have_schemas() {
    let check = |name, schema, documents: &[_]| {
        schema::check(name, schema, documents, serde_json::json!({ "verdict": 1 }));
    };
    let before = with_speed(snapshot_of(records(0.2, vec![])), cells(&[0.01; 3], 3, 0.0));
    let after = with_speed(snapshot_of(records(0.8, vec![found("within_bound", 1)])), cells(&[0.01, 0.3], 9, 0.2));
    let of = |gate: &Gate| serde_json::to_value(gate::document(gate)).expect("JSON");
    let documents = [of(&compare(&before, &before, "")), of(&compare(&before, &after, ""))];
    check("gate", schemars::schema_for!(gate::Document), &documents);
    let baselines =
        [&before, &after].map(|snapshot| serde_json::from_str(&snapshot.text().expect("JSON")).expect("JSON"));
    check("baseline", schemars::schema_for!(Snapshot), &baselines);
}

#[test]
fn a_calibration_counts_alarms_and_what_is_found() {
    let policy = Policy::default();
    let mut random = Normal(common::Dice(5));
    let trial = |slowdown: f64, random: &mut Normal| {
        let before = cells_of(&[0.01; 4], random, 0.02, 0.0);
        let after = cells_of(&[0.01; 4], random, 0.02, slowdown);
        let said = judge(&before, &after, &policy.speed).iter().map(Said::from).collect();
        let ratios = after.iter().map(|(name, cell)| (name.clone(), (cell.ratio.0, cell.error.0))).collect();
        Trial { slowdown, ratios, said }
    };
    let trials: Vec<Trial> =
        [0.0, 0.3].iter().flat_map(|&by| (0..40).map(move |_| by)).map(|by| trial(by, &mut random)).collect();
    let calibration = Calibration::of(&trials, &policy);
    let [clean, slow] = &calibration.rows[..] else { panic!("{calibration:?}") };
    assert_eq!((clean.gates, clean.workloads, slow.gates, slow.failed), (40, 160, 40, 40));
    assert!((0.25..0.35).contains(&slow.measured.0), "{slow:?}");
    // The drift that was planted, within what forty runs of four workloads tell.
    assert!(calibration.drift.is_some_and(|drift| (0.012..0.03).contains(&drift.0)), "{:?}", calibration.drift);
    assert!(calibration.text().contains("false alarms:"), "{}", calibration.text());
}
