//! kvdb's atomic stand-in: the real catalog behind a service that each node reaches or not. Requests and answers take time and get
//! lost, each by itself; a request whose asker has given up may still be applied later. Committed versions reach each node in order,
//! at its own time, sometimes with versions between left out (a watch gives the newest). Its delays are worse than those of a real
//! group, which is what it is kept for.

use super::super::node::{Input, Node};
use super::super::{Event as Happening, NAMES, Simulation};
use super::{Event, Kvdb, PATIENCE, started};
use crate::group::forming::formation;
use crate::scenario::Scenario;
use crate::schedule::{MILLISECOND, SECOND};
use isthmus_catalog::{Answer, Catalog, Cause, Command, Request, RequestId};
use isthmus_engine::{Incarnation, NodeId, Proposal, VolumeId};
use std::sync::Arc;

impl Kvdb {
    /// A formed cluster with its volumes, all nodes registered once (before their first real start).
    pub(super) fn stand_in(scenario: &Scenario, nodes: &[Node; 2]) -> (Kvdb, Vec<(VolumeId, u64)>) {
        let mut kvdb = Kvdb {
            versions: vec![Arc::default()],
            requests: 0,
            forgotten: [0; 2],
            is_down: false,
            replicated: None,
        };
        let formed = formation();
        kvdb.apply(Command::Form {
            cluster_name: "simulated".to_owned(),
            cluster_id: 7,
            domains: formed.domains.into_iter().collect(),
            nodes: formed.nodes.into_iter().collect(),
        });
        for node in nodes {
            kvdb.apply(started(node.id, node.incarnation, 0, node.boot));
        }
        kvdb.apply(started(NodeId(3), Incarnation(3), 1, 1));
        let mut volumes = Vec::new();
        for (plan, number) in scenario.volumes.iter().zip(1..) {
            let bytes = plan.blocks * isthmus_engine::BLOCK_BYTES;
            let answer = kvdb.apply(Command::CreateVolume {
                name: format!("v{number}"),
                bytes: plan.bytes_made_with(),
                block_bytes: 512,
                policy: plan.policy(),
            });
            let Answer::Volume(volume) = answer else {
                unreachable!("a formed cluster makes volumes: {answer:?}");
            };
            volumes.push((volume, bytes));
        }
        (kvdb, volumes)
    }

    fn apply(&mut self, command: Command) -> Answer {
        self.requests += 1;
        let request = Request {
            id: RequestId {
                client: 1,
                number: self.requests,
            },
            cause: Cause {
                who: "simulation".to_owned(),
                why: String::new(),
                at_ms: 0,
            },
            command,
        };
        let mut catalog = Catalog::clone(self.catalog());
        let answer = catalog.apply(&request);
        if catalog.revision != self.catalog().revision {
            self.versions.push(Arc::new(catalog));
        }
        answer
    }
}

impl Simulation {
    fn reaches_kvdb(&self, node: usize) -> bool {
        self.nodes[node].reaches_kvdb && !self.kvdb.is_down
    }

    fn kvdb_delay(&mut self) -> u64 {
        match self.random.below(20) {
            0 => self.random.below(2 * SECOND),
            1..=4 => self.random.below(200 * MILLISECOND),
            _ => MILLISECOND + self.random.below(15 * MILLISECOND),
        }
    }

    pub(super) fn propose_to_stand_in(
        &mut self,
        index: usize,
        volume: VolumeId,
        proposal: Proposal,
    ) {
        let node = &self.nodes[index];
        let life = node.life;
        let Some(me) = node.host.as_ref().map(|host| host.me()) else {
            return;
        };
        self.note(NAMES[index], || {
            format!(
                "{volume}: proposes {:?} for epoch {} {:?}",
                proposal.kind, proposal.epoch, proposal.replicas
            )
        });
        self.timeline.mix(u64::from(proposal.epoch.number));
        let command = isthmus_host::command_of(volume, me, &proposal);
        let fate = self.random.below(100);
        let delay = self.kvdb_delay();
        let (from, answer) = (Some((index, life)), Some((index, life, volume)));
        if !self.reaches_kvdb(index) || fate < 2 {
            self.send_to(
                index,
                PATIENCE,
                Input::Answer {
                    volume,
                    done: false,
                },
            );
        } else if fate < 5 {
            // Arrives after its asker has given up.
            let late = PATIENCE + self.random.below(3 * SECOND);
            self.send_to(
                index,
                PATIENCE,
                Input::Answer {
                    volume,
                    done: false,
                },
            );
            self.schedule.after(
                late,
                Happening::Kvdb(Event::Apply {
                    command,
                    from,
                    answer: None,
                }),
            );
        } else if fate < 9 {
            // Applied; the answer gets lost.
            self.send_to(
                index,
                PATIENCE,
                Input::Answer {
                    volume,
                    done: false,
                },
            );
            self.schedule.after(
                delay,
                Happening::Kvdb(Event::Apply {
                    command,
                    from,
                    answer: None,
                }),
            );
        } else {
            self.schedule.after(
                delay,
                Happening::Kvdb(Event::Apply {
                    command,
                    from,
                    answer,
                }),
            );
        }
    }

    pub(super) fn confirm_at_stand_in(&mut self, index: usize) {
        let now = self.schedule.now();
        let node = &self.nodes[index];
        let (life, begun) = (node.life, node.clock.at(now));
        if self.reaches_kvdb(index) {
            let delay = self.kvdb_delay();
            self.schedule.after(
                delay,
                Happening::Kvdb(Event::Read {
                    node: index,
                    life,
                    begun,
                }),
            );
        } else {
            self.send_to(
                index,
                SECOND,
                Input::Confirmed {
                    begun,
                    catalog: None,
                },
            );
        }
    }

