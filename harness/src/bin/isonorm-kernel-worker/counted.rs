//! A few calls of one kernel and nothing else, for a simulator that counts instructions.

use std::ffi::OsString;
use std::io::Read;

use isonorm_kernels::abi::{Argument, Call, Dtype, OwnedCall, raw};

use super::{load, request};
use crate::request::TensorArg;
use crate::wire::Batch;

/// Makes so many calls of a kernel, built in or of a library. The call is read from standard input, as in a [`Batch`] of no
/// calls; its inputs hold numbers from 1 to 2.
///
/// # Errors
/// Why they could not be made.
pub(super) fn run(calls: u64, name: &str, library: Option<&OsString>) -> Result<(), String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| error.to_string())?;
    let batch: Batch = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let request = request(&batch)?;
    let mut memory: Vec<Vec<u64>> = request.inputs.iter().chain(&request.outputs).map(numbers).collect();
    let mut arguments: Vec<Argument> = request
        .inputs
        .iter()
        .chain(&request.outputs)
        .zip(&mut memory)
        .map(|(tensor, memory)| tensor.argument(memory.as_mut_ptr().cast()))
        .collect();
    let outputs = arguments.split_off(request.inputs.len());
    let (operator, attributes) = (&request.operator, &request.attributes);
    let call = OwnedCall::new(operator, request.direction, attributes, arguments, outputs, request.threads);
    let kernel = find(name, library)?;
    for _ in 0..calls {
        kernel(&call)?;
    }
    Ok(())
}

type Made = Box<dyn Fn(&OwnedCall) -> Result<(), String>>;

fn find(name: &str, library: Option<&OsString>) -> Result<Made, String> {
    let missing = || format!("there is no kernel {name}");
    let Some(library) = library else {
        let mut all = isonorm_kernels::builtin().into_iter();
        let kernel = all.find(|kernel| kernel.info().name == name).ok_or_else(missing)?;
        return Ok(Box::new(move |call| {
            // SAFETY: the tensors' memory lives as long as the call, in `run`.
            let call: Call<'_> = unsafe { call.view() };
            kernel.run(&call).map_err(|refusal| refusal.to_string())
        }));
    };
    let (text, functions) = load(library).map_err(|greeting| format!("{greeting:?}"))?;
    let place = text.kernels.iter().position(|kernel| kernel.name == name).ok_or_else(missing)?;
    let function = functions[place];
    Ok(Box::new(move |call| {
        // SAFETY: as above; the library says that this is a kernel.
        match unsafe { function(call.raw()) } {
            raw::OK => Ok(()),
            status => Err(format!("the kernel returned status {status}: {}", call.message())),
        }
    }))
}

/// Memory of a tensor, full of numbers from 1 to 2.
fn numbers(tensor: &TensorArg) -> Vec<u64> {
    // The bits of 1 and those of the fraction, in every element of a word.
    let (one, fraction) = match tensor.dtype {
        Dtype::F64 => (0x3ff0_0000_0000_0000, 0xf_ffff_ffff_ffff),
        Dtype::F32 => (0x3f80_0000_3f80_0000, 0x7f_ffff_007f_ffff),
        Dtype::Bf16 => (0x3f80_3f80_3f80_3f80, 0x7f_007f_007f_007f),
        Dtype::F16 => (0x3c00_3c00_3c00_3c00, 0x3ff_03ff_03ff_03ff),
    };
    let mixed = |word: u64| word.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..tensor.bytes().div_ceil(8) as u64).map(|word| one | (mixed(word) ^ mixed(word) >> 29) & fraction).collect()
}
