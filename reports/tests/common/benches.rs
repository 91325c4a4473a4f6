//! Made-up records of a benchmark, the same on every machine: shaped like those of a processor with two cores and three
//! levels of cache.

use isonorm_reports::record::*;

use crate::common::{Dice, campaign, end, kernel};

/// Size of a level of memory up to which it is the nearest one, and its speeds on one thread: read, write, copy, in GB/s.
const LEVELS: [(&str, u64, [f64; 3]); 4] = [
    ("L1", 48 << 10, [196.0, 160.0, 211.0]),
    ("L2", 1 << 20, [112.0, 90.0, 100.0]),
    ("L3", 32 << 20, [80.0, 45.0, 47.0]),
    ("memory", u64::MAX, [25.0, 34.0, 36.0]),
];

fn level(bytes: u64, threads: u32) -> (&'static str, [f64; 3]) {
    let share = |name: &str| if matches!(name, "L1" | "L2") { u64::from(threads) } else { 1 };
    let fits = LEVELS.iter().find(|(name, size, _)| bytes <= size.saturating_mul(share(name)));
    let (name, _, speeds) = fits.copied().unwrap_or(LEVELS[3]);
    let gain = if threads > 1 { 1.9 } else { 1.0 };
    (name, speeds.map(|speed| speed * gain * 1e9))
}

pub fn interval(value: f64, spread: f64) -> Interval {
    Interval { value: Number(value), low: Number(value * (1.0 - spread)), high: Number(value * (1.0 + spread)) }
}

pub fn ceilings() -> Vec<Record> {
    let accesses = [Access::Read, Access::Write, Access::Copy];
    let mut records = Vec::new();
    for threads in [1, 2] {
        for size in (13..=29).map(|power| 1u64 << power) {
            let (name, speeds) = level(size, threads);
            for (access, speed) in accesses.into_iter().zip(speeds) {
                let bytes_per_second = interval(speed * (1.0 - 0.01 * (size.trailing_zeros() % 3) as f64), 0.03);
                let streaming = access != Access::Read && size > 32 << 20;
                let level = Some(name.to_owned());
                records.push(Ceiling { access, working_set: size, level, threads, streaming, bytes_per_second }.into());
            }
        }
    }
    records
}

/// A measurement: `ratio` times as fast as its opponent, of so many seconds.
pub fn bench(kernel: &Kernel, dtype: &str, shape: &[u64], threads: u32, ratio: f64, seconds: f64) -> Bench {
    let elements: u64 = shape.iter().product();
    let size = match dtype {
        "f64" => 8,
        "f32" => 4,
        _ => 2,
    };
    Bench {
        kernel: kernel.name.clone(),
        operator: kernel.operator.clone(),
        direction: kernel.direction.clone(),
        dtype: dtype.into(),
        layout: "contiguous".into(),
        shape: shape.to_vec(),
        threads,
        versus: "libtorch".into(),
        setting: Setting::Warm,
        ratio: interval(ratio, 0.02),
        seconds: interval(seconds, 0.03),
        versus_seconds: interval(seconds * ratio, 0.03),
        bytes: elements * size * if kernel.direction == "forward" { 2 } else { 3 },
        operations: 8 * elements,
        rounds: 5,
        ratios: [0.98, 1.0, 1.01, 0.99, 1.02].map(|part| Number(part * ratio)).to_vec(),
        outliers: 0,
        noise: Number(0.012),
        doubt: None,
        instructions_per_element: None,
    }
}

/// Rounds around a ratio, with so many outliers.
fn restless(bench: &mut Bench, dice: &mut Dice, spread: f64, outliers: u32) {
    let middle = bench.ratio.value.0;
    let mut rounds: Vec<_> =
        (0..41).map(|_| Number(middle * (1.0 + spread * (dice.roll() + dice.roll() + dice.roll() - 1.5)))).collect();
    for i in 0..outliers as usize {
        rounds[7 * i + 3] = Number(middle * (0.6 - 0.1 * i as f64));
    }
    bench.rounds = 41;
    bench.outliers = outliers;
    bench.ratio = interval(middle, 0.3 * spread);
    bench.ratios = rounds;
    bench.noise = Number(spread / 2.0);
}

