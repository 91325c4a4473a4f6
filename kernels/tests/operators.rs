//! Every operator, forward and backward, against plain f64 arithmetic.

mod common;

use common::{Layout, Operator, Setting, Tensors, call, dtype_of, noise, outputs, rounding, unit};
use isonorm_kernels::abi::{Direction, Dtype, DtypeSet};
use isonorm_kernels::simd::{InstructionSet, with_instruction_set};

const LENGTHS: [usize; 27] = [
    1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1000, 1024, 4097,
];

const SETS: [(Dtype, Dtype); 6] = [
    (Dtype::F32, Dtype::F32),
    (Dtype::F64, Dtype::F64),
    (Dtype::Bf16, Dtype::Bf16),
    (Dtype::F16, Dtype::F16),
    (Dtype::Bf16, Dtype::F32),
    (Dtype::F16, Dtype::F32),
];

/// Roundings of the working precision that an output may be off by, relative to the largest value of that output.
const WORKING_ROUNDINGS: f64 = 40.0;

fn on_each_instruction_set(mut body: impl FnMut()) {
    for set in InstructionSet::ALL {
        if with_instruction_set(set, &mut body).is_none() {
            println!("SKIPPED: this machine has no {set}");
        }
    }
}

fn operator(name: &'static str, shape: &[usize]) -> Operator {
    let shape = shape.to_vec();
    let is_channel_family = matches!(name, "batch_norm" | "batch_norm_inference" | "group_norm" | "instance_norm");
    let width = *shape.last().unwrap();
    Operator {
        name,
        eps: 1e-5,
        inner: usize::from(!is_channel_family),
        count: if name == "partial_rms_norm" { (width * 2).div_ceil(5) } else { 1 },
        word: match name {
            "rms_norm" => "none",
            "add_layer_norm" | "add_rms_norm" => "rounded",
            _ => "",
        },
        momentum: Some(0.1),
        batches: 0,
        round: |value| value,
        shape,
    }
}

/// Inputs as they are after rounding to their types, for `direction`.
fn inputs(operator: &mut Operator, direction: Direction, dtypes: DtypeSet, with: &[&str]) -> Tensors {
    operator.round = rounding(dtypes.data);
    let mut seed = 7;
    let mut values = |name: &'static str, n: usize| {
        seed += 1;
        let round = rounding(dtype_of(name, dtypes));
        let values = noise(seed, n).into_iter().map(|value| match name {
            "running_var" => value.abs() + 0.5,
            "weight" => value + 1.0,
            _ => value,
        });
        (name, values.map(round).collect::<Vec<f64>>())
    };
    let (n, params) = (operator.len(), operator.params());
    let mut list = vec![values("x", n)];
    if operator.name.starts_with("add_") {
        list.push(values("residual", n));
    }
    for name in ["weight", "bias", "running_mean", "running_var"] {
        if with.contains(&name) {
            list.push(values(name, params));
        }
    }
    if direction == Direction::Backward {
        list.push(values("dy", n));
        if operator.name.starts_with("add_") {
            list.push(values("dresidual_out", n));
        }
    }
    list.into_iter().collect()
}

fn parameters(name: &str) -> &'static [&'static str] {
    match name {
        "layer_norm" | "add_layer_norm" | "group_norm" => &["weight", "bias"],
        "rms_norm" | "add_rms_norm" | "partial_rms_norm" | "crms_norm" => &["weight"],
        "l2_normalize" => &[],
        _ => &["weight", "bias", "running_mean", "running_var"],
    }
}

fn check(operator: &Operator, direction: Direction, inputs: &Tensors, setting: Setting) {
    let names = outputs(operator, direction, inputs);
    let got = call(operator, direction, inputs, &names, setting)
        .unwrap_or_else(|refusal| panic!("{operator:?} {direction} {setting:?}: {refusal}"));
    let want = match direction {
        Direction::Forward => operator.forward(inputs),
        Direction::Backward => operator.backward(inputs),
    };
    for name in names {
        let (got, want) = (&got[name], &want[name]);
        let largest = want.iter().fold(1.0f64, |largest, value| largest.max(value.abs()));
        let stored = dtype_of(name, setting.dtypes);
        let working = unit(setting.dtypes.data.statistics()) * WORKING_ROUNDINGS * largest;
        // Llama's rounding in the middle can fall to the other side of a tie.
        let middle = if operator.word == "llama" { unit(setting.dtypes.data) * 3.0 } else { 0.0 };
        for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
            let limit = working + (unit(stored) * 1.001 + middle) * want.abs();
            assert!(
                (got - want).abs() <= limit,
                "{operator:?} {direction} {setting:?} {}: `{name}`[{i}] is {got:e}, expected {want:e}, limit {limit:e}",
                InstructionSet::current(),
            );
        }
    }
}

const ROW_OPERATORS: [&str; 7] =
    ["layer_norm", "rms_norm", "partial_rms_norm", "crms_norm", "add_layer_norm", "add_rms_norm", "l2_normalize"];

#[test]
fn rows_of_every_length_and_type() {
    on_each_instruction_set(|| {
        for name in ROW_OPERATORS {
            for width in LENGTHS {
                for (data, param) in SETS {
                    let dtypes = DtypeSet { data, param };
                    for direction in Direction::ALL {
                        let mut operator = operator(name, &[3, width]);
                        let inputs = inputs(&mut operator, direction, dtypes, parameters(name));
                        check(&operator, direction, &inputs, Setting { dtypes, ..Setting::plain(data) });
                    }
                }
            }
        }
    });
}
