//! Instructions one by one, through the whole executor, against an oracle that shares nothing with it.
//!
//! - Rounded arithmetic and conversions: [`exact`] finds the two neighbours of the exact result by bisection over the
//!   format's numbers, comparing with sums in 1152-bit fixed point, and applies the rounding mode's definition.
//! - Halves: all 65536 operands of unary operations and conversions; pairs and f32: special values against each other
//!   and many random bit patterns.
//! - Integers and bits: the manual's definitions, bit by bit.
//! - Approximate instructions: f64, correctly rounded, and the documented error when perturbed.
//!
//! Where there is a GPU ([`hardware`]), all of it is asked there too: bit for bit, and within the documented error.

#[path = "../common/mod.rs"]
mod common;

mod approximate;
mod convert;
mod exact;
mod float;
mod hardware;
mod integer;

use common::module;
use isonorm_ptx::{Accuracy, Argument, Launch, Memory, Options, Rights};

/// Threads of a block.
const BLOCK: u32 = 256;

/// A kernel `k` that applies `instruction` (or several, with `$d`, `$a`, `$b`, `$c`) to each row of operands. Widths in bits:
/// the operands', then the result's. Its parameters are an address for each operand, that of the results, and how many.
fn kernel(instruction: &str, widths: &[u32]) -> String {
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
    format!(
        ".version 8.5\n.target sm_90\n.address_size 64\n.visible .entry k({params}.param .u64 out, .param .u32 n) {{
        .reg .pred %p<4>; .reg .b16 %h<5>; .reg .b32 %r<5>, %i<5>; .reg .b64 %d<5>, %x<5>;
        mov.u32 %i1, %ctaid.x; mov.u32 %i2, %ntid.x; mov.u32 %i3, %tid.x; mad.lo.u32 %i0, %i1, %i2, %i3;
        ld.param.u32 %i4, [n]; setp.ge.u32 %p3, %i0, %i4; @%p3 ret; setp.ne.u32 %p2, %i0, %i0;
        {body} {code}
        ld.param.u64 %x0, [out]; mad.wide.u32 %x0, %i0, {}, %x0; st.global.b{result} [%x0], {}; }}",
        result / 8,
        register(*result, 0)
    )
}

/// All operands of one place, as they lie in memory.
fn bytes_of(rows: &[Vec<u64>], place: usize, width: u32) -> Vec<u8> {
    rows.iter().flat_map(|row| row[place].to_le_bytes()[..(width / 8) as usize].to_vec()).collect()
}

/// Runs `instruction` on each row of operands.
fn evaluate(instruction: &str, widths: &[u32], rows: &[Vec<u64>], accuracy: Accuracy) -> Vec<u64> {
    let (result, operands) = widths.split_last().expect("a result");
    let module = module(&kernel(instruction, widths));
    let mut memory = Memory::new();
    let mut params: Vec<Argument> = Vec::new();
    for (i, width) in operands.iter().enumerate() {
        let buffer = memory.add("in", &bytes_of(rows, i, *width), Rights::Read);
        params.push(Argument::pointer(&memory, buffer));
    }
    let size = (*result / 8) as usize;
    let out = memory.add("out", &vec![0; size * rows.len()], Rights::Write);
    params.extend([Argument::pointer(&memory, out), (rows.len() as u32).into()]);
    let launch = Launch {
        kernel: "k".into(),
        grid: [(rows.len() as u32).div_ceil(BLOCK), 1, 1],
        block: [BLOCK, 1, 1],
        params,
        options: Options { accuracy, ..Options::default() },
        ..Launch::default()
    };
    let outcome = module.run(&launch, &mut memory).unwrap_or_else(|e| panic!("{e}"));
    assert!(outcome.findings.is_empty(), "{instruction}: {}", outcome.findings[0]);
    memory.bytes(out).chunks(size).map(number).collect()
}

/// The same on the GPU of this machine; none if it has none.
fn on_gpu(instruction: &str, widths: &[u32], rows: &[Vec<u64>]) -> Option<Vec<u64>> {
    let results = hardware::evaluate(&kernel(instruction, widths), widths, rows)?;
    Some(results.iter().map(|bytes| number(bytes)).collect())
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// `evaluate`, and what a GPU gives, against `want`, row by row.
fn check(instruction: &str, widths: &[u32], rows: &[Vec<u64>], want: impl Fn(&[u64]) -> u64) {
    let executed = Some(("executor", evaluate(instruction, widths, rows, Accuracy::Exact)));
    let on_gpu = on_gpu(instruction, widths, rows).map(|results| ("GPU", results));
    for (who, results) in executed.into_iter().chain(on_gpu) {
        for (row, got) in rows.iter().zip(results) {
            let want = want(row);
            assert!(got == want, "{instruction} of {row:x?}: the {who} gives {got:#x}, not {want:#x}");
        }
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