const ROWS: [&[u64]; 6] = [&[1, 4096], &[32, 4096], &[512, 768], &[2048, 1024], &[4096, 4096], &[8192, 8192]];
const MAPS: [&[u64]; 3] = [&[32, 64, 56, 56], &[8, 256, 28, 28], &[1, 512, 7, 7]];

/// A benchmark of six kernels, of which one is slower than libtorch on small feature maps.
pub fn records() -> Vec<Record> {
    let mut dice = Dice(3);
    let kernels = [
        ("layer_norm", "forward", 2.6),
        ("layer_norm", "backward", 2.9),
        ("rms_norm", "forward", 5.5),
        ("rms_norm", "backward", 4.2),
        ("batch_norm", "forward", 4.4),
        ("batch_norm_inference", "forward", 1.25),
    ];
    let mut records: Vec<Record> =
        vec![Campaign { command: "isonorm bench".into(), selection: "bench".into(), ..campaign() }.into()];
    let kernels = kernels.map(|(operator, direction, gain)| {
        (kernel(&format!("isonorm.{operator}.{direction}"), operator, direction), gain)
    });
    records.extend(kernels.iter().map(|(kernel, _)| kernel.clone().into()));
    records.extend(ceilings());
    for (kernel, gain) in &kernels {
        let maps = kernel.operator.starts_with("batch");
        let layouts: &[&str] = if maps { &["contiguous", "channels_last"] } else { &["contiguous"] };
        for (dtype, shape, layout, threads) in ["f32", "bf16"].iter().flat_map(|dtype| {
            let shapes = if maps { &MAPS[..] } else { &ROWS[..] };
            let layouts = layouts.iter().flat_map(move |l| [1, 2].map(|t| (l, t)));
            layouts.flat_map(move |(layout, threads)| shapes.iter().map(move |s| (dtype, *s, *layout, threads)))
        }) {
            let template = bench(kernel, dtype, shape, threads, 1.0, 1.0);
            let (_, [.., copy]) = level(template.bytes, threads);
            let part = if template.bytes > 16 << 20 { 0.97 } else { 0.62 };
            let call = 1e-7 + if threads > 1 && template.bytes < 1 << 18 { 2e-6 } else { 0.0 };
            let seconds = template.bytes as f64 / (copy * part * (0.9 + 0.15 * dice.roll())) + call;
            let gain = match (shape, *gain) {
                ([1, 512, ..], gain) if gain < 2.0 => 0.8 + 0.25 * dice.roll(),
                ([1, ..], gain) => 1.8 * gain,
                (_, gain) => gain * (0.8 + 0.4 * dice.roll()),
            };
            let mut duel = Bench { layout: layout.into(), ..bench(kernel, dtype, shape, threads, gain, seconds) };
            let restless_machine = *dtype == "bf16" && shape == [512, 768] && threads == 2;
            let spread = if restless_machine { 0.35 } else { 0.05 + 0.05 * dice.roll() };
            restless(&mut duel, &mut dice, spread, u32::from(threads > 1 && shape.len() == 2));
            if restless_machine {
                duel.doubt = Some("a copy took between 0.8 and 1.4 of its median: the machine was busy".into());
            }
            if threads == 1 {
                duel.instructions_per_element = Some(Number(0.9 + 0.2 * dice.roll()));
            }
            let mut against_copy = Bench { versus: "copy".into(), ..duel.clone() };
            against_copy.ratio.value = Number(template.bytes as f64 / copy / seconds);
            restless(&mut against_copy, &mut dice, 0.04, 0);
            against_copy.versus_seconds = interval(template.bytes as f64 / copy, 0.02);
            let mut called = Bench { setting: Setting::AsCalled, ..duel.clone() };
            called.ratio.value = Number(gain * 0.9 + 0.2);
            restless(&mut called, &mut dice, 0.1, 2);
            records.extend([duel.into(), against_copy.into(), called.into()]);
        }
    }
    records.push(end().into());
    records
}
