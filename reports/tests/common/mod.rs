//! Made-up records of a campaign, the same on every machine.

use std::collections::BTreeMap;

use isonorm_reports::record::*;

pub const DTYPES: [&str; 4] = ["f32", "f64", "bf16", "f16"];
pub const FAMILIES: [&str; 14] = [
    "normal",
    "uniform",
    "large_mean",
    "constant_rows",
    "one_outlier",
    "cancellation",
    "tiny",
    "subnormal",
    "huge",
    "signed_zeros",
    "nan_in_one_place",
    "near_sqrt_eps",
    "exact_in_any_order",
    "same_pointers_new_data",
];
const OPERATORS: [(&str, &str); 11] = [
    ("layer_norm", "y = (x - mean(x, d)) * rsqrt(var(x, d) + eps) * w + b"),
    ("rms_norm", "y = x * rsqrt(mean(x^2, d) + eps) * g"),
    ("partial_rms_norm", "y = x * rsqrt(mean(x[..k]^2, d) + eps) * g"),
    ("crms_norm", "y = x * rsqrt((sum(x^2, d) + sum(x, d)^2) / (d + 1) + eps)"),
    ("batch_norm", "y = (x - mean(x, n)) * rsqrt(var(x, n) + eps) * w + b"),
    ("batch_norm_inference", "y = (x - m) * rsqrt(v + eps) * w + b"),
    ("group_norm", "y = (x - mean(x, g)) * rsqrt(var(x, g) + eps) * w + b"),
    ("instance_norm", "y = (x - mean(x, s)) * rsqrt(var(x, s) + eps) * w + b"),
    ("add_layer_norm", "s = x + r; y = layer_norm(s)"),
    ("add_rms_norm", "s = x + r; y = rms_norm(s)"),
    ("l2_normalize", "y = x / max(sqrt(sum(x^2, d)), eps)"),
];

/// A small linear congruential generator: the fixture only has to look lively.
pub struct Dice(pub u64);

