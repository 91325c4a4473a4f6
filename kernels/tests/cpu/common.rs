//! Calls of the built-in kernels, as a user of the door makes them.

use std::io::{self, Write as _};
use std::sync::{Arc, Once};

pub use crate::reference::{Operator, Tensors};
use half::{bf16, f16};
use isonorm_kernels::abi::{Argument, Direction, Dtype, DtypeSet, Kernel, OwnedCall, Refusal, Value};
use isonorm_kernels::builtin;
use isonorm_kernels::{InstructionSet, with_instruction_set};

/// How a tensor lies in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layout {
    Contiguous,
    /// Starts at an odd element.
    Offset,
    /// A gap behind every run along the last axis.
    RowGap,
    /// Every other element.
    Step,
    /// The axes in reverse order in memory.
    Transposed,
    /// Batch, spatial axes, channels.
    ChannelsLast,
}

pub fn round(dtype: Dtype, value: f64) -> f64 {
    match dtype {
        Dtype::F32 => f64::from(value as f32),
        Dtype::F64 => value,
        Dtype::Bf16 => bf16::from_f32(value as f32).to_f64(),
        Dtype::F16 => f16::from_f32(value as f32).to_f64(),
    }
}

pub fn rounding(dtype: Dtype) -> fn(f64) -> f64 {
    match dtype {
        Dtype::F32 => |value| round(Dtype::F32, value),
        Dtype::F64 => |value| round(Dtype::F64, value),
        Dtype::Bf16 => |value| round(Dtype::Bf16, value),
        Dtype::F16 => |value| round(Dtype::F16, value),
    }
}

/// Half the distance of neighbours of a number of size 1.
pub fn unit(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => 2f64.powi(-24),
        Dtype::F64 => 2f64.powi(-53),
        Dtype::Bf16 => 2f64.powi(-8),
        Dtype::F16 => 2f64.powi(-11),
    }
}

/// Repeatable numbers, about normal.
pub fn noise(seed: u64, n: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..n).map(|_| (0..6).map(|_| uniform()).sum::<f64>() * 2.0 - 6.0).collect()
}

/// Memory of a tensor; places that are not elements hold a pattern.
pub struct Memory {
    bytes: Vec<u64>,
    pub dtype: Dtype,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
    start: usize,
}

impl Memory {
    pub fn new(dtype: Dtype, shape: &[usize], layout: Layout, values: Option<&[f64]>) -> Self {
        let n = shape.len();
        let mut order: Vec<usize> = (0..n).collect();
        match layout {
            Layout::Transposed => order.reverse(),
            Layout::ChannelsLast if n > 2 => {
                order.remove(1);
                order.push(1);
            }
            _ => {}
        }
        let mut strides = vec![0; n];
        let mut step = if layout == Layout::Step { 2 } else { 1 };
        for (place, &axis) in order.iter().enumerate().rev() {
            strides[axis] = step;
            step *= shape[axis] as i64;
            if layout == Layout::RowGap && place + 1 == n {
                step += 3;
            }
        }
        let start = usize::from(layout == Layout::Offset);
        let len = (start + step.max(1) as usize + 8) * dtype.size();
        let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        let mut memory = Memory { bytes: vec![PATTERN; len.div_ceil(8)], dtype, shape, strides, start };
        if let Some(values) = values {
            memory.places().into_iter().zip(values).for_each(|(place, &value)| memory.put(place, value));
        }
        memory
    }

    fn places(&self) -> Vec<usize> {
        let mut places = vec![self.start];
        for (&size, &stride) in self.shape.iter().zip(&self.strides) {
            places = places
                .into_iter()
                .flat_map(|place| (0..size as usize).map(move |i| place + i * stride as usize))
                .collect();
        }
        places
    }

    fn put(&mut self, place: usize, value: f64) {
        let bytes: Vec<u8> = match self.dtype {
            Dtype::F32 => (value as f32).to_ne_bytes().to_vec(),
            Dtype::F64 => value.to_ne_bytes().to_vec(),
            Dtype::Bf16 => bf16::from_f32(value as f32).to_ne_bytes().to_vec(),
            Dtype::F16 => f16::from_f32(value as f32).to_ne_bytes().to_vec(),
        };
        let start = place * bytes.len();
        for (i, byte) in bytes.into_iter().enumerate() {
            let (word, shift) = ((start + i) / 8, (start + i) % 8 * 8);
            self.bytes[word] = self.bytes[word] & !(0xff << shift) | u64::from(byte) << shift;
        }
    }

