//! Statistics of channels where they are taken in parts: both layouts, over many samples, rows, segments and threads.

use crate::common::{Layout, Operator, Setting, Tensors, call, noise, on_each_instruction_set, round, unit};
use isonorm_kernels::InstructionSet;
use isonorm_kernels::abi::{Direction, Dtype};

#[path = "../../src/cpu/channels/spread.rs"]
mod spread;

use spread::spread;

const LAYOUTS: [Layout; 2] = [Layout::Contiguous, Layout::ChannelsLast];

const OPERATORS: [&str; 3] = ["batch_norm", "group_norm", "instance_norm"];

fn operator(name: &'static str, shape: &[usize], groups: usize) -> Operator {
    Operator {
        name,
        shape: shape.to_vec(),
        eps: 1e-5,
        inner: 0,
        count: groups,
        word: "",
        momentum: Some(0.1),
        batches: 0,
        round: |value| value,
    }
}

fn single(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    values.into_iter().map(|value| round(Dtype::F32, value)).collect()
}

fn inputs(operator: &Operator, x: Vec<f64>) -> Tensors {
    let weight = single(noise(5, operator.params()).into_iter().map(|weight| weight + 1.0));
    Tensors::from([("x", x), ("weight", weight)])
}

/// Whether all outputs are within `limit` units of the reference's, relative to their largest value.
fn check(operator: &Operator, inputs: &Tensors, layout: Layout, limit: f64) {
    let (direction, names, want) = if inputs.contains_key("dy") {
        (Direction::Backward, &["dx", "dweight"][..], operator.backward(inputs))
    } else {
        (Direction::Forward, &["y"][..], operator.forward(inputs))
    };
    let setting = Setting { layout, threads: 2, ..Setting::plain(Dtype::F32) };
    let got = call(operator, direction, inputs, names, setting).unwrap();
    for name in names {
        let largest = want[name].iter().fold(f64::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
        for (i, (got, want)) in got[name].iter().zip(&want[name]).enumerate() {
            assert!(
                (got - want).abs() <= limit * unit(Dtype::F32) * largest,
                "{operator:?} {direction} {layout:?} {}: `{name}`[{i}] is {got:e}, expected {want:e}",
                InstructionSet::current(),
            );
        }
    }
}

fn check_both(operator: &Operator, x: Vec<f64>, limit: f64) {
    for layout in LAYOUTS {
        let mut inputs = inputs(operator, x.clone());
        check(operator, &inputs, layout, limit);
        inputs.insert("dy", single(noise(9, operator.len())));
        check(operator, &inputs, layout, 4.0 * limit);
    }
}

/// Blocks of sums and what is left of them: 64 samples and more, rows folded into longer ones, several segments, more
/// short channels than are taken together.
#[test]
fn sums_in_parts() {
    on_each_instruction_set(|| {
        for (shape, groups) in [
            (&[3, 6, 37, 41], 2),
            (&[70, 4, 7, 7], 2),
            (&[2, 72, 9, 9], 8),
            (&[1, 3, 130, 131], 1),
            (&[5, 2, 1, 3], 1),
            (&[64, 3, 1, 2], 3),
            (&[2, 150, 5, 7], 75),
        ] {
            for name in OPERATORS {
                let operator = operator(name, shape, groups);
                check_both(&operator, single(noise(3, operator.len())), 8.0);
            }
        }
    });
}

#[test]
fn large_means_and_far_samples() {
    for name in OPERATORS {
        let operator = operator(name, &[2, 2, 128, 128], 2);
        check_both(&operator, single(noise(3, operator.len()).into_iter().map(|x| x + 1e6)), 8.0);
        // What is sampled of a batch is nothing like the rest.
        let mut x = single(noise(3, operator.len()));
        for place in spread(32, 2 * 128 * 128) {
            let (sample, place) = (place / (128 * 128), place % (128 * 128));
            (0..2).for_each(|channel| x[(sample * 2 + channel) * 128 * 128 + place] += 1000.0);
        }
        check_both(&operator, x, 8.0);
    }
}

/// The largest part of an image that a sample of a batch of images meets nowhere.
fn largest_gap(places: impl Iterator<Item = usize>, image: usize) -> usize {
    let mut within: Vec<usize> = places.map(|place| place % image).chain([0, image]).collect();
    within.sort_unstable();
    within.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[test]
fn a_sample_is_in_step_with_no_period() {
    let (images, image) = (32, 56 * 56);
    let places: Vec<usize> = spread(images, images * image).collect();
    assert!(places.iter().enumerate().all(|(i, place)| (i * image..(i + 1) * image).contains(place)));
    assert!(largest_gap(places.into_iter(), image) < image / 10);
    // Equal steps are.
    assert_eq!(largest_gap((0..images).map(|i| i * image), image), image);
}

/// Sets that must be measured again, among others that need not, with long runs and short ones.
#[test]
fn sets_far_from_zero_among_others() {
    for name in OPERATORS {
        for shape in [[2, 6, 28, 28], [4, 6, 5, 7]] {
            let operator = operator(name, &shape, 3);
            let x = noise(3, operator.len()).into_iter().enumerate();
            let is_far = |i: usize| (2..4).contains(&(i / (shape[2] * shape[3]) % 6));
            check_both(&operator, single(x.map(|(i, x)| if is_far(i) { x + 1e6 } else { x })), 8.0);
        }
    }
}

/// Sets whose squares leave the range of the type, among others that do not.
#[test]
fn the_whole_range() {
    for name in OPERATORS {
        for exponent in [-120, -70, 66, 100] {
            let mut operator = operator(name, &[2, 4, 5, 7], 4);
            operator.eps = 0.0;
            let scale = 2f64.powi(exponent);
            let x = noise(3, operator.len()).into_iter().enumerate();
            let x = single(x.map(|(i, x)| if i / 35 % 4 == 2 { x * scale } else { x }));
            for layout in LAYOUTS {
                check(&operator, &inputs(&operator, x.clone()), layout, 16.0);
            }
        }
    }
}

/// Products of `dy` and subnormal data keep their digits.
#[test]
fn gradients_of_subnormal_data() {
    for name in OPERATORS {
        for shape in [&[2, 4, 5, 7][..], &[3, 6, 28, 28], &[1, 96, 5, 2]] {
            let mut operator = operator(name, shape, 2);
            operator.eps = 1e-20;
            let x = single(noise(3, operator.len()).into_iter().map(|x| (x + 1.0) * 2f64.powi(-134)));
            for layout in LAYOUTS {
                let mut inputs = inputs(&operator, x.clone());
                inputs.insert("dy", single(noise(9, operator.len())));
                check(&operator, &inputs, layout, 32.0);
            }
        }
    }
}

/// A weight whose product with `1 / sqrt(variance)` has lost digits, though its product with `x_hat` has not.
#[test]
fn small_weights_beside_large_data() {
    for name in OPERATORS {
        let operator = operator(name, &[2, 4, 5, 7], 4);
        for layout in LAYOUTS {
            let mut inputs = inputs(&operator, single(noise(3, operator.len()).into_iter().map(|x| x * 1e10)));
            inputs.insert("weight", single([1e-35; 4]));
            check(&operator, &inputs, layout, 16.0);
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit_in_either_layout() {
    for name in OPERATORS.into_iter().chain(["batch_norm_inference"]) {
        for shape in [[7, 12, 31, 31], [1, 12, 97, 101]] {
            let operator = operator(name, &shape, 4);
            let mut inputs = inputs(&operator, single(noise(3, operator.len())));
            inputs.insert("dy", single(noise(9, operator.len())));
            if name == "batch_norm_inference" {
                inputs.insert("running_mean", vec![0.25; 12]);
                inputs.insert("running_var", vec![0.75; 12]);
            }
            for layout in LAYOUTS {
                let [one, others @ ..] = [1, 2, 3, 5].map(|threads| {
                    let setting = Setting { layout, threads, ..Setting::plain(Dtype::F32) };
                    call(&operator, Direction::Backward, &inputs, &["dx", "dweight"], setting).unwrap()
                });
                assert!(others.into_iter().all(|other| other == one), "{name} {shape:?} {layout:?}");
            }
        }
    }
}
