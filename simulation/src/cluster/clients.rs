//! Clients: each one opens its volume at some node, reads and changes it with several operations at once, leaves, comes back elsewhere,
//! as its plan says. One that loses its connection comes back for the rest of its visit.
//! What a client is not told, it does not know: an operation that failed or was never answered may have happened or not.

use super::node::Input;
use super::{Event, Simulation};
use crate::checkers::{Kind, Operation};
use crate::content::{self, SECTOR_BYTES};
use crate::scenario::{PlannedOperation, Scenario};
use crate::schedule::{MICROSECOND, MILLISECOND, SECOND};
use isthmus_catalog::Durability;
use isthmus_engine::VolumeId;
use isthmus_host::{ClientError, ClientRequest, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// After so many refusals at a node, a client tries the other one.
const REFUSALS: u64 = 2;

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Away,
    /// Asked to come in, with this number.
    Attaching(u64),
    Attached,
}

#[derive(Debug)]
struct Client {
    volume: VolumeId,
    place: Place,
    node: usize,
    /// The node's process that it is connected to.
    life: u64,
    /// The index of its visit, and of the next operation in it.
    visit: usize,
    next: usize,
    /// When that operation may begin.
    next_at: u64,
    refusals: u64,
    outstanding: BTreeSet<u64>,
    /// The next time that it looks at what to do; an earlier plan is void.
    looks_at: u64,
}

/// All clients.
#[derive(Debug)]
pub(super) struct Clients {
    clients: Vec<Client>,
    /// Who waits for an answer, by the request's number.
    waiting: BTreeMap<u64, usize>,
    numbers: u64,
    /// They finish what they do and leave.
    pub go_home: bool,
}

impl Clients {
    pub fn new(scenario: &Scenario, volumes: &[(VolumeId, u64)]) -> Clients {
        let client = |volume: VolumeId| Client {
            volume,
            place: Place::Away,
            node: 0,
            life: 0,
            visit: 0,
            next: 0,
            next_at: 0,
            refusals: 0,
            outstanding: BTreeSet::new(),
            looks_at: u64::MAX,
        };
        let clients = scenario
            .clients
            .iter()
            .map(|plan| client(volumes[plan.volume].0))
            .collect();
        Clients {
            clients,
            waiting: BTreeMap::new(),
            numbers: 0,
            go_home: false,
        }
    }

    pub fn all_are_home(&self) -> bool {
        self.clients
            .iter()
            .all(|client| client.place == Place::Away)
    }

    /// A number for a request that is not of these clients.
    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

impl Simulation {
    pub(super) fn begin_clients(&mut self) {
        for index in 0..self.clients.clients.len() {
            let after = self.visit_of(index).map_or(0, |visit| visit.after_us);
            self.look_after(index, after * MICROSECOND + 1);
        }
    }

    fn visit_of(&self, index: usize) -> Option<&crate::scenario::Visit> {
        let client = &self.clients.clients[index];
        self.scenario.clients[index].visits.get(client.visit)
    }

    fn look_after(&mut self, index: usize, delay: u64) {
        let at = self.schedule.now() + delay;
        let client = &mut self.clients.clients[index];
        if client.looks_at > at {
            client.looks_at = at;
            self.schedule.at(at, Event::Client(index));
        }
    }

    pub(super) fn client_looks(&mut self, index: usize) {
        let now = self.schedule.now();
        let client = &mut self.clients.clients[index];
        if client.looks_at != now {
            return;
        }
        client.looks_at = u64::MAX;
        match client.place {
            Place::Away => self.come(index),
            Place::Attaching(_) => {}
            Place::Attached => self.go_on(index),
        }
    }

    /// Begins what is due of the visit, or ends it.
    fn go_on(&mut self, index: usize) {
        let now = self.schedule.now();
        loop {
            let Some(visit) = self.visit_of(index) else {
                return;
            };
            let client = &self.clients.clients[index];
            let (under_way, depth) = (client.outstanding.len(), visit.depth);
            let all_begun = client.next >= visit.operations.len();
            if all_begun || self.clients.go_home {
                if under_way == 0 || (all_begun && visit.rude) {
                    self.leave(index);
                    if all_begun {
                        self.end_visit(index);
                    }
                }
                return;
            }
            if under_way >= depth {
                return;
            }
            if client.next_at > now {
                let delay = client.next_at - now;
                self.look_after(index, delay);
                return;
            }
            let operation = visit.operations[client.next];
            let following = visit.operations.get(client.next + 1);
            let pause = following.map_or(0, |operation| operation.after_us) * MICROSECOND;
            let client = &mut self.clients.clients[index];
            client.next += 1;
            client.next_at = now + pause;
            self.issue(index, operation);
        }
    }

