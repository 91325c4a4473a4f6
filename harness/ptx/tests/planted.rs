//! One-line bugs in the project's kernels, and what the executor says of each. The edits: tests/generate.py, PLANTED.

mod common;

use common::{Dtype, Forward, SMALL, Tensors, backward_params, clean, kinds, module, normal, reduce_launch, run, text};
use isonorm_ptx::{Kind, Launch, Order, Outcome, Rights};

/// Runs a variant of the small forward kernel on three rows.
fn small(name: &str, edit: impl FnOnce(&mut Launch)) -> Outcome {
    let kernel = Forward { d: if name == "scattered" { 1024 } else { 200 }, ..SMALL };
    kernel.run(&module(&text(&format!("planted/{name}"))), 3, edit).outcome
}

/// Runs a variant of the small kernel for a cluster of two blocks.
fn cluster(name: &str) -> Outcome {
    let kernel = Forward { cluster: 2, rms: true, ..SMALL };
    kernel.run(&module(&text(&format!("planted/{name}"))), 2, |_| {}).outcome
}

/// Runs a variant of the small backward kernel on five rows with two blocks.
fn backward(name: &str, edit: impl FnOnce(&mut Launch)) -> Outcome {
    let (d, rows, grid, f) = (200, 5, 2, Dtype::F32);
    let mut t = Tensors::default();
    let dy = t.input("dy", f, &normal(rows * d, 1));
    let (x, weight) = (t.input("x", f, &normal(rows * d, 2)), t.input("weight", f, &normal(d, 3)));
    let dx = t.output("dx", f, rows * d);
    let parts = |t: &mut Tensors, name: &str| t.memory.add(name, &vec![0; 4 * grid * d], Rights::ReadWrite);
    let (dweight, dbias) = (parts(&mut t, "dweight"), parts(&mut t, "dbias"));
    let params = backward_params(&t, [dy, x, weight, dx, dweight, dbias], 3, rows, d);
    let mut launch = Launch { grid: [grid as u32, 1, 1], block: [64, 1, 1], params, ..Launch::default() };
    edit(&mut launch);
    run(&module(&text(&format!("planted/{name}"))), launch, &mut t)
}

/// Runs a variant of the second stage on 16 parts of 1000 columns.
fn reduce(name: &str) -> Outcome {
    let mut t = Tensors::default();
    let (input, out) = (t.input("in", Dtype::F32, &normal(16_000, 1)), t.output("out", Dtype::F32, 1000));
    let launch = reduce_launch(&t, input, out, 16, 1000);
    run(&module(&text(name)), launch, &mut t)
}

/// Exactly these kinds are found, and the first message has these words.
fn found(outcome: &Outcome, want: &[Kind], words: &str) {
    let lines: Vec<String> = outcome.findings.iter().map(ToString::to_string).collect();
    assert_eq!(kinds(&outcome.findings), want, "{}", lines.join("\n"));
    assert!(lines[0].contains(words), "{}", lines.join("\n"));
    let first = &outcome.findings[0];
    assert!(
        first.kernel.contains("rows_") || first.kernel.contains("reduce_") || first.kernel.contains("tiny"),
        "{first}"
    );
    if !matches!(first.kind, Kind::UnwrittenOutput | Kind::OrderDependence) {
        assert!(first.block.is_some() && first.thread.is_some() && first.line > 0, "{first}");
    }
}

#[test]
fn the_kernels_without_a_bug_are_clean() {
    clean(&small("none", |l| l.options.orders = vec![Order::Forward, Order::Reverse, Order::Shuffled(1)]));
    clean(&cluster("none_cluster"));
    clean(&backward("none_backward", |l| l.options.orders = vec![Order::Forward, Order::Reverse]));
}

#[test]
fn accesses_out_of_bounds() {
    found(&small("reads_past_ragged_row", |_| {}), &[Kind::OutOfBounds, Kind::BlocksConflict], "byte 2400 of buffer x");
    let store = ".extern .shared .align 4 .b8 s[];\n.visible .entry tiny() { .reg .b32 %r<1>; mov.b32 %r0, 0; st.shared.b32 [s+4], %r0; ret; }";
    let module = module(&format!(".version 8.5\n.target sm_90\n.address_size 64\n{store}"));
    let short = run(&module, Launch { shared: 4, ..Launch::default() }, &mut Tensors::default());
    found(&short, &[Kind::OutOfBounds], "byte 4 of dynamic shared memory");
    found(&cluster("wrong_rank"), &[Kind::OutOfBounds], "shared memory of block 2 of the cluster");
}

