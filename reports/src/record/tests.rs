use proptest::prelude::*;

use super::*;
use crate::Error;

fn line(record: &Record) -> String {
    serde_json::to_string(record).unwrap()
}

fn header() -> Campaign {
    Campaign {
        schema: SCHEMA_VERSION,
        isonorm: "0.1.0".into(),
        revision: None,
        seed: 7,
        shard: Shard { index: 1, of: 1 },
        budget: Budget::Cases(100),
        selection: "everything".into(),
        threads: 2,
        machine: Machine {
            cpu: "a processor".into(),
            cores: 2,
            isa: vec!["avx2".into()],
            os: "linux".into(),
            gpu: None,
        },
        libtorch: None,
        started: "2026-01-01T00:00:00Z".into(),
        command: "isonorm certify".into(),
    }
}

fn end() -> Record {
    End { outcome: Outcome::Complete, finished: "2026-01-01T00:01:00Z".into() }.into()
}

#[test]
fn schema_file_is_the_one_of_the_types() {
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(Record)).unwrap();
    // UPDATE_EXPECT=1 writes it anew.
    expect_test::expect_file!["../../schema/records.schema.json"].assert_eq(&(schema + "\n"));
}

#[test]
fn schema_refuses_what_is_not_a_record() {
    let schema = jsonschema::validator_for(&serde_json::from_str(SCHEMA).unwrap()).unwrap();
    let good = serde_json::to_value(Record::from(header())).unwrap();
    assert!(schema.is_valid(&good));
    for (field, value) in [("record", "kampaign".into()), ("seed", (-1).into()), ("colour", "red".into())] {
        let mut bad = good.clone();
        bad[field] = value;
        assert!(!schema.is_valid(&bad), "{field}");
    }
}

#[test]
fn what_json_has_no_number_for_survives() {
    let range = |largest: f64| {
        Record::from(Range { kernel: "k".into(), dtype: "f32".into(), smallest: None, largest: Some(Number(largest)) })
    };
    for (value, text) in [(f64::INFINITY, "\"inf\""), (f64::NEG_INFINITY, "\"-inf\""), (f64::NAN, "\"nan\"")] {
        let line = line(&range(value));
        assert!(line.contains(text), "{line}");
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), range(value));
    }
}

#[test]
fn a_bench_says_what_it_moves_in_which_time() {
    let interval = |value: f64| Interval { value: Number(value), low: Number(value), high: Number(value) };
    let bench = Bench {
        kernel: "k".into(),
        operator: "rms_norm".into(),
        direction: "forward".into(),
        dtype: "f32".into(),
        layout: "contiguous".into(),
        shape: vec![2, 4096],
        threads: 1,
        versus: "libtorch".into(),
        setting: Setting::AsCalled,
        ratio: interval(4.0),
        seconds: interval(1e-6),
        versus_seconds: interval(4e-6),
        bytes: 80_000,
        operations: 1,
        rounds: 1,
        ratios: vec![Number(4.0)],
        outliers: 0,
        noise: Number(0.01),
        doubt: None,
        instructions_per_element: None,
    };
    assert_eq!(bench.shape_text(), "2x4096");
    assert!((bench.bytes_per_second().0 / 8e10 - 1.0).abs() < 1e-12);
    assert!((bench.versus_bytes_per_second().0 / 2e10 - 1.0).abs() < 1e-12);
    let line = line(&bench.into());
    assert!(
        line.starts_with(r#"{"record":"bench","kernel":"k""#) && line.contains(r#""setting":"as_called""#),
        "{line}"
    );
}

#[test]
fn a_histogram_with_impossible_buckets_is_refused() {
    for text in [r#"{"first": 2000000000, "counts": [1]}"#, r#"{"first": -41}"#] {
        assert!(serde_json::from_str::<Histogram>(text).unwrap_err().to_string().contains("bucket"));
    }
    let text = format!(r#"{{"counts": {:?}}}"#, [1; 170]);
    assert!(serde_json::from_str::<Histogram>(&text).unwrap_err().to_string().contains("at most 169"));
}

/// A folder with a file of the given text in it.
fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.jsonl");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn a_file_cut_in_the_middle_keeps_its_good_lines() {
    let whole = format!("{}\n{}\n", line(&header().into()), line(&end()));
    let first_line = whole.find('\n').unwrap() + 1;
    for cut in first_line + 1..whole.len() - 1 {
        let (_folder, path) = file(&whole[..cut]);
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("line 2: the record is cut off"), "{error}");
        assert!(error.contains("the 1 records before it are good: delete the line"), "{error}");
        let (records, bad) = read_lossy(&path).unwrap();
        assert_eq!((records, bad.len()), (vec![header().into()], 1));
    }
    // Only the line break is missing.
    let (_folder, path) = file(&whole[..whole.len() - 1]);
    assert_eq!(read(&path).unwrap(), [header().into(), end()]);
}

