//! Instructions that no committed compiler output has yet, in a few lines each, on one block of 64 threads.

mod common;

use common::{clean, kinds, module};
use isonorm_ptx::{Argument, Kind, Launch, Memory, Outcome, Rights};

/// Runs `code` in 64 threads. `%r0` is the thread, `%r1` = 7 * thread - 100, `%d0` the address of a buffer of 64 64-bit
/// words (3 * index), `%s` and `%b` a shared array of 64 words and an mbarrier; `%d9` is stored per thread at the end.
fn threads(code: &str) -> (Outcome, Vec<u64>, Vec<u64>) {
    let text = format!(
        ".version 8.7\n.target sm_90\n.address_size 64\n.shared .align 8 .b8 array[512];\n.shared .align 8 .b64 barrier;
        .visible .entry k(.param .u64 words, .param .u64 out, .param .align 8 .b8 pair[16])\n{{
        .reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<30>, %s, %b; .reg .b64 %d<30>, %out; .local .align 8 .b8 own[64];
        mov.u32 %r0, %tid.x; mad.lo.s32 %r1, %r0, 7, -100; ld.param.u64 %d0, [words];
        mov.u32 %s, array; mov.u32 %b, barrier;
        {{ {code} }}
        ld.param.u64 %out, [out]; mad.wide.u32 %out, %r0, 8, %out; st.global.u64 [%out], %d9; }}"
    );
    let mut memory = Memory::new();
    let words: Vec<u8> = (0..64u64).flat_map(|i| (3 * i).to_le_bytes()).collect();
    let words = memory.add("words", &words, Rights::ReadWrite);
    let out = memory.add("out", &[0; 512], Rights::Write);
    let pair = [11u64.to_le_bytes(), 22u64.to_le_bytes()].concat();
    let params = vec![Argument::pointer(&memory, words), Argument::pointer(&memory, out), Argument::bytes(&pair)];
    let launch = Launch { kernel: "k".into(), block: [64, 1, 1], params, ..Launch::default() };
    let outcome = module(&text).run(&launch, &mut memory).unwrap_or_else(|e| panic!("{e}"));
    let numbers = |bytes: Vec<u8>| bytes.chunks(8).map(|b| u64::from_le_bytes(b.try_into().expect("8"))).collect();
    (outcome, numbers(memory.bytes(out)), numbers(memory.bytes(words)))
}

/// Each thread's result, of a clean run.
fn results(code: &str, want: impl Fn(u64) -> u64) {
    let (outcome, got, _) = threads(code);
    clean(&outcome);
    let want: Vec<u64> = (0..64).map(want).collect();
    assert_eq!(got, want, "{code}");
}

