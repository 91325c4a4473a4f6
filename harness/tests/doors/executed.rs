//! The door for kernels of manifests on the PTX executor: NVRTC's own output, with one bug each, and small texts.

use std::collections::BTreeSet;
use std::path::Path;

use isonorm_cuda::compile::Cache;
use isonorm_cuda::{Library, LibraryError};
use isonorm_harness::campaign::{Examiner, Trial, Verdict};
use isonorm_harness::case::Case;
use isonorm_harness::run::{Contender, Executed, Outcome};

use super::{assert_well_behaved, in_place, rms_norm, with_gaps};

/// A kernel of a manifest whose source is this text.
fn kernel(manifest: &str, source: &str) -> Executed {
    let file = |_: &str| Ok::<_, LibraryError>(source.to_owned());
    let library = Library::new("planted.toml", manifest, file).unwrap_or_else(|error| panic!("{error}"));
    let kernels = Executed::of(library, Cache::none()).unwrap_or_else(|error| panic!("{error}"));
    kernels.into_iter().next().expect("a kernel")
}

fn examine(kernel: &Executed, case: &str) -> Trial {
    let case: Case = case.parse().unwrap_or_else(|error| panic!("{case}: {error}"));
    let runner = kernel.open().unwrap_or_else(|error| panic!("{error}"));
    Examiner::new(kernel.info().clone(), runner).examine(&case, false)
}

fn properties(trial: &Trial) -> BTreeSet<&'static str> {
    trial.flaws.iter().map(|flaw| flaw.property).collect()
}

/// Committed PTX of kernels/cuda, and the kernel's name in it.
fn committed(name: &str) -> (String, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ptx/tests/ptx").join(format!("{name}.ptx"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let entry = text.split(".entry ").nth(1).and_then(|rest| rest.split('(').next()).expect("an entry").to_owned();
    (text, entry)
}

/// layer_norm forward of rows of 200 f32 (rms_norm, if two blocks share a row), as kernels/cuda/rows.cu was compiled for it.
fn forward(name: &str) -> Executed {
    let (text, entry) = committed(name);
    let cluster = if in_clusters(name) { 2 } else { 1 };
    let (operator, bias) = if cluster == 2 { ("rms_norm", "null") } else { ("layer_norm", "bias") };
    let manifest = format!(
        r#"
        source = "planted.ptx"
        [[kernel]]
        name = "planted"
        op = "{operator}"
        direction = "forward"
        dtypes = ["f32"]
        layouts = ["in_place"]
        sizes = {{ d = [200] }}
        [[kernel.launch]]
        when = "r > 0"
        entry = "{entry}"
        arguments = ["x", "null", "weight", "{bias}", "y", "null", "r: i64", "d: i32", "0: i32", "eps: f32"]
        grid = ["{cluster} * r"]
        cluster = [{cluster}]
        block = [64]
        "#
    );
    kernel(&manifest, &text)
}

fn in_clusters(name: &str) -> bool {
    name.contains("cluster") || name.contains("rank")
}

/// layer_norm backward of rows of 200 f32. One block has the whole sums of dweight and dbias; two would have parts of them.
fn backward(name: &str) -> Executed {
    let (text, entry) = committed(name);
    let manifest = format!(
        r#"
        source = "planted.ptx"
        [[kernel]]
        name = "planted"
        op = "layer_norm"
        direction = "backward"
        dtypes = ["f32"]
        sizes = {{ d = [200] }}
        [[kernel.launch]]
        entry = "{entry}"
        arguments = [
            "dy", "null", "x", "null", "weight", "dx", "null", "dweight", "dbias", "3: i32", "r: i64", "d: i32", "0: i32", "eps: f32",
        ]
        grid = ["min(r, 2)"]
        block = [64]
        "#
    );
    kernel(&manifest, &text)
}

const ROWS: &str = "layer_norm:forward dtype=f32 r=3 d=200 eps=1e-5 with=weight,bias family=normal seed=7";
const CLUSTER_ROWS: &str = "rms_norm:forward dtype=f32 r=3 d=200 eps=1e-5 cast=none with=weight family=normal seed=7";
const ROWS_BACK: &str = "layer_norm:backward dtype=f32 r=1 d=200 eps=1e-5 with=weight,bias family=normal seed=7";

