//! One call: the launches of its plan, one after the other, on tensors in the executor's memory.

use std::sync::Arc;

use isonorm_cuda::launch::{Extent, Given, Plan, Step};
use isonorm_ptx::{Argument, Buffer, Launch, LaunchError, Memory, Options, Order, Rights};

use super::super::examine::{Poison, Slot};
use super::super::{Conduct, Outcome, Request, TensorArg, Work};
use super::modules::{Built, arguments, extent};

/// Bytes that allocations of a GPU are aligned to.
const ALIGNMENT: u64 = 256;
/// Instructions of a warp that no kernel needs, and more of them for each element of the tensors. One warp that does a whole
/// call by itself needs some tens for each.
const PATIENCE: (u64, u64) = (100_000, 400);

/// The memory of one call after it.
#[derive(Clone, Default)]
pub(super) struct Left {
    pub(super) bytes: Vec<u8>,
    pub(super) slots: Vec<Slot>,
}

/// One call.
pub(super) struct Execution<'a> {
    pub(super) request: &'a Request,
    pub(super) plan: &'a Plan,
    pub(super) built: &'a [Arc<Built>],
    /// Whether the kernel takes tensors that are aligned to one element only.
    pub(super) any_alignment: bool,
    /// Whether it is the second call, with the opposite order and other addresses.
    pub(super) second: bool,
    pub(super) poison: Poison,
}

/// Tensors and scratch buffers in the executor's memory.
struct Placed {
    memory: Memory,
    /// Inputs, then outputs; one in place has its input's.
    tensors: Vec<Buffer>,
    scratch: Vec<Buffer>,
}

impl Execution<'_> {
    /// Makes the call: what it leaves in memory, and what its launches did. What they did wrong goes to `conduct`.
    pub(super) fn run(&self, conduct: &mut Vec<Conduct>) -> Result<(Left, Work), Outcome> {
        let mut placed = self.place();
        let scratch = self.plan.scratch.iter().map(|(name, bytes)| (scratch_name(name), *bytes));
        let mut work = Work { scratch: scratch.collect(), ..Work::default() };
        for (number, (step, built)) in self.plan.steps.iter().zip(self.built).enumerate() {
            let more_follows = number + 1 < self.plan.steps.len();
            let launch = self.launch(step, built, &placed, more_follows)?;
            let outcome = built.module.run(&launch, &mut placed.memory).map_err(|error| match error {
                // A GPU refuses such a launch too.
                LaunchError::Extents { message, .. } => Outcome::Failed(format!("`{}`: {message}", step.entry)),
                other => Outcome::NotRun(other.to_string()),
            })?;
            work.launches += 1;
            work.counters.merge(outcome.counters);
            conduct.extend(outcome.findings.into_iter().map(|mut finding| {
                finding.kernel = step.entry.clone();
                Conduct::Executed(Box::new(finding))
            }));
            if conduct.iter().any(Conduct::is_fatal) {
                // What else is missing then is a consequence.
                conduct.retain(|item| item.property() != "writes_everything");
                break;
            }
        }
        let mut left = Left::default();
        for buffer in &placed.tensors {
            let start = left.bytes.len();
            left.bytes.extend(placed.memory.bytes(*buffer));
            // Nothing lies around a tensor: the executor sees by itself what is touched there.
            let data = start..left.bytes.len();
            left.slots.push(Slot { region: data.clone(), data });
        }
        Ok((left, work))
    }

    fn tensors(&self) -> Vec<&TensorArg> {
        self.request.inputs.iter().chain(&self.request.outputs).collect()
    }

    /// Elements of all tensors.
    fn elements(&self) -> usize {
        self.tensors().iter().map(|tensor| tensor.span).sum()
    }

    /// Puts the tensors into memory, the second time in the opposite order. Where any alignment is taken, that of every other
    /// case is odd: of both its calls, so that what differs between them is due to the order of blocks.
    fn place(&self) -> Placed {
        let tensors = self.tensors();
        let inputs = self.request.inputs.len();
        let mut memory = Memory::new();
        let mut buffers: Vec<Option<Buffer>> = vec![None; tensors.len()];
        let mut order: Vec<usize> = (0..tensors.len()).filter(|&place| tensors[place].alias.is_none()).collect();
        if self.second {
            order.reverse();
        }
        let odd = self.any_alignment && self.elements() % 2 == 1;
        for place in order {
            let tensor = tensors[place];
            let step = 1 + place as u64 % 3;
            let shift = if odd { tensor.dtype.size() as u64 * step } else { 0 };
            let offset = shift + if self.second { ALIGNMENT * step } else { 0 };
            buffers[place] = Some(if place >= inputs {
                let poison = vec![self.poison.inside; tensor.bytes()];
                memory.add_at(&tensor.name, &poison, Rights::Write, offset)
            } else {
                let rights = if self.request.is_overwritten(place) { Rights::ReadWrite } else { Rights::Read };
                memory.add_at(&tensor.name, &tensor.data, rights, offset)
            });
        }
        let of = |(place, tensor): (usize, &&TensorArg)| buffers[tensor.alias.unwrap_or(place)];
        let tensors = tensors.iter().enumerate().filter_map(of).collect();
        let scratch = self.plan.scratch.iter().map(|(name, bytes)| {
            let poison = vec![self.poison.around; *bytes as usize];
            memory.add(&scratch_name(name), &poison, Rights::Scratch)
        });
        let scratch = scratch.collect();
        Placed { tensors, scratch, memory }
    }

    fn launch(&self, step: &Step, built: &Built, placed: &Placed, more_follows: bool) -> Result<Launch, Outcome> {
        let compiled = &built.compiled;
        let Extent { grid, block, cluster, shared } = extent(compiled, step)?;
        let tensors = self.tensors();
        let argument = |given: &Given| {
            let buffer = match given {
                Given::Scalar(_, bytes) => return Argument::bytes(bytes),
                Given::Null => None,
                Given::Tensor(name, _) => {
                    tensors.iter().position(|tensor| tensor.name == *name).map(|place| placed.tensors[place])
                }
                Given::Scratch(name, _) => {
                    self.plan.scratch.iter().position(|(own, _)| own == name).map(|place| placed.scratch[place])
                }
            };
            buffer.map_or_else(Argument::null, |buffer| Argument::pointer(&placed.memory, buffer))
        };
        Ok(Launch {
            kernel: compiled.name.clone(),
            grid,
            block,
            cluster,
            shared,
            params: arguments(compiled, step).map(argument).collect(),
            options: Options {
                orders: vec![if self.second { Order::Reverse } else { Order::Forward }],
                // Workers of a campaign share the cores.
                threads: 1,
                instruction_limit: PATIENCE.0 + PATIENCE.1 * self.elements() as u64,
                more_follows,
                ..Options::default()
            },
        })
    }
}

/// What a scratch buffer is called in findings and counters.
fn scratch_name(name: &str) -> String {
    format!("scratch.{name}")
}
