//! Tasks of one simulated process, and its time.
//!
//! Nothing runs by itself: [`Executor::run`] tells what time it is, and polls until every task waits for something. A task takes no
//! time. [`Executor::end`] is a crash: every future is dropped where it stands, and what their destructors would begin is dropped, too.

use isthmus_simulated_disk::Random;
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

/// More polls at one instant than any healthy process needs: tasks that wake each other for ever get here.
const POLLS_MAX: u64 = 1_000_000;

type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// The process on whose behalf this thread runs now.
    static CURRENT: RefCell<Option<Arc<Process>>> = const { RefCell::new(None) };
}

/// One simulated process. Dropping it ends it.
pub struct Executor {
    process: Arc<Process>,
}

/// What tasks, timers and wakers of one process share.
pub(crate) struct Process {
    state: Mutex<State>,
    ready: Arc<Ready>,
}

struct State {
    now: u64,
    random: Random,
    /// By deadline, then in the order in which they began.
    timers: BTreeMap<(u64, u64), Waker>,
    tasks: BTreeMap<u64, Arc<Task>>,
    begun: u64,
    has_ended: bool,
}

/// Tasks to poll.
#[derive(Default)]
struct Ready(Mutex<Vec<Arc<Task>>>);

struct Task {
    number: u64,
    future: Mutex<Option<TaskFuture>>,
    is_ready: AtomicBool,
    ready: Weak<Ready>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.is_ready.swap(true, Ordering::Relaxed)
            && let Some(ready) = self.ready.upgrade()
        {
            ready.0.lock().push(self);
        }
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.process.state.lock();
        out.debug_struct("Executor")
            .field("now", &state.now)
            .field("tasks", &state.tasks.len())
            .field("timers", &state.timers.len())
            .finish_non_exhaustive()
    }
}

impl Executor {
    /// A process without tasks, at `now` of its own clock (nanoseconds). The seed orders its tasks and is what they draw from.
    #[must_use]
    pub fn new(seed: u64, now: u64) -> Executor {
        let state = State {
            now,
            random: Random::new(seed),
            timers: BTreeMap::new(),
            tasks: BTreeMap::new(),
            begun: 0,
            has_ended: false,
        };
        Executor {
            process: Arc::new(Process {
                state: Mutex::new(state),
                ready: Arc::default(),
            }),
        }
    }

    /// Does something on behalf of the process, as its tasks would: tasks may be spawned, and it is this process's time.
    pub fn enter<T>(&self, run: impl FnOnce() -> T) -> T {
        self.process.enter(run)
    }

    /// Begins a task; it is polled by the next [`Executor::run`].
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.process.spawn(Box::pin(future));
    }

    /// It is `now` by the process's clock (never back): what is due is due, and every task that can go on does.
    ///
    /// # Panics
    /// When tasks wake each other for ever without time passing.
    pub fn run(&self, now: u64) {
        self.process.pass_time(now);
        self.process.enter(|| {
            let mut polls = 0;
            while let Some(task) = self.process.next_task() {
                self.process.poll(&task);
                polls += 1;
                assert!(polls < POLLS_MAX, "tasks wake each other for ever");
            }
        });
    }

    /// Whether a task waits to be polled.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.process.ready.0.lock().is_empty()
    }

    /// When the next timer is due, by the process's clock.
    #[must_use]
    pub fn next_timer(&self) -> Option<u64> {
        let state = self.process.state.lock();
        state.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// The process's time.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.process.now()
    }

    /// Ends the process where it stands. Nothing that its futures' destructors do outlives it.
    pub fn end(&self) {
        let tasks = {
            let mut state = self.process.state.lock();
            state.has_ended = true;
            std::mem::take(&mut state.tasks)
        };
        self.process.enter(|| {
            for task in tasks.into_values() {
                let future = task.future.lock().take();
                drop(future);
            }
        });
        let timers = std::mem::take(&mut self.process.state.lock().timers);
        drop(timers);
        let ready = std::mem::take(&mut *self.process.ready.0.lock());
        drop(ready);
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.end();
    }
}

