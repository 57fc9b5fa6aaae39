//! Carries packets between the nodes' TUN devices, under the conditions of the links between them.

use crate::link::Condition;
use crate::link::namespace::Namespace;
use crate::link::tun::Tun;
use crate::random::Random;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const PACKET_BYTES_MAX: usize = 65_536;
/// How long a thread may take to see that it should end.
const STOP_WITHIN: Duration = Duration::from_millis(100);
/// Bytes in flight at most on all links together; more are lost, as on a real link.
const FLYING_BYTES_MAX: usize = 64 << 20;

/// The links between some nodes.
pub struct Switch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    tuns: Vec<Tun>,
    state: Mutex<State>,
    changed: Condvar,
    stopping: AtomicBool,
}

struct State {
    /// By (from, to).
    conditions: BTreeMap<(usize, usize), Condition>,
    /// By (when it is due, its number), so that packets with equal delay keep their order.
    flying: BTreeMap<(Instant, u64), (usize, usize, Vec<u8>)>,
    flying_bytes: usize,
    /// Bytes delivered, by (from, to).
    carried: BTreeMap<(usize, usize), u64>,
    packets: u64,
    lost: u64,
    random: Random,
}

impl Switch {
    /// Links all these namespaces, the first one with [`crate::link::address`] 0, and so on; all links are good.
    ///
    /// # Errors
    /// Not root, or no TUN devices here.
    pub fn start(namespaces: &[Namespace], seed: u64) -> io::Result<Switch> {
        let tuns = namespaces
            .iter()
            .enumerate()
            .map(|(node, namespace)| Tun::create(namespace.name(), crate::link::address(node)));
        let state = State {
            conditions: BTreeMap::new(),
            flying: BTreeMap::new(),
            flying_bytes: 0,
            carried: BTreeMap::new(),
            packets: 0,
            lost: 0,
            random: Random::new(seed),
        };
        let shared = Arc::new(Shared {
            tuns: tuns.collect::<io::Result<_>>()?,
            state: Mutex::new(state),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
        });
        let mut threads = Vec::new();
        for node in 0..shared.tuns.len() {
            let shared = Arc::clone(&shared);
            threads.push(thread::spawn(move || shared.collect(node)));
        }
        let deliverer = Arc::clone(&shared);
        threads.push(thread::spawn(move || deliverer.deliver()));
        Ok(Switch { shared, threads })
    }

    /// How packets get from one node to another, from now on; those in flight are lost when the link is cut.
    pub fn set_one_way(&self, from: usize, to: usize, condition: Condition) {
        self.shared.state().conditions.insert((from, to), condition);
    }

    /// How packets get between two nodes, both ways, from now on.
    pub fn set(&self, one: usize, other: usize, condition: Condition) {
        self.set_one_way(one, other, condition);
        self.set_one_way(other, one, condition);
    }

    /// Bytes of all packets that were delivered from one node to another so far.
    #[must_use]
    pub fn carried(&self, from: usize, to: usize) -> u64 {
        self.shared
            .state()
            .carried
            .get(&(from, to))
            .copied()
            .unwrap_or(0)
    }

