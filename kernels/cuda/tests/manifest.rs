//! Manifests: what they say, and what is said of those that are wrong.

use isonorm_cuda::Library;
use isonorm_cuda::launch::{Call, Given, PlanError, ScalarType};
use isonorm_cuda::manifest::Manifest;
use isonorm_kernels::abi::{Dtype, DtypeSet, Value};

/// A manifest that says everything.
const WHOLE: &str = r#"
source = "norms.cu"
include = ["a.cuh"]
options = ["--use_fast_math"]
arch = "sm_80"

[[kernel]]
name = "mine.norm"
op = "rms_norm"
direction = "forward"
dtypes = ["f32", "bf16:f32"]
layouts = ["contiguous", "in_place"]
precision = "f32"
reduction = "blocked:64"
rsqrt = "approximate"
sizes = { d = [24, 25, 26] }
requires = [{ that = "d % 2 == 0", because = "pairs of entries are loaded" }]
[kernel.let]
vec = "16 // data_size if d * data_size % 16 == 0 else 1"
warps = "min(4, max(1, cdiv(d, 32 * vec)))"
[kernel.scratch]
parts = { dtype = "f32", elements = "r * warps" }

[[kernel.launch]]
when = "r > 0"
entry = "norm<{{ data }}, {{ param }}, {{ vec }}, {{ has.weight }}>"
arguments = ["x", "weight", "y", "null", "scratch.parts", "r: i32", "d: u64", "eps: f32", "has.weight: i32"]
grid = ["r", 2]
block = ["32 * warps"]
cluster = [2]
shared = "4 * (warps + 1)"
constants = { BLOCK = "next_power_of_two(d)", EVEN = "d % 2 == 0" }
num_warps = "warps"
"#;

fn call(r: usize, d: usize, weight: bool) -> Call {
    Call {
        sizes: vec![("r".into(), r), ("d".into(), d)],
        attributes: vec![("eps".into(), Some(Value::Real(1e-5))), ("cast".into(), None)],
        dtypes: DtypeSet { data: Dtype::Bf16, param: Dtype::F32 },
        tensors: vec![
            ("x".into(), Some(Dtype::Bf16)),
            ("weight".into(), weight.then_some(Dtype::F32)),
            ("y".into(), Some(Dtype::Bf16)),
        ],
        channels_last: false,
        sms: 132,
        arch: 90,
    }
}

