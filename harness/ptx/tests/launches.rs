//! Several launches on one memory: what one writes the next may read, and together they complete the outputs.

mod common;

use common::{clean, kinds, module};
use isonorm_ptx::{Argument, Buffer, Kind, Launch, Memory, Options, Outcome, Rights};

/// Copies one f32 for each thread, from `from` on, `first` elements further.
const COPY: &str = "
    .version 8.0
    .target sm_80
    .address_size 64
    .visible .entry copy(.param .u64 from, .param .u64 to, .param .u32 first) {
        .reg .b32 %r<3>; .reg .b64 %d<6>;
        mov.u32 %r0, %tid.x;
        ld.param.u32 %r1, [first];
        add.u32 %r0, %r0, %r1;
        ld.param.u64 %d0, [from];
        mad.wide.u32 %d1, %r0, 4, %d0;
        ld.global.b32 %r2, [%d1];
        ld.param.u64 %d2, [to];
        mad.wide.u32 %d3, %r0, 4, %d2;
        st.global.b32 [%d3], %r2;
        ret;
    }";

fn copy(memory: &mut Memory, from: Buffer, to: Buffer, range: std::ops::Range<u32>, more_follows: bool) -> Outcome {
    let launch = Launch {
        kernel: "copy".into(),
        block: [range.len() as u32, 1, 1],
        params: vec![Argument::pointer(memory, from), Argument::pointer(memory, to), range.start.into()],
        options: Options { more_follows, ..Options::default() },
        ..Launch::default()
    };
    module(COPY).run(&launch, memory).unwrap_or_else(|error| panic!("{error}"))
}

/// An input of eight elements, what lies between, and an output.
fn buffers(between: Rights) -> (Memory, [Buffer; 3]) {
    let mut memory = Memory::new();
    let x = memory.add("x", &[1; 32], Rights::Read);
    let parts = memory.add_at("parts", &[0; 32], between, 4);
    let y = memory.add("y", &[0; 32], Rights::Write);
    (memory, [x, parts, y])
}

#[test]
fn what_one_launch_writes_the_next_may_read() {
    for between in [Rights::Scratch, Rights::Write] {
        let (mut memory, [x, parts, y]) = buffers(between);
        clean(&copy(&mut memory, x, parts, 0..8, true));
        clean(&copy(&mut memory, parts, y, 0..8, false));
        assert_eq!(memory.bytes(y), [1; 32]);
    }
}

#[test]
fn scratch_that_no_launch_wrote_is_not_read() {
    let (mut memory, [x, parts, y]) = buffers(Rights::Scratch);
    // Scratch memory need not be written in whole, but what is read of it must be.
    clean(&copy(&mut memory, x, parts, 0..5, true));
    let outcome = copy(&mut memory, parts, y, 0..8, false);
    assert_eq!(kinds(&outcome.findings), [Kind::UnwrittenRead]);
    assert_eq!(outcome.findings[0].count, 3, "{}", outcome.findings[0]);
}

#[test]
fn launches_complete_an_output_together() {
    let (mut memory, [x, _, y]) = buffers(Rights::Read);
    clean(&copy(&mut memory, x, y, 0..3, true));
    clean(&copy(&mut memory, x, y, 3..8, false));
    let (mut memory, [x, _, y]) = buffers(Rights::Read);
    clean(&copy(&mut memory, x, y, 0..3, true));
    let outcome = copy(&mut memory, x, y, 3..7, false);
    assert_eq!(kinds(&outcome.findings), [Kind::UnwrittenOutput]);
    assert!(outcome.findings[0].message.contains("4 of 32 bytes of output y"), "{}", outcome.findings[0]);
}
