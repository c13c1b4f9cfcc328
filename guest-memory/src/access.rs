//! Raw copies to and from memory that another process may change at the same time.
//!
//! All of them are opaque to the optimiser (volatile accesses or inline assembly), so no copy is split, repeated or
//! assumed stable. Measured here: `rep movsb` equals `memcpy` and wider vectors for blocks; below
//! [`SMALL`] bytes plain 8-byte moves win over its start-up cost.
#![allow(
    unsafe_code,
    reason = "the one place that dereferences pointers into shared memory"
)]

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Below this many bytes a copy is a loop of 8-byte moves.
const SMALL: usize = 256;

/// Copies `len` bytes from `src` to `dst`.
///
/// # Safety
/// `src` must be readable and `dst` writable for `len` bytes; either may be shared with another process (which may
/// write at the same time), but `dst` must not be borrowed by safe code elsewhere. The two must not overlap.
#[inline]
pub(crate) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) {
    if len < SMALL {
        // SAFETY: the caller's contract is the same.
        unsafe { copy_small(dst, src, len) }
    } else {
        // SAFETY: the caller's contract is the same.
        unsafe { copy_block(dst, src, len) }
    }
}

/// # Safety
/// As [`copy`].
#[inline]
unsafe fn copy_small(dst: *mut u8, src: *const u8, len: usize) {
    let mut at = 0;
    if (dst as usize | src as usize).is_multiple_of(8) {
        while at + 8 <= len {
            // SAFETY: `at + 8 <= len`, and both pointers are 8-aligned because `at` is a multiple of 8.
            unsafe {
                let value = src.add(at).cast::<u64>().read_volatile();
                dst.add(at).cast::<u64>().write_volatile(value);
            }
            at += 8;
        }
    }
    while at < len {
        // SAFETY: `at < len`.
        unsafe { dst.add(at).write_volatile(src.add(at).read_volatile()) };
        at += 1;
    }
}

/// # Safety
/// As [`copy`].
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn copy_block(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: `rep movsb` reads `len` bytes at `src` and writes `len` at `dst`, which the caller allows; the direction
    // flag is clear by the ABI.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rdi") dst => _,
            inout("rsi") src => _,
            options(nostack, preserves_flags)
        );
    }
}

/// # Safety
/// As [`copy`].
#[cfg(not(target_arch = "x86_64"))]
#[inline]
unsafe fn copy_block(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: the caller's contract is the same.
    unsafe { copy_small(dst, src, len) }
}

/// Copies as [`copy`] and meanwhile claims the lines of `ahead`, where the next copy will write: one line per line copied.
/// Claiming them all at once would stall this copy, claiming none would stall the next one.
///
/// # Safety
/// As [`copy`]. `ahead` may be any address.
#[inline]
pub(crate) unsafe fn copy_ahead(dst: *mut u8, src: *const u8, len: usize, ahead: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        let whole = len & !63;
        if whole > 0 {
            // SAFETY: reads and writes `whole <= len` bytes, a line at a time, which the caller allows; a prefetch never
            // faults.
            unsafe {
                std::arch::asm!(
                    "2:",
                    "prefetchw [{ahead} + {at}]",
                    "movups {a}, [{src} + {at}]",
                    "movups {b}, [{src} + {at} + 16]",
                    "movups {c}, [{src} + {at} + 32]",
                    "movups {d}, [{src} + {at} + 48]",
                    "movups [{dst} + {at}], {a}",
                    "movups [{dst} + {at} + 16], {b}",
                    "movups [{dst} + {at} + 32], {c}",
                    "movups [{dst} + {at} + 48], {d}",
                    "add {at}, 64",
                    "cmp {at}, {whole}",
                    "jb 2b",
                    ahead = in(reg) ahead,
                    src = in(reg) src,
                    dst = in(reg) dst,
                    whole = in(reg) whole,
                    at = inout(reg) 0usize => _,
                    a = out(xmm_reg) _,
                    b = out(xmm_reg) _,
                    c = out(xmm_reg) _,
                    d = out(xmm_reg) _,
                    options(nostack)
                );
            }
        }
        // SAFETY: the rest of what the caller allows.
        unsafe { copy_small(dst.add(whole), src.add(whole), len - whole) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = ahead;
        // SAFETY: the caller's contract is the same.
        unsafe { copy(dst, src, len) };
    }
}

