//! The trial of one request: which calls are made, and what is read from the memory they leave behind.
//!
//! Each request is put twice, with outputs, gaps and surroundings poisoned with two patterns and with buffers that
//! lie differently. An element that still has its poison after both calls was not written. An element that
//! differs was computed from something else than the inputs; the calls are then repeated with the patterns
//! exchanged, to learn whether it follows the addresses or the patterns. The first pattern is a NaN in every format and the second a huge number, so that
//! what is read by mistake cannot hide in a sum or a maximum.

use std::ops::Range;

use isonorm_kernels::abi::Dtype;

use super::conduct::value;
use super::{Answer, Conduct, Difference, Outcome, Place, Request, TensorArg, Work};

/// The bytes that memory is filled with before a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Poison {
    /// In outputs.
    pub(super) inside: u8,
    /// Around all tensors.
    pub(super) around: u8,
}

/// For the first and the second call. In the second, numbers read around a tensor are not those in outputs.
pub(super) const POISON: [Poison; 2] = [Poison { inside: 0xff, around: 0xff }, Poison { inside: 0x7b, around: 0x7a }];

/// Where a tensor lies in a block of bytes: `region` is its own, `data` the tensor inside.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Slot {
    pub(super) region: Range<usize>,
    pub(super) data: Range<usize>,
}

/// The memory of one call: a slot for each input, then for each output; an output in place has its input's.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) slots: &'a [Slot],
    pub(super) poison: Poison,
}

impl<'a> Scene<'a> {
    fn data(&self, slot: usize) -> &'a [u8] {
        &self.bytes[self.slots[slot].data.clone()]
    }

    pub(super) fn outputs(&self, request: &Request) -> Vec<Vec<u8>> {
        (0..request.outputs.len()).map(|output| self.data(request.inputs.len() + output).to_vec()).collect()
    }
}

/// Fills a block as it must be before a call.
pub(super) fn set_scene(bytes: &mut [u8], slots: &[Slot], contents: &[&[u8]], poison: Poison) {
    for Slot { region, data } in slots {
        bytes[region.start..data.start].fill(poison.around);
        bytes[data.end..region.end].fill(poison.around);
    }
    let (inputs, outputs) = slots.split_at(contents.len());
    for slot in outputs {
        bytes[slot.data.clone()].fill(poison.inside);
    }
    // Last, because an output in place has the slot of its input.
    for (slot, content) in inputs.iter().zip(contents) {
        bytes[slot.data.clone()].copy_from_slice(content);
    }
}

/// What the two calls of a request left behind.
pub(super) struct Calls<'a> {
    pub(super) scenes: [Scene<'a>; 2],
    /// The outputs of the call with other contents that came before; empty if there was none.
    pub(super) prelude: Vec<Vec<u8>>,
    pub(super) conduct: Vec<Conduct>,
    pub(super) seconds: f64,
    /// What the launches of the first call did.
    pub(super) work: Option<Box<Work>>,
}

/// Where calls are made.
pub(super) trait Room {
    /// What a difference means that follows which of the two calls it was.
    fn follows_call(difference: Difference) -> Conduct {
        Conduct::AddressDependent(difference)
    }

    /// Calls the kernel twice, with memory poisoned so, after a prelude if the request has one and it is wanted.
    fn call(&mut self, request: &Request, poison: [Poison; 2], prelude: bool) -> Result<Calls<'_>, Outcome>;
}

/// Puts a request to the kernel in the room.
pub(super) fn trial(room: &mut impl Room, request: &Request) -> Outcome {
    match request.validate().map_err(Outcome::NotRun).and_then(|()| attempt(room, request)) {
        Ok(answer) => Outcome::Answered(answer),
        Err(outcome) => outcome,
    }
}

fn attempt(room: &mut impl Room, request: &Request) -> Result<Answer, Outcome> {
    let calls = room.call(request, POISON, true)?;
    let mut conduct = Vec::new();
    calls.conduct.into_iter().for_each(|item| note(&mut conduct, item));
    let reached: Vec<Option<Vec<bool>>> = request.outputs.iter().map(reached).collect();
    for scene in &calls.scenes {
        look_around(request, scene, &reached, &mut conduct);
    }
    let outputs = calls.scenes[0].outputs(request);
    if conduct.iter().any(Conduct::is_fatal) {
        return Ok(Answer { outputs, conduct, seconds: calls.seconds, work: calls.work });
    }
    let mut differing = Vec::new();
    for (position, output) in request.outputs.iter().enumerate() {
        let pair = calls.scenes.map(|scene| scene.data(request.inputs.len() + position));
        let compared = compare(output, pair, calls.prelude.get(position).map(Vec::as_slice));
        if let Some(unwritten) = compared.unwritten {
            note(&mut conduct, unwritten);
        }
        match compared.difference {
            Some(difference) if compared.stale => note(&mut conduct, Conduct::Stale(difference)),
            Some(difference) => differing.push((position, difference)),
            None => {}
        }
    }
    let answer = Answer { outputs, conduct, seconds: calls.seconds, work: calls.work };
    if differing.is_empty() {
        return Ok(answer);
    }
    let second = calls.scenes[1].outputs(request);
    explain(room, request, answer, &second, differing)
}

