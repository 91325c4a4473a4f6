//! The command as a user calls it: what it answers, and what it says to bad input.

mod executed;
mod gate;
mod pipelines;
mod shards;
mod slurm;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn isonorm(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isonorm")).args(arguments).output().expect("the command starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
}

/// The example plugin, compiled with the system's compiler after a change of its source.
fn example(folder: &Path, from: &str, to: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(root.join("examples/plugin/rms_norm.c")).expect("the example");
    assert!(source.contains(from), "the example has no {from}");
    let (changed, library) = (folder.join("rms_norm.c"), folder.join("librms_norm.so"));
    std::fs::write(&changed, if from.is_empty() { source } else { source.replace(from, to) }).expect("written");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-shared", "-fPIC", "-I"]).arg(root.join("../kernels/include"));
    let status = compiler.arg("-o").arg(&library).arg(&changed).arg("-lm").status().expect("a C compiler");
    assert!(status.success());
    library
}

/// Wrong questions: what is asked, and what the answer must mention.
#[test]
fn bad_input_says_what_was_wrong_and_exits_with_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let no_library = folder.path().join("none.so");
    std::fs::write(&no_library, "not a library").expect("written");
    let no_library = no_library.display().to_string();
    let table: &[(&[&str], &[&str])] = &[
        (&["certify", "--op", "layernorm"], &["layernorm", "did you mean `layer_norm`"]),
        (&["certify", "--kernel", "isonorm.layer_norm.forwards"], &["did you mean `isonorm.layer_norm.forward`"]),
        (&["certify", "--dtype", "f8"], &["f8", "f32, f64, bf16 or f16"]),
        (&["certify", "--dtype", "f64:f32"], &["no kernel offers that dtype"]),
        (&["certify", "--seed", "abc"], &["a seed is a whole number"]),
        (&["certify", "--shard", "3/2"], &["I/N"]),
        (&["certify", "--shard", "1/2", "--time", "1s"], &["a shard needs --cases"]),
        (&["certify", "--time", "soon"], &["give a time such as 60s"]),
        (&["certify", "--plugin", "/nonexistent/kernel.so"], &["cannot read", "check the path"]),
        (&["certify", "--plugin", &no_library], &["not a shared library"]),
        (&["certify", "--plugin", &no_library, "--device", "cuda"], &["leave out --device cuda"]),
        (&["certify", "--device", "ptx", "--arch", "hopper"], &["hopper", "sm_80 or sm_90"]),
        (&["certify", "--triton", "norms.cu:f"], &["F.py:KERNEL"]),
        (&["certify", "--triton", "/nonexistent/norms.py:f"], &["cannot read", "check the path"]),
        (&["certify", "--device", "tpu"], &["tpu", "cpu, ptx"]),
        (&["certify", "--device", "ptx", "--plugin", &no_library], &["leave out --device ptx"]),
        (&["certify", "--device", "cpu", "--cuda", "k.cu"], &["leave out --device"]),
        (&["certify", "--plugin", "k.so", "--cuda", "k.cu"], &["--plugin", "--cuda"]),
        (&["certify", "--cuda", "/nonexistent/k.cu"], &["cannot read /nonexistent/k.cu", "check the path"]),
        (&["certify", "--cuda", &no_library], &[".cu, a .ptx or a .py file, or a manifest"]),
        (&["replay", "--device", "ptx", "layer_norm:forwrd dtype=f32"], &["forward or backward"]),
        (&["certify", "--out", "/proc/nowhere"], &["cannot write", "choose an output folder"]),
        (&["identities", "--jobs", "0"], &["--jobs", "0"]),
        (&["certify", "--jobs", "0"], &["--jobs", "0"]),
        (&["identities", "pre_rmsnorm_transformer"], &["did you mean `pre_rms_norm_transformer`"]),
        (&["explain", "rmsnorm"], &["did you mean `rms_norm`"]),
        (&["replay", "layer_norm:forwrd dtype=f32"], &["forward or backward"]),
        (&["replay", "layer_norm:forward dtype=f32 r=1 d=-3"], &["d"]),
        (&["report", "/nonexistent/records.jsonl"], &["cannot read"]),
        (&["certfy"], &["certify"]),
        (&["bench", "--op", "layernorm"], &["did you mean `layer_norm`"]),
        (&["bench", "--shape", "12xx4"], &["12xx4", "4096x4096"]),
        (&["bench", "--shape", "0x4"], &["sizes above 0"]),
        (&["bench", "--op", "batch_norm", "--shape", "4"], &["samples, channels and positions"]),
        (&["bench", "--op", "group_norm", "--shape", "2x48x4x4"], &["48 channels", "--groups"]),
        (&["bench", "--op", "rms_norm", "--layout", "channels_last"], &["leave out --layout"]),
        (&["bench", "--layout", "step"], &["contiguous or channels_last"]),
        (&["bench", "--threads", "0"], &["0"]),
        (&["bench", "--time", "soon"], &["give a time such as"]),
        (&["bench", "--versus", "numpy"], &["libtorch", "copy"]),
        (&["bench", "--", "--save-baseline"], &["--criterion"]),
        (&["claims", "--device", "ptx"], &["claims are about time and memory", "bench --device ptx"]),
    ];
    for (arguments, mentions) in table {
        let output = isonorm(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        for mention in *mentions {
            assert!(said.contains(mention), "{arguments:?} does not mention {mention:?}: {said}");
        }
    }
}