#[test]
fn warps() {
    let wide = "cvt.u64.u32 %d9, %r9;";
    results(&format!("match.all.sync.b32 %r9|%p1, %r2, -1; {wide}"), |_| 0xffff_ffff);
    results(&format!("match.all.sync.b32 %r9|%p1, %r1, -1; selp.b32 %r9, 5, 6, %p1; {wide}"), |_| 6);
    results(&format!("elect.sync _|%p1, -1; selp.b32 %r9, 1, 0, %p1; {wide}"), |t| u64::from(t % 32 == 0));
    results(
        &format!("setp.lt.s32 %p1, %r1, 500; vote.sync.uni.pred %p2, %p1, -1; selp.b32 %r9, 1, 0, %p2; {wide}"),
        |_| 1,
    );
    results(
        &format!("setp.lt.s32 %p1, %r1, 0; vote.sync.uni.pred %p2, %p1, -1; selp.b32 %r9, 1, 0, %p2; {wide}"),
        |t| u64::from(t >= 32),
    );
    results(
        &format!("setp.lt.s32 %p1, %r1, 0; vote.sync.all.pred %p2, !%p1, -1; selp.b32 %r9, 1, 0, %p2; {wide}"),
        |t| u64::from(t >= 32),
    );
    for (kind, ty, f) in [
        ("min", "s32", (|a, b| (a as i32).min(b as i32) as u32) as fn(u32, u32) -> u32),
        ("max", "u32", |a, b| a.max(b)),
        ("min", "u32", |a, b| a.min(b)),
        ("and", "b32", |a, b| a & b),
        ("or", "b32", |a, b| a | b),
        ("xor", "b32", |a, b| a ^ b),
        ("add", "u32", u32::wrapping_add),
    ] {
        let want = move |t: u64| {
            (t / 32 * 32..t / 32 * 32 + 32).map(|i| (7 * i as i32 - 100) as u32).reduce(f).unwrap_or(0).into()
        };
        results(&format!("redux.sync.{kind}.{ty} %r9, %r1, -1; {wide}"), want);
    }
    // The lanes of a branch are active without the others.
    results(
        &format!("and.b32 %r2, %r0, 3; setp.eq.u32 %p1, %r2, 0; mov.u32 %r9, 0; @%p1 activemask.b32 %r9; {wide}"),
        |t| {
            if t % 4 == 0 { 0x1111_1111 } else { 0 }
        },
    );
    results(&format!("mov.u32 %r9, %lanemask_lt; {wide}"), |t| (1 << (t % 32)) - 1);
    results(&format!("mov.u32 %r9, %warpid; mad.lo.u32 %r9, %r9, 100, %ntid.x; {wide}"), |t| t / 32 * 100 + 64);
}

#[test]
fn barriers_that_count_and_vote() {
    let set = "setp.lt.u32 %p1, %r0, 40;";
    results(&format!("{set} bar.red.popc.u32 %r9, 0, %p1; cvt.u64.u32 %d9, %r9;"), |_| 40);
    results(&format!("{set} barrier.red.or.pred %p2, 2, 64, %p1; selp.b64 %d9, 1, 0, %p2;"), |_| 1);
    results(&format!("{set} bar.red.and.pred %p2, 1, %p1; selp.b64 %d9, 1, 0, %p2;"), |_| 0);
}

#[test]
fn atomics() {
    // All threads at one word; what each gets depends on the order, what stays does not.
    let last = |code: &str, word: u64| {
        let (outcome, _, words) = threads(&format!("mov.u64 %d9, 0; {code}"));
        clean(&outcome);
        assert_eq!(words[0], word, "{code}");
    };
    last("atom.global.inc.u32 %r2, [%d0], 9;", 4);
    last("atom.global.dec.u32 %r2, [%d0], 9;", 6);
    last("atom.global.min.s32 %r2, [%d0], %r1;", 0xffff_ff9c);
    last("atom.global.max.u64 %d1, [%d0], 77;", 77);
    last("red.global.xor.b32 [%d0], %r0;", 0);
    last("red.global.and.b64 [%d0], 0;", 0);
    last("atom.global.exch.b64 %d1, [%d0], 5;", 5);
    last("atom.global.add.f64 %d1, [%d0], 0d3ff0000000000000;", 64f64.to_bits());
    last("mov.b16 %h1, 0x3c00; atom.global.add.noftz.f16 %h2, [%d0], %h1;", 0x5400);
    last("mov.b16 %h1, 0x3f80; red.global.add.noftz.bf16 [%d0], %h1;", 0x4280);
    last("mov.b32 %r2, 0x3f800000; red.global.add.v2.f32 [%d0], {%r2, %r2};", 0x4280_0000_4280_0000);
    // In shared memory, after one thread has written it.
    let shared = "setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.u32 [array], 1; bar.sync 0;";
    results(&format!("{shared} red.shared.add.u32 [array], 2; bar.sync 0; ld.shared.u32 %d9, [array];"), |_| 129);
    let (outcome, ..) = threads("atom.shared.add.u32 %r2, [array], 1; mov.u64 %d9, 0;");
    assert_eq!(kinds(&outcome.findings), [Kind::UnwrittenRead]);
    let (outcome, ..) = threads("red.global.add.u32 [%d0], 1; st.global.u32 [%d0], 1; mov.u64 %d9, 0;");
    assert_eq!(kinds(&outcome.findings), [Kind::Race]);
}

