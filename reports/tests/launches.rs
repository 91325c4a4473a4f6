//! What the PTX executor counted of launches, and cases that could not be run: from records to the certificate, the page and the gate.

#[allow(dead_code, reason = "made-up campaigns are for other tests")]
mod common;

use std::collections::BTreeMap;

use common::{campaign, end, kernel};
use isonorm_reports::certificate::Certificate;
use isonorm_reports::gate::{self, Consequence, Kind, Policy, Snapshot, Verdict};
use isonorm_reports::html;
use isonorm_reports::record::*;
use isonorm_reports::summary::{self, Summary};

/// A case of 3 rows of 200 f32, of which `x` is read so many times.
fn counts(times: u64) -> TrafficCounts {
    let buffer = |bytes: u64, read: u64, written: u64| BufferTraffic {
        bytes,
        read,
        written,
        accesses: (read + written) / 16,
        narrow: 0,
        requests: (read + written) / 512,
        uncoalesced: 0,
        atomics: 0,
        most_read: (read > 0).then(|| Extreme {
            value: Number(read as f64 / bytes as f64),
            case: "rms_norm:forward dtype=f32 r=3 d=200".into(),
        }),
    };
    TrafficCounts {
        cases: 1,
        elements: 600,
        launches: 1,
        instructions: 6000,
        local_bytes: 0,
        shared_requests: 10,
        bank_conflicts: 1,
        buffers: [
            ("x".into(), buffer(2400, times * 2400, 0)),
            ("weight".into(), buffer(800, 2400, 0)),
            ("y".into(), buffer(2400, 0, 2400)),
        ]
        .into(),
    }
}

fn records(times: u64, not_run: &[&str]) -> Vec<Record> {
    let asked = Campaign { budget: Budget::Cases(2), ..campaign() };
    let about = Kernel { dtypes: vec!["f32".into()], device: "ptx".into(), ..kernel("k", "rms_norm", "forward") };
    let mut judged = Counts { cases: 2, ..Counts::default() };
    not_run.iter().for_each(|reason| judged.leave_out(reason, 1));
    let tally =
        Tally { kernel: "k".into(), dtype: "f32".into(), family: "normal".into(), size_class: 3, counts: judged };
    let traffic = || Traffic { kernel: "k".into(), dtype: "f32".into(), counts: counts(times) };
    vec![asked.into(), about.into(), tally.into(), traffic().into(), traffic().into(), end().into()]
}

fn snapshot(records: Vec<Record>) -> Snapshot {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("records.jsonl");
    let mut writer = Writer::create(&path).expect("a file");
    records.into_iter().for_each(|record| writer.write(record).expect("written"));
    Snapshot::of(&[path]).expect("a snapshot")
}

#[test]
fn counts_of_cases_add_up_to_figures() {
    let summary = Summary::of(records(2, &[]));
    let counts = &summary.kernels[0].traffic["f32"];
    assert_eq!((counts.cases, counts.elements, counts.buffers["x"].read), (2, 1200, 9600));
    let figures = counts.figures();
    let expected = [
        ("instructions per element", 10.0),
        ("local bytes per element", 0.0),
        ("bank conflicts per request", 0.1),
        ("x read", 2.0),
        ("x written", 0.0),
        ("weight read", 3.0),
        ("y written", 1.0),
    ];
    for (name, value) in expected {
        assert_eq!(figures.get(name), Some(&Number(value)), "{name}");
    }
}