#[test]
fn a_bad_line_between_good_ones_is_named() {
    let (_folder, path) = file(&format!("{}\n{{\"record\":\"end\"}}\n{}\n", line(&header().into()), line(&end())));
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains("line 2: not a record (missing field `outcome`"), "{error}");
    assert_eq!(read_lossy(&path).unwrap().0, [header().into(), end()]);
}

#[test]
fn a_newer_schema_is_refused() {
    let newer = line(&Campaign { schema: SCHEMA_VERSION + 1, ..header() }.into());
    let with_new_field = newer.replace("\"seed\":", "\"mood\":\"good\",\"seed\":");
    assert_ne!(newer, with_new_field);
    for text in [newer, with_new_field, line(&Campaign { schema: 0, ..header() }.into())] {
        let (_folder, path) = file(&text);
        let error = read_lossy(&path).unwrap_err();
        assert!(matches!(error, Error::SchemaVersion { line: 1, .. }), "{error}");
        assert!(error.to_string().contains("use the isonorm that wrote it, or a newer one"));
    }
}

#[test]
fn a_file_without_its_head_is_refused() {
    for text in [line(&end()), "no JSON at all".into(), String::new()] {
        let (_folder, path) = file(&text);
        match read_lossy(&path) {
            Err(error) => assert!(matches!(error, Error::NoCampaign { line: 1, .. }), "{error}"),
            Ok((records, bad)) => assert!(text.is_empty() && records.is_empty() && bad.is_empty()),
        }
    }
}

#[test]
fn files_that_are_not_there_are_named() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(files(folder.path()), Err(Error::NoRecords { .. })));
    let missing = folder.path().join("missing");
    assert!(files(&missing).unwrap_err().to_string().contains("missing"));
    let under_a_file = folder.path().join("file");
    std::fs::write(&under_a_file, "").unwrap();
    assert!(matches!(Writer::create(&under_a_file.join("records.jsonl")), Err(Error::Write { .. })));
}

#[test]
fn a_folder_stands_for_the_files_of_records_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a/records.jsonl"), folder.path().join("b/c/records.jsonl"));
    for path in [&second, &first] {
        let mut writer = Writer::create(path).unwrap();
        writer.write(header()).unwrap();
        writer.write(end()).unwrap();
    }
    std::fs::write(folder.path().join("a/report.html"), "").unwrap();
    assert_eq!(files(folder.path()).unwrap(), [first.clone(), second]);
    assert_eq!(read(&first).unwrap(), [header().into(), end()]);
}

/// One element of one case of a kernel.
type Observation = (u8, u8, u8, f64, bool);

fn tallied(observations: &[Observation]) -> Tallies {
    let mut tallies = Tallies::default();
    for (kernel, family, case, error, declined) in observations {
        let counts = tallies.counts(&kernel.to_string(), "f32", &family.to_string(), size_class(u64::from(*case)));
        if *declined {
            counts.decline(&format!("reason {case}"), 1);
            continue;
        }
        counts.cases += 1;
        counts.failed += u64::from(*error > 1.0);
        counts.elements.merge(&Elements { total: 1, exact: 1, libtorch: 0 });
        for errors in [&mut counts.errors, &mut counts.libtorch] {
            errors.raise(&format!("case {case}"), *error, error * 2.0);
            errors.ratio_to_bound.add(*error);
            errors.ulps.add(error * 2.0);
        }
    }
    tallies
}

fn observations() -> impl Strategy<Value = Vec<Observation>> {
    let error = prop_oneof![Just(0.0), Just(1.0), Just(f64::NAN), Just(f64::INFINITY), 1e-9..1e9f64];
    prop::collection::vec((0..2u8, 0..2u8, 0..4u8, error, any::<bool>()), 0..60)
}

proptest! {
    #[test]
    fn records_survive_storage_and_satisfy_the_schema(record: Record) {
        static SCHEMA_OF_A_LINE: std::sync::LazyLock<jsonschema::Validator> = std::sync::LazyLock::new(|| {
            jsonschema::validator_for(&serde_json::from_str(SCHEMA).unwrap()).unwrap()
        });
        let line = line(&record);
        prop_assert!(!line.contains('\n'));
        prop_assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
        let value = serde_json::from_str(&line).unwrap();
        prop_assert!(SCHEMA_OF_A_LINE.is_valid(&value), "{}: {:?}", line, SCHEMA_OF_A_LINE.validate(&value).err());
    }

    #[test]
    fn shards_together_are_the_whole(mut all in observations(), at in 0..60usize, turn: bool) {
        let whole = tallied(&all);
        let second = all.split_off(at.min(all.len()));
        let (first, second) = if turn { (second, all) } else { (all, second) };
        let mut merged = tallied(&first);
        merged.merge(tallied(&second));
        prop_assert_eq!(merged, whole);
    }

    #[test]
    fn a_size_class_holds_its_lengths(length: u64) {
        let (shortest, longest) = size_class_lengths(size_class(length));
        prop_assert!(shortest <= length && length <= longest);
    }
}
