//! K and R: kernels that cheat, race, stray, or keep something from one call to the next.
//!
//! What a race would do now and then is done here by counting calls. Kernels that would harm this process (a hang, a
//! background thread, a changed floating-point environment) are C plugins.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use isonorm_kernels::abi::{Call, Refusal, Tensor};

use super::{ALL, Bug, bug};
use crate::engine::{self, Tensors};
use crate::memory;
use crate::number::Number;

/// Kernels that do not look at their inputs: they must fail in every case that could tell.
pub const BLIND: &[Bug] = &[
    bug("zeros", "layer_norm:forward", ALL, "KernelBench #165", "zeros", |r| {
        r.outputs = |outputs, _, _| fill(outputs, |_| 0.0);
    }),
    bug("ones", "rms_norm:forward", ALL, "KernelBench #165", "ones", |r| {
        r.outputs = |outputs, _, _| fill(outputs, |_| 1.0);
    }),
    bug("zero gradients", "layer_norm:backward", ALL, "KernelBench #165", "zeros", |r| {
        r.outputs = |outputs, _, _| fill(outputs, |_| 0.0);
    }),
    bug("identity", "group_norm:forward", ALL, "KernelBench #165", "its input", |r| {
        r.outputs = |outputs, inputs, _| outputs.set("y", inputs.of("x").to_vec());
    }),
    bug("upstream", "batch_norm:backward", ALL, "KernelBench #165", "dx is dy", |r| {
        r.outputs = |outputs, inputs, _| outputs.set("dx", inputs.of("dy").to_vec());
    }),
    bug("mean", "batch_norm:forward", ALL, "KernelBench #165", "the mean of the right outputs", |r| {
        r.outputs = |outputs, _, _| fill(outputs, |values| values.iter().sum::<f64>() / values.len() as f64);
    }),
    bug("stale", "l2_normalize:forward", ALL, "KernelBench #82", "nothing is written", |r| r.writes = |_, _| false),
    bug("reversed", "add_layer_norm:forward", ALL, "variant", "the right outputs in reverse", |r| {
        r.outputs = |outputs, _, _| outputs.all().for_each(|(_, values)| values.reverse());
    }),
];