impl Dice {
    /// From 0 to 1.
    pub fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

pub fn campaign() -> Campaign {
    Campaign {
        schema: SCHEMA_VERSION,
        isonorm: "0.1.0".into(),
        revision: Some("1f0c2b9".into()),
        seed: 2026,
        shard: Shard { index: 1, of: 1 },
        budget: Budget::Seconds(Number(60.0)),
        selection: "all operators, kernels and dtypes; plugin turbo.so".into(),
        threads: 2,
        machine: Machine {
            cpu: "AMD EPYC 9R14".into(),
            cores: 2,
            isa: ["avx512f", "avx2", "fma", "sse2"].map(String::from).to_vec(),
            os: "Linux 6.1, x86_64".into(),
            gpu: None,
        },
        libtorch: Some("2.11.0".into()),
        started: "2026-11-23T09:12:00Z".into(),
        command: "isonorm certify --plugin turbo.so --seed 2026".into(),
    }
}

pub fn end() -> End {
    End { outcome: Outcome::Complete, finished: "2026-11-23T09:13:01Z".into() }
}

pub fn kernel(name: &str, operator: &str, direction: &str) -> Kernel {
    let formula = OPERATORS.iter().find(|(name, _)| *name == operator).map_or("y = f(x)", |(_, formula)| formula);
    Kernel {
        name: name.into(),
        operator: operator.into(),
        direction: direction.into(),
        device: "cpu".into(),
        dtypes: DTYPES.map(String::from).to_vec(),
        layouts: vec!["contiguous".into(), "strided rows".into()],
        working_precision: "f32 for f32, bf16 and f16; f64 for f64".into(),
        reduction: "blocks of 16".into(),
        formula: formula.into(),
        version: Some("0.1.0".into()),
        library: None,
    }
}

fn stranger(name: &str, operator: &str) -> Kernel {
    Kernel {
        version: None,
        reduction: "any order".into(),
        library: Some(Library { file: "turbo.so".into(), sha256: "9f86d081884c7d65".repeat(4) }),
        ..kernel(name, operator, "forward")
    }
}

/// Cases of one dtype, family and size class, whose errors are about `ratio` times the bound.
fn tally(dice: &mut Dice, kernel: &Kernel, dtype: &str, family: &str, size_class: u8, ratio: f64, cases: u64) -> Tally {
    let (length, _) = size_class_lengths(size_class);
    let case = format!("{}/{} {dtype} {length}x3 {family} seed={}", kernel.operator, kernel.direction, dice.0 % 1000);
    let per_bound = (length as f64).sqrt().max(1.0);
    let mut counts = Counts { cases, ..Counts::default() };
    for (errors, ratio) in [(&mut counts.errors, ratio), (&mut counts.libtorch, ratio.min(0.4) * 1.3)] {
        let mut worst = 0f64;
        for _ in 0..40 {
            let error = 0.4 * ratio * dice.roll().powi(3);
            worst = worst.max(error / 0.4);
            errors.ratio_to_bound.add_many(error, 25 * cases);
            errors.ulps.add_many(if error < 1e-3 * ratio { 0.0 } else { error * per_bound }, 25 * cases);
        }
        errors.ratio_to_bound.add(worst);
        errors.ulps.add(worst * per_bound);
        errors.raise(&case, worst, worst * per_bound);
    }
    counts.failed = if ratio > 1.0 { 1 + cases / 3 } else { 0 };
    counts.in_exact_range = if family == "exact_in_any_order" { cases } else { 0 };
    counts.elements = Elements { total: 1000 * cases + 1, exact: 1000 * cases + 1, libtorch: 0 };
    Tally { kernel: kernel.name.clone(), dtype: dtype.into(), family: family.into(), size_class, counts }
}

pub fn finding(kernel: &str, property: &str, family: &str, message: &str) -> Finding {
    Finding {
        kernel: kernel.into(),
        property: property.into(),
        dtype: "f32".into(),
        family: family.into(),
        case: format!("layer_norm/forward f32 1x2 eps=1e-5 contiguous {family} seed=41"),
        original: format!("layer_norm/forward f32 17x1023 eps=1e-5 contiguous {family} seed=2026.8814"),
        formula: OPERATORS[0].1.into(),
        attributes: BTreeMap::from([("eps".into(), "1e-5".into()), ("axes".into(), "1".into())]),
        wrong: Some(Wrong {
            output: "y".into(),
            index: vec![0, 1],
            got: Value { decimal: "-3.0517578".into(), bits: "c0435000".into() },
            truth: Value { decimal: "-0.70710677".into(), bits: "bf3504f3".into() },
            libtorch: Some(Value { decimal: "-0.70710671".into(), bits: "bf3504f2".into() }),
            bound: Some(Number(2.3e-7)),
        }),
        ratio_to_bound: Some(Number(1.02e7)),
        libtorch_ratio_to_bound: Some(Number(0.26)),
        ulps: Some(Number(3.9e7)),
        message: message.into(),
        replay: format!(
            "cargo isonorm replay --plugin turbo.so 'layer_norm/forward f32 1x2 eps=1e-5 contiguous {family} seed=41'"
        ),
        evidence: "exact value".into(),
        further: 127,
    }
}

/// Two dozen kernels, of which two are wrong and one was never judged.
pub fn records() -> Vec<Record> {
    let mut dice = Dice(1);
    let mut kernels = Vec::new();
    for (operator, _) in OPERATORS {
        for direction in ["forward", "backward"] {
            kernels.push(kernel(&format!("isonorm.{operator}.{direction}"), operator, direction));
        }
    }
    let (single_pass, crashing) = (stranger("turbo.layer_norm_1pass", "layer_norm"), stranger("turbo.rms", "rms_norm"));
    let idle = Kernel { dtypes: vec!["f16".into()], ..stranger("turbo.l2", "l2_normalize") };
    kernels.extend([single_pass.clone(), crashing.clone(), idle.clone()]);

    let mut records: Vec<Record> = vec![campaign().into()];
    records.extend(kernels.iter().cloned().map(Record::from));
    let mut cases = 0;
    for kernel in &kernels {
        for (dtype, family) in DTYPES.iter().flat_map(|dtype| FAMILIES.map(|family| (dtype, family))) {
            if kernel.name == idle.name {
                continue;
            }
            for size_class in [1u8, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 17] {
                let wrong = kernel.name == single_pass.name && family == "large_mean" && *dtype == "f32";
                let bad = kernel.name == crashing.name && family == "huge";
                let tightness = 0.5 / (1.0 + f64::from(size_class) / 3.0);
                let ratio = match (wrong, bad) {
                    (true, _) => 1e5 * f64::from(size_class),
                    (_, true) if size_class > 10 => f64::INFINITY,
                    _ if family == "constant_rows" => 0.0,
                    _ => tightness * (0.6 + 0.4 * dice.roll()),
                };
                let tally = tally(&mut dice, kernel, dtype, family, size_class, ratio, 9);
                cases += tally.counts.cases;
                records.push(tally.into());
            }
        }
        for (property, checked) in [
            ("within bound", 6048),
            ("deterministic", 6048),
            ("inputs unmodified", 6048),
            ("every output written", 6048),
            ("no write outside", 6048),
            ("scale invariance", 812),
            ("row permutation", 790),
            ("batch independence", 655),
        ] {
            let checked = if kernel.name == idle.name { 0 } else { checked };
            let failed = u64::from(kernel.name == crashing.name && property == "no write outside") * 3
                + u64::from(kernel.name == single_pass.name && property == "within bound") * 128;
            let kernel = kernel.name.clone();
            records.push(Property { kernel, property: property.into(), required: true, checked, failed }.into());
        }
        let ranges =
            [("f32", 2.2e-19, 1.8e19), ("f64", 1e-153, 1e153), ("bf16", 1e-19, 1.8e19), ("f16", 6e-8, 65504.0)];
        for (dtype, smallest, largest) in ranges {
            let (smallest, largest) = (Some(Number(smallest)), Some(Number(largest)));
            records.push(Range { kernel: kernel.name.clone(), dtype: dtype.into(), smallest, largest }.into());
        }
    }
    let declines =
        [(&idle.name, "f16", "no f16 on this processor"), (&single_pass.name, "f32", "row longer than 65536")];
    for (kernel, dtype, reason) in declines {
        let mut counts = Counts::default();
        counts.decline(reason, 31);
        records.push(
            Tally { kernel: kernel.clone(), dtype: dtype.into(), family: "normal".into(), size_class: 17, counts }
                .into(),
        );
    }
    records.push(
        finding(
            &single_pass.name,
            "within bound",
            "large_mean",
            "element [0, 1] of y is 1.02e7 times the bound away from the truth; the error grows with mean^2 / variance",
        )
        .into(),
    );
    let crash = Finding {
        case: "rms_norm/forward bf16 1x2049 eps=1e-6 strided huge seed=12".into(),
        original: "rms_norm/forward bf16 300x4097 eps=1e-6 strided huge seed=2026.1203".into(),
        formula: OPERATORS[1].1.into(),
        dtype: "bf16".into(),
        wrong: None,
        ratio_to_bound: None,
        libtorch_ratio_to_bound: None,
        ulps: None,
        replay: "cargo isonorm replay --plugin turbo.so 'rms_norm/forward bf16 1x2049 eps=1e-6 strided huge seed=12'"
            .into(),
        evidence: "guard page after y".into(),
        further: 2,
        ..finding(&crashing.name, "no write outside", "huge", "wrote 2 bytes after the end of y and died of SIGSEGV")
    };
    records.push(crash.into());
    let stages =
        [("generate", 9.1), ("exact", 38.4), ("bound", 21.7), ("torch", 24.9), ("kernel", 4.2), ("judge", 15.3)];
    let stages = stages.map(|(stage, seconds)| (stage.to_owned(), Number(seconds))).into();
    records.push(Throughput { cases, seconds: Number(60.8), stages }.into());
    records.push(end().into());
    records
}