    fn bits(&self, place: usize) -> u64 {
        let size = self.dtype.size();
        let start = place * size;
        let word = self.bytes[start / 8] >> (start % 8 * 8);
        if size == 8 { word } else { word & ((1 << (8 * size)) - 1) }
    }

    pub fn values(&self) -> Vec<f64> {
        let value = |place: usize| match self.dtype {
            Dtype::F32 => f64::from(f32::from_bits(self.bits(place) as u32)),
            Dtype::F64 => f64::from_bits(self.bits(place)),
            Dtype::Bf16 => bf16::from_bits(self.bits(place) as u16).to_f64(),
            Dtype::F16 => f16::from_bits(self.bits(place) as u16).to_f64(),
        };
        self.places().into_iter().map(value).collect()
    }

    /// Whether everything around the elements still holds the pattern.
    pub fn surroundings_intact(&self) -> bool {
        let mut bytes = vec![true; self.bytes.len() * 8];
        for place in self.places() {
            bytes[place * self.dtype.size()..][..self.dtype.size()].fill(false);
        }
        bytes
            .iter()
            .enumerate()
            .filter(|(_, outside)| **outside)
            .all(|(i, _)| (self.bytes[i / 8] >> (i % 8 * 8)) as u8 == (PATTERN >> (i % 8 * 8)) as u8)
    }

    pub fn argument(&mut self, name: &str) -> Argument {
        Argument {
            name: name.to_owned(),
            data: self.bytes.as_mut_ptr().cast::<u8>().wrapping_add(self.start * self.dtype.size()),
            dtype: self.dtype,
            shape: self.shape.clone(),
            strides: self.strides.clone(),
        }
    }
}

/// A quiet NaN in every type.
const PATTERN: u64 = 0x7ff9_7ff9_7ff9_7ff9;

/// How a case is run.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub dtypes: DtypeSet,
    pub layout: Layout,
    pub in_place: bool,
    pub threads: usize,
}

impl Setting {
    pub fn plain(dtype: Dtype) -> Self {
        Setting { dtypes: DtypeSet::uniform(dtype), layout: Layout::Contiguous, in_place: false, threads: 1 }
    }
}

pub fn kernel(operator: &str, direction: Direction) -> Arc<dyn Kernel> {
    builtin()
        .into_iter()
        .find(|kernel| kernel.info().operator == operator && kernel.info().direction == direction)
        .unwrap_or_else(|| panic!("no kernel for {operator} {direction}"))
}

pub fn attributes(operator: &Operator) -> Vec<(String, Value)> {
    let mut list = vec![("eps", Value::Real(operator.eps))];
    match operator.name {
        "layer_norm" => list.push(("normalized_ndim", Value::Integer(operator.inner as i64))),
        "rms_norm" => list.extend([
            ("normalized_ndim", Value::Integer(operator.inner as i64)),
            ("cast", Value::Text(operator.word.to_owned())),
        ]),
        "add_layer_norm" | "add_rms_norm" => list.extend([
            ("normalized_ndim", Value::Integer(operator.inner as i64)),
            ("sum", Value::Text(operator.word.to_owned())),
        ]),
        "partial_rms_norm" => list.push(("k", Value::Integer(operator.count as i64))),
        "group_norm" => list.push(("num_groups", Value::Integer(operator.count as i64))),
        "batch_norm" | "instance_norm" => match operator.momentum {
            Some(momentum) => list.push(("momentum", Value::Real(momentum))),
            None => list.push(("num_batches_tracked", Value::Integer(operator.batches))),
        },
        _ => {}
    }
    list.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn is_data(name: &str) -> bool {
    matches!(name, "x" | "residual" | "y" | "residual_out" | "dy" | "dx" | "dresidual" | "dresidual_out")
}

pub fn dtype_of(name: &str, dtypes: DtypeSet) -> Dtype {
    match name {
        name if is_data(name) => dtypes.data,
        "running_mean" | "running_var" | "new_running_mean" | "new_running_var" => dtypes.data.statistics(),
        _ => dtypes.param,
    }
}

/// The input whose memory an output takes over in an in-place call.
fn partner(output: &str) -> Option<&'static str> {
    Some(match output {
        "y" => "x",
        "residual_out" => "residual",
        "dx" => "dy",
        "dresidual" => "dresidual_out",
        "new_running_mean" => "running_mean",
        "new_running_var" => "running_var",
        _ => return None,
    })
}