    /// Packets that were lost so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.state().lost
    }

    /// Makes all links good again.
    pub fn heal(&self) {
        self.shared.state().conditions.clear();
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Takes what a node sends.
    fn collect(&self, from: usize) {
        let mut packet = vec![0; PACKET_BYTES_MAX];
        while !self.stopping() {
            let Ok(received) = self.tuns[from].receive(&mut packet, STOP_WITHIN) else {
                return;
            };
            let Some(length) = received else { continue };
            let Some(to) = destination(&packet[..length]).filter(|to| *to < self.tuns.len()) else {
                continue;
            };
            let mut state = self.state();
            let condition = state.condition(from, to);
            let lost = u64::from(condition.lost_per_mille) > state.random.below(1000);
            if condition.cut || lost || state.flying_bytes + length > FLYING_BYTES_MAX {
                state.lost += 1;
                continue;
            }
            let doubled = u64::from(condition.doubled_per_mille) > state.random.below(1000);
            for _ in 0..=usize::from(doubled) {
                state.packets += 1;
                state.flying_bytes += length;
                let jitter = state.random.below(condition.jitter.as_micros() as u64 + 1);
                let takes = condition.delay + Duration::from_micros(jitter);
                let due = (Instant::now() + takes, state.packets);
                state
                    .flying
                    .insert(due, (from, to, packet[..length].to_vec()));
            }
            self.changed.notify_one();
        }
    }

    /// Gives packets to their nodes when they are due.
    fn deliver(&self) {
        let mut state = self.state();
        while !self.stopping() {
            let now = Instant::now();
            let next = state.flying.keys().next().map(|(due, _)| *due);
            if next.is_some_and(|due| due <= now) {
                let Some((_, (from, to, packet))) = state.flying.pop_first() else {
                    continue;
                };
                state.flying_bytes -= packet.len();
                if !state.condition(from, to).cut {
                    *state.carried.entry((from, to)).or_default() += packet.len() as u64;
                    drop(state);
                    // A device whose namespace is being removed takes nothing: the packet is lost, as on a real link.
                    let _ = self.tuns[to].send(&packet);
                    state = self.state();
                }
                continue;
            }
            let wait = next.map_or(STOP_WITHIN, |due| {
                due.saturating_duration_since(now).min(STOP_WITHIN)
            });
            state = match self.changed.wait_timeout(state, wait) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

impl State {
    fn condition(&self, from: usize, to: usize) -> Condition {
        self.conditions
            .get(&(from, to))
            .copied()
            .unwrap_or(Condition::GOOD)
    }
}

/// Which node an IPv4 packet is for.
fn destination(packet: &[u8]) -> Option<usize> {
    if packet.len() < 20 || packet[0] >> 4 != 4 {
        return None;
    }
    let IpAddr::V4(first) = crate::link::address(0) else {
        return None;
    };
    let [a, b, c, d] = first.octets();
    (packet[16..19] == [a, b, c])
        .then(|| usize::from(packet[19]).checked_sub(usize::from(d)))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    /// Whether a datagram gets from one node to the other.
    fn arrives(from: &Namespace, to: &Namespace, to_node: usize) -> bool {
        let here = namespace_socket(to, to_node);
        let there = namespace_socket(from, 9);
        let address = here.local_addr().unwrap();
        there.send_to(b"x", address).unwrap();
        here.set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        here.recv(&mut [0; 8]).is_ok()
    }

    fn namespace_socket(namespace: &Namespace, node: usize) -> UdpSocket {
        let address = if node == 9 {
            "0.0.0.0:0".to_owned()
        } else {
            format!("{}:0", crate::link::address(node))
        };
        crate::link::namespace::within(namespace.name(), || UdpSocket::bind(address))
            .unwrap()
            .unwrap()
    }

    #[test]
    fn a_cut_link_carries_nothing_one_way_or_both_and_heals() {
        let nodes = ["x", "y", "z"].map(|name| Namespace::create(name).unwrap());
        let switch = Switch::start(&nodes, 1).unwrap();
        let [x, y, z] = &nodes;
        assert!(arrives(x, y, 1) && arrives(y, x, 0) && arrives(x, z, 2));
        switch.set_one_way(0, 1, Condition::CUT);
        assert!(!arrives(x, y, 1));
        assert!(
            arrives(y, x, 0) && arrives(x, z, 2),
            "the other ways are not cut"
        );
        switch.set(0, 1, Condition::CUT);
        assert!(!arrives(y, x, 0));
        switch.heal();
        assert!(arrives(x, y, 1) && arrives(y, x, 0));
        switch.set_one_way(0, 1, Condition::lossy(1000));
        assert!(!arrives(x, y, 1));
        let (here, there) = (namespace_socket(y, 1), namespace_socket(x, 9));
        switch.set_one_way(0, 1, Condition::disordered(Duration::from_millis(20)));
        let (mut numbers, mut sent) = (Vec::new(), 0..200_u8);
        here.set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let address = here.local_addr().unwrap();
        for number in sent.by_ref() {
            there.send_to(&[number], address).unwrap();
        }
        let mut packet = [0];
        while here.recv(&mut packet).is_ok() {
            numbers.push(packet[0]);
        }
        assert!(numbers.len() > 220, "many come twice: {}", numbers.len());
        assert!(!numbers.is_sorted(), "some overtake others");
        switch.set_one_way(0, 1, Condition::slow(Duration::from_millis(50)));
        let before = Instant::now();
        assert!(arrives(x, y, 1) && before.elapsed() >= Duration::from_millis(50));
    }
}
