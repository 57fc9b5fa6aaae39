//! Instants, sleeping, and time-outs by a process's own clock.

use crate::executor::Process;
use openraft::rt::instant;
use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A moment of a process's clock, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SimulatedInstant(pub u64);

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for SimulatedInstant {
    type Output = SimulatedInstant;
    fn add(self, duration: Duration) -> SimulatedInstant {
        SimulatedInstant(self.0.saturating_add(nanoseconds(duration)))
    }
}

impl AddAssign<Duration> for SimulatedInstant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for SimulatedInstant {
    type Output = SimulatedInstant;
    fn sub(self, duration: Duration) -> SimulatedInstant {
        SimulatedInstant(self.0.saturating_sub(nanoseconds(duration)))
    }
}

impl Sub<SimulatedInstant> for SimulatedInstant {
    type Output = Duration;
    fn sub(self, earlier: SimulatedInstant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl SubAssign<Duration> for SimulatedInstant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl instant::Instant for SimulatedInstant {
    fn now() -> SimulatedInstant {
        SimulatedInstant(Process::current().now())
    }
}

/// Waits until the process's clock shows a moment.
pub struct Sleep {
    until: u64,
    timer: Option<(Arc<Process>, (u64, u64))>,
}

impl Sleep {
    /// Until this moment.
    #[must_use]
    pub fn until(moment: SimulatedInstant) -> Sleep {
        Sleep {
            until: moment.0,
            timer: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let process = Process::current();
        if process.now() >= self.until {
            return Poll::Ready(());
        }
        match &self.timer {
            Some((process, name)) => process.change_timer(*name, context.waker()),
            None => {
                let name = process.begin_timer(self.until, context.waker().clone());
                self.timer = Some((process, name));
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((process, name)) = self.timer.take() {
            process.forget_timer(name);
        }
    }
}

/// The time was over first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the time is over")
    }
}

/// A future with a bound on its time.
pub struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

impl<F: Future> Timeout<F> {
    /// At most until this moment.
    pub fn until(moment: SimulatedInstant, future: F) -> Timeout<F> {
        Timeout {
            future: Box::pin(future),
            sleep: Sleep::until(moment),
        }
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut self.sleep)
            .poll(context)
            .map(|()| Err(Elapsed))
    }
}
