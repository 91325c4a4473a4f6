//! What reports make of benchmarks.

mod common;
#[path = "common/benches.rs"]
mod made_up;
#[path = "common/schema.rs"]
mod schema;

use common::{campaign, end, kernel};
use expect_test::{ExpectFile, expect_file};
use isonorm_reports::bench::{self, Standing};
use isonorm_reports::record::*;
use isonorm_reports::summary::{Problem, Summary};
use isonorm_reports::{html, json, junit, plot, write_all};
use made_up::{bench, ceilings, interval};
use proptest::prelude::*;

/// A run of benchmarks of one kernel.
fn run(records: impl IntoIterator<Item = Record>) -> Vec<Record> {
    let campaign = Campaign { command: "isonorm bench".into(), ..campaign() };
    let mut all = vec![campaign.into(), subject().into()];
    all.extend(records);
    all.push(end().into());
    all
}

fn subject() -> Kernel {
    kernel("acme.rms", "rms_norm", "forward")
}

/// One that is faster, one that is slower, one in doubt, each against a copy too, and the first one as called.
fn small() -> Vec<Bench> {
    let fast =
        Bench { instructions_per_element: Some(Number(1.25)), ..bench(&subject(), "f32", &[4096, 4096], 1, 4.5, 5e-3) };
    let slow = bench(&subject(), "f32", &[32, 4096], 2, 0.8, 2e-5);
    let doubt = Some("a copy took twice as long in every third round".to_owned());
    let unsure =
        Bench { doubt, noise: Number(0.4), outliers: 1, ..bench(&subject(), "bf16", &[1, 4096], 1, 1.5, 4e-7) };
    let as_called = Bench { setting: Setting::AsCalled, ..bench(&subject(), "f32", &[4096, 4096], 1, 3.0, 9e-3) };
    let copy = |b: &Bench, ratio| Bench {
        versus: "copy".into(),
        ratio: interval(ratio, 0.01),
        versus_seconds: interval(b.seconds.value.0 * ratio, 0.01),
        ..b.clone()
    };
    let copies = [copy(&fast, 0.95), copy(&slow, 0.5), copy(&unsure, 0.25)];
    [fast, slow, unsure, as_called].into_iter().chain(copies).collect()
}

fn summary(benches: impl IntoIterator<Item = Bench>) -> Summary {
    Summary::of(run(ceilings().into_iter().chain(benches.into_iter().map(Record::from))))
}

/// UPDATE_EXPECT=1 writes these files anew.
fn snapshot(name: &str) -> ExpectFile {
    expect_file![format!("{}/tests/snapshots/{name}", env!("CARGO_MANIFEST_DIR"))]
}

#[test]
fn small_answers_are_as_they_were() {
    let summary = summary(small());
    snapshot("benches.txt").assert_eq(&bench::text(&summary.benches));
    snapshot("benches.md").assert_eq(&bench::markdown(&summary.benches));
    let document = serde_json::to_string_pretty(&bench::document(&summary.benches)).unwrap();
    snapshot("benches.json").assert_eq(&(document + "\n"));
}

#[test]
fn the_document_has_a_schema() {
    let records = [run(small().into_iter().map(Record::from)), made_up::records(), vec![]];
    let document = |records| serde_json::to_value(bench::document(&Summary::of(records).benches)).unwrap();
    let other = serde_json::json!([{ "ratio": 1 }]);
    schema::check("bench", schemars::schema_for!(Vec<bench::Document>), &records.map(document), other);
}

#[test]
fn standings() {
    let of = |ratio: f64, low: f64, high: f64, doubt: Option<&str>| {
        let ratio = Interval { value: Number(ratio), low: Number(low), high: Number(high) };
        Standing::of(&Bench { ratio, doubt: doubt.map(str::to_owned), ..small()[0].clone() })
    };
    for (ratio, low, high, doubt, expected) in [
        (2.0, 1.8, 2.2, None, Standing::Faster),
        (2.0, 0.9, 2.2, None, Standing::PerhapsFaster),
        (2.0, 1.8, 2.2, Some("noise"), Standing::PerhapsFaster),
        (1.0, 1.0, 1.0, None, Standing::PerhapsFaster),
        (0.9, 0.8, 0.95, None, Standing::Slower),
        (0.9, 0.8, 1.0, None, Standing::PerhapsSlower),
        (0.9, 0.8, 0.95, Some("noise"), Standing::PerhapsSlower),
        (f64::NAN, 1.8, 2.2, None, Standing::Unknown),
        (f64::INFINITY, 1.8, f64::NAN, None, Standing::Faster),
        (0.9, 1.8, f64::NAN, None, Standing::PerhapsSlower),
    ] {
        assert_eq!(of(ratio, low, high, doubt), expected, "{ratio} {low} {high} {doubt:?}");
    }
}