#[test]
fn reads_of_what_nobody_wrote() {
    found(&small("reads_unwritten_slots", |l| l.shared = 128), &[Kind::Race, Kind::UnwrittenRead], "race: ");
}

#[test]
fn misaligned_accesses() {
    found(
        &small("misaligned", |_| {}),
        &[Kind::Misaligned],
        "access of 16 bytes at byte 4 of buffer x of 2400 bytes is not aligned",
    );
}

#[test]
fn races_in_shared_memory() {
    found(&small("no_barrier_before_read", |_| {}), &[Kind::Race, Kind::UnwrittenRead], "race: ");
    found(
        &small("no_barrier_before_reuse", |_| {}),
        &[Kind::Race],
        "race: read of shared memory that thread (0, 0, 0) wrote at PTX line",
    );
    // All lanes have the same sum and store it by one instruction: whoever comes last, the result is the same.
    clean(&small("all_lanes_store", |_| {}));
    let outcome = cluster("no_cluster_barrier");
    assert!(kinds(&outcome.findings).iter().all(|k| matches!(k, Kind::Race | Kind::UnwrittenRead)));
    assert!(
        outcome.findings.iter().any(|f| f.kind == Kind::Race && f.message.contains("of block 0")),
        "{:?}",
        outcome.findings
    );
}

#[test]
fn races_in_global_memory_within_a_block() {
    found(
        &reduce("planted/all_threads_store"),
        &[Kind::Race],
        "race: write of out that thread (0, 0, 0) wrote at PTX line",
    );
    let outcome = small("lanes_for_threads", |_| {});
    found(&outcome, &[Kind::Race, Kind::UnwrittenOutput], "race: write of y that thread (0, 0, 0) wrote");
}

/// One thread that loads from `x`, whatever x is, and stores to `y`; then `end`.
fn tiny(rights: Rights, end: &str) -> Outcome {
    let code = format!(
        ".version 8.5\n.target sm_90\n.address_size 64\n.visible .entry norm_tiny(.param .u64 x, .param .u64 y) {{
        .reg .b32 %r<2>; .reg .b64 %d<2>; ld.param.u64 %d0, [x]; ld.param.u64 %d1, [y];
        ld.global.b32 %r0, [%d0]; st.global.b32 [%d1], %r0;\n{end} }}"
    );
    let mut t = Tensors::default();
    let (x, y) = (t.memory.add("x", &[0; 4], rights), t.memory.add("y", &[0; 4], Rights::Write));
    let params = vec![t.pointer(x), t.pointer(y)];
    run(&module(&code), Launch { params, ..Launch::default() }, &mut t)
}

#[test]
fn reads_of_outputs_and_traps() {
    clean(&tiny(Rights::Read, "ret;"));
    clean(&tiny(Rights::ReadWrite, "exit;"));
    let outcome = tiny(Rights::Write, "ret;");
    assert_eq!(kinds(&outcome.findings), [Kind::UnwrittenRead, Kind::UnwrittenOutput]);
    assert!(outcome.findings[0].message.contains("byte 0 of output x that nobody wrote"), "{}", outcome.findings[0]);
    assert_eq!(kinds(&tiny(Rights::Read, "trap;").findings), [Kind::Trap]);
}

#[test]
fn shared_memory_of_a_block_that_has_left_the_cluster() {
    found(&cluster("leaves_cluster_early"), &[Kind::Race], "that block 0 may have left");
}

#[test]
fn barriers_that_some_threads_miss() {
    let outcome = small("barrier_in_branch", |_| {});
    assert!(kinds(&outcome.findings).contains(&Kind::DivergentBarrier), "{:?}", outcome.findings);
    found(&small("early_exit", |_| {}), &[Kind::DivergentBarrier, Kind::WrongMask], "have ended without it");
}