#[test]
fn widths_and_address_spaces() {
    let at = "mad.wide.u32 %d1, %r0, 8, %d0;";
    results(&format!("{at} ld.global.s8 %d9, [%d1];"), |t| (3 * t) as i8 as u64);
    results(&format!("{at} ld.global.u8 %r9, [%d1]; cvt.u64.u32 %d9, %r9;"), |t| (3 * t) & 0xff);
    results(&format!("{at} ld.global.s16 %r9, [%d1]; cvt.s64.s32 %d9, %r9;"), |t| 3 * t);
    results(
        "shl.b32 %r2, %r0, 31; shr.u32 %r2, %r2, 27; cvt.u64.u32 %d1, %r2; add.u64 %d1, %d1, %d0; ld.global.v2.b64 {_, %d9}, [%d1];",
        |t| {
            if t % 2 == 0 { 3 } else { 9 }
        },
    );
    // A structure by value, through a generic address too.
    results("ld.param.u64 %d9, [pair+8];", |_| 22);
    results("mov.b64 %d1, pair; cvta.param.u64 %d1, %d1; ld.u64 %d9, [%d1];", |_| 11);
    // Own, shared and global memory through generic addresses, which know their space.
    results("st.local.u32 [own+4], %r0; mov.u64 %d1, own; cvta.local.u64 %d1, %d1; ld.u32 %d9, [%d1+4];", |t| t);
    let shared = "mov.u64 %d1, array; cvta.shared.u64 %d1, %d1; mad.wide.u32 %d2, %r0, 8, %d1;";
    results(
        &format!(
            "{shared} st.u64 [%d2], %d2; isspacep.shared %p1, %d2; cvta.to.shared.u64 %d3, %d2; selp.b64 %d9, %d3, 0, %p1; mov.u64 %d4, array; sub.u64 %d9, %d9, %d4;"
        ),
        |t| 8 * t,
    );
    results(
        "isspacep.global %p1, %d0; isspacep.local %p2, %d0; selp.b64 %d9, 2, 0, %p1; @%p2 add.u64 %d9, %d9, 1;",
        |_| 2,
    );
    results(
        "mapa.shared::cluster.u32 %r2, %s, 0; getctarank.shared::cluster.u32 %r9, %r2; cvt.u64.u32 %d9, %r9;",
        |_| 0,
    );
    // Hints change nothing.
    let hints = "createpolicy.fractional.L2::evict_first.b64 %d2, 1.0; prefetch.global.L2 [%d1];";
    results(&format!("{at} {hints} ld.global.L1::evict_last.L2::cache_hint.b64 %d9, [%d1], %d2;"), |t| 3 * t);
    let (outcome, ..) = threads("mov.u64 %d9, 0; st.param.u64 [pair], %d9;");
    assert_eq!(kinds(&outcome.findings), [Kind::WriteToInput]);
    let (outcome, ..) = threads("ld.local.u64 %d9, [own+64];");
    assert_eq!(kinds(&outcome.findings), [Kind::OutOfBounds]);
}

#[test]
fn releases_and_acquires_order_accesses() {
    // Thread 0 writes and releases a flag; the other warp waits for it.
    let flag = |release: &str, acquire: &str| {
        threads(&format!(
            "setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.u32 [array], 42; @%p1 st{release}.global.u32 [%d0], 1;
            mov.u64 %d9, 42; setp.lt.u32 %p2, %r0, 32; @%p2 bra over;
            again: ld{acquire}.global.u32 %r2, [%d0]; setp.ne.u32 %p3, %r2, 1; @%p3 bra again;
            ld.shared.u32 %d9, [array]; over:"
        ))
    };
    let (outcome, got, _) = flag(".release.gpu", ".acquire.gpu");
    clean(&outcome);
    assert!(got.iter().all(|v| *v == 42));
    assert_eq!(kinds(&flag(".relaxed.gpu", ".relaxed.gpu").0.findings), [Kind::Race]);
}

