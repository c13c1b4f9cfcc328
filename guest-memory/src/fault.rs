//! `SIGBUS` on a client's memory becomes a poisoned mapping instead of a dead daemon.
//!
//! Any access to a file mapping beyond the file's end raises `SIGBUS`. The client owns the file, so it can do that to
//! us at any time. The handler looks the address up in a table of our client mappings, puts private zero
//! pages over the *whole* mapping, marks it poisoned, counts, and returns: the interrupted access is retried and
//! reads zeroes or writes to memory nobody sees. Code copies stay plain instructions, with no recovery labels and no cost.
//!
//! Rejected: recovering copies (each access in assembly with a landing pad), which cost on the hot path what this gives for
//! nothing, and can't cover atomics in the middle of compiled code.
#![allow(
    unsafe_code,
    reason = "installs a signal handler and replaces a faulting mapping"
)]

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, Once};

/// Most client mappings alive at once in the daemon. One vfio-user client may have 65 535; the table costs address
/// space (24 bytes an entry), not memory, until it is used.
pub const MAX_MAPPINGS: usize = 1 << 18;

struct Entry {
    start: AtomicUsize,
    /// Zero while the entry is free.
    len: AtomicUsize,
    poisoned: AtomicBool,
}

static TABLE: [Entry; MAX_MAPPINGS] = [const {
    Entry {
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        poisoned: AtomicBool::new(false),
    }
}; MAX_MAPPINGS];
/// Entries at and beyond this index were never used: the handler's search ends there.
static HIGH_WATER: AtomicUsize = AtomicUsize::new(0);
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static COUNT: AtomicU64 = AtomicU64::new(0);
static INSTALL: Once = Once::new();
static mut PREVIOUS: std::mem::MaybeUninit<libc::sigaction> = std::mem::MaybeUninit::zeroed();

/// How many mappings have been poisoned since the start. A poller keeps the last value and looks at its own mappings
/// when it changes: one relaxed load of a line that is never written while all is well.
#[inline]
#[must_use]
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// A mapping's place in the fault table; leaves it on drop.
#[derive(Debug)]
pub(crate) struct Registration(usize);

impl Registration {
    /// Enters `start..start + len`; `None` when the table is full.
    pub(crate) fn new(start: usize, len: usize) -> Option<Self> {
        INSTALL.call_once(install);
        let mut free = FREE
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let index = match free.pop() {
            Some(index) => index,
            None => {
                let next = HIGH_WATER.load(Ordering::Relaxed);
                if next == MAX_MAPPINGS {
                    return None;
                }
                HIGH_WATER.store(next + 1, Ordering::Release);
                next
            }
        };
        let entry = &TABLE[index];
        entry.poisoned.store(false, Ordering::Relaxed);
        entry.start.store(start, Ordering::Relaxed);
        entry.len.store(len, Ordering::Release);
        Some(Self(index))
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        TABLE[self.0].poisoned.load(Ordering::Acquire)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        TABLE[self.0].len.store(0, Ordering::Release);
        FREE.lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(self.0);
    }
}

fn install() {
    // SAFETY: the handler is async-signal-safe (atomics and `mmap` only), runs on the alternate stack that std gives
    // each thread, and `PREVIOUS` is written here once, before the handler can be entered for our mappings.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        let previous = (&raw mut PREVIOUS).cast::<libc::sigaction>();
        if libc::sigaction(libc::SIGBUS, &raw const action, previous) != 0 {
            tracing::error!(
                "cannot install the SIGBUS handler: a client that truncates its memory would end the daemon"
            );
        }
    }
}

extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid siginfo for a handler installed with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() } as usize;
    let high = HIGH_WATER.load(Ordering::Acquire);
    for entry in &TABLE[..high] {
        let len = entry.len.load(Ordering::Acquire);
        let start = entry.start.load(Ordering::Relaxed);
        if len == 0 || address.wrapping_sub(start) >= len {
            continue;
        }
        // SAFETY: the range is one of our own mappings and stays mapped while the interrupted access holds its lease;
        // replacing it in place keeps every pointer into it valid.
        let replaced = unsafe {
            libc::mmap(
                start as *mut libc::c_void,
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_FIXED | libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if replaced == libc::MAP_FAILED {
            break;
        }
        entry.poisoned.store(true, Ordering::Release);
        COUNT.fetch_add(1, Ordering::Release);
        return;
    }
    // SAFETY: `PREVIOUS` was filled by `install` before this handler could run.
    let previous = unsafe { (&raw const PREVIOUS).cast::<libc::sigaction>().read() };
    match previous.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: restoring the default makes the retried access end the process with the right signal.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: a handler installed with SA_SIGINFO has this signature.
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: a handler installed without SA_SIGINFO has this signature.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}
