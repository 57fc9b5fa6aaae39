//! The executor as openraft asks for it.

use crate::executor::{self, Executor, Process};
use crate::timing::{Elapsed, SimulatedInstant, Sleep, Timeout};
use crate::watch::SimulatedWatch;
use isthmus_simulated_disk::Random;
use openraft::OptionalSend;
use openraft::impls::TokioRuntime;
use openraft::rt::{AsyncRuntime, Instant, Oneshot, OneshotSender};
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

type TokioOneshot = <TokioRuntime as AsyncRuntime>::Oneshot;

/// The runtime of simulated processes. As a value: a process of its own, for a single future.
#[derive(Debug)]
pub struct SimulatedRuntime(Executor);

impl SimulatedRuntime {
    /// Whether the caller runs in a simulated process that lives.
    #[must_use]
    pub fn is_running() -> bool {
        Process::running().is_some()
    }
}

/// The task's process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended;

impl fmt::Display for Ended {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the task's process has ended")
    }
}

/// The output of a task.
pub struct JoinHandle<T: OptionalSend>(<TokioOneshot as Oneshot>::Receiver<T>);

impl<T: OptionalSend> Future for JoinHandle<T> {
    type Output = Result<T, Ended>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|output| output.map_err(|_| Ended))
    }
}

/// Random numbers of the process's seed.
#[derive(Debug)]
pub struct SeededNumbers(Random);

impl rand_core::TryRng for SeededNumbers {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.0.next_u64() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let number = self.0.next_u64().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
        Ok(())
    }
}

impl AsyncRuntime for SimulatedRuntime {
    type JoinError = Ended;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = SimulatedInstant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = SeededNumbers;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = SimulatedWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let (done, output) = TokioOneshot::channel();
        // A process that has ended begins nothing any more: its destructors may try.
        if let Some(process) = Process::running() {
            process.spawn(Box::pin(async move {
                // Whoever began it may not want its output.
                drop(done.send(future.await));
            }));
        }
        JoinHandle(output)
    }

    fn sleep(duration: Duration) -> Sleep {
        Sleep::until(SimulatedInstant::now() + duration)
    }

    fn sleep_until(deadline: SimulatedInstant) -> Sleep {
        Sleep::until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Timeout<F> {
        Timeout::until(SimulatedInstant::now() + duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: SimulatedInstant,
        future: F,
    ) -> Timeout<F> {
        Timeout::until(deadline, future)
    }

    /// Never: a task that panics takes the whole simulation with it, which is what a broken assertion is for.
    fn is_panic(_: &Ended) -> bool {
        false
    }

    fn thread_rng() -> SeededNumbers {
        SeededNumbers(Random::new(Process::current().random_seed()))
    }

    fn new(_threads: usize) -> SimulatedRuntime {
        SimulatedRuntime(Executor::new(0, 0))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        executor::block_on(&self.0, future)
    }

    /// Done when it is asked for: there is no other thread, and nothing takes time.
    fn spawn_blocking<F, T>(run: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        std::future::ready(Ok(run()))
    }
}