#[test]
fn where_there_is_no_gpu_that_is_said_and_what_to_do() {
    if isonorm_cuda::driver::Gpu::open().is_ok() {
        eprintln!("SKIPPED: this machine has a GPU");
        return;
    }
    let output = isonorm(&["certify", "--device", "cuda", "--time", "1s"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("--device ptx"), "{}", text(&output.stderr));
}

#[test]
fn a_strangers_library_is_certified_and_a_faulty_one_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let certify = |library: &Path, out: &str| {
        let (library, out) = (library.display().to_string(), folder.path().join(out).display().to_string());
        isonorm(&["certify", "--plugin", &library, "--cases", "300", "--format", "json", "--out", &out])
    };
    let library = example(folder.path(), "", "");
    let output = certify(&library, "honest");
    let document = json(&output);
    assert_eq!(output.status.code(), Some(0), "{document:#}");
    assert_eq!(document["kernels"][0]["verdict"], "certified");
    assert!(document["kernels"][0]["cases"].as_u64().is_some_and(|cases| cases > 100), "{document:#}");
    for file in ["records.jsonl", "report.html", "junit.xml", "certificates"] {
        assert!(folder.path().join("honest").join(file).exists(), "{file} is missing");
    }

    // The same kernel with its epsilon forgotten.
    let faulty = example(folder.path(), "(float)isonorm_real(call, \"eps\", 1e-5)", "0.0f");
    let output = certify(&faulty, "faulty");
    let document = json(&output);
    assert_eq!(output.status.code(), Some(1), "{document:#}");
    assert_eq!(document["kernels"][0]["verdict"], "failed");
    let finding = &document["kernels"][0]["findings"][0];
    assert!(finding["case"].as_str().is_some_and(|case| case.starts_with("rms_norm:forward")), "{document:#}");

    // The finding can be replayed, and shows the same fault.
    let (library, records) = (faulty.display().to_string(), folder.path().join("faulty/records.jsonl"));
    let output = isonorm(&["replay", "--plugin", &library, &records.display().to_string(), "--format", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let replay = json(&output);
    assert_eq!(replay[0]["verdict"], "failed");
    let steps = replay[0]["steps"].as_array().expect("steps");
    assert!(steps.iter().any(|step| step["name"] == "rrms" && step["as_written"].is_number()), "{replay:#}");
}

#[test]
fn everything_listed_can_be_explained() {
    let operators = json(&isonorm(&["list", "operators", "--format", "json"]));
    let names: Vec<&str> =
        operators.as_array().expect("a list").iter().filter_map(|item| item["name"].as_str()).collect();
    assert_eq!(names.len(), isonorm_oracles::operators::OPERATORS.len());
    for name in names {
        let explanation = json(&isonorm(&["explain", name, "--format", "json"]));
        for part in ["forward", "backward", "special_values"] {
            assert!(explanation[part].as_str().is_some_and(|text| !text.is_empty()), "{name} has no {part}");
        }
        // For the processor and for CUDA.
        let kernels = explanation["kernels"].as_array().expect("a list");
        for half in ["forward", "backward"] {
            for kernel in [format!("isonorm.{name}.{half}"), format!("isonorm.cuda.{name}.{half}")] {
                assert!(kernels.contains(&kernel.as_str().into()), "{kernel} is not in {kernels:?}");
            }
        }
    }
}

#[test]
fn a_records_file_cut_in_the_middle_keeps_what_is_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let (shown, cut) = (out.display().to_string(), folder.path().join("cut.jsonl"));
    isonorm(&["certify", "--kernel", "isonorm.rms_norm.forward", "--cases", "60", "--out", &shown]);
    let records = std::fs::read(out.join("records.jsonl")).expect("records");
    std::fs::write(&cut, &records[..records.len() * 2 / 3]).expect("written");
    let merged = folder.path().join("merged").display().to_string();
    let output = isonorm(&["report", &cut.display().to_string(), "--out", &merged]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cut off"), "{}", text(&output.stderr));
    assert!(Path::new(&merged).join("report.html").exists());
}

#[test]
fn an_interrupted_campaign_keeps_what_was_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().display().to_string();
    let child = Command::new(env!("CARGO_BIN_EXE_isonorm"))
        .args(["certify", "--op", "rms_norm", "--time", "600s", "--out", &out])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the command starts");
    // The header of the records says that the campaign has begun; the handler is set soon after.
    while !folder.path().join("records.jsonl").exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    std::thread::sleep(std::time::Duration::from_secs(2));
    let stopped = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(stopped.success());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("stopped before its end"), "{}", text(&output.stderr));
    assert!(folder.path().join("report.html").exists());
    let summary = isonorm_reports::summary::Summary::read(&[folder.path().to_owned()]).expect("records");
    assert!(summary.kernels.iter().all(|kernel| kernel.verdict == isonorm_reports::summary::Verdict::Incomplete));
}

