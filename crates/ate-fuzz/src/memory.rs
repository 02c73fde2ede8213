//! How much memory a thread holds, and the cap on it. Whoever links this crate allocates through it.
//!
//! C libraries (zstd) allocate elsewhere; they have caps of their own. Threads that a parser starts are not counted either.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    /// May be below zero on a thread that frees what another one made.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
    static CAP: Cell<isize> = const { Cell::new(isize::MAX) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is passed on to the system's allocator as it is; counting allocates nothing, since the counters
// need neither initialisation nor a destructor. There is no other way to see what a parser allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        give_back(layout.size());
        take(size);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        give_back(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(block, layout) }
    }
}

fn take(bytes: usize) {
    let held = HELD.get().saturating_add_unsigned(bytes);
    HELD.set(held);
    if held > MOST.get() {
        MOST.set(held);
    }
    let cap = CAP.get();
    if held > cap {
        // An allocator must not unwind. What was tried is in a file.
        CAP.set(isize::MAX);
        eprintln!("an input makes a parser hold more than its cap: {bytes} bytes more are asked for");
        std::process::abort();
    }
}

fn give_back(bytes: usize) {
    HELD.set(HELD.get().saturating_sub_unsigned(bytes));
}

/// Runs `work` with at most `cap` bytes more than are held now, and says how many more it held at most.
pub(crate) fn capped<T>(cap: usize, work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    MOST.set(before);
    CAP.set(before.saturating_add_unsigned(cap));
    let result = work();
    CAP.set(isize::MAX);
    (result, usize::try_from(MOST.get() - before).unwrap_or_default())
}
