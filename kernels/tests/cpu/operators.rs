//! Every operator, forward and backward, against plain f64 arithmetic.

use crate::common::{
    Layout, Operator, Setting, Tensors, call, dtype_of, noise, on_each_instruction_set, outputs, rounding, unit,
};
use isonorm_kernels::InstructionSet;
use isonorm_kernels::abi::{Direction, Dtype, DtypeSet};

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

/// The size of an output's values, at least 1.
fn largest(all: &[f64]) -> f64 {
    all.iter().fold(1.0f64, |largest, value| largest.max(value.abs()))
}

/// How far an element may be from the truth, `want`, in an output whose values are up to `largest`.
fn limit(largest: f64, want: f64, operator: &Operator, data: Dtype, stored: Dtype) -> f64 {
    // For f64 the truth is no better than the kernel, and worse where it adds up thousands of terms in a row.
    let naive = if data == Dtype::F64 { 16.0 } else { 1.0 };
    let working = unit(data.statistics()) * WORKING_ROUNDINGS * naive * largest;
    // Llama's rounding in the middle can fall to the other side of a tie.
    let middle = if operator.word == "llama" { unit(data) * 3.0 } else { 0.0 };
    working + (unit(stored) * 1.001 + middle) * want.abs()
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
        let (got, all) = (&got[name], &want[name]);
        let (stored, largest) = (dtype_of(name, setting.dtypes), largest(all));
        for (i, (&got, &want)) in got.iter().zip(all).enumerate() {
            let limit = limit(largest, want, operator, setting.dtypes.data, stored);
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

const CHANNEL_OPERATORS: [&str; 4] = ["batch_norm", "batch_norm_inference", "group_norm", "instance_norm"];

fn check_both(mut operator: Operator, with: &[&str], setting: Setting) {
    for direction in Direction::ALL {
        let mut with = with.to_vec();
        if direction == Direction::Backward && operator.name != "batch_norm_inference" {
            with.retain(|name| !name.starts_with("running"));
        }
        let inputs = inputs(&mut operator, direction, setting.dtypes, &with);
        check(&operator, direction, &inputs, setting);
    }
}

#[test]
fn rows_of_every_length_and_type() {
    on_each_instruction_set(|| {
        for name in ROW_OPERATORS {
            for width in LENGTHS {
                for (data, param) in SETS {
                    let setting = Setting { dtypes: DtypeSet { data, param }, ..Setting::plain(data) };
                    check_both(operator(name, &[3, width]), parameters(name), setting);
                }
            }
        }
    });
}

#[test]
fn channels_of_every_size_and_type() {
    on_each_instruction_set(|| {
        for name in CHANNEL_OPERATORS {
            for (batch, channels, space) in
                [(2, 1, 2), (2, 3, 2), (3, 6, 17), (1, 4, 49), (2, 8, 128), (5, 2, 131), (2, 2, 3001)]
            {
                for (data, param) in SETS {
                    let setting = Setting { dtypes: DtypeSet { data, param }, ..Setting::plain(data) };
                    for groups in [1, 2, channels] {
                        if channels % groups != 0 || (name != "group_norm" && groups > 1) {
                            continue;
                        }
                        let operator = Operator { count: groups, ..operator(name, &[batch, channels, space]) };
                        check_both(operator, parameters(name), setting);
                    }
                }
            }
        }
    });
}

#[test]
fn layouts_in_place_and_out() {
    let layouts =
        [Layout::Contiguous, Layout::Offset, Layout::RowGap, Layout::Step, Layout::Transposed, Layout::ChannelsLast];
    for layout in layouts {
        for in_place in [false, true] {
            for (data, param) in SETS {
                let setting = Setting { dtypes: DtypeSet { data, param }, layout, in_place, ..Setting::plain(data) };
                for name in ROW_OPERATORS {
                    check_both(operator(name, &[2, 3, 37]), parameters(name), setting);
                }
                for name in CHANNEL_OPERATORS {
                    check_both(Operator { count: 2, ..operator(name, &[2, 4, 3, 5]) }, parameters(name), setting);
                }
            }
        }
    }
}

#[test]
fn variants_of_operators() {
    for (data, param) in SETS {
        let setting = Setting { dtypes: DtypeSet { data, param }, ..Setting::plain(data) };
        for name in ["layer_norm", "rms_norm", "add_layer_norm", "add_rms_norm"] {
            for inner in [1, 2, 3] {
                check_both(Operator { inner, ..operator(name, &[3, 4, 5]) }, parameters(name), setting);
            }
        }
        for cast in ["llama", "gemma"] {
            check_both(Operator { word: cast, ..operator("rms_norm", &[5, 70]) }, &["weight"], setting);
            check_both(Operator { word: cast, ..operator("rms_norm", &[5, 70]) }, &[], setting);
        }
        for name in ["add_layer_norm", "add_rms_norm"] {
            check_both(Operator { word: "unrounded", ..operator(name, &[5, 70]) }, parameters(name), setting);
        }
        for name in ["layer_norm", "add_layer_norm", "group_norm", "batch_norm"] {
            for with in [&[][..], &["weight"], &["bias"]] {
                check_both(operator(name, &[4, 70]), with, setting);
            }
        }
        for batches in [0, 3] {
            let operator = Operator { momentum: None, batches, ..operator("batch_norm", &[3, 2, 9]) };
            check_both(operator, parameters("batch_norm"), setting);
        }
        for k in [1, 69, 70] {
            check_both(Operator { count: k, ..operator("partial_rms_norm", &[3, 70]) }, &["weight"], setting);
        }
        // Norms above and below the least divisor.
        for eps in [1e-12, 8.0, 1e3] {
            check_both(Operator { eps, ..operator("l2_normalize", &[4, 70]) }, &[], setting);
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let all = ROW_OPERATORS.iter().chain(&CHANNEL_OPERATORS);
    for &name in all {
        let shape: &[usize] = if ROW_OPERATORS.contains(&name) { &[301, 257] } else { &[7, 12, 31, 31] };
        for direction in Direction::ALL {
            let mut operator = Operator { count: 4, ..operator(name, shape) };
            let mut with = parameters(name).to_vec();
            if direction == Direction::Backward && name != "batch_norm_inference" {
                with.retain(|name| !name.starts_with("running"));
            }
            let inputs = inputs(&mut operator, direction, DtypeSet::uniform(Dtype::F32), &with);
            let names = outputs(&operator, direction, &inputs);
            let answers = [1, 2, 3].map(|threads| {
                let setting = Setting { threads, ..Setting::plain(Dtype::F32) };
                call(&operator, direction, &inputs, &names, setting).unwrap()
            });
            assert_eq!(answers[0], answers[1], "{name} {direction}: 2 threads");
            assert_eq!(answers[0], answers[2], "{name} {direction}: 3 threads");
        }
    }
}

#[test]
fn the_reference_gradients_are_those_of_the_reference() {
    let mut cases = Vec::new();
    for name in ROW_OPERATORS {
        cases.push(operator(name, &[2, 7]));
    }
    for name in CHANNEL_OPERATORS {
        cases.push(Operator { count: 2, ..operator(name, &[2, 4, 3]) });
    }
    cases.push(Operator { word: "gemma", ..operator("rms_norm", &[2, 5]) });
    cases.push(Operator { eps: 1e3, ..operator("l2_normalize", &[2, 5]) });
    for mut operator in cases {
        let with: Vec<&str> = parameters(operator.name).to_vec();
        let mut inputs = inputs(&mut operator, Direction::Backward, DtypeSet::uniform(Dtype::F64), &with);
        let gradients = operator.backward(&inputs);
        let loss = |inputs: &Tensors| -> f64 {
            let output = operator.forward(inputs);
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            dot(&output["y"], &inputs["dy"])
                + output.get("residual_out").map_or(0.0, |out| dot(out, &inputs["dresidual_out"]))
        };
        for (name, gradient) in &gradients {
            let name = name.strip_prefix('d').unwrap();
            for (i, &gradient) in gradient.iter().enumerate() {
                let step = 1e-5;
                let mut at = |offset: f64| {
                    let value = inputs.get_mut(name).unwrap();
                    let old = value[i];
                    value[i] += offset;
                    let result = loss(&inputs);
                    inputs.get_mut(name).unwrap()[i] = old;
                    result
                };
                let slope = (at(step) - at(-step)) / (2.0 * step);
                assert!((slope - gradient).abs() < 1e-6, "{operator:?} d{name}[{i}]: {gradient} against {slope}");
            }
        }
    }
}

/// The comparison of these tests catches what kernels get wrong.
#[test]
fn planted_bugs_are_caught() {
    let mut operator = operator("layer_norm", &[3, 33]);
    let inputs = inputs(&mut operator, Direction::Forward, DtypeSet::uniform(Dtype::F32), &["weight", "bias"]);
    let truth = operator.forward(&inputs)["y"].clone();
    let limits = |i: usize| limit(largest(&truth), truth[i], &operator, Dtype::F32, Dtype::F32);
    let caught = |planted: &[f64]| planted.iter().enumerate().any(|(i, value)| (value - truth[i]).abs() > limits(i));
    assert!(!caught(&truth));
    let eps = Operator { eps: 3e-5, ..operator.clone() };
    assert!(caught(&eps.forward(&inputs)["y"]), "another eps");
    let mut unbiased = inputs.clone();
    unbiased.get_mut("weight").unwrap().iter_mut().for_each(|weight| *weight *= (32.0f64 / 33.0).sqrt());
    assert!(caught(&operator.forward(&unbiased)["y"]), "unbiased variance");
    let mut tail = truth.clone();
    tail[32] = 0.0;
    assert!(caught(&tail), "a forgotten tail");
}
