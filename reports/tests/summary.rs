//! What a summary makes of records: the verdicts, and whether shards together are the whole.

mod common;

use common::{campaign, end, finding, kernel, records};
use isonorm_reports::record::*;
use isonorm_reports::summary::{Problem, Summary, Verdict};
use proptest::prelude::*;

/// A campaign about one kernel, with what it says about it.
fn about_one_kernel(records: impl IntoIterator<Item = Record>) -> Vec<Record> {
    let mut all = vec![campaign().into(), one_kernel().into()];
    all.extend(records);
    all.push(end().into());
    all
}

fn one_kernel() -> Kernel {
    Kernel { dtypes: vec!["f32".into()], ..kernel("k", "rms_norm", "forward") }
}

fn tally(cases: u64, failed: u64, worst: f64) -> Record {
    let mut counts = Counts { cases, failed, ..Counts::default() };
    counts.errors.raise("a case", worst, worst);
    counts.errors.ratio_to_bound.add(worst);
    Tally { kernel: "k".into(), dtype: "f32".into(), family: "normal".into(), size_class: 3, counts }.into()
}

fn property(failed: u64) -> Record {
    Property { kernel: "k".into(), property: "deterministic".into(), required: true, checked: 10, failed }.into()
}

fn noted(failed: u64) -> Record {
    Property { kernel: "k".into(), property: "batch_invariant".into(), required: false, checked: 10, failed }.into()
}

fn verdict(records: Vec<Record>) -> (Verdict, String) {
    let summary = Summary::of(records);
    (summary.kernels[0].verdict, summary.kernels[0].reasons.join("; "))
}

#[test]
fn verdicts() {
    let mut declined = Counts::default();
    declined.decline("no", 5);
    let declined =
        Tally { kernel: "k".into(), dtype: "f32".into(), family: "normal".into(), size_class: 3, counts: declined };
    let crashed = Case {
        case: "c".into(),
        kernel: "k".into(),
        operator: "rms_norm".into(),
        direction: "forward".into(),
        dtype: "f32".into(),
        family: "normal".into(),
        layout: "contiguous".into(),
        length: 4,
        verdict: isonorm_reports::record::Verdict::Crashed("SIGSEGV".into()),
        property: None,
        ratio_to_bound: None,
        libtorch_ratio_to_bound: None,
        ulps: None,
        ulps_histogram: Histogram::default(),
        elements: Elements::default(),
        in_exact_range: false,
        wrong: None,
    };
    let cases: [(&str, Vec<Record>, Verdict, &str); 10] = [
        ("all well", vec![tally(10, 0, 1.0), property(0)], Verdict::Certified, ""),
        ("only noted", vec![tally(10, 0, 1.0), noted(3)], Verdict::Certified, ""),
        ("nothing ran", vec![], Verdict::Incomplete, "no case was judged"),
        ("all declined", vec![declined.into()], Verdict::Incomplete, "no case was judged"),
        ("a failed case", vec![tally(10, 1, 0.5)], Verdict::Failed, "1 failed case"),
        (
            "a worst error that is none",
            vec![tally(10, 0, f64::NAN)],
            Verdict::Failed,
            "the worst error is nan times the bound",
        ),
        ("a worst error too large", vec![tally(10, 0, 1.1)], Verdict::Failed, "the worst error is 1.1 times the bound"),
        ("a finding", vec![tally(10, 0, 0.5), finding("k", "p", "f", "m").into()], Verdict::Failed, "1 finding"),
        ("a crash", vec![tally(10, 0, 0.5), crashed.into()], Verdict::Failed, "the case c failed"),
        (
            "a property",
            vec![tally(10, 0, 0.5), property(3)],
            Verdict::Failed,
            "deterministic does not hold in 3 of 10 checks",
        ),
    ];
    for (name, records, expected, reasons) in cases {
        assert_eq!(verdict(about_one_kernel(records)), (expected, reasons.to_owned()), "{name}");
    }
}

#[test]
fn a_dtype_that_was_not_judged_is_not_certified() {
    let mut records = about_one_kernel([tally(10, 0, 0.5)]);
    records[1] = Kernel { dtypes: vec!["f32".into(), "bf16".into()], ..one_kernel() }.into();
    assert_eq!(verdict(records), (Verdict::Incomplete, "no case was judged in bf16".into()));
}

