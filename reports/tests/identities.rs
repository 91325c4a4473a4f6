//! What is told of identities: a table, an explanation, a document, a section of the page, a figure.

use expect_test::expect_file;
use isonorm_reports::identities::{Document, document, explanation, headline, table};
use isonorm_reports::record::{
    Arithmetic, Deviation, Formulas, Identity, IdentityVerdict, Number, Point, Record, Training,
};
use isonorm_reports::summary::Summary;

mod common;
#[path = "common/schema.rs"]
mod schema;

fn identity(name: &str, verdict: IdentityVerdict) -> Identity {
    let holds = verdict == IdentityVerdict::Holds;
    let point = |depth, width, dtype: &str, discrepancy, bound| Point {
        depth,
        width,
        dtype: dtype.to_owned(),
        discrepancy: Number(discrepancy),
        bound,
    };
    Identity {
        name: name.to_owned(),
        summary: "two sides <are> one".to_owned(),
        condition: "something holds".to_owned(),
        formulas: Formulas {
            left: "y = x\n".to_owned(),
            map_in_words: "the matrix times 3".to_owned(),
            map: "w′ = w · 3\n".to_owned(),
            right: "y = x · 1\n".to_owned(),
        },
        papers: vec!["A paper (arXiv:0000.00000)".to_owned()],
        verdict,
        reasons: if holds { vec![] } else { vec!["both sides differ".to_owned()] },
        cases: 4,
        exact_discrepancy: Number(if holds { 1e-31 } else { 0.5 }),
        gradient_discrepancy: Number(2e-30),
        arithmetic: vec![Arithmetic {
            dtype: "f32".to_owned(),
            through: "libtorch".to_owned(),
            half: "forward".to_owned(),
            cases: 4,
            decided: 3,
            ratio_to_bound: Number(if holds { 0.25 } else { 1e3 }),
            discrepancy: Number(1e-7),
        }],
        points: vec![
            point(1, 8, "f32", 1e-7, Some(Number(1e-5))),
            point(1, 16, "f32", 2e-7, Some(Number(f64::INFINITY))),
            point(2, 16, "f32", 0.0, Some(Number(1e-4))),
            point(1, 8, "exact", 1e-31, None),
        ],
        deviations: vec![Deviation {
            name: "a mean forgotten".to_owned(),
            kind: "planted".to_owned(),
            cases: 2,
            caught: if holds { 2 } else { 1 },
            caught_in: vec![("f32".to_owned(), 1)],
            least_discrepancy: Number(0.125),
        }],
        training: vec![Training {
            scheme: "the map differentiated too".to_owned(),
            optimizer: "Adam".to_owned(),
            steps: 5,
            holds: true,
            why: "equal gradients make equal steps".to_owned(),
            discrepancy: Number(1e-30),
            f64_discrepancy: Number(1e-15),
            confirmed: holds,
        }],
        kernels: vec!["layer_norm".to_owned()],
        seconds: Number(0.5),
    }
}

fn summary() -> Summary {
    let both = [identity("good", IdentityVerdict::Holds), identity("bad", IdentityVerdict::Fails)];
    let (campaign, end): (Vec<Record>, Vec<Record>) = common::records()
        .into_iter()
        .filter(|record| matches!(record, Record::Campaign(_) | Record::End(_)))
        .partition(|record| matches!(record, Record::Campaign(_)));
    Summary::of(campaign.into_iter().take(1).chain(both.map(Record::from)).chain(end.into_iter().take(1)))
}

#[test]
fn texts_and_document_are_as_before() {
    let identities = summary().identities;
    let snapshot = |name: &str| expect_file![format!("{}/tests/snapshots/{name}", env!("CARGO_MANIFEST_DIR"))];
    snapshot("identities.txt").assert_eq(&table(&identities));
    snapshot("identity.txt").assert_eq(&explanation(&identities[1]));
    let text = serde_json::to_string_pretty(&document(&identities)).unwrap();
    snapshot("identities.json").assert_eq(&(text + "\n"));
    assert_eq!(headline(&identities), "1 of 2 identities fail");
    assert_eq!(headline(&identities[..1]), "The identity holds");
}

#[test]
fn the_document_has_a_schema() {
    let document = serde_json::to_value(document(&summary().identities)).unwrap();
    let other = serde_json::json!([{ "name": "good" }]);
    schema::check("identities", schemars::schema_for!(Vec<Document>), &[document], other);
}

#[test]
fn the_page_says_what_fails_and_draws_each() {
    let folder = tempfile::tempdir().unwrap();
    let written = isonorm_reports::write_all(folder.path(), &summary()).unwrap();
    let names: Vec<String> =
        written.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
    for name in ["identities.json", "identity-good.svg", "identity-bad.svg"] {
        assert!(names.iter().any(|written| written == name), "{name} is not among {names:?}");
    }
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("1 of 2 identities fail"));
    assert!(page.contains("both sides differ"));
    assert!(page.contains("two sides &lt;are&gt; one"), "what stands in records is escaped");
    assert!(!page.contains("two sides <are> one"));
}
