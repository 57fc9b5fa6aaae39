//! Clients: each one opens its volume at some node, reads and changes it with several operations at once, leaves, comes back elsewhere.
//! What a client is not told, it does not know: an operation that failed or was never answered may have happened or not.

use super::node::Input;
use super::{Event, Simulation};
use crate::checkers::{Kind, Operation};
use crate::content::{self, SECTOR_BYTES};
use crate::scenario::Scenario;
use crate::schedule::{MILLISECOND, SECOND};
use isthmus_engine::VolumeId;
use isthmus_host::{ClientRequest, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Away,
    /// Asked to come in, with this number.
    Attaching(u64),
    Attached,
    /// The connection is being closed.
    Leaving,
}

#[derive(Debug)]
struct Client {
    volume: VolumeId,
    sectors: u64,
    node: usize,
    life: u64,
    place: Place,
    outstanding: BTreeSet<u64>,
    depth: u64,
    /// Operations until it leaves.
    stays: u64,
    /// Visits of all kinds: an event of an earlier one is void.
    looks: bool,
}

/// All clients.
#[derive(Debug)]
pub(super) struct Clients {
    clients: Vec<Client>,
    /// Who waits for an answer, by the request's number.
    waiting: BTreeMap<u64, usize>,
    numbers: u64,
    issued: u64,
    /// They finish what they do and leave.
    pub go_home: bool,
}

impl Clients {
    pub fn new(scenario: &Scenario, volumes: &[(VolumeId, u64)]) -> Clients {
        let mut clients = Vec::new();
        for (plan, (volume, bytes)) in scenario.volumes.iter().zip(volumes) {
            for _ in 0..plan.clients {
                clients.push(Client {
                    volume: *volume,
                    sectors: bytes / SECTOR_BYTES,
                    node: 0,
                    life: 0,
                    place: Place::Away,
                    outstanding: BTreeSet::new(),
                    depth: 1,
                    stays: 0,
                    looks: false,
                });
            }
        }
        Clients {
            clients,
            waiting: BTreeMap::new(),
            numbers: 0,
            issued: 0,
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
            self.look_later(index, 200 * MILLISECOND);
        }
    }

    fn look_later(&mut self, index: usize, within: u64) {
        if !std::mem::replace(&mut self.clients.clients[index].looks, true) {
            self.schedule
                .after(self.random.below(within) + 1, Event::Client(index));
        }
    }

    pub(super) fn client_looks(&mut self, index: usize) {
        let think = self.scenario.think;
        self.clients.clients[index].looks = false;
        match self.clients.clients[index].place {
            Place::Away => self.come(index),
            Place::Attaching(_) | Place::Leaving => {}
            Place::Attached => {
                let client = &self.clients.clients[index];
                let finished = client.stays == 0 || self.clients.go_home;
                // Mostly it waits for its answers first; sometimes the connection just breaks.
                if finished && (client.outstanding.is_empty() || self.random.chance(1, 50)) {
                    self.leave(index);
                    return;
                }
                if !finished {
                    let more = client.depth.saturating_sub(client.outstanding.len() as u64);
                    for _ in 0..more {
                        if self.random.chance(2, 3) {
                            self.issue(index);
                        }
                    }
                }
                self.look_later(index, 2 * think);
            }
        }
    }

    fn come(&mut self, index: usize) {
        if self.clients.go_home {
            return;
        }
        let elsewhere = self.random.chance(1, 3);
        let (depth, stays) = (1 + self.random.below(8), 1 + self.random.below(120));
        let number = self.clients.number();
        let client = &mut self.clients.clients[index];
        if elsewhere {
            client.node = 1 - client.node;
        }
        let node = client.node;
        client.life = self.nodes[node].life;
        if self.nodes[node].host.is_none() {
            self.look_later(index, 2 * SECOND);
            return;
        }
        client.place = Place::Attaching(number);
        client.depth = depth;
        client.stays = stays;
        let volume = client.volume;
        self.clients.waiting.insert(number, index);
        self.send_to(node, 0, Input::Attach { volume, number });
    }

    fn leave(&mut self, index: usize) {
        let client = &mut self.clients.clients[index];
        client.place = Place::Leaving;
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
        self.look_later(index, SECOND);
    }

    fn issue(&mut self, index: usize) {
        if self.clients.issued >= self.scenario.operations_max {
            return;
        }
        self.clients.issued += 1;
        let number = self.clients.number();
        let client = &mut self.clients.clients[index];
        client.stays = client.stays.saturating_sub(1);
        client.outstanding.insert(number);
        let (node, life, volume, sectors) =
            (client.node, client.life, client.volume, client.sectors);
        self.clients.waiting.insert(number, index);
        let (kind, first, count) = self.choose(sectors);
        self.submit(node, life, volume, (number, kind, first, count));
    }

    fn choose(&mut self, sectors: u64) -> (Kind, u64, u64) {
        let kind = if self.random.chance(self.scenario.reads_percent, 100) {
            Kind::Read
        } else {
            match self.random.below(20) {
                0 => Kind::Zero,
                1 => Kind::Trim,
                2 => Kind::Flush,
                _ => Kind::Write,
            }
        };
        let mut count = 1 + self
            .random
            .below(self.scenario.write_sectors_max.min(sectors));
        let mut first = self.random.below(sectors);
        if self.random.chance(1, 2) {
            // Whole blocks.
            first -= first % 8;
            count = count.next_multiple_of(8);
        } else if self.random.chance(1, 2) {
            count = count.min(1 + self.random.below(8));
        }
        (kind, first, count.min(sectors - first))
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
        self.note(|| {
            format!(
                "client: {kind:?} {number} of {volume}, sectors {first}..{} at n{}",
                first + count,
                node + 1
            )
        });
        self.checkers
            .begins(Operation::new(number, volume, kind, first, count));
        let input = Input::Submit {
            volume,
            number,
            request,
        };
        self.schedule.after(0, Event::ToNode { node, life, input });
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
                    self.note(|| format!("client {index}: attached to {volume} at n{}", node + 1));
                    self.look_later(index, MILLISECOND);
                }
                Outcome::Failed(why) => {
                    client.place = Place::Away;
                    self.note(|| format!("client {index}: refused at n{}: {why}", node + 1));
                    self.look_later(index, SECOND);
                }
                other => self.fail(format!("an attach was answered with {other:?}")),
            }
            return;
        }
        client.outstanding.remove(&number);
        self.operation_ends(node, volume, number, outcome);
        if self.clients.clients[index].place == Place::Attached {
            self.look_later(index, self.scenario.think);
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
        let epoch = self.nodes[node]
            .host
            .as_ref()
            .and_then(|host| host.mirrors().get(&volume))
            .map(|mirror| mirror.engine().configuration().epoch)
            .unwrap_or_default();
        self.note(|| match &outcome {
            Outcome::Failed(why) => format!("client: {number} of {volume} failed at {id}: {why}"),
            _ => format!("client: {number} of {volume} done at {id} under epoch {epoch}"),
        });
        let checked = match outcome {
            Outcome::Done => self.checkers.done(id, epoch, number, &[]),
            Outcome::Data(parts) => self.checkers.done(id, epoch, number, &parts.concat()),
            Outcome::Failed(isthmus_host::ClientError::Unreadable(why)) => {
                Err(format!("{id} {volume}: {why}"))
            }
            Outcome::Failed(_) => {
                self.checkers.failed(number);
                Ok(())
            }
            other => Err(format!("operation {number} was answered with {other:?}")),
        };
        if let Err(what) = checked {
            self.fail(what);
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