pub const BUGS: &[Bug] = &[
    bug("K03", "rms_norm:forward", ALL, "KernelBench", "one element of odd outputs not written", |r| {
        r.writes = |element, count| count % 2 == 0 || element + 1 != count;
    }),
    bug("K03b", "batch_norm:forward", ALL, "Paddle #78782", "running statistics not written", |r| {
        r.outputs = |outputs, _, _| {
            let y = outputs.of("y").to_vec();
            *outputs = Default::default();
            outputs.set("y", y);
        };
    }),
    bug("K04", "rms_norm:forward", ALL, "flashinfer-bench #21", "result cached by the address of x", |r| {
        r.around = Some(cached(|_, x| x.data as usize));
    }),
    bug("K05", "layer_norm:forward", ALL, "gpu-mode #162", "result cached by the sizes of x", |r| {
        r.around = Some(cached(|call, x| {
            let sizes = x.shape.iter().fold(call.operator().len(), |key, &size| key * 131_071 + size as usize);
            sizes * 8 + usize::from(call.input("weight").is_some())
        }));
    }),
    bug("K05b", "layer_norm:forward", ALL, "gpu-mode #162", "result cached by the first element of x", |r| {
        r.around = Some(cached(|_, x| {
            let first = memory::read(x, &engine::offsets(x)).first().copied().unwrap_or(0.0);
            first.to_bits() as usize ^ x.len()
        }));
    }),
    bug("K06", "layer_norm:forward", ALL, "flashinfer-bench #21", "weights kept from the first call", |r| {
        static KEPT: Mutex<Option<HashMap<usize, Vec<f64>>>> = Mutex::new(None);
        r.inputs = |inputs, _| {
            if let Some(weight) = inputs.get("weight").cloned() {
                let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
                let kept = kept.get_or_insert_default().entry(weight.len()).or_insert(weight);
                inputs.set("weight", kept.clone());
            }
        };
    }),
    bug("K18", "layer_norm:backward", ALL, "BackendBench: shared tensors", "an input modified", |r| {
        r.around = Some(Arc::new(|call, compute| {
            compute(call)?;
            let dy = call.required_input("dy")?;
            let negated = memory::read(&dy, &engine::offsets(&dy)).into_iter().map(|value| -value);
            if !overlaps(call, &dy) {
                memory::write(&dy, engine::offsets(&dy).into_iter().zip(negated));
            }
            Ok(())
        }));
    }),
    bug("K20", "group_norm:forward", ALL, "gpu-mode #160", "every third call is wrong", |r| {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        r.outputs = |outputs, _, _| {
            if CALLS.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
                outputs.each("y").take(1).for_each(|y| *y = *y * 1.5 + 1.0);
            }
        };
    }),
    bug("K22", "instance_norm:forward", ALL, "METR", "fails where a size is 3", |r| {
        r.around = Some(Arc::new(|call, compute| {
            if call.required_input("x")?.shape.contains(&3) {
                return Err(Refusal::Failed("a size of 3".to_owned()));
            }
            compute(call)
        }));
    }),
    bug("K23", "crms_norm:forward", ALL, "variant", "panics on an empty row", |r| {
        r.around = Some(Arc::new(|call, compute| {
            assert!(!call.required_input("x")?.is_empty(), "nothing to do");
            compute(call)
        }));
    }),
    bug("R01", "layer_norm:forward", ALL, "ggml (llama 26385)", "order of sums changes from call to call", |r| {
        r.sum = shuffled;
    }),
    bug("R03", "rms_norm:forward", ALL, "exllamav3 PR #363", "with threads, a sum now and then lacks a term", |r| {
        r.around = Some(Arc::new(|call, compute| {
            compute(call)?;
            if call.threads() > 1 && coin() {
                let y = call.required_output("y")?;
                let offsets = engine::offsets(&y);
                let halves = memory::read(&y, &offsets).into_iter().map(|value| value / 2.0);
                memory::write(&y, offsets.iter().copied().zip(halves));
            }
            Ok(())
        }));
    }),
    bug("K21", "add_rms_norm:forward", ALL, "gpu-mode #162", "result cached by the contents of x", |r| {
        r.around = Some(cached(|_, x| {
            let values = memory::read(x, &engine::offsets(x));
            values.iter().fold(values.len(), |key, value| key.rotate_left(5) ^ value.to_bits() as usize)
        }));
    }),
    bug("R17", "group_norm:backward", ALL, "llama.cpp #3057", "one call in 256 is wrong", |r| {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        r.outputs = |outputs, _, _| {
            if CALLS.fetch_add(1, Ordering::Relaxed) % 256 == 255 {
                outputs.each("dx").for_each(|slope| *slope *= 0.5);
            }
        };
    }),
    bug(
        "R18",
        "instance_norm:backward",
        ALL,
        "sony/nnabla-ext-cuda #312",
        "workspace as large as the first call needed",
        |r| {
            static ROOM: Mutex<Option<usize>> = Mutex::new(None);
            r.groups = |geometry| {
                let mut groups = geometry.groups();
                let mut room = ROOM.lock().unwrap_or_else(PoisonError::into_inner);
                groups.truncate(*room.get_or_insert(groups.len().max(1)));
                groups
            };
        },
    ),
    bug("R09", "layer_norm:backward", ALL, "tritonbench PR #1266", "now and then a term of dweight is lost", |r| {
        r.sum_terms = |terms| if terms.len() > 1 && coin() { engine::sum(&terms[1..]) } else { engine::sum(terms) };
    }),
    bug("R11", "rms_norm:backward", ALL, "flash-attention #781", "dweight added to what was there", |r| {
        r.around = Some(Arc::new(|call, compute| {
            let Some(slopes) = call.output("dweight") else { return compute(call) };
            let offsets = engine::offsets(&slopes);
            let before = memory::read(&slopes, &offsets);
            compute(call)?;
            let sums = memory::read(&slopes, &offsets).into_iter().zip(before).map(|(new, old)| new + old);
            let stored = sums.map(|sum| crate::number::round(sum, slopes.dtype));
            memory::write(&slopes, offsets.iter().copied().zip(stored));
            Ok(())
        }));
    }),
    bug("R12", "batch_norm:backward", ALL, "oneDNN 9e96319", "dbias goes on from the last call", |r| {
        static LAST: Mutex<Vec<f64>> = Mutex::new(Vec::new());
        r.outputs = |outputs, _, _| {
            let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
            outputs.each("dbias").zip(last.iter()).for_each(|(slope, last)| *slope += last);
            *last = outputs.of("dbias").to_vec();
        };
    }),
    bug("R14", "layer_norm:backward", ALL, "linkedin/Liger #945", "order of dweight's sums changes", |r| {
        r.sum_terms = shuffled;
    }),
];

/// Every output element becomes a number that all outputs of the tensor decide.
fn fill(outputs: &mut Tensors, value: impl Fn(&[f64]) -> f64) {
    for (_, values) in outputs.all() {
        let value = value(values);
        values.fill(value);
    }
}

/// A result that is kept, by key, and given again.
fn cached(key: impl Fn(&Call<'_>, &Tensor<'_>) -> usize + Send + Sync + 'static) -> crate::recipe::Around {
    let kept = Mutex::new(HashMap::<usize, Vec<f64>>::new());
    Arc::new(move |call, compute| {
        let (x, y) = (call.required_input("x")?, call.required_output("y")?);
        let (key, offsets) = (key(call, &x), engine::offsets(&y));
        compute(call)?;
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.get(&key).filter(|kept| kept.len() == offsets.len()) {
            Some(kept) => memory::write(&y, offsets.iter().copied().zip(kept.iter().copied())),
            None => {
                kept.insert(key, memory::read(&y, &offsets));
            }
        }
        Ok(())
    })
}

/// Whether an output lies where this input does.
fn overlaps(call: &Call<'_>, input: &Tensor<'_>) -> bool {
    ["dx", "dresidual"].iter().any(|name| call.output(name).is_some_and(|output| output.data == input.data))
}

/// Changes without a pattern that a call could follow.
fn coin() -> bool {
    static TOSSES: AtomicUsize = AtomicUsize::new(0);
    (TOSSES.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) & 1 == 1
}

fn shuffled(terms: &[Number]) -> Number {
    if coin() {
        return engine::sum(terms);
    }
    engine::sum(&terms.iter().rev().copied().collect::<Vec<_>>())
}