#[test]
fn a_run_without_a_good_end_certifies_nothing() {
    let mut records = about_one_kernel([tally(10, 0, 0.5)]);
    *records.last_mut().unwrap() = End { outcome: Outcome::Interrupted, ..end() }.into();
    assert_eq!(verdict(records.clone()), (Verdict::Incomplete, "a run was interrupted".into()));
    records.pop();
    assert_eq!(Summary::of(records.clone()).problems, [Problem::CutOff { seed: 2026, index: 1, of: 1 }]);
    assert_eq!(verdict(records), (Verdict::Incomplete, "a run was cut off".into()));
}

#[test]
fn a_damaged_file_certifies_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.jsonl");
    let mut writer = Writer::create(&path).unwrap();
    about_one_kernel([tally(10, 0, 0.5)]).into_iter().for_each(|record| writer.write(record).unwrap());
    let whole = std::fs::read_to_string(&path).unwrap();
    let paths = [folder.path().to_owned()];
    assert_eq!(Summary::read(&paths).unwrap().verdicts(Verdict::Certified), 1);

    std::fs::write(&path, whole.replace("{\"record\":\"end\"", "oops\n{\"record\":\"end\"")).unwrap();
    let summary = Summary::read(&paths).unwrap();
    assert_eq!(summary.kernels[0].reasons, ["some records could not be read"]);
    assert!(summary.problems[0].to_string().contains("line 4: not a record"), "{:?}", summary.problems);
}

#[test]
fn records_about_nobody_are_a_problem() {
    let records = [Record::from(campaign()), tally(1, 0, 0.5), end().into()];
    assert_eq!(Summary::of(records).problems, [Problem::UnknownKernel { kernel: "k".into() }]);
}

#[test]
fn two_kernels_of_one_name_are_not_certified() {
    let mut records = about_one_kernel([tally(10, 0, 0.5)]);
    let other = Library { file: "k.so".into(), sha256: "0".repeat(64) };
    let mut second = about_one_kernel([tally(10, 0, 0.5)]);
    second[0] = Campaign { seed: 1, ..campaign() }.into();
    second[1] = Kernel { library: Some(other), ..one_kernel() }.into();
    records.extend(second);
    let summary = Summary::of(records.clone());
    assert_eq!(summary.problems, [Problem::KernelConflict { kernel: "k".into() }]);
    assert_eq!(summary.kernels[0].verdict, Verdict::Incomplete);
    // Only another dtype is no other kernel.
    let Record::Kernel(kernel) = &mut records[5] else { panic!("{:?}", records[5]) };
    *kernel = Kernel { dtypes: vec!["bf16".into()], ..one_kernel() };
    assert_eq!(Summary::of(records).problems, []);
}

/// The whole fixture, dealt out to three shards.
fn shards() -> [Vec<Record>; 3] {
    let mut shards = [1, 2, 3].map(|index| vec![Campaign { shard: Shard { index, of: 3 }, ..campaign() }.into()]);
    for (i, record) in records().into_iter().enumerate() {
        match record {
            Record::Campaign(_) => {}
            Record::Kernel(_) | Record::End(_) => shards.iter_mut().for_each(|shard| shard.push(record.clone())),
            other => shards[i % 3].push(other),
        }
    }
    shards
}

/// All that a summary says about kernels, and its totals.
fn content(summary: &Summary) -> String {
    let kernels = summary.kernels.iter().map(|k| {
        let mut k = k.clone();
        k.runs.clear();
        k.properties.sort_by(|a, b| a.property.cmp(&b.property));
        k.ranges.sort_by(|a, b| a.dtype.cmp(&b.dtype));
        format!("{k:?}")
    });
    format!("{}\n{:?}", kernels.collect::<Vec<_>>().join("\n"), summary.throughput)
}

#[test]
fn shards_in_any_order_are_the_whole() {
    let whole = content(&Summary::of(records()));
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        let shards = shards();
        let summary = Summary::of(order.iter().flat_map(|i| shards[*i].clone()));
        assert_eq!(summary.problems, []);
        assert!(content(&summary) == whole, "order {order:?}");
    }
}

