//! What is not known is refused, with its line; findings name the source; launches that do not fit are errors.

mod common;

use common::{Dtype, Forward, forward, module, text};
use isonorm_ptx::{Argument, Kind, Launch, LaunchError, Memory, Module, Source};

fn body(code: &str) -> String {
    format!(
        ".version 8.5\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 p)\n{{\n.reg .pred %p<4>;\n.reg .b32 %r<9>;\n.reg .b16 %h<9>;\n.reg .b64 %d<9>;\n{code}\nret;\n}}\n"
    )
}

#[test]
fn unknown_text_is_refused_with_its_line() {
    let cases = [
        ("wgmma.fence.sync.aligned;", "unknown opcode wgmma"),
        ("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 %r1, %r2, %r3, %r4;", "unknown opcode mma"),
        ("add.f32.bogus %r1, %r2, %r3;", "unknown modifier .bogus of add"),
        ("add.sat.f64 %d1, %d2, %d3;", "add with .sat is not known"),
        ("add.rz.f16 %h1, %h2, %h3;", "this rounding mode for this type"),
        ("add.s32 %r1, %r2;", "too few operands"),
        ("add.s32 %r1, %r2, %r3, %r4;", "too many operands"),
        ("add.s64 %d1, %d2, %r3;", "a register of 32 bits does not fit"),
        ("fma.f32 %r1, %r2, %r3, %r4;", "no rounding mode"),
        ("rsqrt.f32 %r1, %r2;", "no .approx"),
        ("cvt.f16.f32 %h1, %r2;", "this rounding between these types"),
        ("cvt.rn.satfinite.e4m3x2.f32 %h1, %r2, %r3;", "no type that is known"),
        ("ld.global.v3.b32 {%r1, %r2, %r3}, [%d1];", "3 registers for 1 elements"),
        ("ld.weird.b32 %r1, [%d1];", "unknown modifier .weird of ld"),
        ("shfl.bfly.b32 %r1, %r2, 1, 31;", "shfl without .sync"),
        ("mov.u32 %r1, %clock;", "unknown register %clock"),
        ("bra nowhere;", "unknown label nowhere"),
        ("call.uni printf;", "function printf has no body"),
        ("@%r1 ret;", "the guard is no predicate"),
        (".weird 3;", "unknown directive `.weird`"),
        ("add.add.f32 %r1, %r2, %r3;", "unknown modifier .add of add"),
        ("add.s32 %r1, [[[[[[[[[[%r2]]]]]]]]]], 1;", "an operand of too many parts"),
        (".local .b8 big[600000];", "more than the 512 KiB of a thread"),
        (".local .b32 big[9223372036854775807][16];", "more than 67108864 bytes"),
        ("fence.proxy.tensormap::generic.release.gpu;", "unknown modifier .tensormap::generic of fence"),
    ];
    for (code, words) in cases {
        let error = Module::parse(&body(code)).err().unwrap_or_else(|| panic!("{code} is taken"));
        assert!(error.message.contains(words), "{code}: {error}");
        assert_eq!(error.line, 10, "{code}: {error}");
    }
    let recursive = "\n.func f() { call.uni g; ret; }\n.func g() { call.uni f; ret; }\n";
    let error =
        Module::parse(&format!(".version 8.5\n.target sm_90\n.address_size 64{recursive}")).err().expect("recursion");
    assert!(error.message.contains("recursive"), "{error}");
}

#[test]
fn every_prefix_of_a_real_file_is_taken_or_refused_without_a_panic() {
    let text = text("rms_norm_backward_f32");
    for end in (0..text.len()).step_by(97) {
        let _ = Module::parse(&text[..end]);
    }
}

/// With line information, findings name the line of the .cu file and where it was inlined.
#[test]
fn findings_name_the_source() {
    let kernel = Forward { threads: 8, ..forward("", Dtype::Bf16, Dtype::Bf16, 64) };
    let module = module(&text("layer_norm_bf16_lines"));
    let findings = kernel.run(&module, 1, |l| l.params[6] = 2i64.into()).outcome.findings;
    let finding = findings.iter().find(|f| f.kind == Kind::OutOfBounds).expect("a row too many");
    let header = include_str!("../../../kernels/cuda/norm.cuh");
    let Some(Source { file, line, inlined_at: Some((outer, _)) }) = &finding.source else { panic!("{finding}") };
    assert_eq!((file.as_str(), outer.as_str()), ("norm.cuh", "rows.cuh"));
    assert!(
        header.lines().nth(*line as usize - 1).expect("the line").contains("reinterpret_cast<const Vec"),
        "{finding}"
    );
    assert!(finding.to_string().contains("norm.cuh:"), "{finding}");
}

#[test]
fn launches_that_do_not_fit_are_errors() {
    let module = module(&text("reduce_parts_f32"));
    let name = module.kernels().next().expect("a kernel").to_string();
    assert_eq!(module.parameters(&name), Some(vec![8, 8, 8, 8, 4, 4]));
    let pointers = vec![Argument::null(); 4];
    let params = [pointers.clone(), vec![0i32.into(); 2]].concat();
    let launch = Launch { kernel: name, block: [32, 16, 1], params, ..Launch::default() };
    let refused = |launch: Launch| module.run(&launch, &mut Memory::new()).expect_err("it does not fit");
    let message = |launch: Launch| refused(launch).to_string();
    let unknown = refused(Launch { kernel: "nobody".into(), ..launch.clone() });
    assert!(matches!(unknown, LaunchError::UnknownKernel { .. }), "{unknown}");
    assert!(message(Launch { params: vec![0u64.into()], ..launch.clone() }).contains("1 arguments for 6 parameters"));
    let wrong = [vec![0u32.into()], pointers, vec![0i32.into()]].concat();
    assert!(message(Launch { params: wrong, ..launch.clone() }).contains("argument 0 has 4 bytes, the parameter 8"));
    assert!(message(Launch { block: [32, 32, 1], ..launch.clone() }).contains("1024 threads a block: 1 to 512"));
    assert!(
        message(Launch { grid: [3, 1, 1], cluster: [2, 1, 1], ..launch.clone() }).contains("no multiple of clusters")
    );
    assert!(message(Launch { shared: 300_000, ..launch.clone() }).contains("shared memory"));
    assert!(message(Launch { grid: [0, 1, 1], ..launch }).contains("a grid of [0, 1, 1]"));
}
