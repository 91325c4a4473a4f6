//! What the counters say of the project's kernels: exactly one pass over memory, in wide accesses.

mod common;

use common::{Dtype, FORWARD, module, text};

#[test]
fn forward_kernels_read_and_write_everything_once() {
    let rows = 4;
    for kernel in FORWARD {
        let counters = kernel.run(&module(&text(kernel.file)), rows, |_| {}).outcome.counters;
        let size = |t: Dtype| if t == Dtype::F32 { 4 } else { 2 };
        let (row, weights) = (kernel.d as u64 * size(kernel.t), kernel.d as u64 * size(kernel.w));
        let rows = rows as u64;
        let traffic = |name: &str| (counters.buffer(name).bytes_read, counters.buffer(name).bytes_written);
        let name = kernel.file;
        assert_eq!(traffic("x"), (rows * row, 0), "{name}");
        assert_eq!(traffic("y"), (0, rows * row), "{name}");
        assert_eq!(traffic("weight"), (rows * weights, 0), "{name}");
        assert_eq!(traffic("bias"), (if kernel.rms { 0 } else { rows * weights }, 0), "{name}");
        assert_eq!(traffic("residual_out"), (0, if kernel.residual { rows * row } else { 0 }), "{name}");
        // One element in an access where a row is no multiple of 16 bytes; else nothing is narrow.
        let narrow = counters.buffer("x").narrow_accesses;
        assert_eq!(narrow, if kernel.d % 4 == 0 { 0 } else { rows * kernel.d as u64 }, "{name}");
        for buffer in ["x", "y", "weight", "bias"] {
            // Wider weights than elements: a thread's weights are 32 bytes, so that each of two loads skips every other 16.
            let skips = kernel.w != kernel.t && kernel.d % 8 == 0 && buffer == "weight";
            let b = counters.buffer(buffer);
            assert_eq!(b.uncoalesced_requests, if skips { b.requests } else { 0 }, "{name} {buffer}");
        }
        assert_eq!(counters.shared.conflicts, 0, "{name}");
        assert_eq!(counters.local_bytes, 0, "{name}: spills");
        let per_element = counters.instructions as f64 / (rows * kernel.d as u64) as f64;
        println!(
            "{name}: {per_element:.1} instructions per element, {:.0} per thread",
            counters.instructions_per_thread()
        );
        // What a row costs by itself weighs more in a short one.
        assert!(per_element < if kernel.d < 256 { 60.0 } else { 25.0 }, "{name}: {per_element}");
    }
}

/// Requests, sectors and bank conflicts of access patterns whose numbers are known.
#[test]
fn sectors_and_wavefronts_of_known_patterns() {
    use common::{Tensors, clean, run};
    use isonorm_ptx::Launch;
    // 32 lanes load 4 bytes each, `stride` words apart, from global memory, and from shared memory once it is filled.
    let counters = |stride: u32, bytes: u32| {
        let vector = if bytes == 16 { ".v4" } else { "" };
        let list = if bytes == 16 { "{%r4, %r5, %r6, %r7}" } else { "%r4" };
        let code = format!(
            ".version 8.5\n.target sm_90\n.address_size 64\n.shared .align 16 .b8 s[8192];
            .visible .entry k(.param .u64 in, .param .u64 out) {{ .reg .b32 %r<9>; .reg .b64 %d<5>;
            mov.u32 %r0, %tid.x; ld.param.u64 %d0, [in]; mul.lo.u32 %r1, %r0, {}; cvt.u64.u32 %d1, %r1; add.u64 %d0, %d0, %d1;
            mov.u32 %r2, s; add.u32 %r3, %r2, %r1;
            ld.global{vector}.b32 {list}, [%d0]; st.shared{vector}.b32 [%r3], {list};
            ld.param.u64 %d2, [out]; mad.wide.u32 %d2, %r0, 4, %d2; st.global.b32 [%d2], %r4; }}",
            stride * 4
        );
        let mut t = Tensors::default();
        let (input, out) = (t.input("in", Dtype::F32, &vec![1.0; 2048]), t.output("out", Dtype::F32, 32));
        let params = vec![t.pointer(input), t.pointer(out)];
        let outcome = run(&module(&code), Launch { block: [32, 1, 1], params, ..Launch::default() }, &mut t);
        if stride > 0 {
            clean(&outcome);
        }
        let b = outcome.counters.buffer("in");
        assert_eq!(b.requests, 1);
        (
            b.sectors,
            b.least_sectors,
            b.uncoalesced_requests,
            outcome.counters.shared.wavefronts,
            outcome.counters.shared.conflicts,
        )
    };
    assert_eq!(counters(1, 4), (4, 4, 0, 1, 0));
    assert_eq!(counters(2, 4), (8, 4, 1, 2, 1));
    assert_eq!(counters(32, 4), (32, 4, 1, 32, 31));
    assert_eq!(counters(33, 4), (32, 4, 1, 1, 0));
    assert_eq!(counters(4, 16), (16, 16, 0, 4, 0));
    assert_eq!(counters(8, 16), (32, 16, 1, 8, 4));
    // All lanes at one address: one sector; the stores to shared memory race, which is another matter.
    assert_eq!(counters(0, 4), (1, 1, 0, 1, 0));
}