#[test]
fn the_certificate_and_the_page_say_where_it_was_executed() {
    let summary = Summary::of(records(2, &[]));
    assert_eq!(summary.kernels[0].verdict, summary::Verdict::Certified, "{:?}", summary.kernels[0].reasons);
    let certificate = Certificate::new(&summary, &summary.kernels[0]);
    let text = certificate.markdown().expect("a certificate");
    for part in [
        "| device | ptx: executed on the PTX executor, not on a GPU |",
        "PTX executor",
        "not measured on a GPU",
        "| f32 | x | 2 | 2 | 0 | 0 | 0 | 0 |",
        "| f32 | 2 | 2 | 10 | 0.1 | 0 |",
    ] {
        assert!(text.replace("nothing was", "not").contains(part), "{part} is not in: {text}");
    }
    let page = html::page(&summary).expect("a page");
    assert!(page.contains("executed on the PTX executor and counted there; nothing was measured on a GPU"));
    assert!(page.contains("Kernels whose device is ptx were executed on the PTX executor, not on a GPU."));
    // A kernel that ran elsewhere has no such part.
    let elsewhere = records(2, &[]).into_iter().filter(|record| !matches!(record, Record::Traffic(_)));
    let summary = Summary::of(elsewhere);
    let text = Certificate::new(&summary, &summary.kernels[0]).markdown().expect("a certificate");
    assert!(!text.contains("## Launches"), "{text}");
}

#[test]
fn a_kernel_with_cases_that_could_not_be_run_is_not_certified() {
    let summary = Summary::of(records(1, &["k.cu does not compile for `k<17>`:\nk.cu(3): error", "too new"]));
    let kernel = &summary.kernels[0];
    assert_eq!(kernel.verdict, summary::Verdict::Incomplete);
    let expected = ["1 case could not be run: k.cu does not compile for `k<17>`:", "1 case could not be run: too new"];
    assert_eq!(kernel.reasons, expected);
    assert_eq!(kernel.total.declined_cases(), 0);
}

#[test]
fn the_gate_sees_a_tensor_read_twice() {
    let (once, twice) = (snapshot(records(1, &[])), snapshot(records(2, &[])));
    let compare = |before: &Snapshot, after: &Snapshot, policy: &Policy| {
        gate::compare(before, after, policy, &campaign().machine, "2026-11-23T09:12:00Z").expect("comparable")
    };
    let policy = Policy::default();
    assert_eq!(compare(&once, &once, &policy).verdict, Verdict::Pass);
    // Fewer bytes are no regression.
    assert_eq!(compare(&twice, &once, &policy).verdict, Verdict::Pass);
    let gate = compare(&once, &twice, &policy);
    let [regression] = &gate.regressions[..] else { panic!("{:?}", gate.regressions) };
    assert_eq!((regression.kind, regression.name.as_str()), (Kind::Traffic, "k f32 x read"));
    assert!(regression.evidence.contains("grew from 1 to 2") && gate.verdict == Verdict::Fail, "{regression:?}");
    assert!(gate::text(&gate).contains("traffic "), "{}", gate::text(&gate));

    // A baseline reads back with what was counted; what is counted no longer does not pass silently.
    let kept = Snapshot::parse(&once.text().expect("JSON")).expect("a baseline");
    assert_eq!(compare(&kept, &twice, &policy).regressions.len(), 1);
    let mut uncounted = once.clone();
    uncounted.kernels.values_mut().for_each(|standing| standing.traffic = BTreeMap::new());
    assert!(compare(&once, &uncounted, &policy).unasked());
    // Nothing is said of it where nothing was ever counted.
    assert!(!gate::text(&compare(&uncounted, &uncounted, &policy)).contains("traffic"));

    // As much as the policy lets pass, and not more.
    let lenient = Policy { traffic: gate::TrafficPolicy { growth: 2.0, ..Default::default() }, ..Policy::default() };
    assert_eq!(compare(&once, &twice, &lenient).verdict, Verdict::Pass);
    assert_eq!(compare(&once, &snapshot(records(3, &[])), &lenient).verdict, Verdict::Fail);
    let mut reported = Policy::default();
    reported.on.traffic = gate::Action::Report;
    let gate = compare(&once, &twice, &reported);
    assert!(gate.verdict == Verdict::Pass && gate.regressions[0].consequence == Consequence::Reported);
}