    fn end_visit(&mut self, index: usize) {
        let client = &mut self.clients.clients[index];
        client.visit += 1;
        client.next = 0;
        client.refusals = 0;
        let after = self.visit_of(index).map(|visit| visit.after_us);
        if let Some(after) = after {
            self.clients.clients[index].looks_at = u64::MAX;
            self.look_after(index, after * MICROSECOND + 1);
        }
    }

    fn come(&mut self, index: usize) {
        if self.clients.go_home {
            return;
        }
        let Some(visit) = self.visit_of(index) else {
            return;
        };
        let planned = visit.node;
        let first = visit.operations.get(self.clients.clients[index].next);
        let pause = first.map_or(0, |operation| operation.after_us) * MICROSECOND;
        let now = self.schedule.now();
        let elsewhere = self.clients.clients[index].refusals / REFUSALS % 2 == 1;
        let node = if elsewhere { 1 - planned } else { planned };
        if self.nodes[node].host.is_none() {
            self.clients.clients[index].refusals += 1;
            self.come_back_later(index);
            return;
        }
        let number = self.clients.number();
        let client = &mut self.clients.clients[index];
        client.node = node;
        client.life = self.nodes[node].life;
        client.next_at = now + pause;
        client.place = Place::Attaching(number);
        let volume = client.volume;
        self.clients.waiting.insert(number, index);
        self.send_to(node, 0, Input::Attach { volume, number });
    }

    fn come_back_later(&mut self, index: usize) {
        let delay = self.random.below(SECOND) + MILLISECOND;
        self.look_after(index, delay);
    }

    fn leave(&mut self, index: usize) {
        let client = &mut self.clients.clients[index];
        let (node, life, volume) = (client.node, client.life, client.volume);
        let delay = self.random.below(20 * MILLISECOND);
        let input = Input::Detach(volume);
        self.schedule
            .after(delay, Event::ToNode { node, life, input });
        self.gone(index);
    }

    /// The client is nowhere any more; its requests may still be answered, or not.
    fn gone(&mut self, index: usize) {
        let client = &mut self.clients.clients[index];
        client.place = Place::Away;
        client.outstanding.clear();
        self.come_back_later(index);
    }

    fn issue(&mut self, index: usize, operation: PlannedOperation) {
        let number = self.clients.number();
        let client = &mut self.clients.clients[index];
        client.outstanding.insert(number);
        let (node, life, volume) = (client.node, client.life, client.volume);
        self.clients.waiting.insert(number, index);
        let PlannedOperation {
            kind, first, count, ..
        } = operation;
        self.submit(node, life, volume, (number, kind, first, count));
    }

    /// Asks a node for something on behalf of a client, and lets the checkers know.
    pub(super) fn submit(
        &mut self,
        node: usize,
        life: u64,
        volume: VolumeId,
        what: (u64, Kind, u64, u64),
    ) {
        let (number, kind, first, count) = what;
        let (offset, length) = (first * SECTOR_BYTES, count * SECTOR_BYTES);
        let request = match kind {
            Kind::Read => ClientRequest::Read { offset, length },
            Kind::Write => ClientRequest::Write {
                offset,
                data: content::written(number, volume, first, count),
            },
            Kind::Zero => ClientRequest::Zero { offset, length },
            Kind::Trim => ClientRequest::Trim { offset, length },
            Kind::Flush => ClientRequest::Flush,
        };
        self.summary.operations += 1;
        self.note("client", || {
            format!(
                "{kind:?} {number} of {volume}, sectors {first}..{} at n{}",
                first + count,
                node + 1
            )
        });
        // Some writes are to be durable themselves, where that makes a difference.
        let answers_held = self.answers_held(volume);
        let durably = answers_held && kind == Kind::Write && number.is_multiple_of(8);
        let request = match durably {
            true => ClientRequest::Durably(Box::new(request)),
            false => request,
        };
        let mut operation = Operation::new(number, volume, kind, first, count);
        operation.durably = durably;
        self.checkers.begins(operation);
        let input = Input::Submit {
            volume,
            number,
            request,
        };
        self.schedule.after(0, Event::ToNode { node, life, input });
    }

