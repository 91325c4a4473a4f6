//! What an instruction set must offer beyond `pulp`'s arithmetic: half-precision loads and stores, and the first
//! few lanes of a vector.

use half::{bf16, f16};
use pulp::Simd;

/// Bytes that move between memory and caches together, and of the longest vector. Half a line that is stored past the
/// caches costs as much as ten whole ones.
pub const CACHE_LINE: usize = 64;

/// The most lanes any vector has.
pub(super) const MAX_LANES: usize = 16;

/// A token of an instruction set.
///
/// Half-precision values travel as their bits.
pub trait Isa: Simd {
    /// Whether `a * b + c` is rounded once and fast.
    const FUSED: bool;

    /// Whether there are registers enough to work on two rows at a time.
    const PAIRS: bool = false;

    /// Widens bfloat16.
    ///
    /// # Safety
    /// `F32_LANES` values are readable at `from`.
    unsafe fn load_bf16(self, from: *const u16) -> Self::f32s;

    /// Widens two vectors of bfloat16, one after the other.
    ///
    /// # Safety
    /// Twice `F32_LANES` values are readable at `from`.
    #[inline(always)]
    unsafe fn load_bf16_pair(self, from: *const u16) -> [Self::f32s; 2] {
        // SAFETY: the caller's promise.
        unsafe { [self.load_bf16(from), self.load_bf16(from.add(Self::F32_LANES))] }
    }

    /// Whether this processor adds up products of bfloat16.
    #[inline(always)]
    fn multiplies_bf16(self) -> bool {
        false
    }

    /// Adds the products of two pairs of bfloat16 in each lane to `sums`. Subnormal numbers count as zeros.
    ///
    /// # Safety
    /// [`multiplies_bf16`](Self::multiplies_bf16) answered `true`.
    #[inline(always)]
    unsafe fn dot_bf16(self, _one: Self::f32s, _other: Self::f32s, sums: Self::f32s) -> Self::f32s {
        sums
    }

    /// Widens binary16.
    ///
    /// # Safety
    /// `F32_LANES` values are readable at `from`.
    unsafe fn load_f16(self, from: *const u16) -> Self::f32s;

    /// Stores the upper halves of the bits: bfloat16.
    ///
    /// # Safety
    /// `F32_LANES` values are writable at `to`.
    unsafe fn store_upper(self, to: *mut u16, bits: Self::u32s);

    /// Rounds two vectors to bfloat16 as [`round_bf16`](Self::round_bf16) does, and stores them, one after the other.
    ///
    /// # Safety
    /// Twice `F32_LANES` values are writable at `to`.
    #[inline(always)]
    unsafe fn store_bf16_pair(self, to: *mut u16, first: Self::f32s, second: Self::f32s) {
        // SAFETY: the caller's promise.
        unsafe {
            self.store_upper(to, self.round_bf16(first));
            self.store_upper(to.add(Self::F32_LANES), self.round_bf16(second));
        }
    }

    /// Rounds to binary16, to nearest, ties to even, and stores.
    ///
    /// # Safety
    /// `F32_LANES` values are writable at `to`.
    unsafe fn store_f16(self, to: *mut u16, value: Self::f32s);

    /// Rounds to binary16, to nearest, ties to even.
    fn round_f16(self, value: Self::f32s) -> Self::f32s;

    /// The bits of the nearest bfloat16 (ties to even) in the upper halves, and anything in the lower. A NaN stays one.
    fn round_bf16(self, value: Self::f32s) -> Self::u32s;

    /// The first `count` of the values at `from`, then zeros.
    ///
    /// # Safety
    /// `count` values are readable at `from`; `count` is less than the number of lanes.
    #[inline(always)]
    unsafe fn load_head<T: Copy>(self, from: *const T, count: usize) -> Line {
        let mut lanes = Line::default();
        // SAFETY: the caller's promise; a line is as long as any vector.
        unsafe { std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count) };
        lanes
    }

    /// Stores the first `count` lanes of a vector.
    ///
    /// # Safety
    /// `count` values are writable at `to`; `count` is less than the number of lanes.
    #[inline(always)]
    unsafe fn store_head<T: Copy>(self, to: *mut T, count: usize, lanes: &Line) {
        // SAFETY: the caller's promise; a line is as long as any vector.
        unsafe { std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, count) };
    }

    /// Stores a cache line, past the caches where the instruction set can. Other threads see it after a [`fence`].
    ///
    /// # Safety
    /// [`CACHE_LINE`] bytes are writable at `to`, which is aligned to them.
    #[inline(always)]
    unsafe fn stream<T: Copy>(self, to: *mut T, line: &Line) {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(line.as_ptr(), to, CACHE_LINE / size_of::<T>()) };
    }
}

