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

    /// Widens bfloat16.
    ///
    /// # Safety
    /// `F32_LANES` values are readable at `from`.
    unsafe fn load_bf16(self, from: *const u16) -> Self::f32s;

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

    /// Stores the upper halves of two vectors' bits, one after the other.
    ///
    /// # Safety
    /// Twice `F32_LANES` values are writable at `to`.
    #[inline(always)]
    unsafe fn store_upper_pair(self, to: *mut u16, first: Self::u32s, second: Self::u32s) {
        // SAFETY: the caller's promise.
        unsafe {
            self.store_upper(to, first);
            self.store_upper(to.add(Self::F32_LANES), second);
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

/// Asks for the cache line of an address, which need not be valid.
#[inline(always)]
pub(super) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
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
pub(super) use x86::{avx2, avx512, on_avx2, on_avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::sync::OnceLock;

    use pulp::x86::{V3, V4};

    use super::{Isa, Line};
    use crate::simd::Task;

    const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;

    pub(crate) fn avx512() -> Option<V4> {
        V4::try_new()
    }

    /// `V3`, if there is F16C too (it came with every processor that has AVX2, but is a feature of its own).
    pub(crate) fn avx2() -> Option<V3> {
        static F16C: OnceLock<bool> = OnceLock::new();
        V3::try_new().filter(|_| *F16C.get_or_init(|| is_x86_feature_detected!("f16c")))
    }

    pub(crate) fn on_avx512(token: V4, task: impl Task) {
        #[target_feature(enable = "avx,avx2,bmi1,bmi2,fma,lzcnt,popcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")]
        fn compiled(token: V4, task: impl Task) {
            task.run(token);
        }
        // SAFETY: `token` proves every feature named above.
        unsafe { compiled(token, task) }
    }

    pub(crate) fn on_avx2(token: V3, task: impl Task) {
        #[target_feature(enable = "avx,avx2,bmi1,bmi2,fma,lzcnt,popcnt,f16c")]
        fn compiled(token: V3, task: impl Task) {
            task.run(token);
        }
        // SAFETY: `token` proves every feature named above but F16C, and comes from `avx2`, which asked for that.
        unsafe { compiled(token, task) }
    }

    impl Isa for V4 {
        const FUSED: bool = true;

        #[inline(always)]
        unsafe fn load_bf16(self, from: *const u16) -> Self::f32s {
            // SAFETY: the caller's promise; the token proves the features.
            let wide = unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())) };
            pulp::cast(self.avx512f._mm512_slli_epi32::<16>(wide))
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
        unsafe fn store_upper_pair(self, to: *mut u16, first: Self::u32s, second: Self::u32s) {
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
            // SAFETY: the caller's promise; the token proves the features.
            unsafe {
                let upper = _mm512_loadu_si512(UPPER.as_ptr().cast());
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
            // SAFETY: the caller's promise; kernels run a `V3` only through `on_avx2`, which has F16C.
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
            // SAFETY: the caller's promise; kernels run a `V3` only through `on_avx2`, which has F16C.
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
            // SAFETY: kernels run a `V3` only through `on_avx2`, which has F16C.
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
