//! Which edges of our own code a case has run over, where the build has counters for it (`tests/fuzz/run`).
//!
//! The compiler's SanitizerCoverage puts an 8-bit counter on each edge, and each object file tells at start-up where its counters
//! are (<https://clang.llvm.org/docs/SanitizerCoverage.html>, inline 8-bit counters). Hits are kept in eight classes, as AFL does
//! (Zalewski: "Technical whitepaper for afl-fuzz", section 1): a case is new when an edge was hit in a class never seen for it.

use std::sync::Mutex;

/// Where the counters of the object files are: start and length.
static REGIONS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Called by each instrumented object file before `main`, maybe more than once.
///
/// # Safety
/// `start..stop` are the counters of an object file, which live as long as the program.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    let region = (start as usize, stop as usize - start as usize);
    let mut regions = REGIONS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if region.1 > 0 && !regions.contains(&region) {
        regions.push(region);
    }
}

/// The edges seen so far.
#[derive(Debug)]
pub struct Coverage {
    regions: Vec<(usize, usize)>,
    /// The classes in which each counter was seen, as bits.
    seen: Vec<u8>,
    edges_hit: usize,
}

impl Coverage {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Coverage {
        let regions = REGIONS
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        let edges = regions.iter().map(|(_, length)| length).sum();
        Coverage {
            regions,
            seen: vec![0; edges],
            edges_hit: 0,
        }
    }

    /// Whether this build has counters.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        !self.seen.is_empty()
    }

    /// How many edges the program has.
    #[must_use]
    pub fn edges(&self) -> usize {
        self.seen.len()
    }

    /// How many of them were hit by cases.
    #[must_use]
    pub fn edges_hit(&self) -> usize {
        self.edges_hit
    }

    /// Forgets what ran between cases.
    pub fn start(&self) {
        for (start, length) in &self.regions {
            // SAFETY: the region is the program's own counters, plain bytes that only the code under test touches, on this
            // thread.
            unsafe { std::ptr::write_bytes(*start as *mut u8, 0, *length) };
        }
    }

    /// Takes what ran since the start; whether some of it is new.
    pub fn stop(&mut self) -> bool {
        let mut is_new = false;
        let mut base = 0;
        for (start, length) in &self.regions {
            // SAFETY: as in `start`.
            let counters = unsafe { std::slice::from_raw_parts(*start as *const u8, *length) };
            let seen = &mut self.seen[base..base + length];
            base += length;
            // Most counters are zero: eight at a time.
            for (counters, seen) in counters.chunks(8).zip(seen.chunks_mut(8)) {
                if let Ok(eight) = <[u8; 8]>::try_from(counters)
                    && u64::from_ne_bytes(eight) == 0
                {
                    continue;
                }
                for (count, seen) in counters.iter().zip(seen) {
                    let class = class(*count);
                    if class & !*seen != 0 {
                        self.edges_hit += usize::from(*seen == 0);
                        *seen |= class;
                        is_new = true;
                    }
                }
            }
        }
        is_new
    }
}

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage::new()
    }
}

/// One bit for each class of hits: 1, 2, 3, 4 to 7, 8 to 15, 16 to 31, 32 to 127, 128 and more.
fn class(count: u8) -> u8 {
    match count {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => 4,
        4..=7 => 8,
        8..=15 => 16,
        16..=31 => 32,
        32..=127 => 64,
        128.. => 128,
    }
}