/// Writes `len` zero bytes at `dst`.
///
/// # Safety
/// `dst` must be writable for `len` bytes and not borrowed by safe code.
#[inline]
pub(crate) unsafe fn zero(dst: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `rep stosb` writes `len` bytes at `dst`, which the caller allows.
    unsafe {
        std::arch::asm!(
            "rep stosb",
            inout("rcx") len => _,
            inout("rdi") dst => _,
            in("al") 0u8,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    for at in 0..len {
        // SAFETY: `at < len`.
        unsafe { dst.add(at).write_volatile(0) };
    }
}

/// Reads `N` words of 8 bytes, each once. Unlike [`copy`] the words can stay in registers.
///
/// # Safety
/// `at` must be readable for `8 * N` bytes and 8-aligned.
#[inline(always)]
pub(crate) unsafe fn read_words<const N: usize>(at: *const u8) -> [u64; N] {
    let mut words = [0; N];
    for (n, word) in words.iter_mut().enumerate() {
        // SAFETY: word `n` lies inside the caller's range and is aligned.
        *word = unsafe { at.cast::<u64>().add(n).read_volatile() };
    }
    words
}

/// Aligned loads with acquire and stores with release ordering.
macro_rules! ordered {
    ($load:ident, $store:ident, $atomic:ident, $int:ident) => {
        #[doc = concat!("Loads a `", stringify!($int), "` with acquire ordering.")]
        ///
        /// # Safety
        /// `at` must be readable for the integer's size and aligned to it.
        #[inline]
        pub(crate) unsafe fn $load(at: *const u8) -> $int {
            // SAFETY: aligned and readable by contract; an atomic may be shared with anybody, other processes included.
            unsafe { $atomic::from_ptr(at.cast_mut().cast()) }.load(Ordering::Acquire)
        }

        #[doc = concat!("Stores a `", stringify!($int), "` with release ordering.")]
        ///
        /// # Safety
        /// `at` must be writable for the integer's size and aligned to it.
        #[inline]
        pub(crate) unsafe fn $store(at: *mut u8, value: $int) {
            // SAFETY: aligned and writable by contract.
            unsafe { $atomic::from_ptr(at.cast()) }.store(value, Ordering::Release);
        }
    };
}

ordered!(load_u8_acquire, store_u8_release, AtomicU8, u8);
ordered!(load_u16_acquire, store_u16_release, AtomicU16, u16);
ordered!(load_u32_acquire, store_u32_release, AtomicU32, u32);
ordered!(load_u64_acquire, store_u64_release, AtomicU64, u64);

/// Sets bits of a byte, leaving the others as they are.
///
/// # Safety
/// `at` must be writable.
#[inline]
pub(crate) unsafe fn or_u8(at: *mut u8, bits: u8) {
    // SAFETY: writable by contract; a byte is always aligned.
    unsafe { AtomicU8::from_ptr(at) }.fetch_or(bits, Ordering::AcqRel);
}

/// Publishes 16 bytes so that a reader which sees the upper half sees the lower half and every store before.
///
/// One store where the CPU makes a 16-byte aligned store single-copy atomic (x86 with AVX); else lower half, then
/// upper half with release ordering. One store matters: two cost a second ownership request when the reader polls.
///
/// # Safety
/// `at` must be writable for 16 bytes and 16-aligned.
#[inline]
pub(crate) unsafe fn publish_16(at: *mut u8, value: [u64; 2]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128i, _mm_set_epi64x};
        if std::arch::is_x86_feature_detected!("avx") {
            std::sync::atomic::fence(Ordering::Release);
            // SAFETY: SSE2 is part of x86-64; the pointer is 16-aligned and writable by contract.
            unsafe {
                let packed = _mm_set_epi64x(value[1].cast_signed(), value[0].cast_signed());
                at.cast::<__m128i>().write_volatile(packed);
            }
            return;
        }
    }
    // SAFETY: both halves lie in the 16 bytes of the contract and are 8-aligned.
    unsafe {
        at.cast::<u64>().write_volatile(value[0]);
        AtomicU64::from_ptr(at.add(8).cast()).store(value[1], Ordering::Release);
    }
}

/// Asks the CPU to bring the cache line at `at` closer. Never faults, whatever the address.
#[inline]
pub(crate) fn prefetch_read(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it has no architectural effect and does not fault on any address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// As [`prefetch_read`], announcing a write.
#[inline]
pub(crate) fn prefetch_write(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `prefetchw` is a hint and does not fault; CPUs without it execute it as a no-op (it decodes as a
    // prefetch on every x86-64 CPU).
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