/// Wrong counts, in the compiler's text.
#[test]
fn barriers_with_wrong_counts() {
    let right = text("planted/none");
    let with = |barrier: &str| {
        let text = right.replace("bar.sync \t0;", barrier).replace("bar.sync 	0;", barrier);
        assert_ne!(text, right);
        SMALL.run(&module(&text), 1, |_| {}).outcome
    };
    clean(&with("bar.sync 0, 64;"));
    clean(&with("barrier.sync 3, 64;"));
    found(&with("bar.sync 0, 48;"), &[Kind::BarrierCount], "barrier 0 for 48 threads");
    found(&with("bar.sync 0, 96;"), &[Kind::UnwrittenOutput, Kind::BarrierCount, Kind::Deadlock], "not written");
    found(&with("bar.sync 16;"), &[Kind::BarrierCount], "there are 0 to 15");
    let half = with("bar.sync 0, 32;");
    assert!(kinds(&half.findings).contains(&Kind::Race), "{:?}", half.findings);
}

#[test]
fn wrong_masks() {
    let outcome = small("full_mask_in_branch", |_| {});
    found(&outcome, &[Kind::UnwrittenOutput, Kind::DivergentBarrier, Kind::WrongMask], "not written");
    assert!(outcome.findings.iter().any(|f| f.message.contains("lanes 0x0000ffff wait for others")));
    found(&small("half_mask", |_| {}), &[Kind::WrongMask], "shuffle by lane 16, which is not in its mask 0x0000ffff");
}

#[test]
fn stores_to_inputs_and_unwritten_outputs() {
    let outcome = small("writes_input", |_| {});
    found(&outcome, &[Kind::WriteToInput, Kind::UnwrittenOutput], "store to input x");
    found(
        &small("misses_rows", |_| {}),
        &[Kind::UnwrittenOutput],
        "800 of 2400 bytes of output y are not written, from byte 800 on",
    );
}

#[test]
fn blocks_that_write_one_address() {
    found(&backward("same_partials", |_| {}), &[Kind::BlocksConflict], "of dweight, which block");
}

#[test]
fn results_that_depend_on_the_order_of_blocks() {
    let orders = vec![Order::Forward, Order::Reverse, Order::Shuffled(3)];
    // Only two blocks: a sum of two does not depend on the order, so more are needed.
    let outcome = backward("atomic_partials", |l| {
        l.grid = [5, 1, 1];
        l.options.orders = orders;
    });
    let dependence: Vec<_> = outcome.findings.iter().filter(|f| f.kind == Kind::OrderDependence).collect();
    assert!(dependence.iter().any(|f| f.message.contains("bytes of dweight differ")), "{:?}", outcome.findings);
    assert!(!dependence.iter().any(|f| f.message.contains("dx")), "{:?}", outcome.findings);
}

#[test]
fn threads_that_do_not_end() {
    let outcome = backward("hang", |l| {
        l.grid = [1, 1, 1];
        l.options.instruction_limit = 100_000;
    });
    assert!(kinds(&outcome.findings).contains(&Kind::InstructionLimit), "{:?}", outcome.findings);
}

/// What the counters say of wasteful kernels; what they say of good ones is in `counters.rs`.
#[test]
fn wasted_traffic() {
    let (right, twice) = (small("none", |_| {}).counters, small("reads_twice", |_| {}).counters);
    assert_eq!(right.buffer("x").bytes_read, 3 * 800);
    assert_eq!(twice.buffer("x").bytes_read, 2 * 3 * 800);
    let scattered = small("scattered", |_| {}).counters.buffer("x");
    assert_eq!((scattered.uncoalesced_requests, scattered.requests), (24, 24), "{scattered:?}");
    assert!(scattered.sectors > scattered.least_sectors, "{scattered:?}");
    let conflicts = |name: &str| {
        let outcome = reduce(name);
        clean(&outcome);
        outcome.counters.shared
    };
    let (right, wrong) = (conflicts("reduce_parts_f32"), conflicts("planted/bank_conflicts"));
    assert_eq!((right.conflicts, right.wavefronts), (0, right.requests));
    // Columns sixteen floats apart: 32 lanes fall on two banks. Of the last block's columns eight are loaded, four a bank.
    assert_eq!(wrong.conflicts, 15 * 32 * 16 + 15 * (31 * 15 + 3));
}