/// Planted: one slow kernel among fast ones must be seen in every form of the answer, and its absence too.
#[test]
fn a_slower_kernel_cannot_be_overlooked() {
    let forms = |benches: Vec<Bench>| {
        let summary = summary(benches);
        let figures = plot::bench_figures(&summary.benches).unwrap();
        let speedups = figures.into_iter().filter(|figure| figure.name.starts_with("speedup"));
        let figures: String = speedups.map(|figure| figure.svg).collect();
        let page = html::page(&summary).unwrap();
        let page = page.split("<section").filter(|section| !section.contains("<svg")).collect::<String>();
        (bench::text(&summary.benches), bench::markdown(&summary.benches), page, figures)
    };
    let is_fast = |b: &Bench| b.versus != "copy" && b.ratio.value > Number(1.0);
    let fast: Vec<_> = small().into_iter().filter(is_fast).collect();
    let (text, markdown, page, figures) = forms(fast.clone());
    assert!(!text.contains("slower"), "{text}");
    assert!(!markdown.contains("slower**") && !page.contains("<h1 class=\"slower\">"));
    assert!(!page.contains(">slower</td>") && !figures.contains("× slower"));

    let slow = bench(&subject(), "f32", &[512, 768], 2, 0.9, 1e-4);
    let (text, markdown, page, figures) = forms([fast, vec![slow]].concat());
    assert!(text.contains("slower in 1, undecided in 1"), "{text}");
    let line = text.lines().find(|line| line.contains("512x768  ")).unwrap();
    assert!(line.contains("0.9×") && line.contains("slower"), "{line}");
    assert!(markdown.contains("**slower**") && page.contains("<h1 class=\"slower\">"));
    assert!(page.contains("<td class=\" bad\" data-sort=\"0.9\">slower</td>"));
    assert!(figures.contains("0.9× slower"));
}

/// Planted: a doubt must be told wherever its ratio is.
#[test]
fn a_doubt_cannot_be_overlooked() {
    let why = "the copy's time doubled <sometimes>";
    let doubtful = Bench { doubt: Some(why.into()), ..bench(&subject(), "f32", &[512, 768], 2, 9.0, 1e-4) };
    let summary = summary([doubtful]);
    let text = bench::text(&summary.benches);
    let line = text.lines().find(|line| line.contains("512x768  ")).unwrap();
    assert!(line.contains("faster?") && line.contains(why), "{line}");
    assert!(text.ends_with("Faster than libtorch in 0 of 1 workload, undecided in 1\n"), "{text}");
    assert!(bench::markdown(&summary.benches).contains("the copy's time doubled \\<sometimes\\>"));
    let page = html::page(&summary).unwrap();
    assert!(page.contains("<td class=\" unsure\">the copy&#x27;s time doubled &lt;sometimes&gt;</td>"));
    let figures = plot::bench_figures(&summary.benches).unwrap();
    let speedup = figures.iter().find(|figure| figure.name == "speedup-rms_norm-f32").unwrap();
    assert!(speedup.svg.contains("9× ? doubt"));
    let document = bench::document(&summary.benches);
    assert_eq!((document[0].standing, document[0].doubt.as_deref()), (Standing::PerhapsFaster, Some(why)));
}

#[test]
fn what_was_only_timed_is_not_incomplete() {
    let summary = summary(small());
    assert_eq!((summary.kernels.len(), summary.problems.len()), (0, 0));
    let page = html::page(&summary).unwrap();
    assert!(page.contains("Benchmark report") && page.contains("As a user calls it"));
    for absent in [
        "<h1 class=\"incomplete",
        "○ incomplete",
        "No kernel was asked about",
        "id=\"kernels\"",
        "Cases judged",
        "id=\"details\"",
    ] {
        assert!(!page.contains(absent), "{absent}");
    }
    assert!(!junit::junit(&summary).unwrap().contains("acme"));
    // Without a word about speed the same kernel was to be certified.
    let idle = Summary::of(run([]));
    assert_eq!((idle.kernels.len(), idle.benches.is_empty()), (1, true));
}

#[test]
fn a_report_of_both_shows_both() {
    let all = common::records().into_iter().chain(made_up::records());
    let both = Summary::of(all);
    let page = html::page(&both).unwrap();
    for text in
        ["Certification and benchmark report", "2 of 25 kernels failed", "id=\"speed\"", "id=\"details\"", "Roofline"]
    {
        assert!(page.contains(text), "{text}");
    }
    let alone = Summary::of(common::records());
    assert!(!html::page(&alone).unwrap().contains("id=\"speed\""));
    let documents = [&both, &alone].map(|summary| serde_json::to_value(json::document(summary)).unwrap());
    assert_eq!(documents[0]["benches"].as_array().map(Vec::len), Some(both.benches.cells.len()));
    assert!(documents[1].get("benches").is_none());
}

