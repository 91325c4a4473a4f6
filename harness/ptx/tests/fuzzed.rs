//! Words of real kernels exchanged at random: refused, or executed with whatever findings, but never a panic.

mod common;

use common::{normal, text};
use isonorm_ptx::{Argument, Launch, Memory, Module, Options, Rights};

#[test]
fn exchanged_words_never_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) as usize % n
    };
    let mut executed = 0;
    for file in ["planted/none", "planted/none_cluster", "features", "triton_rms_norm_bf16"] {
        let text = text(file);
        let words: Vec<&str> = text.split_inclusive([' ', '\t', '\n', ',', ';', '[', ']']).collect();
        for _ in 0..400 {
            let mut mutant = words.clone();
            for _ in 0..=random(2) {
                let (a, b) = (random(words.len()), random(words.len()));
                mutant[a] = words[b];
            }
            let Ok(module) = Module::parse(&mutant.concat()) else { continue };
            let Some(kernel) = module.kernels().nth(random(8) % module.kernels().count().max(1)).map(String::from)
            else {
                continue;
            };
            let mut memory = Memory::new();
            let bytes: Vec<u8> = normal(512, 1).iter().flat_map(|v| (*v as f32).to_le_bytes()).collect();
            let buffers = [Rights::Read, Rights::ReadWrite, Rights::Write].map(|r| memory.add("b", &bytes, r));
            let sizes = module.parameters(&kernel).unwrap_or_default();
            let params = sizes.iter().enumerate().map(|(i, size)| match size {
                8 => Argument::pointer(&memory, buffers[i % 3]),
                size => Argument::bytes(&vec![1; *size as usize]),
            });
            let launch = Launch {
                kernel,
                grid: [2, 1, 1],
                block: [[32, 64, 128][random(3)], 1, 1],
                cluster: [1 + random(2) as u32, 1, 1],
                shared: 16,
                params: params.collect(),
                options: Options { instruction_limit: 5000, threads: 1, ..Options::default() },
            };
            executed += usize::from(module.run(&launch, &mut memory).is_ok());
        }
    }
    assert!(executed > 100, "{executed} were executed");
}
