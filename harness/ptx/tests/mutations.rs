//! Every line of a real kernel, left out: refused, reported, or other bits in its result, and never a panic.

mod common;

use common::{Dtype, Forward, Ran, kinds, text};
use isonorm_ptx::{Argument, Module};

#[test]
fn leaving_out_any_line_is_noticed() {
    let right = text("planted/none");
    let lines: Vec<&str> = right.lines().collect();
    let f = Dtype::F32;
    let kernel =
        Forward { file: "", t: f, w: f, d: 200, warps: 2, rows_per_block: 1, cluster: 1, rms: false, residual: false };
    // With everything, and without what may be null: gamma, beta, mean, rstd.
    let run = |module: &Module, null: &[usize]| {
        kernel.run(module, 2, |launch| {
            launch.options.instruction_limit = 20_000;
            null.iter().for_each(|i| launch.params[*i] = Argument::null());
        })
    };
    let launches: [&[usize]; 5] = [&[], &[2], &[3], &[2, 3], &[6, 7]];
    let all = |module: &Module| launches.map(|null| run(module, null));
    let original = all(&Module::parse(&right).expect("a committed file"));
    let (mut refused, mut reported, mut wrong, mut unnoticed) = (0, 0, 0, Vec::new());
    // Instructions and declarations; parameters and braces change what the launch is.
    for (i, line) in lines.iter().enumerate().filter(|(_, line)| line.trim().ends_with(';')) {
        let text = [&lines[..i], &lines[i + 1..]].concat().join("\n");
        let Ok(module) = Module::parse(&text) else {
            refused += 1;
            continue;
        };
        let mutant = all(&module);
        let differs = |f: &dyn Fn(&Ran, &Ran) -> bool| mutant.iter().zip(&original).any(|(m, o)| f(m, o));
        if differs(&|m, o| kinds(&m.outcome.findings) != kinds(&o.outcome.findings)) {
            reported += 1;
        } else if differs(&|m, o| m.bytes != o.bytes) {
            wrong += 1;
        } else {
            unnoticed.push(format!("{}: {}", i + 1, line.trim()));
        }
    }
    println!("refused {refused}, reported {reported}, wrong {wrong}, unnoticed {unnoticed:#?}");
    assert!(refused > 0 && reported > 50 && wrong > 20, "{refused} {reported} {wrong}");
    // The kernel is as right without these: the last barrier, after which the slots are not used again, and the return at
    // the end.
    let expected = ["217: bar.sync \t0;", "318: ret;"];
    assert_eq!(unnoticed, expected);
}