#[test]
fn a_reader_who_leaves_early_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_isonorm"))
        .args(["list", "families"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the command starts");
    // Nobody reads: every write meets a closed pipe.
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// The smallest benchmark there is.
const TINY: [&str; 7] = ["bench", "--time", "1ms", "--no-ceilings", "--threads", "1", "--shape"];

#[test]
fn a_bench_gives_ratios_and_records_that_can_be_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().display().to_string();
    let asked = ["8x64", "--op", "rms_norm", "--dtype", "f32", "--format", "json", "--out", &out];
    let output = isonorm(&[&TINY[..], &asked].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let document = json(&output);
    let rows = document.as_array().expect("an array");
    // Forward and backward: as called against libtorch, and warm against libtorch and a copy.
    assert_eq!(rows.len(), 6, "{document:#}");
    for row in rows {
        let number = |field: &str| row[field].as_f64().unwrap_or_else(|| panic!("no {field}: {row:#}"));
        assert_eq!((&row["operator"], &row["shape"]), (&"rms_norm".into(), &"8x64".into()));
        assert!(number("ratio_low") <= number("ratio") && number("ratio") <= number("ratio_high"), "{row:#}");
        assert!(number("ratio_low") > 0.0 && number("bytes_per_second") > 0.0, "{row:#}");
        let ratio = number("versus_seconds") / number("seconds");
        assert!(ratio / number("ratio") > 0.2 && ratio / number("ratio") < 5.0, "a ratio of other times: {row:#}");
    }
    let output = isonorm(&["report", &out, "--out", &out]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_wrong_kernel_is_not_timed() {
    let folder = tempfile::tempdir().expect("a folder");
    let bench = |library: &Path, out: &str| {
        let (library, out) = (library.display().to_string(), folder.path().join(out).display().to_string());
        isonorm(
            &[&TINY[..], &["4x64", "--plugin", &library, "--dtype", "f32", "--format", "json", "--out", &out]].concat(),
        )
    };
    let output = bench(&example(folder.path(), "", ""), "honest");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(!json(&output).as_array().expect("an array").is_empty());

    // The same kernel with a root that is off by a little.
    let faulty = example(folder.path(), "1 / sqrtf", "1.001f / sqrtf");
    let output = bench(&faulty, "faulty");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(json(&output), Value::Array(Vec::new()));
    let records = isonorm_reports::record::read(&folder.path().join("faulty/bench.jsonl")).expect("records");
    let findings =
        records.iter().filter(|record| matches!(record, isonorm_reports::record::Record::Finding(_))).count();
    assert!(findings > 0, "{records:?}");
}

#[test]
fn instructions_are_counted_where_valgrind_is_installed() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().display().to_string();
    let asked = ["4x4096", "--kernel", "isonorm.rms_norm.forward", "--dtype", "f32", "--versus", "copy"];
    let output = isonorm(&[&TINY[..], &asked, &["--instructions", "--format", "json", "--out", &out]].concat());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let count = &json(&output)[0]["instructions_per_element"];
    if Command::new("valgrind").arg("--version").output().is_ok() {
        // Eight elements to a vector, each read twice and written once; a call's own few instructions on top.
        assert!(count.as_f64().is_some_and(|count| (0.2..50.0).contains(&count)), "{count}: {said}");
    } else {
        assert!(count.is_null() && said.contains("instructions were not counted"), "{count}: {said}");
    }
}

#[test]
fn a_claim_is_measured_told_and_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().display().to_string();
    let output = isonorm(&["claims", "membrane_potential", "--time", "1ms", "--format", "json", "--out", &out]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let document = json(&output);
    let [claim] = document.as_array().expect("an array").as_slice() else { panic!("{document:#}") };
    let number = |field: &str| claim[field].as_f64().unwrap_or_else(|| panic!("no {field}: {claim:#}"));
    assert!(number("low") <= number("measured") && number("measured") <= number("high"), "{claim:#}");
    assert!(claim["stated"]["low"].as_f64() <= claim["stated"]["high"].as_f64(), "{claim:#}");
    assert!(claim["verdict"].is_string() && claim["wrong"] == Value::Array(Vec::new()), "{claim:#}");
    for measurement in claim["measurements"].as_array().expect("measurements") {
        assert!(measurement["rounds"].as_u64() >= Some(9), "{measurement:#}");
        let programs = measurement["programs"].as_array().expect("programs");
        assert!(programs.iter().all(|program| program["error"].as_f64() <= Some(1e-5)), "{measurement:#}");
    }
    for file in ["claims.jsonl", "claims.json", "report.html", "figures/claim-membrane_potential.svg"] {
        assert!(folder.path().join(file).exists(), "{file} is missing");
    }
}

/// Ten layers on 32 MiB: what each keeps is counted to a few hundredths of that.
#[test]
fn memory_is_counted_not_guessed() {
    for (program, kept) in [("0", 9.0), ("1", 4.0), ("2", 3.0)] {
        let place = format!("0,0,{program}");
        let output = isonorm(&["claims", "selective_differentiation", "--peak-of", &place]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let bytes: f64 = text(&output.stdout).trim().parse().expect("a number");
        let found = bytes / f64::from(32 << 20);
        assert!((found - kept).abs() < 0.1, "program {program} keeps {found} of its data, not {kept}");
    }
}

#[test]
fn a_claim_that_is_not_there_is_no_question() {
    let output = isonorm(&["claims", "rms_nrom"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("did you mean `rms_norm`?") && said.contains("list claims"), "{said}");
    let said = text(&isonorm(&["claims", "xyz"]).stderr);
    assert!(said.contains("no claim `xyz`") && !said.contains("did you mean"), "{said}");
    let claims = json(&isonorm(&["list", "claims", "--format", "json"]));
    assert_eq!(claims.as_array().map(Vec::len), Some(isonorm_oracles::claims::CLAIMS.len()));
    let papers = json(&isonorm(&["list", "papers", "--format", "json"]));
    let has = |paper: &Value| {
        paper["name"] == "arXiv:1910.07467" && paper["state"].as_str().is_some_and(|s| s.contains("claim rms_norm"))
    };
    assert!(papers.as_array().is_some_and(|papers| papers.iter().any(has)), "{papers:#}");
}
