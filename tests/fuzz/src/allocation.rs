//! Counts what one case has allocated on its own thread: the most that was live at once.
//!
//! A decoder that believes a length field allocates before it reads. The bound of each target is checked after each case; an
//! allocation past [`HARD_BYTES_MAX`] ends the run right there, before memory is gone.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use crate::current;

/// No case of any target comes near this.
pub const HARD_BYTES_MAX: i64 = 1 << 30;

#[derive(Clone, Copy)]
struct Counts {
    counting: bool,
    live: i64,
    peak: i64,
}

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { counting: false, live: 0, peak: 0 }) };
}

/// The system's allocator, counting.
pub struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Begins to count anew.
pub fn start() {
    COUNTS.set(Counts {
        counting: true,
        live: 0,
        peak: 0,
    });
}

/// Ends counting, and gives the most bytes that were live at once beyond those at the start.
pub fn stop() -> usize {
    let counts = COUNTS.get();
    COUNTS.set(Counts {
        counting: false,
        ..counts
    });
    usize::try_from(counts.peak).unwrap_or(0)
}

fn note(bytes: i64) {
    // A thread that ends has no counts any more.
    let Ok(mut counts) = COUNTS.try_with(Cell::get) else {
        return;
    };
    if !counts.counting {
        return;
    }
    counts.live += bytes;
    counts.peak = counts.peak.max(counts.live);
    if counts.live > HARD_BYTES_MAX {
        stop();
        current::fail(&format!(
            "an allocation that makes {} bytes live",
            counts.live
        ));
        std::process::exit(1);
    }
    COUNTS.set(counts);
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX / 2)
}

// SAFETY: every call goes to the system's allocator unchanged; `note` allocates only after it has stopped counting, and never
// unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(signed(layout.size()));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(-signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(signed(size) - signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
