//! Every line of a real kernel, left out: refused, reported, or other bits in its result, and never a panic.

mod common;

use common::{Ran, SMALL, kinds, text};
use isonorm_ptx::{Argument, Module};

#[test]
fn leaving_out_any_line_is_noticed() {
    let right = text("planted/none");
    let lines: Vec<&str> = right.lines().collect();
    // With everything, and without what may be null: weight, bias.
    let run = |module: &Module, null: &[usize]| {
        SMALL.run(module, 2, |launch| {
            launch.options.instruction_limit = 20_000;
            null.iter().for_each(|i| launch.params[*i] = Argument::null());
        })
    };
    let launches: [&[usize]; 4] = [&[], &[2], &[3], &[2, 3]];
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
    // The kernel is as right without these: the number of rows, of which there is one for each block; that one lane alone
    // stores a sum which all lanes have (and so the predicate); whether the variance is negative, which rounding makes it
    // seldom; and the return at the end.
    let expected = ["_param_6];", "setp.ne.s32 \t%p9", "@%p9 bra", "@%p9 bra", "setp.lt.f32", "ret;"];
    assert_eq!(unnoticed.len(), expected.len(), "{unnoticed:#?}");
    for (line, words) in unnoticed.iter().zip(expected) {
        assert!(line.contains(words), "{line}: not {words}");
    }
}