#[test]
fn a_measured_kernel_that_nobody_describes_is_a_problem() {
    let mut records = run(small().into_iter().map(Record::from));
    records.remove(1);
    assert_eq!(Summary::of(records).problems, [Problem::UnknownKernel { kernel: "acme.rms".into() }]);
}

#[test]
fn of_two_measurements_the_quieter_counts_whatever_it_says() {
    let [loud, quiet] = [(9.0, 0.2), (2.0, 0.1)]
        .map(|(ratio, noise)| Bench { noise: Number(noise), ..bench(&subject(), "f32", &[512, 768], 1, ratio, 1e-4) });
    let doubtful = Bench { doubt: Some("few rounds".into()), noise: Number(0.0), ..loud.clone() };
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let all = [&loud, &quiet, &doubtful];
        let benches = summary(order.map(|i| all[i].clone())).benches;
        assert_eq!((benches.cells.len(), benches.repeated), (1, 2));
        assert_eq!(benches.cells[0].bench, quiet);
        assert!(bench::text(&benches).contains("2 further measurements of the same workloads are left out"));
    }
}

#[test]
fn means_are_geometric_and_never_over_machines() {
    let two = |ratios: [f64; 2]| {
        [1, 2]
            .into_iter()
            .zip(ratios)
            .map(|(threads, ratio)| bench(&subject(), "f32", &[9], threads, ratio, 1e-4).into())
    };
    let mut records = run(two([2.0, 8.0]));
    let mut elsewhere = run(two([1.0, 1.0]));
    let machine = Machine { cpu: "another".into(), ..campaign().machine };
    elsewhere[0] = Campaign { machine, ..campaign() }.into();
    records.extend(elsewhere);
    let summary = Summary::of(records);
    let means: Vec<_> =
        summary.benches.groups().iter().map(|group| (group.mean(), group.worst.bench.ratio.value)).collect();
    assert_eq!(means.len(), 2);
    assert!(means.iter().all(|(mean, _)| (mean.0 - 4.0).abs() < 1e-12 || *mean == Number(1.0)), "{means:?}");
    assert_eq!(means.iter().map(|(_, worst)| worst.0).sum::<f64>(), 3.0);
    let text = bench::text(&summary.benches);
    assert!(text.contains("1: AMD EPYC 9R14") && text.contains("2: another"), "{text}");
    let figures = plot::bench_figures(&summary.benches).unwrap();
    assert!(figures.iter().any(|figure| figure.title.ends_with("machine 2: another")));
}

#[test]
fn figures_show_every_measurement() {
    let summary = Summary::of(made_up::records());
    let figures = plot::bench_figures(&summary.benches).unwrap();
    let figure = |name: &str| figures.iter().find(|figure| figure.name == name).unwrap_or_else(|| panic!("{name}"));
    let names: std::collections::BTreeSet<_> = figures.iter().map(|figure| &figure.name).collect();
    assert_eq!(names.len(), figures.len());
    // Two dtypes: means, rooflines for one and two threads; per operator five, but neither directions nor row lengths
    // where there is only one.
    assert_eq!(figures.len(), 2 + 4 + 2 * (5 + 5 + 4 + 4));

    // A kernel's dot and libtorch's square for each workload and direction, one legend entry each.
    let roofline = &figure("roofline-f32-1").svg;
    let blue = roofline.lines().filter(|l| l.starts_with("<circle") && l.contains("#0A67AD")).count();
    assert_eq!(blue, 4 * 6 + 2 * 6 + 2);
    for text in
        ["L1", "L2", "L3", "memory", "64 KiB", "read", "write", "copy", "libtorch", "speed, GB/s", "working set"]
    {
        assert!(roofline.contains(text), "{text}");
    }
    let speedup = &figure("speedup-layer_norm-f32").svg;
    assert_eq!(speedup.matches(", 1 thread\n").count(), 12);
    let rounds = &figure("rounds-layer_norm-f32").svg;
    assert_eq!(rounds.matches("1 outlying").count(), 12);
    assert!(figure("rounds-rms_norm-bf16").svg.contains("doubt"));
    for figure in &figures {
        for paint in figure.svg.split(['"']).filter(|part| part.starts_with('#')) {
            assert!(plot::css().contains(paint), "{}: {paint}", figure.name);
        }
    }
    assert_eq!(plot::bench_figures(&Summary::of([]).benches).unwrap(), []);
}

