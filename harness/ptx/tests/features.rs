//! Features that the project's kernels do not use yet, in code that NVRTC compiled from tests/ptx/features.cu.

mod common;

use common::{Dtype, Tensors, clean, kinds, module, run, text};
use isonorm_ptx::{Argument, Buffer, Kind, Launch, Order, Outcome, Rights};

/// Runs a kernel of the file, edited, on an input and an output of 32-bit words.
struct Call {
    kernel: &'static str,
    edits: Vec<(&'static str, &'static str)>,
    grid: u32,
    block: u32,
    cluster: u32,
    more: Vec<Argument>,
}

impl Call {
    fn new(kernel: &'static str, block: u32) -> Self {
        Self { kernel, edits: Vec::new(), grid: 1, block, cluster: 1, more: Vec::new() }
    }

    fn edit(mut self, old: &'static str, new: &'static str) -> Self {
        self.edits.push((old, new));
        self
    }

    fn run(&self, input: &[u8], out_bytes: usize) -> (Outcome, Vec<u8>) {
        let mut tensors = Tensors::default();
        let input = tensors.memory.add("in", input, Rights::Read);
        let out = tensors.memory.add("out", &vec![0xff; out_bytes], Rights::Write);
        let (outcome, tensors) = self.run_on(tensors, &[input, out]);
        (outcome, tensors.memory.bytes(out))
    }

    fn run_on(&self, mut tensors: Tensors, buffers: &[Buffer]) -> (Outcome, Tensors) {
        let mut text = text("features");
        // Only this kernel's text is edited.
        let start = text.find(&format!(".entry {}(", self.kernel)).expect("the kernel is there");
        let mut body = text.split_off(start);
        let rest = body.find(".entry").and_then(|_| body[1..].find(".visible")).map(|at| body.split_off(at + 1));
        for (old, new) in &self.edits {
            assert!(body.contains(old), "{old} is not in {}", self.kernel);
            body = body.replace(old, new);
        }
        let mut params: Vec<Argument> = buffers.iter().map(|b| tensors.pointer(*b)).collect();
        params.extend(self.more.clone());
        let launch = Launch {
            kernel: self.kernel.into(),
            grid: [self.grid, 1, 1],
            block: [self.block, 1, 1],
            cluster: [self.cluster, 1, 1],
            params,
            ..Launch::default()
        };
        let outcome = run(&module(&(text + &body + &rest.unwrap_or_default())), launch, &mut tensors);
        (outcome, tensors)
    }
}

