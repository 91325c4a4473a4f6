//! SIMD behind one dispatch point.
//!
//! A kernel's loops are written once, generic over an [`Isa`] (a token that exists only on machines that have the
//! instruction set) and over the element type ([`Element`]); [`run`] compiles them for every set and picks one at
//! run time. Vectors are [`Lanes`] of the working precision; storage types are widened as they are loaded and
//! rounded as they are stored.

mod columns;
mod element;
mod isa;
mod lanes;
mod load;
mod pairs;
mod run;
mod short;
mod stages;
mod store;

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};

pub use columns::{Column, STRIP, sum_columns};
pub use element::Element;
pub use isa::{CACHE_LINE, Isa, fence};
pub use lanes::{Lanes, Real};
pub use load::{Cached, Fetch, Load, Splat, array};
pub use run::{Sink, Soon, Source};
pub use short::{map_rows, sum_rows};
pub use stages::{map, map_and_fetch, map_and_sum, sum};
pub use store::{Discard, Kept, Slot, Store};

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// AVX-512 F, BW, CD, DQ and VL.
    Avx512,
    /// AVX2, FMA and F16C.
    Avx2,
    /// Whatever the target's baseline has; no fused multiply-add.
    Portable,
}

impl InstructionSet {
    /// All of them, the best first.
    pub const ALL: [InstructionSet; 3] = [InstructionSet::Avx512, InstructionSet::Avx2, InstructionSet::Portable];

    /// The name that `ISONORM_ISA` takes.
    pub const fn name(self) -> &'static str {
        match self {
            InstructionSet::Avx512 => "avx512",
            InstructionSet::Avx2 => "avx2",
            InstructionSet::Portable => "portable",
        }
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => isa::avx512().is_some(),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => isa::avx2().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            InstructionSet::Avx512 | InstructionSet::Avx2 => false,
            InstructionSet::Portable => true,
        }
    }

    /// The one in force on this thread: that of [`with_instruction_set`], else the one that the environment variable
    /// `ISONORM_ISA` names, if this machine has it, else the best there is.
    pub fn current() -> InstructionSet {
        static DEFAULT: OnceLock<InstructionSet> = OnceLock::new();
        FORCED.get().unwrap_or_else(|| {
            *DEFAULT.get_or_init(|| {
                let wanted = std::env::var("ISONORM_ISA").ok();
                let mut available = InstructionSet::ALL.into_iter().filter(|set| set.is_available());
                available
                    .clone()
                    .find(|set| wanted.as_deref() == Some(set.name()))
                    .or_else(|| available.next())
                    .unwrap_or(InstructionSet::Portable)
            })
        })
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

thread_local! {
    static FORCED: Cell<Option<InstructionSet>> = const { Cell::new(None) };
}

/// Runs `body` with the kernels that this thread calls compiled for `set`. Answers `None`, and does not run `body`,
/// if this machine does not have it.
pub fn with_instruction_set<T>(set: InstructionSet, body: impl FnOnce() -> T) -> Option<T> {
    struct Restore(Option<InstructionSet>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.set(self.0);
        }
    }
    if !set.is_available() {
        return None;
    }
    let _restore = Restore(FORCED.replace(Some(set)));
    Some(body())
}

/// Work that is compiled for every instruction set.
///
/// (The provided methods belong here, because the compiler puts what a provided method becomes beside the type that it is
/// called for: so every family of kernels is a unit of work of its own, and they are compiled at the same time.)
pub trait Task: Sized {
    /// Does it. Implementations are `#[inline(always)]`: what is not inlined is not compiled for the instruction set.
    fn run<S: Isa>(self, simd: S);

    /// Does it, compiled for AVX-512.
    ///
    /// # Safety
    /// The processor has these features: `token` proves it.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx,avx2,bmi1,bmi2,fma,lzcnt,popcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")]
    unsafe fn run_on_avx512(self, token: V4) {
        self.run(token);
    }

    /// Does it, compiled for AVX2.
    ///
    /// # Safety
    /// The processor has these features: `token` proves all but F16C.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx,avx2,bmi1,bmi2,fma,lzcnt,popcnt,f16c")]
    unsafe fn run_on_avx2(self, token: V3) {
        self.run(token);
    }
}

/// Runs `task` compiled for `set`, or for the portable set if this machine lacks `set`.
pub fn run(set: InstructionSet, task: impl Task) {
    match set {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 => {
            if let Some(token) = isa::avx512() {
                // SAFETY: the token proves every feature.
                return unsafe { task.run_on_avx512(token) };
            }
        }
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => {
            if let Some(token) = isa::avx2() {
                // SAFETY: the token proves every feature but F16C, and comes from `avx2`, which asked for that.
                return unsafe { task.run_on_avx2(token) };
            }
        }
        _ => {}
    }
    task.run(pulp::Scalar128b);
}