#[test]
fn ceilings_alone_are_a_report() {
    let summary = Summary::of(run(ceilings()));
    assert_eq!(summary.benches.headline(), "The machine was measured, and no kernel");
    let names: Vec<_> = plot::bench_figures(&summary.benches).unwrap().into_iter().map(|f| f.name).collect();
    assert_eq!(names, ["roofline-1", "roofline-2"]);
    assert!(html::page(&summary).unwrap().contains("Ceilings of the machine"));
}

#[test]
fn benches_are_written_beside_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let written = write_all(folder.path(), &summary(small())).unwrap();
    for name in
        ["report.html", "benches.json", "benches.md", "figures/roofline-f32-1.svg", "figures/speedup-rms_norm-f32.svg"]
    {
        assert!(written.contains(&folder.path().join(name)), "{name}: {written:?}");
    }
    assert!(!folder.path().join("certificates").exists());
}

#[test]
fn what_strangers_write_about_speed_is_only_text() {
    let evil = "<script>alert(1)</script>\"'|](x)\n# head";
    let kernel = Kernel { name: evil.into(), operator: evil.into(), ..subject() };
    let stranger = Bench {
        layout: evil.into(),
        versus: evil.into(),
        doubt: Some(evil.into()),
        ..bench(&kernel, evil, &[3, 4], 1, f64::NAN, 0.0)
    };
    let impossible = Bench {
        ratio: interval(f64::INFINITY, 0.0),
        bytes: 0,
        shape: vec![],
        ratios: vec![Number(f64::NAN)],
        rounds: 0,
        ..stranger.clone()
    };
    let zero = Bench { shape: vec![0, u64::MAX, u64::MAX], threads: 0, ratios: vec![], ..impossible.clone() };
    let ceiling = Ceiling {
        access: Access::Read,
        working_set: 0,
        level: Some(evil.into()),
        threads: 0,
        streaming: false,
        bytes_per_second: interval(f64::NAN, 0.0),
    };
    let mut records = run([stranger.into(), impossible.into(), zero.into(), ceiling.into()]);
    records[1] = kernel.into();
    let summary = Summary::of(records);
    assert_eq!(summary.benches.cells.len(), 3);
    assert_eq!(html::page(&summary).unwrap().matches("<script>").count(), 1, "only the page's own");
    for figure in plot::bench_figures(&summary.benches).unwrap() {
        assert!(!figure.file().contains("<script>"), "{}", figure.name);
    }
    let markdown = bench::markdown(&summary.benches);
    assert!(!markdown.contains("<script>") && !markdown.lines().any(|line| line == "# head"), "{markdown}");
    assert!(!bench::text(&summary.benches).lines().any(|line| line.starts_with("# head")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Measurements dealt out to runs in any order are the same answer.
    #[test]
    fn order_does_not_matter(
        ratios in prop::collection::vec((0..3u32, prop_oneof![0.1..10.0f64, Just(f64::NAN)], 0.0..0.5f64), 1..12),
        order in Just((0..12usize).collect::<Vec<_>>()).prop_shuffle(),
        cut in 0..12usize,
    ) {
        let benches: Vec<Record> = ratios.iter().map(|(threads, ratio, noise)| {
            Bench { noise: Number(*noise), ..bench(&subject(), "f32", &[64, 64], *threads, *ratio, 1e-5) }.into()
        }).collect();
        let all: Vec<Record> = benches.into_iter().chain(ceilings()).collect();
        let whole = Summary::of(run(all.clone())).benches;

        let mut dealt: Vec<_> = order.iter().filter_map(|i| all.get(*i).cloned()).collect();
        dealt.extend(all.iter().skip(12).rev().cloned());
        let second = dealt.split_off(cut.min(dealt.len()));
        let mut runs = run(second);
        runs[0] = Campaign { started: "2026-11-24T00:00:00Z".into(), ..campaign() }.into();
        runs.extend(run(dealt));
        prop_assert_eq!(Summary::of(runs).benches, whole);
    }

    /// Whatever the ratio, a kernel that took longer is never told to be faster.
    #[test]
    fn slower_is_never_called_faster(ratio in 0.01..0.999f64, spread in 0.0..2.0f64, doubt: Option<String>) {
        let slow = Bench { ratio: interval(ratio, spread), doubt, ..bench(&subject(), "f32", &[8], 1, ratio, 1e-6) };
        prop_assert!(Standing::of(&slow).is_slower());
        prop_assert!(summary([slow]).benches.any_slower());
    }
}