/// A cache line, or a vector, in memory: the compiler keeps it in a register.
///
/// Functions that take one take no closure instead: a closure that is not inlined is not compiled for the instruction
/// set.
#[repr(align(64))]
pub struct Line([u8; CACHE_LINE]);

impl Default for Line {
    #[inline(always)]
    fn default() -> Self {
        Line([0; CACHE_LINE])
    }
}

impl Line {
    /// Its first value.
    #[inline(always)]
    pub(super) fn as_ptr<T>(&self) -> *const T {
        self.0.as_ptr().cast()
    }

    /// Its first value.
    #[inline(always)]
    pub(super) fn as_mut_ptr<T>(&mut self) -> *mut T {
        self.0.as_mut_ptr().cast()
    }
}

/// Makes streamed stores visible in their place among the others, before other threads are told that they are done.
#[inline(always)]
pub fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has it.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// Asks for the cache line of an address, which need not be valid. Into the second-level cache: the first is full of what
/// is worked on.
#[inline(always)]
pub(super) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The same number, some nine cycles later: whoever goes on with it cannot run far ahead. Prefetches that a processor
/// issues as early as it can fill all places for misses, and loads from the second-level cache wait behind them. One line
/// in nine cycles is about what memory gives one core.
#[inline(always)]
pub(super) fn pace(number: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        let mut number = number;
        // Three multiplications by one, of three cycles each, which the compiler does not see through.
        // SAFETY: changes the one register and the flags.
        unsafe {
            std::arch::asm!(
                "imul {0}, {0}, 1",
                "imul {0}, {0}, 1",
                "imul {0}, {0}, 1",
                inout(reg) number,
                options(pure, nomem, nostack),
            );
        }
        number
    }
    #[cfg(not(target_arch = "x86_64"))]
    number
}