#[test]
fn what_nvrtc_made_of_the_right_source_passes() {
    for (name, case) in [("planted/none", ROWS), ("planted/none_cluster", CLUSTER_ROWS)] {
        for more in ["", " in_place=y:x", " refreshed"] {
            let case = case.replace(" seed", &format!("{more} seed"));
            let trial = examine(&forward(name), &case);
            let flaws: Vec<&String> = trial.flaws.iter().map(|flaw| &flaw.message).collect();
            assert!(trial.verdict == Verdict::Judged && flaws.is_empty(), "{name} {case}: {flaws:?}");
            for property in ["race_free", "writes_everything", "block_independent", "within_bound"] {
                assert!(trial.checked.contains(&property), "{name}: {property} is not checked");
            }
            // What the executor cannot see is not said to have been looked at.
            assert!(!trial.checked.contains(&"float_environment"));
        }
    }
    let trial = examine(&backward("planted/none_backward"), ROWS_BACK);
    assert!(trial.verdict == Verdict::Judged && trial.flaws.is_empty(), "{:?}", trial.flaws);
}

#[test]
fn every_planted_bug_lacks_its_property() {
    let cases = [
        ("reads_past_ragged_row", "accesses_inside", "of buffer x of 2400 bytes"),
        ("reads_unwritten_slots", "reads_inputs_only", "shared memory that nobody wrote"),
        ("no_barrier_before_read", "race_free", "with no barrier between"),
        ("no_barrier_before_reuse", "race_free", "with no barrier between"),
        ("lanes_for_threads", "race_free", "with no barrier between"),
        ("misses_rows", "writes_everything", "800 of 2400 bytes of output y are not written, from byte 800 on"),
        ("barrier_in_branch", "barriers", "barrier"),
        ("early_exit", "barriers", "ended without it"),
        ("full_mask_in_branch", "warp_masks", "wait for others"),
        ("half_mask", "warp_masks", "not in its mask"),
        ("writes_input", "unmodified_inputs", "store to input x"),
        ("writes_input", "writes_everything", "of output y are not written"),
        ("misaligned", "aligned", "is not aligned"),
        ("no_cluster_barrier", "race_free", "with no barrier between"),
        ("wrong_rank", "accesses_inside", "shared memory of block"),
    ];
    for (name, property, mention) in cases {
        let case = if in_clusters(name) { CLUSTER_ROWS } else { ROWS };
        let trial = examine(&forward(&format!("planted/{name}")), case);
        let said: Vec<&String> =
            trial.flaws.iter().filter(|flaw| flaw.property == property).map(|flaw| &flaw.message).collect();
        let all: Vec<(&str, &String)> = trial.flaws.iter().map(|flaw| (flaw.property, &flaw.message)).collect();
        assert!(
            said.iter().any(|message| message.contains(mention)),
            "{name}: {property} ({mention}) is not in {all:#?}"
        );
    }
}

#[test]
fn blocks_that_write_one_address_and_threads_that_do_not_end() {
    let rows = ROWS_BACK.replace("r=1", "r=5");
    let trial = examine(&backward("planted/same_partials"), &rows);
    assert!(properties(&trial).contains("block_independent"), "{:?}", trial.flaws);
    // A grid of one block: its rows do not advance.
    let trial = examine(&backward("planted/hang"), ROWS_BACK);
    let flaws: Vec<(&str, &str)> = trial.flaws.iter().map(|flaw| (flaw.property, flaw.message.as_str())).collect();
    let [("returns", message)] = flaws[..] else { panic!("{flaws:?}") };
    assert!(message.contains("instructions and has not ended") && message.contains("block (0, 0, 0)"), "{message}");
    assert!(trial.comparison.is_none());
}

/// A kernel that writes `value` to every element of y, and the launches of a manifest around it.
fn small(body: &str, launches: &str) -> Executed {
    let source = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry small(.param .u64 x, .param .u64 y, .param .u32 first) {{\n\
         .reg .pred %p<3>; .reg .b32 %r<9>; .reg .f32 %f<5>; .reg .b64 %d<9>;\n\
         mov.u32 %r0, %tid.x; ld.param.u32 %r1, [first]; add.u32 %r2, %r0, %r1; mov.u32 %r3, %ctaid.x;\n\
         ld.param.u64 %d0, [x]; ld.param.u64 %d1, [y]; mad.wide.u32 %d2, %r2, 4, %d0; mad.wide.u32 %d3, %r2, 4, %d1;\n\
         {body}\nret; }}"
    );
    let manifest = format!(
        "source = \"small.ptx\"\n[[kernel]]\nname = \"small\"\nop = \"rms_norm\"\ndirection = \"forward\"\ndtypes = [\"f32\"]\n\
         {launches}"
    );
    kernel(&manifest, &source)
}

fn launch(grid: &str, block: &str, first: &str) -> String {
    format!(
        "[[kernel.launch]]\nentry = \"small\"\narguments = [\"x\", \"y\", \"{first}: u32\"]\ngrid = [\"{grid}\"]\nblock = [\"{block}\"]\n"
    )
}

