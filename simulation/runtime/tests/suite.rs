//! The runtime against openraft's own suite, and the rules that a simulation needs besides.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use isthmus_simulated_runtime::{Executor, SimulatedRuntime};
use openraft::rt::testing::Suite;
use openraft::rt::{AsyncRuntime, Instant};
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Moment = <SimulatedRuntime as AsyncRuntime>::Instant;

#[test]
fn the_runtime_passes_openrafts_own_suite() {
    Suite::<SimulatedRuntime>::test_all();
}

/// A timer of virtual time: due when the executor is told that so much has passed.
async fn reach(moment: Duration) {
    let never = std::future::pending::<()>();
    assert!(SimulatedRuntime::timeout(moment, never).await.is_err());
}

/// In which order ten tasks ran that were all ready, and what they drew.
fn orders(seed: u64) -> Vec<(u64, u64)> {
    use rand_core::Rng as _;
    let ran = Arc::new(Mutex::new(Vec::new()));
    let executor = Executor::new(seed, 0);
    for number in 0..10 {
        let ran = Arc::clone(&ran);
        executor.spawn(async move {
            reach(Duration::from_millis(5)).await;
            let drawn = SimulatedRuntime::thread_rng().next_u64();
            ran.lock().unwrap().push((number, drawn));
        });
    }
    executor.run(0);
    executor.run(5_000_000);
    ran.lock().unwrap().clone()
}

#[test]
fn a_seed_gives_one_order_and_another_seed_another_one() {
    assert_eq!(orders(1), orders(1));
    let numbers = |orders: Vec<(u64, u64)>| -> Vec<u64> {
        orders.into_iter().map(|(number, _)| number).collect()
    };
    assert_ne!(numbers(orders(1)), numbers(orders(2)));
}

#[test]
fn time_is_what_is_told_and_a_timer_is_due_at_its_moment() {
    let executor = Executor::new(1, 1_000);
    let woken = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&woken);
    executor.spawn(async move {
        reach(Duration::from_nanos(500)).await;
        *seen.lock().unwrap() = Some(Moment::now().0);
    });
    executor.run(1_000);
    assert_eq!(executor.next_timer(), Some(1_500));
    executor.run(1_499);
    assert_eq!(*woken.lock().unwrap(), None);
    executor.run(1_700);
    assert_eq!(*woken.lock().unwrap(), Some(1_700));
    assert_eq!(executor.next_timer(), None);
}

/// Begins a task when it is dropped, as a handle that says goodbye does.
struct Parting(Arc<Mutex<Vec<&'static str>>>);

impl Drop for Parting {
    fn drop(&mut self) {
        self.0.lock().unwrap().push("dropped");
        let said = Arc::clone(&self.0);
        drop(SimulatedRuntime::spawn(async move {
            said.lock().unwrap().push("said goodbye");
        }));
    }
}

#[test]
fn an_ended_process_drops_everything_and_begins_nothing() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let executor = Executor::new(1, 0);
    let parting = Parting(Arc::clone(&said));
    executor.spawn(async move {
        let _parting = parting;
        reach(Duration::from_secs(1)).await;
    });
    executor.run(0);
    executor.end();
    assert!(!executor.is_ready());
    assert_eq!(executor.next_timer(), None);
    executor.run(2_000_000_000);
    assert_eq!(*said.lock().unwrap(), ["dropped"]);
    assert!(!SimulatedRuntime::is_running());
}