fn floats(n: usize) -> Vec<u8> {
    (0..n).flat_map(|i| (i as f32 + 0.5).to_le_bytes()).collect()
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn ints(values: impl IntoIterator<Item = i32>) -> Vec<u8> {
    values.into_iter().flat_map(i32::to_le_bytes).collect()
}

#[test]
fn asynchronous_copies() {
    let call = |n: i32| Call { more: vec![n.into()], ..Call::new("copies", 64) };
    let n = 100;
    let (outcome, out) = call(n).run(&floats(4 * n as usize), 16 * 128);
    clean(&outcome);
    let out = Dtype::F32.values(&out);
    for i in 0..128usize {
        for j in 0..4 {
            let from = i ^ 1;
            let want = if from < n as usize { (4 * from + j) as f64 + 0.5 } else { 0.0 };
            assert_eq!(out[4 * i + j], want, "{i} {j}");
        }
    }
    assert_eq!(outcome.counters.buffer("in").bytes_read, 16 * n as u64);
    // Not awaited: the memory is still being filled when it is read.
    let (outcome, _) = call(n).edit("cp.async.wait_group 1;", "").run(&floats(400), 16 * 128);
    assert!(kinds(&outcome.findings).contains(&Kind::CopyInFlight), "{:?}", outcome.findings);
    // Awaited by each thread for itself only.
    let (outcome, _) = call(n).edit("bar.sync \t0;", "").run(&floats(400), 16 * 128);
    assert!(outcome.findings.iter().any(|f| f.message.contains("asynchronous copy") || f.kind == Kind::Race));
    let (outcome, _) = call(n).run(&floats(300), 16 * 128);
    assert_eq!(kinds(&outcome.findings), [Kind::OutOfBounds, Kind::UnwrittenRead]);
}

#[test]
fn bulk_copies_and_mbarriers() {
    let call = || Call::new("bulk", 256);
    let (outcome, out) = call().run(&floats(256), 1024);
    clean(&outcome);
    let want: Vec<f64> = (0..256).map(|i| 2.0 * (f64::from(i) + 0.5)).collect();
    assert_eq!(Dtype::F32.values(&out), want);
    assert_eq!(outcome.counters.buffer("in").bytes_read, 1024);

    let expect = |call: Call, kind: Kind, words: &str| {
        let (outcome, _) = call.run(&floats(256), 1024);
        let found = outcome.findings.iter().any(|f| f.kind == kind && f.message.contains(words));
        assert!(found, "{kind:?} {words}: {:#?}", outcome.findings);
    };
    expect(call().edit(" 1024;\n", " 2048;\n").edit("], 1024, [", "], 1024, ["), Kind::Deadlock, "never completes");
    expect(call().edit("@done bra over;", "bra over;"), Kind::CopyInFlight, "still fills");
    expect(
        call().edit("mbarrier.init.shared::cta.b64", "mbarrier.inval.shared::cta.b64 [%r1]; //"),
        Kind::Mbarrier,
        "not initialised",
    );
    expect(call().edit("cp.async.bulk.wait_group 0;", ""), Kind::CopyInFlight, "the thread ends while");
    expect(call().edit(", 1;\n", ", 2;\n"), Kind::Deadlock, "never completes");
}

#[test]
fn clusters_with_remote_arrivals() {
    let call = || Call { grid: 4, cluster: 2, ..Call::new("neighbours", 32) };
    let input = ints((0..128).map(|i| i * i));
    let (outcome, out) = call().run(&input, 512);
    clean(&outcome);
    let want: Vec<u32> = (0..128u32)
        .map(|i| {
            let from = ((i / 32) ^ 1) * 32 + (31 - i % 32);
            from * from
        })
        .collect();
    assert_eq!(words(&out), want);
    // Without the wait, the box is read while the neighbour may write it.
    let (outcome, _) = call().edit("@done bra over;", "bra over;").run(&input, 512);
    assert!(
        kinds(&outcome.findings).iter().any(|k| matches!(k, Kind::Race | Kind::UnwrittenRead)),
        "{:?}",
        outcome.findings
    );
    // Without the first barrier, the neighbour's mbarrier may not be there yet.
    let first = "barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;";
    let (outcome, _) = call().edit(first, "").run(&input, 512);
    assert!(
        kinds(&outcome.findings).iter().any(|k| matches!(k, Kind::Race | Kind::Mbarrier)),
        "{:?}",
        outcome.findings
    );
}

#[test]
fn atomic_operations() {
    let (grid, block) = (5, 64);
    let n = grid * block;
    let mut tensors = Tensors::default();
    let mut sums = vec![0; 56];
    sums[8..12].copy_from_slice(&7i32.to_le_bytes());
    let sums = tensors.memory.add("sums", &sums, Rights::ReadWrite);
    let histogram = tensors.memory.add("histogram", &[0; 32], Rights::ReadWrite);
    let call = Call { grid, ..Call::new("atomics", block) };
    let (outcome, tensors) = call.run_on(tensors, &[sums, histogram]);
    clean(&outcome);
    assert_eq!(words(&tensors.memory.bytes(histogram)), [n / 8; 8]);
    let bytes = tensors.memory.bytes(sums);
    let w = words(&bytes);
    assert_eq!(w[..4], [n, (n - 1) * 7, (-(n as i32 - 1)) as u32, u32::MAX]);
    assert_eq!(u64::from_le_bytes(bytes[16..24].try_into().unwrap()), u64::from(n) << 33);
    assert_eq!(f32::from_bits(w[6]), n as f32 / 2.0);
    assert_eq!(w[7], 3 * n);
    assert_eq!(Dtype::F16.values(&bytes[32..36]), [320.0, 80.0]);
    // bf16 has eight bits: 256 + 1 is 256 again, 512 + 2 too.
    assert_eq!(Dtype::Bf16.values(&bytes[36..40]), [256.0, 512.0]);
    assert_eq!(Dtype::F32.values(&bytes[40..48]), [n as f64, 2.0 * n as f64]);
    assert!(outcome.counters.buffer("sums").atomics >= 10 * u64::from(n));
}

#[test]
fn functions_tables_variables_and_local_arrays() {
    let n = 3i32;
    let call = Call { more: vec![n.into()], ..Call::new("functions", 64) };
    let (outcome, out) = call.run(&floats(64), 512);
    clean(&outcome);
    let out: Vec<f64> = out.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
    let table = [1f32, -2.5, 3.25, 0.125];
    for (i, got) in out.iter().enumerate() {
        let v = i as f32 + 0.5;
        let (w, k) = if i % 2 == 1 { (v, i as f32) } else { (-v, -(i as f32)) };
        let a = w * w + k;
        let own = v + ((n as usize + 64 - i) % 8) as f32;
        let counters = [40.0, 2.0];
        let want = f64::from(a) + f64::from(w) * 2.0 + f64::from(table[i % 4]);
        assert_eq!(*got, want + f64::from(own) + counters[0] + counters[i % 2], "{i}");
    }
    assert!(outcome.counters.local_bytes > 0);
}

#[test]
fn parts_of_warps() {
    let v: Vec<i32> = (0..32).map(|i| (i * 5) % 11 - 2).collect();
    let (outcome, out) = Call::new("warps", 32).run(&ints(v.clone()), 32 * 12 * 4);
    clean(&outcome);
    let out = words(&out);
    let ballot = |f: &dyn Fn(i32) -> bool| (0..32).filter(|i| f(v[*i])).fold(0u32, |m, i| m | 1 << i);
    for t in 0..32usize {
        let bits = |i: usize| v[i] as u32;
        let want = [
            ballot(&|x| x > 0),
            3,
            ballot(&|x| x == v[t]),
            v.iter().sum::<i32>() as u32,
            *v.iter().max().unwrap() as u32,
            bits(if t < 3 { t } else { t - 3 }),
            bits(if t % 8 + 5 < 8 { t + 5 } else { t }),
            bits(t / 16 * 16 + 9),
            if t < 16 { bits(t ^ 1) } else { *v[16..].iter().min().unwrap() as u32 },
            bits(t ^ 7),
            bits(31 - t) + 1,
            32,
        ];
        assert_eq!(out[t * 12..t * 12 + 12], want, "lane {t}");
    }
    let (outcome, _) = Call::new("warps", 32).edit("bar.warp.sync", "// bar.warp.sync").run(&ints(v), 32 * 12 * 4);
    assert_eq!(kinds(&outcome.findings), [Kind::Race]);
}

#[test]
fn barriers_of_half_blocks() {
    let (outcome, out) = Call::new("pipeline", 64).run(&floats(128), 4 * 192);
    clean(&outcome);
    let out = Dtype::F32.values(&out);
    for (i, v) in out[..128].iter().enumerate() {
        assert_eq!(*v, (i / 32 * 32 + 31 - i % 32) as f64 + 0.5);
    }
    assert!(out[128..].iter().all(|v| *v == 22.0));
    let (outcome, _) = Call::new("pipeline", 64).edit("bar.arrive 1, 64;", "").run(&floats(128), 4 * 192);
    assert!(kinds(&outcome.findings).contains(&Kind::Deadlock), "{:?}", outcome.findings);
    let (outcome, _) = Call::new("pipeline", 64).edit("bar.sync 2, 64;", "").run(&floats(128), 4 * 192);
    assert_eq!(kinds(&outcome.findings), [Kind::Race]);
}

/// Every core and every order gives the same bits.
#[test]
fn cores_and_orders_do_not_matter() {
    let kernel = common::FORWARD[0];
    let module = module(&text(kernel.file));
    let ran = kernel.run(&module, 23, |l| {
        l.options.orders = vec![Order::Forward, Order::Reverse, Order::Shuffled(1), Order::Shuffled(2)];
        l.options.threads = 3;
    });
    clean(&ran.outcome);
    let one = kernel.run(&module, 23, |l| l.options.threads = 1);
    assert_eq!(ran.outcome.counters, one.outcome.counters);
}
