//! The clock that counts for leases: CLOCK_BOOTTIME, which also runs while the machine sleeps.

use isthmus_engine::Time;

/// This machine's time now.
pub fn now() -> Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).expect("CLOCK_BOOTTIME is not negative");
    let nanoseconds = u64::try_from(now.tv_nsec).expect("nanoseconds are not negative");
    Time(seconds * 1_000_000_000 + nanoseconds)
}