/// Repeats both calls with the poison exchanged, to learn what a difference follows.
fn explain<R: Room>(
    room: &mut R,
    request: &Request,
    mut answer: Answer,
    second: &[Vec<u8>],
    differing: Vec<(usize, Difference)>,
) -> Result<Answer, Outcome> {
    let [first_poison, second_poison] = POISON;
    let again = room.call(request, [second_poison, first_poison], false)?;
    for (position, difference) in differing {
        let (dtype, output) = (difference.dtype, &request.outputs[position]);
        let repeated = again.scenes.map(|scene| scene.data(request.inputs.len() + position));
        let equal = |results: [&[u8]; 2]| {
            repeated.into_iter().zip(results).all(|(new, old)| {
                let at = |data: &[u8], offset: usize| bits(&data[offset * dtype.size()..(offset + 1) * dtype.size()]);
                output.offsets().all(|offset| same(dtype, [at(new, offset), at(old, offset)]))
            })
        };
        let (first, second) = (&answer.outputs[position][..], &second[position][..]);
        let kind = if equal([first, second]) {
            R::follows_call
        } else if equal([second, first]) {
            Conduct::ReadOutside
        } else {
            Conduct::Unrepeatable
        };
        note(&mut answer.conduct, kind(difference));
    }
    Ok(answer)
}

/// Adds to the list, unless the same was already said of the same tensor.
fn note(list: &mut Vec<Conduct>, item: Conduct) {
    if !list.iter().any(|other| (other.property(), other.tensor()) == (item.property(), item.tensor())) {
        list.push(item);
    }
}

/// Which elements of an output's memory an index reaches; `None` for all.
fn reached(output: &TensorArg) -> Option<Vec<bool>> {
    (!output.is_dense()).then(|| {
        let mut reached = vec![false; output.span];
        output.offsets().for_each(|offset| reached[offset] = true);
        reached
    })
}

/// Checks everything that must be as it was before the call.
fn look_around(request: &Request, scene: &Scene<'_>, reached: &[Option<Vec<bool>>], conduct: &mut Vec<Conduct>) {
    let count = request.inputs.len();
    for (position, tensor) in request.inputs.iter().chain(&request.outputs).enumerate() {
        let (slot, data, size) = (&scene.slots[position], scene.data(position), tensor.dtype.size());
        let outside = |place| Conduct::WroteOutside { tensor: tensor.name.clone(), place };
        if tensor.alias.is_none() {
            if let Some(at) = last_other(&scene.bytes[slot.region.start..slot.data.start], scene.poison.around) {
                let distance = slot.data.start - slot.region.start - at;
                note(conduct, outside(Place::Before(distance.div_ceil(size))));
            }
            if let Some(at) = first_other(&scene.bytes[slot.data.end..slot.region.end], scene.poison.around) {
                note(conduct, outside(Place::After(at / size + 1)));
            }
        }
        if position < count {
            if !request.is_overwritten(position) && data != tensor.data {
                let element = data.iter().zip(&tensor.data).take_while(|(now, then)| now == then).count() / size;
                note(conduct, Conduct::ModifiedInput { tensor: tensor.name.clone(), element });
            }
        } else if let Some(reached) = &reached[position - count] {
            let before = tensor.alias.map(|input| &request.inputs[input].data);
            let touched = |&element: &usize| {
                let bytes = element * size..(element + 1) * size;
                !reached[element]
                    && match before {
                        Some(before) => data[bytes.clone()] != before[bytes],
                        None => data[bytes].iter().any(|&byte| byte != scene.poison.inside),
                    }
            };
            if let Some(element) = (0..tensor.span).find(touched) {
                note(conduct, outside(Place::Gap(element)));
            }
        }
    }
}

fn first_other(bytes: &[u8], poison: u8) -> Option<usize> {
    // Whole lines first: comparing with a constant array is a few vector instructions.
    let clean = bytes.chunks_exact(64).take_while(|line| **line == [poison; 64]).count() * 64;
    bytes[clean..].iter().position(|&byte| byte != poison).map(|at| clean + at)
}

fn last_other(bytes: &[u8], poison: u8) -> Option<usize> {
    let clean = bytes.rchunks_exact(64).take_while(|line| **line == [poison; 64]).count() * 64;
    bytes[..bytes.len() - clean].iter().rposition(|&byte| byte != poison)
}

#[derive(Default)]
struct Compared {
    unwritten: Option<Conduct>,
    difference: Option<Difference>,
    /// Wherever the first call differs from the second it has the prelude's result.
    stale: bool,
}

/// Compares an output of both calls, index by index.
fn compare(output: &TensorArg, [first, second]: [&[u8]; 2], prelude: Option<&[u8]>) -> Compared {
    if first == second {
        return Compared::default();
    }
    let size = output.dtype.size();
    let poison = POISON.map(|poison| bits(&[poison.inside; 8][..size]));
    let mut compared = Compared { stale: prelude.is_some(), ..Compared::default() };
    for (element, offset) in output.offsets().enumerate() {
        let at = |data: &[u8]| bits(&data[offset * size..(offset + 1) * size]);
        let pair = [at(first), at(second)];
        if output.alias.is_none() && pair == poison {
            if let Some(Conduct::Unwritten { count, .. }) = &mut compared.unwritten {
                *count += 1;
            } else {
                let (tensor, of) = (output.name.clone(), output.len());
                compared.unwritten = Some(Conduct::Unwritten { tensor, element, count: 1, of });
            }
            continue;
        }
        if same(output.dtype, pair) {
            continue;
        }
        compared.stale &= prelude.is_some_and(|prelude| at(prelude) == pair[0]);
        let here = || Difference { tensor: output.name.clone(), dtype: output.dtype, element, count: 0, bits: pair };
        compared.difference.get_or_insert_with(here).count += 1;
    }
    compared
}

/// Equal bits, or any two NaNs.
fn same(dtype: Dtype, [first, second]: [u64; 2]) -> bool {
    first == second || (value(dtype, first).is_nan() && value(dtype, second).is_nan())
}

fn bits(element: &[u8]) -> u64 {
    element.iter().rev().fold(0, |bits, &byte| bits << 8 | u64::from(byte))
}
