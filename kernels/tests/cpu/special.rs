//! Values and calls at the edges: NaN, infinities, zeros, extremes of the range, empty tensors, malformed calls.

use crate::common::{Operator, Setting, Tensors, call, kernel, on_each_instruction_set};
use isonorm_kernels::abi::{Argument, Direction, Dtype, OwnedCall, Refusal, Value};
use isonorm_kernels::builtin;

fn operator(name: &'static str, shape: &[usize], eps: f64) -> Operator {
    let channels = matches!(name, "batch_norm" | "batch_norm_inference" | "group_norm" | "instance_norm");
    let word = match name {
        "rms_norm" => "none",
        "add_layer_norm" | "add_rms_norm" => "rounded",
        _ => "",
    };
    Operator {
        name,
        shape: shape.to_vec(),
        eps,
        inner: usize::from(!channels),
        count: 1,
        word,
        momentum: Some(0.25),
        batches: 0,
        round: |value| value,
    }
}

fn forward(operator: &Operator, x: &[f64], dtype: Dtype) -> Vec<f64> {
    let inputs = Tensors::from([("x", x.to_vec())]);
    call(operator, Direction::Forward, &inputs, &["y"], Setting::plain(dtype)).unwrap()["y"].clone()
}

#[test]
fn nan_and_infinity() {
    on_each_instruction_set(|| {
        for dtype in Dtype::ALL {
            for n in [1usize, 5, 16, 40] {
                for at in [0, n / 2, n - 1] {
                    for special in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                        let mut x: Vec<f64> = (0..2 * n).map(|i| (i % 7) as f64 - 3.0).collect();
                        x[at] = special;
                        let y = forward(&operator("layer_norm", &[2, n], 1e-5), &x, dtype);
                        assert!(y[..n].iter().all(|y| y.is_nan()), "layer_norm {dtype} {n}: {y:?}");
                        assert!(y[n..].iter().all(|y| y.is_finite()), "layer_norm {dtype} {n}: {y:?}");
                        for name in ["rms_norm", "l2_normalize"] {
                            let y = forward(&operator(name, &[2, n], 1e-5), &x, dtype);
                            for (i, &y) in y.iter().enumerate() {
                                let expect_nan = i < n && (special.is_nan() || i == at);
                                assert_eq!(y.is_nan(), expect_nan, "{name} {dtype} {n} {special}: y[{i}] = {y}");
                                assert!(expect_nan || i >= n || y == 0.0, "{name} {dtype} {n} {special}: y[{i}] = {y}");
                            }
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn constant_rows_and_signs_of_zero() {
    on_each_instruction_set(|| {
        for dtype in Dtype::ALL {
            for n in [1usize, 3, 17, 100] {
                // Not representable, so that a sum of copies is not exact; subnormal, which the instruction that adds up
                // products of bfloat16 takes for zero.
                for value in [0.1, 2f64.powi(-130)] {
                    let x = vec![crate::common::round(dtype, value); n];
                    let y = forward(&operator("layer_norm", &[1, n], 1e-5), &x, dtype);
                    assert!(y.iter().all(|&y| y == 0.0), "{dtype} {n} {value}: {y:?}");
                    let y = forward(&operator("layer_norm", &[1, n], 0.0), &x, dtype);
                    assert!(y.iter().all(|y| y.is_nan()), "0 times infinity, {dtype} {n} {value}: {y:?}");
                }
                let mut x = vec![0.0; n];
                x[n - 1] = -0.0;
                for name in ["rms_norm", "l2_normalize", "partial_rms_norm", "crms_norm"] {
                    let y = forward(&operator(name, &[1, n], 1e-5), &x, dtype);
                    for (x, y) in x.iter().zip(&y) {
                        assert_eq!(x.to_bits(), y.to_bits(), "{name} {dtype} {n}");
                    }
                    let y = forward(&operator(name, &[1, n], 0.0), &x, dtype);
                    assert!(y.iter().all(|y| y.is_nan()), "{name} {dtype} {n}: {y:?}");
                }
            }
        }
    });
}

/// Rows at both ends of the range come out as their rescaled copies.
#[test]
fn the_whole_range() {
    on_each_instruction_set(|| {
        for (dtype, exponents) in [(Dtype::F32, [-140, -70, 66, 120]), (Dtype::F64, [-1060, -600, 520, 1010])] {
            for name in ["layer_norm", "rms_norm", "l2_normalize", "partial_rms_norm", "crms_norm"] {
                let plain: Vec<f64> = (0..40).map(|i| f64::from(i * i % 23) - 8.0).collect();
                let want = operator(name, &[1, 40], 0.0).forward(&Tensors::from([("x", plain.clone())]))["y"].clone();
                for exponent in exponents {
                    let half = 2f64.powi(exponent / 2);
                    let x: Vec<f64> = plain.iter().map(|x| x * half * 2f64.powi(exponent - exponent / 2)).collect();
                    let y = forward(&operator(name, &[1, 40], 0.0), &x, dtype);
                    for (i, (y, want)) in y.iter().zip(&want).enumerate() {
                        let limit = 16.0 * crate::common::unit(dtype) * want.abs().max(1.0);
                        assert!((y - want).abs() <= limit, "{name} {dtype} 2^{exponent}: y[{i}] = {y}, not {want}");
                    }
                }
            }
        }
    });
}

/// The figure that `x - mean` loses to the rounding of the mean, and this crate does not.
#[test]
fn large_means() {
    on_each_instruction_set(|| {
        for offset in [1e4, 1e6] {
            for n in [10usize, 1000, 4097] {
                let x: Vec<f64> = crate::common::noise(3, n)
                    .into_iter()
                    .map(|x| crate::common::round(Dtype::F32, x + offset))
                    .collect();
                let operator = operator("layer_norm", &[1, n], 1e-5);
                let want = operator.forward(&Tensors::from([("x", x.clone())]))["y"].clone();
                for (i, (y, want)) in forward(&operator, &x, Dtype::F32).iter().zip(&want).enumerate() {
                    // Two units of eps, where kernels that keep one number of a mean are off by 10^4 and more.
                    let limit = 4.0 * crate::common::unit(Dtype::F32) * want.abs().max(1.0);
                    assert!((y - want).abs() <= limit, "{offset} {n}: y[{i}] = {y:e}, not {want:e}");
                }
            }
        }
    });
}

#[test]
fn subnormals_are_not_flushed() {
    on_each_instruction_set(|| {
        let tiny = f64::from(f32::from_bits(3));
        let x: Vec<f64> = (0..40).map(|i| if i % 2 == 0 { tiny } else { 1.0 }).collect();
        let y = forward(&operator("rms_norm", &[1, 40], 0.0), &x, Dtype::F32);
        assert!(y.iter().all(|&y| y > 0.0), "{y:?}");
        let tiny = f64::from_bits(0x3e70_0000_0000_0000);
        let x: Vec<f64> = (0..40).map(|i| if i % 2 == 0 { tiny } else { 1.0 }).collect();
        let y = forward(&operator("rms_norm", &[1, 40], 0.0), &x, Dtype::F16);
        assert!(y.iter().all(|&y| y > 0.0), "{y:?}");
    });
}

/// Every bfloat16 and every binary16, and the numbers between neighbours, through a kernel that changes nothing.
#[test]
fn half_precision_is_rounded_to_nearest_even() {
    on_each_instruction_set(|| {
        for dtype in [Dtype::Bf16, Dtype::F16] {
            let identity = Operator { eps: 0.0, ..operator("batch_norm_inference", &[1, 1, 1 << 16], 0.0) };
            let all: Vec<f64> = (0..=u16::MAX)
                .map(|bits| match dtype {
                    Dtype::Bf16 => half::bf16::from_bits(bits).to_f64(),
                    _ => half::f16::from_bits(bits).to_f64(),
                })
                .collect();
            // A third less, and a tie with the next: what f32 arithmetic on halves can come up with.
            for (mean, variance) in [(0.0, 1.0), (0.0, 2.25), (1.5, 1.0)] {
                let inputs =
                    Tensors::from([("x", all.clone()), ("running_mean", vec![mean]), ("running_var", vec![variance])]);
                let output = call(&identity, Direction::Forward, &inputs, &["y"], Setting::plain(dtype)).unwrap();
                let rstd = (1.0 / f64::sqrt(variance)) as f32;
                for (x, y) in all.iter().zip(&output["y"]) {
                    let exact = (*x as f32 - mean as f32) * rstd;
                    let want = match dtype {
                        Dtype::Bf16 => half::bf16::from_f32(exact).to_f64(),
                        _ => half::f16::from_f32(exact).to_f64(),
                    };
                    let same = want.to_bits() == y.to_bits() || (want.is_nan() && y.is_nan());
                    assert!(same, "{dtype} {x:e} - {mean} over sqrt({variance}): {y:e}, not {want:e}");
                }
            }
        }
    });
}

#[test]
fn empty_tensors() {
    for (name, shape) in [
        ("layer_norm", &[0, 5][..]),
        ("layer_norm", &[4, 0]),
        ("rms_norm", &[0, 5]),
        ("rms_norm", &[4, 0]),
        ("partial_rms_norm", &[0, 5]),
        ("crms_norm", &[4, 0]),
        ("add_layer_norm", &[0, 5]),
        ("add_rms_norm", &[4, 0]),
        ("l2_normalize", &[0, 5]),
        ("batch_norm", &[0, 3, 4]),
        ("batch_norm", &[2, 0, 4]),
        ("batch_norm_inference", &[0, 3, 4]),
        ("group_norm", &[0, 3, 4]),
        ("instance_norm", &[0, 3, 4]),
        ("instance_norm", &[2, 0, 4]),
        ("group_norm", &[2, 0, 4]),
    ] {
        let operator = operator(name, shape, 1e-5);
        let params = operator.params();
        let mut inputs = Tensors::from([("x", Vec::new()), ("dy", Vec::new()), ("weight", vec![2.0; params])]);
        if name.starts_with("add_") {
            inputs.insert("residual", Vec::new());
            inputs.insert("dresidual_out", Vec::new());
        }
        if name == "batch_norm_inference" {
            inputs.insert("running_mean", vec![1.0; params]);
            inputs.insert("running_var", vec![1.0; params]);
        }
        if name == "l2_normalize" {
            inputs.remove("weight");
        }
        let names: &[&str] = match name {
            "l2_normalize" => &["dx"],
            "add_layer_norm" | "add_rms_norm" => &["dx", "dresidual", "dweight"],
            _ => &["dx", "dweight"],
        };
        let output = call(&operator, Direction::Backward, &inputs, names, Setting::plain(Dtype::F32)).unwrap();
        assert_eq!(output["dx"], []);
        if name != "l2_normalize" {
            assert_eq!(output["dweight"], vec![0.0; params], "{name} {shape:?}");
        }
        inputs.remove("dy");
        inputs.remove("dresidual_out");
        let mut names = vec!["y"];
        if name.starts_with("add_") {
            names.push("residual_out");
        }
        if matches!(name, "batch_norm" | "instance_norm") {
            inputs.insert("running_mean", vec![3.0; params]);
            inputs.insert("running_var", vec![4.0; params]);
            names.extend(["new_running_mean", "new_running_var"]);
        }
        let output = call(&operator, Direction::Forward, &inputs, &names, Setting::plain(Dtype::F32)).unwrap();
        assert_eq!(output["y"], []);
        if matches!(name, "batch_norm" | "instance_norm") {
            assert_eq!(output["new_running_mean"], vec![3.0; params], "{name}: an empty batch");
            assert_eq!(output["new_running_var"], vec![4.0; params], "{name}: an empty batch");
        }
    }
}

#[test]
fn channels_must_divide_into_groups() {
    let run = |channels: usize, groups| {
        let operator = Operator { count: groups, ..operator("group_norm", &[2, channels, 3], 1e-5) };
        let inputs = Tensors::from([("x", vec![1.0; operator.len()])]);
        call(&operator, Direction::Forward, &inputs, &["y"], Setting::plain(Dtype::F32))
    };
    assert!(run(6, 3).is_ok());
    assert!(run(0, 0).is_ok());
    for groups in [0, 4, 7] {
        let message = run(6, groups).unwrap_err().to_string();
        assert!(message.contains(&format!("6 channels cannot be divided into {groups}")), "{message}");
    }
}

#[test]
fn running_statistics_follow_ieee() {
    let operator = operator("batch_norm", &[1, 2, 4], 1e-5);
    let inputs = Tensors::from([
        ("x", vec![1.0, f64::INFINITY, 2.0, 3.0, 1.0, 2.0, 3.0, 4.0]),
        ("running_mean", vec![0.0; 2]),
        ("running_var", vec![1.0; 2]),
    ]);
    let names = ["y", "new_running_mean", "new_running_var"];
    let output = call(&operator, Direction::Forward, &inputs, &names, Setting::plain(Dtype::F32)).unwrap();
    assert_eq!(output["new_running_mean"], [f64::INFINITY, 0.625]);
    assert!(output["new_running_var"][0].is_nan());
}

/// What lies behind the first k elements takes no part in the statistic.
#[test]
fn a_nan_behind_the_measured_elements_stays_in_its_place() {
    on_each_instruction_set(|| {
        let operator = Operator { count: 3, ..operator("partial_rms_norm", &[1, 20], 1e-5) };
        let mut x = vec![1.0; 20];
        x[10] = f64::NAN;
        let y = forward(&operator, &x, Dtype::F32);
        assert!(y.iter().enumerate().all(|(i, y)| y.is_nan() == (i == 10)), "{y:?}");
        // The first elements' dx depends on the sum of dy * x, which is NaN; that of the others on no x of theirs.
        let inputs = Tensors::from([("x", x), ("dy", vec![0.5; 20]), ("weight", vec![1.0; 20])]);
        for names in [&["dx"][..], &["dx", "dweight"]] {
            let got = call(&operator, Direction::Backward, &inputs, names, Setting::plain(Dtype::F32)).unwrap();
            assert!(got["dx"].iter().enumerate().all(|(i, dx)| dx.is_nan() == (i < 3)), "{got:?}");
            if let Some(dweight) = got.get("dweight") {
                assert!(dweight.iter().enumerate().all(|(i, dw)| dw.is_nan() == (i == 10)), "{got:?}");
            }
        }
    });
}

/// A layer norm call with one thing changed.
fn malformed(
    change: impl FnOnce(&mut Vec<(String, Value)>, &mut Vec<Argument>, &mut Vec<Argument>),
) -> Result<(), Refusal> {
    let mut memory = [[1f32; 64]; 4];
    let mut arguments = memory.iter_mut().zip([&[2, 8][..], &[8], &[8], &[2, 8]]).map(|(memory, shape)| Argument {
        name: String::new(),
        data: memory.as_mut_ptr().cast(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
        strides: if shape.len() == 2 { vec![8, 1] } else { vec![1] },
    });
    let mut named = |name: &str| Argument { name: name.to_owned(), ..arguments.next().unwrap() };
    let mut inputs = vec![named("x"), named("weight"), named("bias")];
    let mut outputs = vec![named("y")];
    let mut attributes = vec![("eps".to_owned(), Value::Real(1e-5)), ("normalized_ndim".to_owned(), Value::Integer(1))];
    change(&mut attributes, &mut inputs, &mut outputs);
    let made = OwnedCall::new("layer_norm", Direction::Forward, &attributes, inputs, outputs, 1);
    // SAFETY: `memory` is larger than any shape here says.
    kernel("layer_norm", Direction::Forward).run(&unsafe { made.view() })
}

#[test]
fn malformed_calls_are_refused_by_name() {
    assert_eq!(malformed(|_, _, _| {}), Ok(()));
    let refused = |part: &str, result: Result<(), Refusal>| {
        let message = result.expect_err(part).to_string();
        assert!(message.contains(part), "`{message}` does not speak of `{part}`");
    };
    refused("eps", malformed(|attributes, _, _| drop(attributes.remove(0))));
    refused("eps", malformed(|attributes, _, _| attributes[0].1 = Value::Real(f64::NAN)));
    refused("eps", malformed(|attributes, _, _| attributes[0].1 = Value::Integer(1)));
    refused("normalized", malformed(|attributes, _, _| attributes[1].1 = Value::Integer(3)));
    refused("normalized", malformed(|attributes, _, _| attributes[1].1 = Value::Integer(0)));
    refused("normalized", malformed(|attributes, _, _| attributes[1].1 = Value::Integer(-1)));
    refused("`x`", malformed(|_, inputs, _| drop(inputs.remove(0))));
    refused("`y`", malformed(|_, _, outputs| outputs.clear()));
    refused("`weight`", malformed(|_, inputs, _| inputs[1].shape = vec![7]));
    refused("`weight`", malformed(|_, inputs, _| inputs[1].dtype = Dtype::Bf16));
    refused("`y`", malformed(|_, _, outputs| outputs[0].dtype = Dtype::F64));
    refused("`y`", malformed(|_, _, outputs| outputs[0].shape = vec![8, 2]));
    refused("`y`", malformed(|_, _, outputs| outputs[0].strides = vec![0, 1]));
    refused("`y`", malformed(|_, _, outputs| outputs[0].strides = vec![4, 1]));
    refused("`x`", malformed(|_, inputs, _| inputs[0].strides = vec![-8, 1]));
    refused("`x`", malformed(|_, inputs, _| inputs[0].shape = vec![-2, 8]));
    refused("`x`", malformed(|_, inputs, _| inputs[0].data = std::ptr::null_mut()));
    refused("`x`", malformed(|_, inputs, _| inputs[0].data = inputs[0].data.wrapping_add(1)));
    refused("`x`", malformed(|_, inputs, _| inputs[0].strides = vec![i64::MAX, 1]));
}

#[test]
fn the_list_is_complete_and_named_alike() {
    let mut names: Vec<String> = builtin().iter().map(|kernel| kernel.info().name.clone()).collect();
    assert_eq!(names.len(), 22);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 22);
    for kernel in builtin() {
        let info = kernel.info();
        assert_eq!(info.name, format!("isonorm.{}.{}", info.operator, info.direction));
        assert_eq!(info.dtypes.len(), 6);
    }
}