/// A row of zeros gives zeros.
const ZEROS: &str = "rms_norm:forward dtype=f32 r=1 d=6 eps=1e-5 cast=none family=zeros seed=0";
const COPY: &str = "ld.global.f32 %f0, [%d2]; st.global.f32 [%d3], %f0;";

fn flawed(trial: &Trial) -> Vec<(&str, &str)> {
    trial.flaws.iter().map(|flaw| (flaw.property, flaw.message.as_str())).collect()
}

#[test]
fn results_that_depend_on_the_order_of_blocks() {
    // The last block wins: atomic, so no conflict, and different in another order.
    let last = "cvt.rn.f32.u32 %f1, %r3; mov.b32 %r4, %f1; atom.global.exch.b32 %r5, [%d3], %r4;";
    let first = "mov.b32 %r4, 0; st.global.b32 [%d3], %r4;";
    let alone = small(&format!("{first} {last}"), &launch("1", "d", "0"));
    assert_eq!(flawed(&examine(&alone, ZEROS)), []);
    let several = small(last, &format!("{}{}", launch("1", "d", "0"), launch("3", "d", "0")));
    let trial = examine(&several, ZEROS);
    let found = flawed(&trial);
    assert!(found.iter().any(|(p, m)| *p == "block_independent" && m.contains("another order of blocks")), "{found:?}");
}

#[test]
fn launches_follow_each_other() {
    let halves = format!("{}{}", launch("1", "4", "0"), launch("1", "2", "4"));
    assert_eq!(flawed(&examine(&small(COPY, &halves), ZEROS)), []);
    let trial = examine(&small(COPY, &format!("{}{}", launch("1", "4", "0"), launch("1", "1", "4"))), ZEROS);
    assert!(flawed(&trial).iter().any(|(property, message)| {
        *property == "writes_everything"
            && message.contains("4 of 24 bytes of output y are not written, from byte 20 on")
    }));
    // Without a launch nothing is written.
    let trial = examine(&small(COPY, &format!("{}when = false\n", launch("1", "d", "0"))), ZEROS);
    assert!(properties(&trial).contains("writes_everything"), "{:?}", trial.flaws);
}

#[test]
fn launches_that_no_gpu_takes_fail() {
    let cases = [("1", "2048", "2048 threads"), ("0", "d", "grid"), ("1", "0", "0 threads")];
    for (grid, block, mention) in cases {
        let trial = examine(&small(COPY, &launch(grid, block, "0")), ZEROS);
        let found = flawed(&trial);
        assert!(matches!(found[..], [("answers", message)] if message.contains(mention)), "{grid} {block}: {found:?}");
    }
}

#[test]
fn what_cannot_be_run_is_never_passed() {
    let not_run = |kernel: &Executed, mention: &str| {
        let error = kernel.prepare(&kernel.info().dtypes).expect_err(mention).to_string();
        assert!(error.starts_with("small: ") && error.contains(mention), "{mention} is not in: {error}");
        match examine(kernel, ZEROS).verdict {
            Verdict::NotRun(reason) => assert!(reason.contains(mention), "{mention} is not in: {reason}"),
            other => panic!("{mention}: {other:?}"),
        }
    };
    not_run(&small("wgmma.fence.sync.aligned;", &launch("1", "d", "0")), "what the executor does not know");
    not_run(&small("tanh.f32 %f1, %f0", &launch("1", "d", "0")), "PTX");
    not_run(&small(COPY, &launch("1", "d", "0").replace("entry = \"small\"", "entry = \"smaller\"")), "it has small");
    not_run(&small(COPY, &launch("1", "d", "0").replace("\"x\", ", "")), "2 of them, and `small` takes 3");
    not_run(&small(COPY, &launch("1", "d", "0").replace("u32", "u64")), "argument 3 of `small` is u64, of 8 bytes");
    not_run(&small(COPY, &launch("1", "e", "0")), "there is no `e`");
    not_run(
        &small(COPY, &launch("1", "d", "0").replace("\"x\", ", "\"gamma\", ")),
        "the tensors of rms_norm forward are",
    );
}

#[test]
fn strides_are_declined() {
    let gaps = with_gaps(rms_norm(2, 5));
    let outcome = small(COPY, &launch("1", "5", "0")).open().expect("it opens").run(&gaps);
    assert!(matches!(&outcome, Outcome::Declined(reason) if reason.contains("strides")), "{outcome:?}");
}

#[test]
fn requests_in_place_are_served() {
    let request = in_place(rms_norm(3, 200));
    let kernel = forward("planted/none_cluster");
    assert_well_behaved(kernel.open().expect("it opens").run(&request), &request);
}
