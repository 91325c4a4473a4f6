//! What is told of claims: a table, an explanation, a document, a section of the page, a figure.

use expect_test::expect_file;
use isonorm_reports::claims::{Document, document, explanation, headline, table};
use isonorm_reports::record::{Claim, ClaimProgram, ClaimVerdict, Interval, Measurement, Number, Record, Stated};
use isonorm_reports::summary::Summary;

mod common;
#[path = "common/schema.rs"]
mod schema;

fn interval(value: f64) -> Interval {
    Interval { value: Number(value), low: Number(value - 0.015625), high: Number(value + 0.03125) }
}

fn measurement(title: &str, width: u64, value: f64, verdict: ClaimVerdict) -> Measurement {
    let program = |name: &str, times: f64| ClaimProgram {
        name: name.to_owned(),
        error: Number(1e-7),
        takes: interval(times * 2e-3),
        relative: interval(times),
    };
    Measurement {
        title: title.to_owned(),
        decides: title == "step by step",
        level: "block".to_owned(),
        pass: "training".to_owned(),
        quantity: "seconds".to_owned(),
        batch: 2,
        tokens: 197,
        width,
        threads: 1,
        regime: Some("L2".to_owned()),
        contender: "short".to_owned(),
        baseline: "long".to_owned(),
        measured: interval(value),
        limit: Some(interval(0.25)),
        resolution: Number(0.0078125),
        verdict,
        why: "for some reason".to_owned(),
        rounds: 9,
        programs: vec![program("short", 1.0 - value), program("long", 1.0)],
    }
}

fn claim(name: &str, verdict: ClaimVerdict) -> Claim {
    let wrong = name == "wrong";
    let sizes = [
        measurement("step by step", 192, 0.125, verdict),
        measurement("step by step", 768, 0.0625, ClaimVerdict::DirectionOnly),
        measurement("kernels", 192, -0.25, ClaimVerdict::NotReproduced),
    ];
    Claim {
        name: name.to_owned(),
        sentence: "one is <shorter> than the other".to_owned(),
        paper: "A paper (arXiv:0000.00000)".to_owned(),
        hardware: "a GPU".to_owned(),
        metric: "time saved".to_owned(),
        stated: Stated { text: "7 % to 40 %".to_owned(), low: Number(0.07), high: Number(0.4) },
        scaling: "smaller".to_owned(),
        verdict,
        why: "within what is stated".to_owned(),
        measured: (!wrong).then(|| interval(0.09375)),
        measurements: if wrong { vec![] } else { sizes.to_vec() },
        wrong: if wrong { vec!["block: short is not long: 1.0e-1 apart".to_owned()] } else { vec![] },
        seconds: Number(0.5),
    }
}

fn summary() -> Summary {
    let both = [claim("good", ClaimVerdict::Reproduced), claim("wrong", ClaimVerdict::NotTestable)];
    let (campaign, end): (Vec<Record>, Vec<Record>) = common::records()
        .into_iter()
        .filter(|record| matches!(record, Record::Campaign(_) | Record::End(_)))
        .partition(|record| matches!(record, Record::Campaign(_)));
    Summary::of(campaign.into_iter().take(1).chain(both.map(Record::from)).chain(end.into_iter().take(1)))
}

#[test]
fn texts_and_document_are_as_before() {
    let claims = summary().claims;
    let snapshot = |name: &str| expect_file![format!("{}/tests/snapshots/{name}", env!("CARGO_MANIFEST_DIR"))];
    snapshot("claims.txt").assert_eq(&table(&claims));
    snapshot("claim.txt").assert_eq(&explanation(&claims[0]));
    let text = serde_json::to_string_pretty(&document(&claims)).unwrap();
    snapshot("claims.json").assert_eq(&(text + "\n"));
    assert_eq!(headline(&claims), "Of 2 claims: 1 reproduced, 1 not testable here");
}

#[test]
fn the_document_has_a_schema() {
    let document = serde_json::to_value(document(&summary().claims)).unwrap();
    let other = serde_json::json!([{ "name": "good" }]);
    schema::check("claims", schemars::schema_for!(Vec<Document>), &[document], other);
}

#[test]
fn the_page_says_what_is_wrong_and_draws_each() {
    let folder = tempfile::tempdir().unwrap();
    let written = isonorm_reports::write_all(folder.path(), &summary()).unwrap();
    let names: Vec<String> =
        written.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
    for name in ["claims.json", "claim-good.svg", "claim-wrong.svg"] {
        assert!(names.iter().any(|written| written == name), "{name} is not among {names:?}");
    }
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("Of 2 claims: 1 reproduced, 1 not testable here"));
    assert!(page.contains("short is not long"));
    assert!(page.contains("one is &lt;shorter&gt; than the other"), "what stands in records is escaped");
    assert!(!page.contains("one is <shorter> than the other"));
}

/// A point for each measurement, and an interval; the band of the paper once.
#[test]
fn a_figure_has_the_band_and_every_measurement() {
    let figures = isonorm_reports::plot::claim_figures(&summary().claims).unwrap();
    let svg = &figures[0].svg;
    assert_eq!(svg.matches("<circle").count(), 2 + 1, "two that decide and one in the legend: {svg}");
    for text in ["step by step", "kernels", "stated", "192", "768"] {
        assert!(svg.contains(text), "{text} is not in {svg}");
    }
    assert_eq!(figures[1].operator.as_deref(), Some("wrong"), "a claim without measurements has a figure too");
}