#[test]
fn a_missing_shard_is_noticed() {
    let [first, _, third] = shards();
    let summary = Summary::of(first.into_iter().chain(third));
    assert_eq!(summary.problems, [Problem::MissingShards { seed: 2026, of: 3, missing: vec![2] }]);
    assert_eq!(summary.verdicts(Verdict::Certified), 0);
}

#[test]
fn a_shard_that_is_there_twice_counts_once() {
    let all: Vec<_> = shards().concat();
    let once = content(&Summary::of(all.clone()));
    let mut cut = shards()[1].clone();
    cut.truncate(cut.len() / 2);
    // Whichever comes first, the complete one counts; that it was done again is no problem.
    for again in [[all.clone(), cut.clone()].concat(), [cut, all.clone()].concat()] {
        let summary = Summary::of(again);
        assert_eq!(summary.problems, []);
        assert!(content(&summary) == once);
    }
    // On whichever machine it was done again.
    let mut elsewhere = shards()[1].clone();
    let machine = Machine { cores: 1, ..campaign().machine };
    elsewhere[0] = Campaign { shard: Shard { index: 2, of: 3 }, machine, ..campaign() }.into();
    for twice in [shards()[1].clone(), elsewhere] {
        let summary = Summary::of([all.clone(), twice].concat());
        assert_eq!(summary.problems, [Problem::DuplicateShard { seed: 2026, index: 2, of: 3 }]);
        assert!(content(&summary) == once);
    }
}

/// A finding about the plainest of its cases, and so many others.
fn shown(case: &str, further: u64) -> Record {
    let found = finding("k", "within_bound", "normal", "wrong");
    Finding { case: case.into(), original: case.into(), further, ..found }.into()
}

#[test]
fn shards_together_make_the_findings_of_the_whole() {
    let shard = |index: u32, findings: Vec<Record>| {
        let mut records = about_one_kernel([vec![tally(10, 1, 2.0)], findings].concat());
        records[0] = Campaign { shard: Shard { index, of: 3 }, ..campaign() }.into();
        records
    };
    let shards = [shard(1, vec![shown("d=17", 4)]), shard(2, vec![]), shard(3, vec![shown("d=3", 0)])];
    for order in [[0, 1, 2], [2, 1, 0]] {
        let summary = Summary::of(order.iter().flat_map(|place| shards[*place].clone()));
        let found: Vec<_> = summary.kernels[0].findings.iter().map(|f| (f.case.as_str(), f.further)).collect();
        assert_eq!(found, [("d=3", 5)]);
    }
}

#[test]
fn the_same_cases_on_another_machine_are_more_evidence() {
    let mut records = about_one_kernel([tally(10, 0, 0.5)]);
    let mut elsewhere = records.clone();
    let machine = Machine { isa: vec!["neon".into()], ..campaign().machine };
    elsewhere[0] = Campaign { machine, ..campaign() }.into();
    records.extend(elsewhere);
    let summary = Summary::of(records);
    assert_eq!((summary.problems.len(), summary.cases(), summary.runs.len()), (0, 20, 2));
}

proptest! {
    /// No set of records about a kernel leads to a certificate without a judged case, or with a failed one.
    #[test]
    fn nothing_is_certified_for_nothing(
        tallies in prop::collection::vec((0..3u64, 0..2u64, prop_oneof![Just(0.5), Just(2.0), Just(f64::NAN)]), 0..4),
        failed_checks in 0..2u64,
    ) {
        let well = |(cases, failed, worst): &(u64, u64, f64)| (*cases, *failed == 0 && *worst <= 1.0);
        let cases: u64 = tallies.iter().map(|t| well(t).0).sum();
        let right = tallies.iter().all(|t| well(t).1) && failed_checks == 0;
        let records = tallies.iter().map(|(cases, failed, worst)| tally(*cases, *failed, *worst));
        let (verdict, reasons) = verdict(about_one_kernel(records.chain([property(failed_checks)])));
        let expected = match (right, cases) {
            (false, _) => Verdict::Failed,
            (true, 0) => Verdict::Incomplete,
            (true, _) => Verdict::Certified,
        };
        prop_assert_eq!(verdict, expected);
        prop_assert_eq!(reasons.is_empty(), verdict == Verdict::Certified);
    }
}
