//! How fast the executor runs: `cargo run --release -p isonorm-ptx --example throughput [SECONDS]`.

use std::{hint::black_box, time::Instant};

use isonorm_ptx::{Argument, Launch, Memory, Module, Options, Rights};

fn main() {
    let seconds: f64 = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(2.0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for (name, rows, block, d, bytes) in [
        ("layer_norm_bf16_block", 1, 128, 4096, 2),
        ("layer_norm_bf16_block", 64, 128, 4096, 2),
        ("layer_norm_f32_warp", 64, 128, 1000, 4),
    ] {
        let text = std::fs::read_to_string(format!("{}/tests/ptx/{name}.ptx", env!("CARGO_MANIFEST_DIR")))
            .expect("a committed file");
        let start = Instant::now();
        let module = Module::parse(&text).expect("a committed file");
        println!("{name}: parsed {} kB in {:.2} ms", text.len() / 1000, start.elapsed().as_secs_f64() * 1e3);
        let mut memory = Memory::new();
        let mut input = |name: &str, n: usize| memory.add(name, &vec![0x3f; n * bytes], Rights::Read);
        let inputs = [input("x", rows * d), input("residual", 0), input("weight", d), input("bias", d)];
        let mut output = |name: &str, n: usize| memory.add(name, &vec![0; n], Rights::Write);
        let outputs = [output("y", rows * d * bytes), output("residual_out", 0)];
        let mut params: Vec<Argument> =
            inputs.into_iter().chain(outputs).map(|b| Argument::pointer(&memory, b)).collect();
        params.extend([(rows as i64).into(), (d as i32).into(), 0i32.into(), 1e-5f32.into()]);
        let per_block = if name.ends_with("warp") { 4 } else { 1 };
        for threads in [1, cores] {
            let launch = Launch {
                kernel: module.kernels().next().expect("a kernel").into(),
                grid: [(rows as u32).div_ceil(per_block), 1, 1],
                block: [block, 1, 1],
                params: params.clone(),
                options: Options { threads, ..Options::default() },
                ..Launch::default()
            };
            let (start, mut launches, mut instructions) = (Instant::now(), 0u64, 0);
            while start.elapsed().as_secs_f64() < seconds {
                let outcome = module.run(&launch, &mut memory).expect("a launch that fits");
                assert!(outcome.findings.is_empty(), "{}", outcome.findings[0]);
                instructions += black_box(outcome).counters.instructions;
                launches += 1;
            }
            let elapsed = start.elapsed().as_secs_f64();
            println!(
                "  {rows} rows, {threads} cores: {:.0} launches/s, {:.0} million instructions of threads/s",
                launches as f64 / elapsed,
                instructions as f64 / elapsed / 1e6
            );
        }
    }
}