impl Process {
    /// The process on whose behalf this thread runs.
    ///
    /// # Panics
    /// Outside of every executor: simulated code has run where there is no simulated time.
    pub(crate) fn current() -> Arc<Process> {
        let current = CURRENT.with_borrow(Option::clone);
        current.expect("simulated code runs only inside an executor")
    }

    /// The same, if there is one that lives.
    pub(crate) fn running() -> Option<Arc<Process>> {
        CURRENT
            .with_borrow(Option::clone)
            .filter(|process| !process.state.lock().has_ended)
    }

    fn enter<T>(self: &Arc<Process>, run: impl FnOnce() -> T) -> T {
        /// Goes back to whoever ran before, also when `run` panics.
        struct Before(Option<Arc<Process>>);
        impl Drop for Before {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _before = Before(CURRENT.replace(Some(Arc::clone(self))));
        run()
    }

    pub(crate) fn now(&self) -> u64 {
        self.state.lock().now
    }

    pub(crate) fn random_seed(&self) -> u64 {
        self.state.lock().random.next_u64()
    }

    pub(crate) fn spawn(&self, future: TaskFuture) {
        let task = {
            let mut state = self.state.lock();
            if state.has_ended {
                drop(state);
                drop(future);
                return;
            }
            state.begun += 1;
            let task = Arc::new(Task {
                number: state.begun,
                future: Mutex::new(Some(future)),
                is_ready: AtomicBool::new(false),
                ready: Arc::downgrade(&self.ready),
            });
            state.tasks.insert(task.number, Arc::clone(&task));
            task
        };
        task.wake();
    }

    /// Wakes `waker` at `at`; returns the name of this timer.
    pub(crate) fn begin_timer(&self, at: u64, waker: Waker) -> (u64, u64) {
        let mut state = self.state.lock();
        state.begun += 1;
        let name = (at, state.begun);
        state.timers.insert(name, waker);
        name
    }

    pub(crate) fn change_timer(&self, name: (u64, u64), waker: &Waker) {
        if let Some(timer) = self.state.lock().timers.get_mut(&name) {
            timer.clone_from(waker);
        }
    }

    pub(crate) fn forget_timer(&self, name: (u64, u64)) {
        let waker = self.state.lock().timers.remove(&name);
        drop(waker);
    }

    fn pass_time(&self, now: u64) {
        let mut due = Vec::new();
        {
            let mut state = self.state.lock();
            assert!(
                now >= state.now,
                "time goes forward: {now} after {}",
                state.now
            );
            state.now = now;
            while let Some(first) = state.timers.first_entry() {
                if first.key().0 > now {
                    break;
                }
                due.push(first.remove());
            }
        }
        for waker in due {
            waker.wake();
        }
    }

    /// Any of those that can go on: real runtimes promise no order, and so the seed chooses.
    fn next_task(&self) -> Option<Arc<Task>> {
        let mut ready = self.ready.0.lock();
        if ready.len() < 2 {
            return ready.pop();
        }
        let index = self.state.lock().random.below(ready.len() as u64) as usize;
        Some(ready.swap_remove(index))
    }

    fn poll(&self, task: &Arc<Task>) {
        task.is_ready.store(false, Ordering::Relaxed);
        // Taken out while it runs, so that a destructor in it finds nothing locked.
        let Some(mut future) = task.future.lock().take() else {
            return;
        };
        let waker = Waker::from(Arc::clone(task));
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => *task.future.lock() = Some(future),
            Poll::Ready(()) => {
                self.state.lock().tasks.remove(&task.number);
            }
        }
    }
}

/// A thread's own future, as in a test: polled in place, with time passing as fast as timers allow.
pub(crate) fn block_on<F: Future>(executor: &Executor, future: F) -> F::Output {
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut future = std::pin::pin!(future);
    loop {
        if woken.0.swap(false, Ordering::Relaxed) {
            let polled = executor.enter(|| future.as_mut().poll(&mut Context::from_waker(&waker)));
            if let Poll::Ready(output) = polled {
                return output;
            }
        } else if executor.is_ready() {
            executor.run(executor.now());
        } else {
            let next = executor.next_timer();
            executor.run(next.expect("the future waits for something that never comes"));
        }
    }
}
