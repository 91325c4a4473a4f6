//! Built-in kernels, called in this process between canary zones.

use std::any::Any;
use std::cell::RefCell;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Instant;

use isonorm_kernels::abi::{Kernel, KernelInfo, OwnedCall, Refusal};

use super::examine::{self, Calls, Poison, Room, Scene, Slot, Spacing};
use super::float_environment::FloatEnvironment;
use super::{Conduct, Contender, Crash, Origin, Outcome, Request, RunError, Runner, TensorArg};

/// The margin is for stray writes beyond the canaries, which would hit this program's own heap.
const SPACING: Spacing = Spacing { margin: 4096, zone: 256, line: 64 };
/// Memory beyond this is given back after a request.
const KEPT: usize = 256 << 20;

/// A kernel that is trusted not to harm this process.
#[derive(Clone)]
pub struct InProcess {
    kernel: Arc<dyn Kernel>,
    /// Held during a call by kernels that are not thread-safe.
    turn: Arc<Mutex<()>>,
}

impl InProcess {
    /// Takes a built-in kernel.
    pub fn new(kernel: Arc<dyn Kernel>) -> Self {
        InProcess { kernel, turn: Arc::default() }
    }
}

impl Contender for InProcess {
    fn info(&self) -> &KernelInfo {
        self.kernel.info()
    }

    fn origin(&self) -> &Origin {
        &Origin::BuiltIn
    }

    fn open(&self) -> Result<Box<dyn Runner>, RunError> {
        Ok(Box::new(InProcessRunner { contender: self.clone(), memory: Vec::new(), slots: Default::default() }))
    }
}

/// A cache line, for its alignment.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

struct InProcessRunner {
    contender: InProcess,
    memory: Vec<Line>,
    slots: [Vec<Slot>; 2],
}

impl Runner for InProcessRunner {
    fn run(&mut self, request: &Request) -> Outcome {
        let outcome = examine::trial(self, request);
        if size_of_val(&self.memory[..]) > KEPT {
            self.memory = Vec::new();
        }
        outcome
    }
}

impl Room for InProcessRunner {
    fn call(&mut self, request: &Request, poison: [Poison; 2], prelude: bool) -> Result<Calls<'_>, Outcome> {
        let half = self.lay_out(request);
        let contents = request.contents();
        let slots = mem::take(&mut self.slots);
        for (scene, bytes) in self.bytes().chunks_exact_mut(half).enumerate() {
            examine::set_scene(bytes, &slots[scene], &contents, poison[scene]);
        }
        let mut conduct = Vec::new();
        let mut kept = Vec::new();
        if let Some(other) = request.prelude.as_ref().filter(|_| prelude) {
            let other: Vec<&[u8]> = other.iter().map(Vec::as_slice).collect();
            examine::set_scene(&mut self.bytes()[..half], &slots[0], &other, poison[0]);
            self.call_once(request, &slots[0], 0, &mut conduct)?;
            let scene = Scene { bytes: &self.bytes()[..half], slots: &slots[0], poison: poison[0] };
            kept = scene.outputs(request);
            examine::set_scene(&mut self.bytes()[..half], &slots[0], &contents, poison[0]);
        }
        let seconds = self.call_once(request, &slots[0], 0, &mut conduct)?;
        self.call_once(request, &slots[1], half, &mut conduct)?;
        self.slots = slots;
        let (first, second) = view(&self.memory).split_at(half);
        let [before, after] = &self.slots;
        let scenes = [
            Scene { bytes: first, slots: before, poison: poison[0] },
            Scene { bytes: second, slots: after, poison: poison[1] },
        ];
        Ok(Calls { scenes, prelude: kept, conduct, seconds, work: None })
    }
}

impl InProcessRunner {
    /// Places the tensors of both calls, the second time away from the alignment if the kernel takes that.
    /// Returns the bytes of each half of the memory.
    fn lay_out(&mut self, request: &Request) -> usize {
        let offset = self.contender.info().layouts.offset;
        let step = |tensor: &TensorArg| if offset { tensor.dtype.size() } else { SPACING.line };
        let blocks = self.slots.iter_mut().enumerate();
        let half =
            blocks.map(|(scene, slots)| examine::lay_out(request, scene, SPACING, step, slots)).max().unwrap_or(0);
        self.memory.resize(2 * half / 64, Line([0; 64]));
        half
    }

    fn bytes(&mut self) -> &mut [u8] {
        let length = size_of_val(&self.memory[..]);
        // SAFETY: `Line` is 64 plain bytes without padding, so the lines are `length` initialised bytes.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().cast(), length) }
    }

    /// Calls the kernel with the tensors of one half and returns the seconds it took.
    fn call_once(
        &mut self,
        request: &Request,
        slots: &[Slot],
        base: usize,
        conduct: &mut Vec<Conduct>,
    ) -> Result<f64, Outcome> {
        let start = self.memory.as_mut_ptr().cast::<u8>().wrapping_add(base);
        let argument = |(tensor, slot): (&TensorArg, &Slot)| tensor.argument(start.wrapping_add(slot.data.start));
        let (inputs, outputs) = slots.split_at(request.inputs.len());
        let call = OwnedCall::new(
            &request.operator,
            request.direction,
            &request.attributes,
            request.inputs.iter().zip(inputs).map(argument).collect(),
            request.outputs.iter().zip(outputs).map(argument).collect(),
            request.threads,
        );
        let kernel = &self.contender.kernel;
        let _turn =
            (!kernel.info().thread_safe).then(|| self.contender.turn.lock().unwrap_or_else(PoisonError::into_inner));
        let (result, change) = FloatEnvironment::around(|| {
            catch(|| {
                let started = Instant::now();
                // SAFETY: every tensor has `span` elements of `self.memory` from its slot on (`Request::validate`
                // has checked that the indices reach no further), and nothing else uses that memory meanwhile.
                let result = kernel.run(&unsafe { call.view() });
                (result, started.elapsed().as_secs_f64())
            })
        });
        conduct.extend(change.map(|change| Conduct::ChangedFloatEnvironment { change }));
        match result {
            Ok((Ok(()), seconds)) => Ok(seconds),
            Ok((Err(Refusal::Unsupported(why)), _)) => Err(Outcome::Declined(why)),
            Ok((Err(Refusal::Failed(why)), _)) => Err(Outcome::Failed(why)),
            Err(panic) => Err(Outcome::Crashed(Crash::new(format!("panicked: {panic}")))),
        }
    }
}

fn view(memory: &[Line]) -> &[u8] {
    // SAFETY: `Line` is 64 plain bytes without padding.
    unsafe { std::slice::from_raw_parts(memory.as_ptr().cast(), size_of_val(memory)) }
}

thread_local! {
    /// While a kernel runs: what it says when it panics.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Calls a kernel; a panic is returned as its message and place instead of being printed.
fn catch<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let caught = PANIC.with_borrow_mut(|slot| slot.as_mut().map(|text| *text = info.to_string()).is_some());
            if !caught {
                usual(info);
            }
        }));
    });
    PANIC.set(Some(String::new()));
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    let text = PANIC.take().unwrap_or_default();
    result.map_err(|payload| if text.is_empty() { message(&*payload) } else { text })
}

/// The message of a panic on another thread, which a thread pool passed on.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("without a message").to_owned()
}