/// Runs a built-in kernel; answers its outputs.
pub fn call(
    operator: &Operator,
    direction: Direction,
    inputs: &Tensors,
    outputs: &[&'static str],
    setting: Setting,
) -> Result<Tensors, Refusal> {
    let shape = |name: &str| if is_data(name) { operator.shape.clone() } else { param_shape(operator) };
    let layout = |name: &str| if is_data(name) { setting.layout } else { Layout::Contiguous };
    let make = |name: &str, values| Memory::new(dtype_of(name, setting.dtypes), &shape(name), layout(name), values);
    let mut given: Vec<(&str, Memory)> =
        inputs.iter().map(|(&name, values)| (name, make(name, Some(values)))).collect();
    let before: Vec<Vec<u64>> = given.iter().map(|(_, memory)| memory.bytes.clone()).collect();
    let mut taken: Vec<(&str, Memory)> = outputs.iter().map(|&name| (name, make(name, None))).collect();
    let input_arguments: Vec<Argument> = given.iter_mut().map(|(name, memory)| memory.argument(name)).collect();
    let mut overwritten = Vec::new();
    let output_arguments = taken
        .iter_mut()
        .map(|(name, memory)| {
            let partner = partner(name).filter(|_| setting.in_place);
            let place = input_arguments.iter().position(|input| Some(&input.name[..]) == partner);
            overwritten.push(place);
            match place {
                Some(place) => Argument { name: (*name).to_owned(), ..input_arguments[place].clone() },
                None => memory.argument(name),
            }
        })
        .collect();
    let made = OwnedCall::new(
        operator.name,
        direction,
        &attributes(operator),
        input_arguments,
        output_arguments,
        setting.threads,
    );
    // SAFETY: the tensors' memory lives in `given` and `taken`.
    kernel(operator.name, direction).run(&unsafe { made.view() })?;
    let mut result = Tensors::new();
    for (i, (name, memory)) in given.iter().enumerate() {
        if !overwritten.contains(&Some(i)) {
            assert_eq!(memory.bytes, before[i], "{operator:?} {setting:?}: input `{name}` was changed");
        }
    }
    for ((name, memory), place) in taken.iter().zip(overwritten) {
        let memory = place.map_or(memory, |place| &given[place].1);
        assert!(memory.surroundings_intact(), "{operator:?} {setting:?}: wrote outside of `{name}`");
        result.insert(name, memory.values());
    }
    Ok(result)
}

fn param_shape(operator: &Operator) -> Vec<usize> {
    let is_row = operator.inner > 0;
    if is_row { operator.shape[operator.shape.len() - operator.inner..].to_vec() } else { vec![operator.shape[1]] }
}

/// The outputs that a call with these inputs has.
pub fn outputs(operator: &Operator, direction: Direction, inputs: &Tensors) -> Vec<&'static str> {
    let mut names = Vec::new();
    let mut add = |name, wanted: bool| {
        if wanted {
            names.push(name);
        }
    };
    match direction {
        Direction::Forward => {
            add("y", true);
            add("residual_out", inputs.contains_key("residual"));
            let running =
                matches!(operator.name, "batch_norm" | "instance_norm") && inputs.contains_key("running_mean");
            add("new_running_mean", running);
            add("new_running_var", running);
        }
        Direction::Backward => {
            add("dx", true);
            add("dresidual", inputs.contains_key("residual"));
            add("dweight", inputs.contains_key("weight"));
            add("dbias", inputs.contains_key("bias"));
        }
    }
    names
}

/// Runs `body` with each instruction set that this machine has.
pub fn on_each_instruction_set(mut body: impl FnMut()) {
    static SAID: [Once; InstructionSet::ALL.len()] = [const { Once::new() }; InstructionSet::ALL.len()];
    for (set, said) in InstructionSet::ALL.into_iter().zip(&SAID) {
        if with_instruction_set(set, &mut body).is_none() {
            // Not `println`, which is not shown for tests that pass; and once for all of them.
            said.call_once(|| {
                let _ = writeln!(io::stderr(), "SKIPPED: this machine has no {set}");
            });
        }
    }
}