#[test]
fn mbarriers() {
    let init =
        |count: u32| format!("setp.eq.u32 %p1, %r0, 0; @%p1 mbarrier.init.shared.b64 [%b], {count}; bar.sync 0;");
    let wait = "again: mbarrier.test_wait.shared.b64 %p2, [%b], %d1; @!%p2 bra again;";
    let put = "mad.lo.u32 %r2, %r0, 4, %s; st.shared.u32 [%r2], %r0;";
    let get = "xor.b32 %r3, %r0, 63; mad.lo.u32 %r2, %r3, 4, %s; ld.shared.u32 %d9, [%r2];";
    let all = |arrive: &str, count: u32| format!("{} {put} {arrive} {wait} {get}", init(count));
    results(&all("mbarrier.arrive.shared.b64 %d1, [%b];", 64), |t| 63 - t);
    results(&all("mbarrier.arrive.shared.b64 %d1, [%b], 2;", 128), |t| 63 - t);
    results(&all("mbarrier.arrive_drop.shared.b64 %d1, [%b];", 64), |t| 63 - t);
    let (outcome, ..) = threads(&all("mbarrier.arrive.shared.b64 %d1, [%b];", 60));
    assert!(
        kinds(&outcome.findings).contains(&Kind::Mbarrier) || kinds(&outcome.findings).contains(&Kind::Race),
        "{:?}",
        outcome.findings
    );
    // Copies of each thread that the barrier awaits.
    let copy = "mad.lo.u32 %r2, %r0, 8, %s; mad.wide.u32 %d2, %r0, 8, %d0; cp.async.ca.shared.global [%r2], [%d2], 8;";
    let arrive = "cp.async.mbarrier.arrive.noinc.shared.b64 [%b];";
    let parity = "again: mbarrier.try_wait.parity.shared.b64 %p2, [%b], 0; @!%p2 bra again;";
    let get = "xor.b32 %r3, %r0, 63; mad.lo.u32 %r2, %r3, 8, %s; ld.shared.u64 %d9, [%r2];";
    results(&format!("{} {copy} {arrive} {parity} {get}", init(64)), |t| 3 * (63 - t));
    // Half of a copy is zeros; its source is aligned to all of it all the same.
    let half = copy.replace("8;", "8, 4;").replace("%d2, %r0", "%d2, %r4");
    assert_ne!(half, copy);
    results(&format!("{} mov.u32 %r4, %r0; {half} {arrive} {parity} {get}", init(64)), |t| 3 * (63 - t));
    let odd = half.replace("[%d2]", "[%d2+4]");
    assert_eq!(
        kinds(&threads(&format!("mov.u64 %d9, 0; mov.u32 %r4, 0; {odd} cp.async.wait_all;")).0.findings),
        [Kind::Misaligned]
    );
    let (outcome, ..) = threads(&format!("{} {copy} {get}", init(64)));
    assert!(kinds(&outcome.findings).contains(&Kind::CopyInFlight), "{:?}", outcome.findings);
}