    /// A process tells kvdb that it has started.
    pub(super) fn register_at_stand_in(&mut self, index: usize) {
        let node = &self.nodes[index];
        let (life, command) = (
            node.life,
            started(node.id, node.incarnation, node.starts, node.boot),
        );
        if self.reaches_kvdb(index) {
            let delay = self.kvdb_delay();
            let from = Some((index, life));
            self.schedule.after(
                delay,
                Happening::Kvdb(Event::Apply {
                    command,
                    from,
                    answer: None,
                }),
            );
        }
        self.schedule.after(
            3 * SECOND,
            Happening::Kvdb(Event::Register { node: index, life }),
        );
    }

    /// The operator, or whoever leads kvdb, asks for something.
    pub(super) fn ask_stand_in(&mut self, command: Command) {
        let delay = self.kvdb_delay();
        self.schedule.after(
            delay,
            Happening::Kvdb(Event::Apply {
                command,
                from: None,
                answer: None,
            }),
        );
    }

    pub(super) fn at_stand_in(&mut self, event: Event) {
        match event {
            Event::Apply {
                command,
                from,
                answer,
            } => {
                if self.kvdb.is_down {
                    // Held by a node without a leader until its asker has given up.
                    if let Some((node, life, volume)) = answer {
                        let input = Input::Answer {
                            volume,
                            done: false,
                        };
                        self.schedule
                            .after(PATIENCE, Happening::ToNode { node, life, input });
                    }
                    return;
                }
                // Nobody takes a site away in the moment in which the other one's disk was lost.
                let unsafe_now =
                    matches!(command, Command::Deactivate { .. }) && !self.disks_are_registered();
                if from.is_none_or(|(node, life)| life > self.kvdb.forgotten[node]) && !unsafe_now {
                    self.commit(command, from, answer);
                }
            }
            Event::Read { node, life, begun } => {
                let catalog = self
                    .reaches_kvdb(node)
                    .then(|| Arc::clone(self.kvdb.catalog()));
                let delay = self.kvdb_delay();
                let input = Input::Confirmed { begun, catalog };
                self.schedule
                    .after(delay, Happening::ToNode { node, life, input });
            }
            Event::Register { node, life } => {
                if self.nodes[node].life == life && !self.nodes[node].registered {
                    self.register_at_stand_in(node);
                }
            }
            Event::Reachable(node) => {
                self.nodes[node].reaches_kvdb = true;
                self.send_versions(node);
            }
            Event::Up => {
                self.kvdb.is_down = false;
                for node in [0, 1] {
                    self.send_versions(node);
                }
            }
            Event::Group | Event::Witness(_) => {}
        }
    }

    fn commit(
        &mut self,
        command: Command,
        from: Option<(usize, u64)>,
        answer: Option<(usize, u64, VolumeId)>,
    ) {
        let before = Arc::clone(self.kvdb.catalog());
        let is_start = matches!(command, Command::NodeStartedIn { .. });
        let is_deactivation = matches!(command, Command::Deactivate { .. });
        let text = format!("{command:?}");
        let answered = self.kvdb.apply(command);
        let after = Arc::clone(self.kvdb.catalog());
        self.timeline.mix(after.revision);
        self.note("kvdb", || format!("{text} -> {answered:?}"));
        let done = !matches!(answered, Answer::Refused(_));
        if let Some(rule) = after.broken_rules().first() {
            self.fail("catalog", format!("the catalog breaks a rule: {rule}"));
        }
        if is_deactivation {
            self.checkers.deactivating(&before, &after);
        }
        self.committed(&before, &after);
        if let Some((node, life, volume)) = answer
            && self.reaches_kvdb(node)
        {
            let delay = self.kvdb_delay();
            let input = Input::Answer { volume, done };
            self.schedule
                .after(delay, Happening::ToNode { node, life, input });
        }
        if is_start
            && done
            && let Some((node, life)) = from
            && self.nodes[node].life == life
            && !self.nodes[node].registered
        {
            let newest = self.kvdb.versions.len() - 1;
            self.nodes[node].registered = true;
            self.nodes[node].next_version = newest;
            self.nodes[node].version_arrives = 0;
        }
        for node in [0, 1] {
            self.send_versions(node);
        }
    }

    /// Sends what a node has not been sent of kvdb's versions.
    fn send_versions(&mut self, index: usize) {
        if !self.reaches_kvdb(index) || !self.nodes[index].registered {
            return;
        }
        while self.nodes[index].next_version < self.kvdb.versions.len() {
            let mut version = self.nodes[index].next_version;
            if self.random.chance(1, 4) {
                version = self.kvdb.versions.len() - 1;
            }
            let delay = match self.random.below(20) {
                0 => self.random.below(3 * SECOND),
                1..=3 => self.random.below(300 * MILLISECOND),
                _ => self.random.below(10 * MILLISECOND),
            };
            let catalog = Arc::clone(&self.kvdb.versions[version]);
            let node = &mut self.nodes[index];
            node.next_version = version + 1;
            node.version_arrives = (node.version_arrives + 1).max(self.schedule.now() + delay);
            let (at, life) = (node.version_arrives, node.life);
            let input = Input::Catalog(catalog);
            self.schedule.at(
                at,
                Happening::ToNode {
                    node: index,
                    life,
                    input,
                },
            );
        }
    }
}