    fn answers_held(&self, volume: VolumeId) -> bool {
        let record = self.kvdb.catalog().volumes.get(&volume);
        record.is_some_and(|record| record.policy.durability == Durability::Flush)
    }

    pub(super) fn client_hears(&mut self, node: usize, number: u64, outcome: Outcome) {
        let Some(index) = self.clients.waiting.remove(&number) else {
            self.settling_hears(node, number, outcome);
            return;
        };
        let client = &mut self.clients.clients[index];
        let volume = client.volume;
        if client.place == Place::Attaching(number) {
            match outcome {
                Outcome::Attached => {
                    client.place = Place::Attached;
                    self.note("client", || {
                        format!("{index} has opened {volume} at n{}", node + 1)
                    });
                    self.look_after(index, MICROSECOND);
                }
                Outcome::Failed(why) => {
                    client.place = Place::Away;
                    client.refusals += 1;
                    self.note("client", || {
                        format!("{index} is refused at n{}: {why}", node + 1)
                    });
                    self.come_back_later(index);
                }
                other => self.fail("answers", format!("an attach was answered with {other:?}")),
            }
            return;
        }
        client.outstanding.remove(&number);
        self.operation_ends(node, volume, number, outcome);
        if self.clients.clients[index].place == Place::Attached {
            self.look_after(index, MICROSECOND);
        }
    }

    /// The answer to an operation, for the checkers.
    pub(super) fn operation_ends(
        &mut self,
        node: usize,
        volume: VolumeId,
        number: u64,
        outcome: Outcome,
    ) {
        let id = self.nodes[node].id;
        let engine = self.nodes[node]
            .host
            .as_ref()
            .and_then(|host| host.mirrors().get(&volume))
            .map(|mirror| mirror.engine());
        let epoch = engine.map(|engine| engine.configuration().epoch);
        let epoch = epoch.unwrap_or_default();
        let committed = engine.map(|engine| engine.log().committed());
        let committed = committed.unwrap_or_default();
        self.note("client", || match &outcome {
            Outcome::Failed(why) => format!("{number} of {volume} failed at {id}: {why}"),
            _ => format!("{number} of {volume} done at {id} under epoch {epoch}"),
        });
        let answered_well = !matches!(outcome, Outcome::Failed(_));
        let checked = match outcome {
            Outcome::Done => self.checkers.done(id, epoch, number, &[]),
            Outcome::Data(parts) => self.checkers.done(id, epoch, number, &parts),
            Outcome::Failed(ClientError::Unreadable(why))
                if !self.checkers.may_be_unreadable(volume) =>
            {
                Err(("unreadable", format!("{id} {volume}: {why}")))
            }
            Outcome::Failed(_) => {
                self.checkers.failed(number);
                Ok(())
            }
            other => Err((
                "answers",
                format!("operation {number} was answered with {other:?}"),
            )),
        };
        let checked = checked.and_then(|()| match answered_well {
            true => self.checkers.answers(id, volume, committed),
            false => Ok(()),
        });
        if let Err((rule, what)) = checked {
            self.fail(rule, what);
        }
    }

    /// A volume stopped being served at a node: its connections are closed.
    pub(super) fn demoted(&mut self, node: usize, volume: VolumeId) {
        for index in 0..self.clients.clients.len() {
            let client = &self.clients.clients[index];
            if client.volume == volume && client.node == node && client.place == Place::Attached {
                self.leave(index);
            }
        }
        self.settling_demoted(node, volume);
    }

    /// A node's process is gone, with all connections.
    pub(super) fn clients_lose_node(&mut self, node: usize) {
        for index in 0..self.clients.clients.len() {
            let client = &self.clients.clients[index];
            if client.node == node && client.place != Place::Away {
                if let Place::Attaching(number) = client.place {
                    self.clients.waiting.remove(&number);
                }
                self.gone(index);
            }
        }
        self.settling_lost(node);
    }
}