/// Halves numbered as they lie in the array; each warp moves two matrices of its own half of it.
#[test]
fn matrices() {
    let number = |t: u64, matrix: u64, row: u64, column: u64| t / 32 * 128 + matrix * 64 + row * 8 + column;
    // The pair of halves that a thread holds of a matrix.
    let pair = move |t: u64, matrix: u64, transposed: bool| {
        let (row, column) = (t % 32 / 4, t % 4 * 2);
        let at = |row, column| if transposed { number(t, matrix, column, row) } else { number(t, matrix, row, column) };
        at(row, column) | at(row, column + 1) << 16
    };
    let pairs = |t, transposed| pair(t, 0, transposed) | pair(t, 1, transposed) << 32;
    // Thread t's word: halves 4 t to 4 t + 3.
    let word =
        "mul.wide.u32 %d1, %r0, 4; mul.lo.u64 %d1, %d1, 0x0001000100010001; add.u64 %d1, %d1, 0x0003000200010000;";
    let own = "shl.b32 %r3, %r0, 3; add.u32 %r3, %s, %r3;";
    // Lane l's row, of both warps' matrices in turn: 256 bytes a warp.
    let row = "and.b32 %r4, %r0, 15; shl.b32 %r4, %r4, 4; and.b32 %r5, %r0, 32; shl.b32 %r5, %r5, 3; add.u32 %r4, %r4, %r5; add.u32 %r4, %s, %r4;";
    for (trans, transposed) in [("", false), (".trans", true)] {
        let load =
            format!("ldmatrix.sync.aligned.m8n8.x2{trans}.shared.b16 {{%r8, %r9}}, [%r4]; mov.b64 %d9, {{%r8, %r9}};");
        results(&format!("{word} {own} {row} st.shared.u64 [%r3], %d1; bar.sync 0; {load}"), |t| pairs(t, transposed));

        // Loaded from where the numbers lie in order and stored so, they lie in order again.
        let store =
            format!("bar.sync 0; stmatrix.sync.aligned.m8n8.x2{trans}.shared.b16 [%r4], {{%r8, %r9}}; bar.sync 0;");
        let again = "ld.shared.u64 %d9, [%r3];";
        results(&format!("{word} {own} {row} st.shared.u64 [%r3], %d1; bar.sync 0; {load} {store} {again}"), |t| {
            4 * t * 0x0001_0001_0001_0001 + 0x0003_0002_0001_0000
        });
    }
    let found = |code: String| kinds(&threads(&code).0.findings);
    let load = "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r8, %r9}, [%r4];";
    let fill = format!("mov.u64 %d9, 0; {word} {own} {row} st.shared.u64 [%r3], %d1;");
    assert_eq!(found(format!("{fill} {load}")), [Kind::Race], "no barrier before");
    assert_eq!(
        found(format!("{fill} bar.sync 0; {load} st.shared.u64 [%r3], %d1;")),
        [Kind::Race],
        "no barrier behind"
    );
    assert_eq!(found(format!("{fill} bar.sync 0; add.u32 %r4, %r4, 8; {load}")), [Kind::Misaligned]);
    assert_eq!(found(format!("mov.u64 %d9, 0; {row} {load}")), [Kind::UnwrittenRead]);
    let part = format!("{fill} bar.sync 0; setp.lt.u32 %p1, %r0, 40; @%p1 {load}");
    assert_eq!(found(part), [Kind::WrongMask], "eight lanes of the second warp");
}

/// Several threads store to one place of shared memory by one instruction.
#[test]
fn stores_of_the_same_value() {
    let store = "mov.u64 %d9, 0; st.shared.u64 [%s], %d1;";
    let found = |code: &str| kinds(&threads(code).0.findings);
    assert_eq!(found(&format!("mov.u64 %d1, 7; {store}")), []);
    assert_eq!(found(&format!("cvt.u64.u32 %d1, %r0; {store}")), [Kind::Race], "each its own");
    assert_eq!(found(&format!("setp.eq.u32 %p1, %r0, 40; selp.b64 %d1, 8, 7, %p1; {store}")), [Kind::Race], "but one");
    assert_eq!(found(&format!("mov.u64 %d1, 7; {store} st.shared.u64 [%s], %d1;")), [Kind::Race], "two instructions");
    let read = "ld.shared.u64 %d9, [%s];";
    assert_eq!(found(&format!("mov.u64 %d1, 7; {store} {read}")), [Kind::Race], "read before a barrier");
    assert_eq!(found(&format!("mov.u64 %d1, 7; {store} bar.sync 0; {read}")), []);
}
