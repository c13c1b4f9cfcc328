//! Counts heap allocations per thread: for tests that hold "no allocation here".
#![allow(unsafe_code, reason = "a global allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    // Constant and without a destructor: reading it allocates nothing, and it is there until the thread has ended.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting. Put it in place with `#[global_allocator]`.
#[derive(Debug)]
pub struct CountingAllocator;

fn count() {
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

/// Allocations and reallocations of the calling thread so far; zero for ever where [`CountingAllocator`] is not in place.
#[must_use]
pub fn allocations() -> u64 {
    COUNT.try_with(Cell::get).unwrap_or(0)
}

// SAFETY: every call goes unchanged to the system's allocator, which keeps the trait's contract; counting neither
// allocates nor unwinds.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is the same.
        unsafe { System.realloc(at, layout, size) }
    }
}
