//! What reports say, word for word where they are small.

mod common;
#[path = "common/schema.rs"]
mod schema;

use std::path::Path;

use common::{campaign, end, finding, kernel, records};
use expect_test::{ExpectFile, expect_file};
use isonorm_reports::certificate::Certificate;
use isonorm_reports::record::*;
use isonorm_reports::summary::Summary;
use isonorm_reports::{Error, html, json, junit, plot, write_all};

/// One kernel that is right, one that is wrong, one that declines everything.
fn small() -> Summary {
    let right = Kernel { dtypes: vec!["f32".into()], ..kernel("acme.rms", "rms_norm", "forward") };
    let library = Library { file: "turbo.so".into(), sha256: "0123456789abcdef".repeat(4) };
    let wrong = Kernel { library: Some(library), ..kernel("turbo.ln", "layer_norm", "forward") };
    let wrong = Kernel { dtypes: vec!["f32".into()], ..wrong };
    let idle = Kernel { dtypes: vec!["f16".into()], ..kernel("idle", "rms_norm", "forward") };
    let tally = |kernel: &str, dtype: &str, family: &str, counts: Counts| {
        Record::from(Tally { kernel: kernel.into(), dtype: dtype.into(), family: family.into(), size_class: 3, counts })
    };
    let counts = |cases, failed, worst: f64| {
        let elements = Elements { total: 10 * cases, exact: 10 * cases, libtorch: 0 };
        let mut counts = Counts { cases, failed, in_exact_range: 1, elements, ..Counts::default() };
        for (errors, worst) in [(&mut counts.errors, worst), (&mut counts.libtorch, 0.25)] {
            errors.raise("rms_norm/forward f32 2x5 seed=1", worst, 3.0 * worst);
            errors.ratio_to_bound.add_many(0.1, 10 * cases);
            errors.ratio_to_bound.add(worst);
            errors.ulps.add_many(0.3, 10 * cases);
            errors.ulps.add(3.0 * worst);
        }
        counts
    };
    let mut declined = Counts::default();
    declined.decline("no f16 here", 4);
    let property = |kernel: &str| {
        Record::from(Property {
            kernel: kernel.into(),
            property: "deterministic".into(),
            required: true,
            checked: 30,
            failed: 0,
        })
    };
    let (smallest, largest) = (Some(Number(1e-19)), Some(Number(1.8e19)));
    Summary::of([
        campaign().into(),
        right.into(),
        wrong.into(),
        idle.into(),
        tally("acme.rms", "f32", "normal", counts(20, 0, 0.4)),
        tally("acme.rms", "f32", "tiny", counts(10, 0, 0.7)),
        tally("turbo.ln", "f32", "normal", counts(20, 0, 0.4)),
        tally("turbo.ln", "f32", "large_mean", counts(10, 7, f64::INFINITY)),
        tally("idle", "f16", "normal", declined),
        property("acme.rms"),
        property("turbo.ln"),
        Range { kernel: "acme.rms".into(), dtype: "f32".into(), smallest, largest }.into(),
        finding("turbo.ln", "within bound", "large_mean", "y[0, 1] is far from the truth").into(),
        Throughput { cases: 60, seconds: Number(0.5), stages: [("exact".into(), Number(0.75))].into() }.into(),
        end().into(),
    ])
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

/// UPDATE_EXPECT=1 writes these files anew.
fn snapshot(name: &str) -> ExpectFile {
    expect_file![format!("{}/tests/snapshots/{name}", env!("CARGO_MANIFEST_DIR"))]
}

#[test]
fn small_reports_are_as_they_were() {
    let summary = small();
    snapshot("certify.json").assert_eq(&pretty(&json::document(&summary)));
    snapshot("junit.xml").assert_eq(&junit::junit(&summary).unwrap());
    for kernel in &summary.kernels {
        let certificate = Certificate::new(&summary, kernel);
        snapshot(&format!("{}.md", kernel.kernel.name)).assert_eq(&certificate.markdown().unwrap());
        snapshot(&format!("{}.json", kernel.kernel.name)).assert_eq(&certificate.json().unwrap());
    }
}

#[test]
fn documents_have_schemas() {
    let check = |name, schema, documents: &[_]| {
        schema::check(name, schema, documents, serde_json::json!({ "cases": -1 }));
    };
    let summaries = [small(), Summary::of([]), Summary::of(records())];
    let documents = summaries.iter().map(|s| serde_json::to_value(json::document(s)).unwrap());
    check("certify", schemars::schema_for!(json::Document), &documents.collect::<Vec<_>>());
    let certificates = summaries.iter().flat_map(|s| s.kernels.iter().map(|k| Certificate::new(s, k)));
    let documents = certificates.map(|certificate| serde_json::to_value(certificate).unwrap());
    check("certificate", schemars::schema_for!(Certificate), &documents.collect::<Vec<_>>());
}

#[test]
fn the_page_shows_everything() {
    let page = html::page(&small()).unwrap();
    for text in [
        "1 of 3 kernels failed",
        "acme.<wbr>rms",
        "no f16 here",
        "y[0, 1] is far from the truth",
        "bf3504f3",
        "seed=41&#x27;</code><button type=\"button\" data-copy>",
        &"0123456789abcdef".repeat(4),
        "1e-19 … 1.8e19",
        "Error against row length, f32",
        "Where the time goes",
        "AMD EPYC 9R14",
        "seed 2026",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn the_page_needs_nothing_else() {
    let page = html::page(&Summary::of(records())).unwrap();
    assert!(page.contains("default-src 'none'"));
    // Names of XML vocabularies are not addresses.
    let page = page.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xlink", "");
    for loader in ["http:", "https:", "src=", "@import", "url(", "<link rel=\"stylesheet\"", "fetch("] {
        assert!(!page.contains(loader), "{loader}");
    }
}

#[test]
fn a_page_about_nothing_says_so() {
    let page = html::page(&Summary::of([])).unwrap();
    assert!(page.contains("No kernel was asked about"));
    assert!(!page.contains("certified</h1>"));
}

#[test]
fn what_strangers_write_is_only_text() {
    let evil = "<script>alert(1)</script>\"'|](x)\n# head";
    let kernel = Kernel { name: evil.into(), formula: evil.into(), ..kernel("k", evil, "forward") };
    let mut counts = Counts { cases: 1, ..Counts::default() };
    counts.decline(evil, 1);
    counts.errors.raise(evil, 0.5, 1.0);
    counts.errors.ulps.add(1.0);
    let summary = Summary::of([
        Campaign { command: evil.into(), ..campaign() }.into(),
        kernel.into(),
        Tally { kernel: evil.into(), dtype: evil.into(), family: evil.into(), size_class: 3, counts }.into(),
        Property { kernel: evil.into(), property: evil.into(), required: true, checked: 1, failed: 1 }.into(),
        Range { kernel: evil.into(), dtype: evil.into(), smallest: None, largest: None }.into(),
        Finding { kernel: evil.into(), replay: evil.into(), dtype: evil.into(), ..finding(evil, evil, evil, evil) }
            .into(),
        Throughput { cases: 1, seconds: Number(1.0), stages: [(evil.into(), Number(1.0))].into() }.into(),
        end().into(),
    ]);
    let page = html::page(&summary).unwrap();
    assert!(page.contains("&lt;script&gt;alert(1)"));
    assert_eq!(page.matches("<script>").count(), 1, "only the page's own");
    for figure in plot::figures(&summary).unwrap() {
        assert!(!figure.file().contains("<script>"), "{}", figure.name);
    }
    let certificate = Certificate::new(&summary, &summary.kernels[0]).markdown().unwrap();
    assert!(!certificate.lines().any(|line| line == "# head"));
    // Outside of code, which shows it as it is, no tag is left.
    let outside_of_code = certificate.lines().filter(|line| !line.contains('`'));
    assert!(outside_of_code.clone().any(|line| line.contains("\\<script\\>")));
    assert!(!outside_of_code.into_iter().any(|line| line.contains("<script>")));
    assert!(!junit::junit(&summary).unwrap().contains("<script>"));
}

#[test]
fn figures_follow_the_records() {
    let summary = Summary::of(records());
    let figures = plot::figures(&summary).unwrap();
    let names: Vec<_> = figures.iter().map(|figure| figure.name.as_str()).collect();
    let dtypes = ["bf16", "f16", "f32", "f64"];
    let expected = ["families".to_owned()].into_iter().chain(dtypes.map(|d| format!("error-{d}")));
    let expected = expected.chain(dtypes.map(|d| format!("ulps-{d}"))).chain(["throughput".to_owned()]);
    assert_eq!(names, expected.collect::<Vec<_>>());

    // One cell for each operator, direction and family; a cross for each kind of finding.
    let families = &figures[0].svg;
    assert_eq!(families.matches("<rect").count(), 22 * common::FAMILIES.len());
    assert_eq!(families.matches("× ").count(), 2);
    assert!(figures[1].svg.contains("libtorch, worst") && figures[1].svg.contains("with findings"));
    for figure in &figures {
        let file = figure.file();
        assert!(file.contains("prefers-color-scheme: dark") && file.contains("role=\"img\""), "{}", figure.name);
        // Every colour is one that the style sheet replaces, so that nothing stays dark on dark.
        for paint in figure.svg.split(['"']).filter(|part| part.starts_with('#')) {
            assert!(plot::css().contains(paint), "{}: {paint}", figure.name);
        }
    }
    assert_eq!(plot::figures(&Summary::of([])).unwrap(), []);
}

#[test]
fn everything_is_written_and_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/folder");
    let written = write_all(&out, &small()).unwrap();
    assert_eq!(written.len(), 2 + 2 * 3 + 4);
    for name in
        ["report.html", "junit.xml", "certificates/acme.rms.json", "certificates/idle.md", "figures/families.svg"]
    {
        let path = out.join(name);
        assert!(written.contains(&path) && !std::fs::read(&path).unwrap().is_empty(), "{name}");
    }
    std::fs::write(out.join("report.html"), "old").unwrap();
    write_all(&out, &small()).unwrap();
    assert!(std::fs::read_to_string(out.join("report.html")).unwrap().contains("</html>"));
    // No temporary file is left.
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 4);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    std::fs::write(&file, "").unwrap();
    let error = write_all(&file, &small()).unwrap_err();
    assert!(matches!(&error, Error::Write { path, .. } if path.starts_with(Path::new(&file))));
    assert!(error.to_string().contains("choose an output folder that can be written"), "{error}");
}
