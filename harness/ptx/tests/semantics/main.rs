//! Instructions one by one, through the whole executor, against an oracle that shares nothing with it.
//!
//! - Rounded arithmetic and conversions: [`exact`] finds the two neighbours of the exact result by bisection over the
//!   format's numbers, comparing with sums in 1152-bit fixed point, and applies the rounding mode's definition.
//! - Halves: all 65536 operands of unary operations and conversions; pairs and f32: special values against each other
//!   and many random bit patterns.
//! - Integers and bits: the manual's definitions, bit by bit.
//! - Approximate instructions: f64, correctly rounded, and the documented error when perturbed.

#[path = "../common/mod.rs"]
mod common;

mod approximate;
mod convert;
mod exact;
mod float;
mod integer;

use common::module;
use isonorm_ptx::{Accuracy, Argument, Launch, Memory, Options, Rights};

/// Runs `instruction` (or several, with `$d`, `$a`, `$b`, `$c`) on each row of operands. Widths in bits: the operands',
/// then the result's.
fn evaluate(instruction: &str, widths: &[u32], rows: &[Vec<u64>], accuracy: Accuracy) -> Vec<u64> {
    let (result, operands) = widths.split_last().expect("a result");
    let register = |width: u32, n: usize| match width {
        16 => format!("%h{n}"),
        32 => format!("%r{n}"),
        _ => format!("%d{n}"),
    };
    let mut body = String::new();
    let mut code = instruction.to_string();
    for (i, (width, name)) in operands.iter().zip(["$a", "$b", "$c"]).enumerate() {
        body += &format!(
            "ld.param.u64 %x0, [p{i}]; mad.wide.u32 %x0, %i0, {}, %x0; ld.global.b{width} {}, [%x0];\n",
            width / 8,
            register(*width, i + 1)
        );
        code = code.replace(name, &register(*width, i + 1));
    }
    let code = code.replace("$d", &register(*result, 0));
    let params: String = (0..operands.len()).map(|i| format!(".param .u64 p{i}, ")).collect();
    let text = format!(
        ".version 8.5\n.target sm_90\n.address_size 64\n.visible .entry k({params}.param .u64 out, .param .u32 n) {{
        .reg .pred %p<4>; .reg .b16 %h<5>; .reg .b32 %r<5>, %i<5>; .reg .b64 %d<5>, %x<5>;
        mov.u32 %i1, %ctaid.x; mov.u32 %i2, %ntid.x; mov.u32 %i3, %tid.x; mad.lo.u32 %i0, %i1, %i2, %i3;
        ld.param.u32 %i4, [n]; setp.ge.u32 %p3, %i0, %i4; @%p3 ret; setp.ne.u32 %p2, %i0, %i0;
        {body} {code}
        ld.param.u64 %x0, [out]; mad.wide.u32 %x0, %i0, {}, %x0; st.global.b{result} [%x0], {}; }}",
        result / 8,
        register(*result, 0)
    );
    let module = module(&text);
    let mut memory = Memory::new();
    let mut params: Vec<Argument> = Vec::new();
    for (i, width) in operands.iter().enumerate() {
        let bytes: Vec<u8> = rows.iter().flat_map(|r| r[i].to_le_bytes()[..(*width / 8) as usize].to_vec()).collect();
        let buffer = memory.add("in", &bytes, Rights::Read);
        params.push(Argument::pointer(&memory, buffer));
    }
    let size = (*result / 8) as usize;
    let out = memory.add("out", &vec![0; size * rows.len()], Rights::Write);
    params.extend([Argument::pointer(&memory, out), (rows.len() as u32).into()]);
    let launch = Launch {
        kernel: "k".into(),
        grid: [(rows.len() as u32).div_ceil(256), 1, 1],
        block: [256, 1, 1],
        params,
        options: Options { accuracy, ..Options::default() },
        ..Launch::default()
    };
    let outcome = module.run(&launch, &mut memory).unwrap_or_else(|e| panic!("{e}"));
    assert!(outcome.findings.is_empty(), "{instruction}: {}", outcome.findings[0]);
    memory.bytes(out).chunks(size).map(|b| b.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))).collect()
}

/// `evaluate` against `want`, row by row.
fn check(instruction: &str, widths: &[u32], rows: &[Vec<u64>], want: impl Fn(&[u64]) -> u64) {
    let got = evaluate(instruction, widths, rows, Accuracy::Exact);
    for (row, got) in rows.iter().zip(got) {
        let want = want(row);
        assert!(got == want, "{instruction} of {row:x?}: got {got:#x}, want {want:#x}");
    }
}

/// All bit patterns of 16 bits, as rows.
fn halves() -> Vec<Vec<u64>> {
    (0..65536).map(|v| vec![v]).collect()
}

/// Rows of `n` operands: all combinations of `special`, and `more` random patterns of `bits` bits.
fn mixed(n: usize, bits: u32, special: &[u64], more: usize) -> Vec<Vec<u64>> {
    let mut rows: Vec<Vec<u64>> = vec![vec![]];
    for _ in 0..n {
        rows = rows.iter().flat_map(|r| special.iter().map(|s| [r.as_slice(), &[*s]].concat())).collect();
    }
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> (64 - bits)
    };
    rows.extend((0..more).map(|_| (0..n).map(|_| random()).collect()));
    rows
}

/// A wrong expectation is seen: the comparison itself can fail.
#[test]
#[should_panic(expected = "add.s32")]
fn a_wrong_result_would_be_seen() {
    check("add.s32 $d, $a, $b;", &[32, 32, 32], &[vec![1, 2]], |_| 4);
}
