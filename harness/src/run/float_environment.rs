//! The processor's floating-point environment of this thread: rounding mode, flush-to-zero, traps.

use std::arch::asm;
use std::fmt::Write as _;

/// The control bits (not the sticky exception flags).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FloatEnvironment {
    /// MXCSR on x86-64, FPCR on AArch64.
    vector: u64,
    /// The x87 control word; 0 elsewhere.
    x87: u16,
}

#[cfg(target_arch = "x86_64")]
const STICKY: u64 = 0x3f;

impl FloatEnvironment {
    /// As it is now.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn current() -> Self {
        let (mut mxcsr, mut x87) = (0u32, 0u16);
        // SAFETY: both instructions store one register to the memory behind the given pointer and nothing else.
        unsafe {
            asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack, preserves_flags));
            asm!("fnstcw [{}]", in(reg) &raw mut x87, options(nostack, preserves_flags));
        }
        FloatEnvironment { vector: u64::from(mxcsr) & !STICKY, x87 }
    }

    /// Makes it so again.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn restore(self) {
        let (mxcsr, x87) = (self.vector as u32, self.x87);
        // SAFETY: both instructions load one register from the memory behind the given pointer; the values were
        // read from these registers before, so no reserved bit is set.
        unsafe {
            asm!("ldmxcsr [{}]", in(reg) &raw const mxcsr, options(nostack, preserves_flags, readonly));
            asm!("fldcw [{}]", in(reg) &raw const x87, options(nostack, preserves_flags, readonly));
        }
    }

    /// As it is now.
    #[cfg(target_arch = "aarch64")]
    pub(super) fn current() -> Self {
        let vector: u64;
        // SAFETY: reads one register.
        unsafe { asm!("mrs {}, fpcr", out(reg) vector, options(nomem, nostack, preserves_flags)) };
        FloatEnvironment { vector, x87: 0 }
    }

    /// Makes it so again.
    #[cfg(target_arch = "aarch64")]
    pub(super) fn restore(self) {
        // SAFETY: writes one register with a value that was read from it before.
        unsafe { asm!("msr fpcr, {}", in(reg) self.vector, options(nomem, nostack, preserves_flags)) };
    }

    /// Restores this environment if `call` changed it, and says what had changed.
    pub(super) fn around<T>(call: impl FnOnce() -> T) -> (T, Option<String>) {
        let before = FloatEnvironment::current();
        let result = call();
        let after = FloatEnvironment::current();
        if after == before {
            return (result, None);
        }
        before.restore();
        (result, Some(before.change(after)))
    }

    fn change(self, after: Self) -> String {
        #[cfg(target_arch = "x86_64")]
        const BITS: [(u64, &str); 4] = [
            (1 << 15, "flush-to-zero"),
            (1 << 6, "denormals-are-zero"),
            (3 << 13, "the rounding mode"),
            (0x3f << 7, "exception masks"),
        ];
        #[cfg(target_arch = "aarch64")]
        const BITS: [(u64, &str); 3] =
            [(1 << 24, "flush-to-zero"), (1 << 19, "flush-to-zero of f16"), (3 << 22, "the rounding mode")];
        let changed = self.vector ^ after.vector;
        let mut names: Vec<&str> = BITS.iter().filter(|(bits, _)| changed & bits != 0).map(|(_, name)| *name).collect();
        if self.x87 != after.x87 {
            names.push("the x87 control word");
        }
        let mut text = names.join(", ");
        let register = if cfg!(target_arch = "x86_64") { "MXCSR" } else { "FPCR" };
        if changed != 0 {
            let _ = write!(text, " ({register} {:#06x} before, {:#06x} after)", self.vector, after.vector);
        }
        text
    }
}