#[test]
fn a_call_becomes_launches() {
    let manifest = Manifest::parse(WHOLE).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((manifest.source.as_str(), manifest.arch.as_deref()), ("norms.cu", Some("sm_80")));
    let kernel = &manifest.kernels[0];
    assert_eq!(kernel.sizes, [("d".to_owned(), vec![24, 25, 26])]);
    let plan = kernel.plan(&call(3, 24, true)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(plan.scratch, [("parts".to_owned(), 12)]);
    let [step] = &plan.steps[..] else { panic!("{plan:?}") };
    assert_eq!(step.entry, "norm<__nv_bfloat16, float, 8, true>");
    assert_eq!((step.grid, step.block, step.cluster), ([3, 2, 1], Some([32, 1, 1]), Some([2, 1, 1])));
    assert_eq!((step.shared, step.num_warps), (Some(8), Some(1)));
    assert_eq!(step.constants, [("BLOCK".into(), "32".into()), ("EVEN".into(), "True".into())]);
    let scalar = |kind, bytes: &[u8]| Given::Scalar(kind, bytes.to_vec());
    let expected = [
        Given::Tensor("x".into(), Dtype::Bf16),
        Given::Tensor("weight".into(), Dtype::F32),
        Given::Tensor("y".into(), Dtype::Bf16),
        Given::Null,
        Given::Scratch("parts".into(), Dtype::F32),
        scalar(ScalarType::I32, &3i32.to_le_bytes()),
        scalar(ScalarType::U64, &24u64.to_le_bytes()),
        scalar(ScalarType::F32, &1e-5f32.to_le_bytes()),
        scalar(ScalarType::I32, &1i32.to_le_bytes()),
    ];
    assert_eq!(step.arguments, expected);
    // Without a weight, its pointer is null; 26 entries of two bytes are no multiple of 16 bytes.
    let plan = kernel.plan(&call(1, 26, false)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(plan.steps[0].arguments[1], Given::Null);
    assert_eq!(plan.steps[0].entry, "norm<__nv_bfloat16, float, 1, false>");
    // Nothing to launch, and a call that is declined.
    assert_eq!(kernel.plan(&call(0, 24, true)).unwrap_or_else(|error| panic!("{error}")).steps, []);
    let declined = |d: usize| match kernel.plan(&call(3, d, true)) {
        Err(PlanError::Declined(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(declined(5), "compiled for d = 24, 25, 26 only");
    assert_eq!(declined(25), "pairs of entries are loaded");
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_key() {
    let cases = [
        ("source = \"norms.cu\"", "source = 3", &["line 2", "source"][..]),
        ("direction = ", "heading = ", &["line 10", "heading", "direction"]),
        ("\"mine.norm\"", "\"mine norm\"", &["line 8", "`mine norm`", "letters"]),
        ("\"forward\"", "\"forwards\"", &["line 10", "`direction`", "forward or backward"]),
        ("\"bf16:f32\"", "\"bf61\"", &["line 11", "`dtypes`", "bf61", "f16"]),
        ("\"in_place\"", "\"inplace\"", &["line 12", "`layouts`", "in_place"]),
        ("\"in_place\"", "\"strided\"", &["line 12", "`layouts`", "no names for strides"]),
        ("\"f32\"\nreduction", "\"bf16\"\nreduction", &["line 13", "`precision`", "f32 or f64"]),
        ("blocked:64", "blocked", &["line 14", "`reduction`", "blocked:B"]),
        ("\"approximate\"", "\"fast\"", &["line 15", "`rsqrt`", "approximate"]),
        ("[24, 25, 26]", "[]", &["line 16", "`sizes.d`", "empty"]),
        ("[24, 25, 26]", "[-1]", &["line 16", "-1"]),
        ("d % 2 == 0\", because", "d % == 0\", because", &["line 17", "`requires`", "d % == 0"]),
        ("\"min(4, ", "\"min((4, ", &["line 20", "`let.warps`", "min((4"]),
        ("parts = { dtype = \"f32\"", "parts = { dtype = \"int\"", &["line 22", "`scratch.parts.dtype`", "int"]),
        ("{{ vec }}", "{{ vec }", &["line 26", "`entry`"]),
        ("\"r: i32\"", "\"r: int\"", &["line 27", "`arguments`", "`int`", "i32"]),
        ("\"scratch.parts\"", "\"scratch.part\"", &["line 27", "`scratch.part`", "parts"]),
        ("\"null\"", "\"r + 1\"", &["line 27", "`r + 1`", "EXPRESSION: TYPE"]),
        ("[\"r\", 2]", "[\"r\", 2, 3, 4]", &["line 28", "`grid`", "4 sizes"]),
        ("[\"r\", 2]", "[]", &["line 28", "`grid`", "0 sizes"]),
        ("[\"r\", 2]", "\"r\"", &["line 28", "grid"]),
    ];
    for (right, wrong, mentions) in cases {
        assert!(WHOLE.contains(right), "{right}");
        let error = Manifest::parse(&WHOLE.replacen(right, wrong, 1)).map(|_| ()).expect_err(wrong).to_string();
        for mention in mentions {
            assert!(error.contains(mention), "{wrong}: `{mention}` is not in: {error}");
        }
    }
    let twice = format!("{WHOLE}\n{}", &WHOLE[WHOLE.find("[[kernel]]").unwrap_or(0)..]);
    let error = Manifest::parse(&twice).map(|_| ()).expect_err("two kernels").to_string();
    assert!(error.contains("two kernels `mine.norm`"), "{error}");
}

/// Kernels take the values of the file that they have none of their own for, whatever the order.
#[test]
fn values_are_shared_and_can_stand_in_any_order() {
    let shared =
        "[let]\nwarps = \"2 * vec if direction == 'forward' else vec\"\nmore = \"4 * warps\"\nvec = 1\n\n[[kernel]]";
    let text = WHOLE.replacen("[[kernel]]", shared, 1).replace("4 * (warps + 1)", "more").replacen(
        "warps = \"min",
        "w = \"min",
        1,
    );
    let manifest = Manifest::parse(&text).unwrap_or_else(|error| panic!("{error}"));
    // The kernel's own `vec` is 8.
    assert_eq!(manifest.kernels[0].plan(&call(3, 24, true)).expect("a plan").steps[0].shared, Some(64));
    let error = Manifest::parse(&text.replacen("vec = 1", "vec = 1\na = \"b + 1\"\nb = \"2 * a\"", 1))
        .map(|_| ())
        .expect_err("a cycle");
    assert!(error.to_string().contains("`let.a`, `let.b` need each other"), "{error}");
}

#[test]
fn what_has_no_value_in_a_call_is_said_with_its_values() {
    let cases = [
        (
            "\"r * warps\"",
            "\"rows * warps\"",
            &["`scratch.parts.elements`", "there is no `rows`", "channels_last, d"][..],
        ),
        ("[\"32 * warps\"]", "[\"d / 7\"]", &["`block`", "3.4", "whole number", "d = 24"]),
        ("[\"32 * warps\"]", "[\"d - 30\"]", &["`block`", "-6", "d = 24"]),
        ("[\"32 * warps\"]", "[\"data\"]", &["`block`", "__nv_bfloat16", "whole number"]),
        ("\"r > 0\"", "\"r\"", &["`when`", "true or false", "r = 3"]),
        ("\"r: i32\"", "\"r / 7: i32\"", &["`arguments`", "i32 is needed", "r = 3"]),
        ("\"r: i32\"", "\"4294967296 * r: i32\"", &["`arguments`", "i32 is needed"]),
        ("\"x\", ", "\"gamma\", ", &["`gamma`", "x, weight, y"]),
        ("\"4 * (warps + 1)\"", "\"cdiv(4, r - 3)\"", &["`shared`", "cdiv(4, 0)", "r = 3"]),
        ("{{ param }}", "{{ parm }}", &["`entry`", "there is no `parm`"]),
        ("vec = ", "r = ", &["`let.r`", "already"]),
    ];
    for (right, wrong, mentions) in cases {
        assert!(WHOLE.contains(right), "{right}");
        let manifest =
            Manifest::parse(&WHOLE.replacen(right, wrong, 1)).unwrap_or_else(|error| panic!("{wrong}: {error}"));
        let error = manifest.kernels[0].plan(&call(3, 24, true)).expect_err(wrong).to_string();
        for mention in mentions {
            assert!(error.contains(mention), "{wrong}: `{mention}` is not in: {error}");
        }
    }
}

#[test]
fn files_that_are_missing_or_do_not_fit() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let said = |path: &std::path::Path| Library::open(path).map(|_| ()).expect_err("an error").to_string();
    assert!(said(&folder.path().join("no.toml")).contains("cannot read"));
    assert!(said(&file("kernels.rs", "")).contains(".cu, a .ptx or a .py"));
    let error = said(&file("alone.cu", ""));
    assert!(error.contains("there is no") && error.contains("alone.toml") && error.contains("[[kernel]]"), "{error}");
    file("other.toml", WHOLE);
    let error = said(&file("other.cu", ""));
    assert!(error.contains("cannot read") && error.contains("norms.cu"), "{error}");
    file("norms.cu", "");
    file("a.cuh", "");
    let error = said(&folder.path().join("other.cu"));
    assert!(error.contains("is about norms.cu, not about"), "{error}");
    file("norms.toml", &WHOLE.replace("a.cuh", "b.cuh"));
    assert!(said(&folder.path().join("norms.cu")).contains("b.cuh"));
    let error = said(&file("wrong.toml", &WHOLE.replace("\"forward\"", "\"sideways\"")));
    assert!(error.contains("wrong.toml: line 10"), "{error}");
    // The manifest that the message shows is one.
    let error = said(&folder.path().join("alone.cu"));
    let start = error.find("source = ").expect("a manifest");
    Manifest::parse(&error[start..]).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn every_manifest_that_is_built_in_is_read() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(here).expect("the crate's folder").flatten().map(|file| file.path());
    let manifests = files.filter(|path| path.extension().is_some_and(|e| e == "toml") && !path.ends_with("Cargo.toml"));
    let built_in = Library::built_in().unwrap_or_else(|error| panic!("{error}"));
    let mut there: Vec<String> = manifests.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
    let mut known: Vec<String> = built_in.iter().map(|library| library.name.clone()).collect();
    there.sort();
    known.sort();
    assert_eq!(there, known);
    for library in built_in {
        // What is built in is what the files say.
        let file = Library::open(&here.join(&library.name)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(file.sha256, library.sha256, "{}", library.name);
    }
}