impl Isa for pulp::Scalar128b {
    // `f32::mul_add` without the instruction is a slow library call.
    const FUSED: bool = false;

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::f32s {
        // SAFETY: the caller's promise; an array of u16 needs no more alignment than a u16.
        let bits = unsafe { from.cast::<[u16; 4]>().read() };
        pulp::cast(bits.map(|bits| u32::from(bits) << 16))
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> Self::f32s {
        // SAFETY: as above.
        let bits = unsafe { from.cast::<[u16; 4]>().read() };
        pulp::cast(bits.map(|bits| f16::from_bits(bits).to_f32()))
    }

    #[inline(always)]
    unsafe fn store_upper(self, to: *mut u16, bits: Self::u32s) {
        let bits: [u32; 4] = pulp::cast(bits);
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u16; 4]>().write(bits.map(|bits| (bits >> 16) as u16)) };
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16, value: Self::f32s) {
        let value: [f32; 4] = pulp::cast(value);
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u16; 4]>().write(value.map(|value| f16::from_f32(value).to_bits())) };
    }

    #[inline(always)]
    fn round_bf16(self, value: Self::f32s) -> Self::u32s {
        let value: [f32; 4] = pulp::cast(value);
        pulp::cast(value.map(|value| u32::from(bf16::from_f32(value).to_bits()) << 16))
    }

    #[inline(always)]
    fn round_f16(self, value: Self::f32s) -> Self::f32s {
        let value: [f32; 4] = pulp::cast(value);
        pulp::cast(value.map(|value| f16::from_f32(value).to_f32()))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{avx2, avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    use pulp::x86::{V3, V4};

    use super::{Isa, Line};

    const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;

    /// Whether the processor has AVX512-BF16. Known since [`avx512`] was asked: looking it up in a loop would be a call.
    static HAS_BF16: AtomicBool = AtomicBool::new(false);

    pub(crate) fn avx512() -> Option<V4> {
        HAS_BF16.store(is_x86_feature_detected!("avx512bf16"), Ordering::Relaxed);
        V4::try_new()
    }

    /// `V3`, if there is F16C too (it came with every processor that has AVX2, but is a feature of its own).
    pub(crate) fn avx2() -> Option<V3> {
        static F16C: OnceLock<bool> = OnceLock::new();
        V3::try_new().filter(|_| *F16C.get_or_init(|| is_x86_feature_detected!("f16c")))
    }

    impl Isa for V4 {
        const FUSED: bool = true;
        const PAIRS: bool = true;

        #[inline(always)]
        unsafe fn load_bf16(self, from: *const u16) -> Self::f32s {
            // SAFETY: the caller's promise; the token proves the features.
            let wide = unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())) };
            pulp::cast(self.avx512f._mm512_slli_epi32::<16>(wide))
        }

        #[inline(always)]
        unsafe fn load_bf16_pair(self, from: *const u16) -> [Self::f32s; 2] {
            // Where the halves of each lane come from; the lower ones become zeros.
            const SPREAD: [[u16; 32]; 2] = {
                let mut from = [[0; 32]; 2];
                let mut i = 0;
                while i < 32 {
                    (from[0][i], from[1][i]) = (i as u16 / 2, 16 + i as u16 / 2);
                    i += 1;
                }
                from
            };
            const UPPER: u32 = 0xaaaa_aaaa;
            // One shuffle for each vector, where widening and shifting takes two instructions.
            // SAFETY: the caller's promise; the token proves the features.
            unsafe {
                let (keep, packed) = (unknown_mask(UPPER), _mm512_loadu_si512(from.cast()));
                let first = _mm512_maskz_permutexvar_epi16(keep, unknown(SPREAD[0]), packed);
                let second = _mm512_maskz_permutexvar_epi16(keep, unknown(SPREAD[1]), packed);
                [pulp::cast(first), pulp::cast(second)]
            }
        }

        #[inline(always)]
        fn multiplies_bf16(self) -> bool {
            HAS_BF16.load(Ordering::Relaxed)
        }

        #[inline(always)]
        unsafe fn dot_bf16(self, one: Self::f32s, other: Self::f32s, sums: Self::f32s) -> Self::f32s {
            // SAFETY: the caller's promise; the token proves the feature of registers.
            pulp::cast(unsafe { dot(pulp::cast(one), pulp::cast(other), pulp::cast(sums)) })
        }

        #[inline(always)]
        unsafe fn load_f16(self, from: *const u16) -> Self::f32s {
            // SAFETY: the caller's promise; the token proves the features.
            pulp::cast(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
        }

        #[inline(always)]
        unsafe fn store_upper(self, to: *mut u16, bits: Self::u32s) {
            let bits = self.avx512f._mm512_srli_epi32::<16>(pulp::cast(bits));
            // SAFETY: the caller's promise; the token proves the features.
            unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(bits)) };
        }

        #[inline(always)]
        unsafe fn store_bf16_pair(self, to: *mut u16, first: Self::f32s, second: Self::f32s) {
            // Every other half: one shuffle for both, where narrowing each takes two and a shift.
            const UPPER: [u16; 32] = {
                let mut odd = [0; 32];
                let mut i = 0;
                while i < 32 {
                    odd[i] = 2 * i as u16 + 1;
                    i += 1;
                }
                odd
            };
            // SAFETY: the caller's promise; the token proves the features, and `HAS_BF16` that of `narrow`.
            unsafe {
                let (low, high) = (pulp::cast(first), pulp::cast(second));
                if HAS_BF16.load(Ordering::Relaxed) {
                    let packed = narrow(high, low);
                    // One question of both, whose answer is nearly always the same.
                    if !has_zero(packed) || !have_subnormal(low, high) {
                        return _mm512_storeu_si512(to.cast(), packed);
                    }
                }
                let upper = _mm512_loadu_si512(UPPER.as_ptr().cast());
                let [first, second] = [self.round_bf16(first), self.round_bf16(second)];
                let packed = _mm512_permutex2var_epi16(pulp::cast(first), upper, pulp::cast(second));
                _mm512_storeu_si512(to.cast(), packed);
            }
        }

        #[inline(always)]
        unsafe fn store_f16(self, to: *mut u16, value: Self::f32s) {
            // SAFETY: the caller's promise; the token proves the features.
            unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<NEAREST>(pulp::cast(value))) };
        }

        #[inline(always)]
        fn round_bf16(self, value: Self::f32s) -> Self::u32s {
            // What `vfixupimmps` answers by the class of the value, four bits each: a NaN made quiet for either NaN (the
            // lowest two), what was there before for all others.
            const QUIET_NAN: i32 = 0x22;
            // SAFETY: the token proves the features.
            unsafe {
                let (value, bits) = (pulp::cast(value), pulp::cast::<_, __m512i>(value));
                // Half a unit of the last place that stays, less one bit if that place is even.
                let odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x1_0000));
                let half = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
                let rounded = _mm512_mask_add_epi32(half, odd, half, _mm512_set1_epi32(1));
                // The carry of rounding could turn a NaN into infinity or zero.
                let table = _mm512_set1_epi32(QUIET_NAN);
                pulp::cast(_mm512_fixupimm_ps::<0>(_mm512_castsi512_ps(rounded), value, table))
            }
        }

        #[inline(always)]
        fn round_f16(self, value: Self::f32s) -> Self::f32s {
            // SAFETY: the token proves the features.
            pulp::cast(unsafe { _mm512_cvtph_ps(_mm512_cvtps_ph::<NEAREST>(pulp::cast(value))) })
        }

        #[inline(always)]
        unsafe fn load_head<T: Copy>(self, from: *const T, count: usize) -> Line {
            let mut lanes = Line::default();
            // SAFETY: masked loads touch only the `count` values the caller vouches for; the token proves the features.
            unsafe {
                match size_of::<T>() {
                    2 => _mm256_store_si256(lanes.as_mut_ptr(), _mm256_maskz_loadu_epi16(mask(count), from.cast())),
                    4 => _mm512_store_si512(lanes.as_mut_ptr(), _mm512_maskz_loadu_epi32(mask(count), from.cast())),
                    _ => {
                        _mm512_store_si512(lanes.as_mut_ptr(), _mm512_maskz_loadu_epi64(mask(count) as u8, from.cast()))
                    }
                }
            }
            lanes
        }

        #[inline(always)]
        unsafe fn store_head<T: Copy>(self, to: *mut T, count: usize, lanes: &Line) {
            // SAFETY: masked stores touch only the `count` values the caller vouches for; the token proves the features.
            unsafe {
                match size_of::<T>() {
                    2 => _mm256_mask_storeu_epi16(to.cast(), mask(count), _mm256_load_si256(lanes.as_ptr())),
                    4 => _mm512_mask_storeu_epi32(to.cast(), mask(count), _mm512_load_si512(lanes.as_ptr())),
                    _ => _mm512_mask_storeu_epi64(to.cast(), mask(count) as u8, _mm512_load_si512(lanes.as_ptr())),
                }
            }
        }

        #[inline(always)]
        unsafe fn stream<T: Copy>(self, to: *mut T, line: &Line) {
            // SAFETY: the caller's promise; the token proves the features.
            unsafe { _mm512_stream_si512(to.cast(), _mm512_load_si512(line.as_ptr())) };
        }
    }

    /// The one instruction that rounds to bfloat16. It takes subnormal numbers for zeros.
    ///
    /// # Safety
    /// The processor has AVX512-BF16. (Were it a feature of this function, it could not be inlined.)
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn narrow(high: __m512, low: __m512) -> __m512i {
        let packed;
        // SAFETY: reads and writes registers only; the caller's promise.
        unsafe {
            std::arch::asm!(
                "vcvtne2ps2bf16 {0}, {1}, {2}",
                lateout(zmm_reg) packed,
                in(zmm_reg) high,
                in(zmm_reg) low,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        packed
    }

    /// Adds the products of two bfloat16 in each lane, one after the other, to `sums`. It takes subnormal numbers for zeros.
    ///
    /// # Safety
    /// As for [`narrow`].
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn dot(one: __m512, other: __m512, mut sums: __m512) -> __m512 {
        // SAFETY: reads and writes registers only; the caller's promise.
        unsafe {
            std::arch::asm!(
                "vdpbf16ps {0}, {1}, {2}",
                inout(zmm_reg) sums,
                in(zmm_reg) one,
                in(zmm_reg) other,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }

    /// Whether one of some bfloat16 values is a zero.
    #[target_feature(enable = "avx512bw")]
    #[inline]
    fn has_zero(packed: __m512i) -> bool {
        _mm512_testn_epi16_mask(packed, _mm512_set1_epi16(0x7fff)) != 0
    }

    #[target_feature(enable = "avx512dq")]
    #[inline]
    fn have_subnormal(one: __m512, other: __m512) -> bool {
        const SUBNORMAL: i32 = 0x20;
        (_mm512_fpclass_ps_mask::<SUBNORMAL>(one) | _mm512_fpclass_ps_mask::<SUBNORMAL>(other)) != 0
    }

    /// A constant that the compiler knows nothing of: of a shuffle by a constant it makes several instructions.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn unknown(lanes: [u16; 32]) -> __m512i {
        // SAFETY: a vector's worth of lanes; no instruction at all.
        unsafe {
            let mut vector = _mm512_loadu_si512(lanes.as_ptr().cast());
            std::arch::asm!("/* {0} */", inout(zmm_reg) vector, options(pure, nomem, nostack, preserves_flags));
            vector
        }
    }

    /// A constant mask. The compiler would move one that it knows into its register each time it is used, and that takes a
    /// cycle.
    #[target_feature(enable = "avx512bw")]
    #[inline]
    fn unknown_mask(bits: u32) -> __mmask32 {
        let mask;
        // SAFETY: reads and writes registers only; the instruction is of AVX512-BW.
        unsafe {
            std::arch::asm!(
                "kmovd {0}, {1:e}",
                lateout(kreg) mask,
                in(reg) bits,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        mask
    }

    #[inline(always)]
    fn mask(count: usize) -> u16 {
        (1u32 << count).wrapping_sub(1) as u16
    }

    impl Isa for V3 {
        const FUSED: bool = true;

        #[inline(always)]
        unsafe fn load_bf16(self, from: *const u16) -> Self::f32s {
            // SAFETY: the caller's promise; the token proves the features.
            let wide = unsafe { _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())) };
            pulp::cast(self.avx2._mm256_slli_epi32::<16>(wide))
        }

        #[inline(always)]
        unsafe fn load_f16(self, from: *const u16) -> Self::f32s {
            // SAFETY: the caller's promise; kernels run a `V3` only as `avx2` gives it, which asked for F16C.
            pulp::cast(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) })
        }

        #[inline(always)]
        unsafe fn store_upper(self, to: *mut u16, bits: Self::u32s) {
            let bits = self.avx2._mm256_srli_epi32::<16>(pulp::cast(bits));
            // SAFETY: the caller's promise; the token proves the features.
            unsafe {
                let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(bits, bits));
                _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(packed));
            }
        }

        #[inline(always)]
        unsafe fn store_f16(self, to: *mut u16, value: Self::f32s) {
            // SAFETY: the caller's promise; kernels run a `V3` only as `avx2` gives it, which asked for F16C.
            unsafe { _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<NEAREST>(pulp::cast(value))) };
        }

        #[inline(always)]
        fn round_bf16(self, value: Self::f32s) -> Self::u32s {
            // SAFETY: the token proves the features.
            unsafe {
                let (value, bits) = (pulp::cast(value), pulp::cast::<_, __m256i>(value));
                // Half a unit of the last place that stays, less one bit if that place is even.
                let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
                let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
                // The carry of rounding could turn a NaN into infinity or zero: make it quiet instead.
                let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
                let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(value, value);
                let [rounded, quiet] = [rounded, quiet].map(|bits| _mm256_castsi256_ps(bits));
                pulp::cast(_mm256_blendv_ps(rounded, quiet, nan))
            }
        }

        #[inline(always)]
        fn round_f16(self, value: Self::f32s) -> Self::f32s {
            // SAFETY: kernels run a `V3` only as `avx2` gives it, which asked for F16C.
            pulp::cast(unsafe { _mm256_cvtph_ps(_mm256_cvtps_ph::<NEAREST>(pulp::cast(value))) })
        }

        #[inline(always)]
        unsafe fn stream<T: Copy>(self, to: *mut T, line: &Line) {
            let (from, to) = (line.as_ptr::<__m256i>(), to.cast::<__m256i>());
            // SAFETY: the caller's promise; the token proves the features.
            unsafe {
                _mm256_stream_si256(to, _mm256_load_si256(from));
                _mm256_stream_si256(to.add(1), _mm256_load_si256(from.add(1)));
            }
        }
    }
}

/// The bits of a bfloat16.
pub(super) fn bf16_bits(value: f32) -> u16 {
    bf16::from_f32(value).to_bits()
}
