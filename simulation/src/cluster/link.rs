//! The link between the two sites: sessions that each side hears of at its own time, lanes in order, cuts in one or both directions.
//!
//! As with the real transport: frames of a lane arrive in order or not at all, frames of an old session never arrive once the receiver
//! has heard of a newer one, and a cut that ends before the session's time-out only delays (what was sent is sent again).

use super::node::Input;
use super::{Event, Simulation};
use crate::schedule::{MICROSECOND, MILLISECOND, SECOND};
use bytes::Bytes;
use isthmus_engine::VolumeId;
use isthmus_host::Lane;
use std::collections::{BTreeMap, BTreeSet};

const LOOK: u64 = 50 * MILLISECOND;

/// A cut of the link: from node 0 to 1, from 1 to 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut(pub [bool; 2]);

#[derive(Debug)]
struct Session {
    number: u64,
    lives: [u64; 2],
    /// Both sides hear, or have heard, that it is gone.
    doomed: bool,
    /// When a lane's last frame arrives, by sender.
    lanes: BTreeMap<(usize, VolumeId, Lane), u64>,
    /// Frames that a cut holds up, by sender.
    held: [Vec<(VolumeId, Lane, Bytes)>; 2],
    /// Since when something has been wrong with it.
    silent_since: Option<u64>,
}

/// The link.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// How many cuts there are in each direction.
    cuts: [u64; 2],
    /// What everything takes longer, in nanoseconds.
    pub slower_by: u64,
    session: Option<Session>,
    sessions: u64,
    /// Senders whose frames in flight are lost with the session.
    lost: BTreeSet<(u64, usize)>,
}

impl Link {
    /// Whether what this node sends does not arrive.
    pub fn is_cut_from(&self, from: usize) -> bool {
        self.cuts[from] > 0
    }

    /// Whether the frames of this sender that are still on their way are lost with their session.
    pub fn is_lost(&self, session: u64, from: usize) -> bool {
        self.lost.contains(&(session, from))
    }
}

impl Simulation {
    /// Cuts the link for `duration`.
    pub(super) fn cut(&mut self, cut: Cut, duration: u64) {
        for (cuts, more) in self.link.cuts.iter_mut().zip(cut.0) {
            *cuts += u64::from(more);
        }
        self.schedule.after(duration, Event::Heal(cut));
    }

    pub(super) fn heal(&mut self, cut: Cut) {
        for (cuts, less) in self.link.cuts.iter_mut().zip(cut.0) {
            *cuts = cuts.saturating_sub(u64::from(less));
        }
        for from in [0, 1] {
            self.send_held(from);
        }
    }

    pub(super) fn heal_all(&mut self) {
        self.link.cuts = [0, 0];
        self.link.slower_by = 0;
        for from in [0, 1] {
            self.send_held(from);
        }
    }

    fn send_held(&mut self, from: usize) {
        if self.link.cuts[from] > 0 {
            return;
        }
        let Some(session) = self.link.session.as_mut().filter(|session| !session.doomed) else {
            return;
        };
        let number = session.number;
        for (volume, lane, bytes) in std::mem::take(&mut session.held[from]) {
            self.put_on_the_wire(from, number, volume, lane, bytes);
        }
    }

    pub(super) fn send_frame(&mut self, from: usize, volume: VolumeId, lane: Lane, bytes: Bytes) {
        let Some(number) = self.nodes[from].session else {
            return;
        };
        let is_cut = self.link.cuts[from] > 0;
        match &mut self.link.session {
            Some(session) if session.number == number && !session.doomed => {
                if is_cut {
                    session.held[from].push((volume, lane, bytes));
                } else {
                    self.put_on_the_wire(from, number, volume, lane, bytes);
                }
            }
            // Into a session that is gone, which this side has not heard yet.
            _ => {}
        }
    }

    fn put_on_the_wire(
        &mut self,
        from: usize,
        number: u64,
        volume: VolumeId,
        lane: Lane,
        bytes: Bytes,
    ) {
        let now = self.schedule.now();
        let world = &self.scenario.world;
        let mut delay = world.link_delay_us * MICROSECOND
            + self.random.below(world.link_jitter_us * MICROSECOND + 1)
            + self.link.slower_by;
        if self.random.chance(1, 200) {
            delay += self.random.below(SECOND / 5);
        }
        let Some(session) = &mut self.link.session else {
            return;
        };
        let last = session.lanes.entry((from, volume, lane)).or_default();
        *last = (*last + 1).max(now + delay);
        let at = *last;
        let to = 1 - from;
        let life = session.lives[to];
        let input = Input::Frame {
            session: number,
            volume,
            lane,
            bytes,
        };
        self.schedule.at(
            at,
            Event::ToNode {
                node: to,
                life,
                input,
            },
        );
    }

    fn forget_lost(&mut self) {
        let oldest = self.link.sessions.saturating_sub(4);
        self.link.lost.retain(|(number, _)| *number >= oldest);
    }

    pub(super) fn look_at_link(&mut self) {
        self.schedule.after(LOOK, Event::Link);
        let now = self.schedule.now();
        let usable = self.link.cuts == [0, 0] && self.nodes.iter().all(|node| node.answers());
        let lives = [self.nodes[0].life, self.nodes[1].life];
        let timeout = self.scenario.world.session_timeout_ms * MILLISECOND;
        let mut doom = false;
        if let Some(session) = self.link.session.as_mut().filter(|session| !session.doomed) {
            if usable && session.lives == lives {
                session.silent_since = None;
            } else {
                let since = *session.silent_since.get_or_insert(now);
                doom = now - since >= timeout;
            }
        }
        if doom {
            self.doom();
        }
        let free = self
            .link
            .session
            .as_ref()
            .is_none_or(|session| session.doomed || session.lives != lives);
        if usable && free && self.random.chance(1, 4) {
            self.forget_lost();
            self.link.sessions += 1;
            let number = self.link.sessions;
            self.link.session = Some(Session {
                number,
                lives,
                doomed: false,
                lanes: BTreeMap::new(),
                held: [Vec::new(), Vec::new()],
                silent_since: None,
            });
            for side in [0, 1] {
                let slow = self.random.chance(1, 4);
                let delay = self.random.below(if slow { 300 } else { 5 } * MILLISECOND);
                self.send_to(side, delay, Input::SessionUp(number));
            }
        }
    }

    /// The session is gone: each side hears so at its own time.
    pub(super) fn doom(&mut self) {
        let Some(session) = self.link.session.as_mut().filter(|session| !session.doomed) else {
            return;
        };
        session.doomed = true;
        session.held = [Vec::new(), Vec::new()];
        let (number, lives) = (session.number, session.lives);
        for (side, life) in lives.into_iter().enumerate() {
            if self.random.chance(1, 2) {
                self.link.lost.insert((number, side));
            }
            let delay = self
                .random
                .below(self.scenario.world.session_timeout_ms * MILLISECOND);
            let input = Input::SessionDown(number);
            self.schedule.after(
                delay,
                Event::ToNode {
                    node: side,
                    life,
                    input,
                },
            );
        }
    }

    /// The node's process is gone: its peer hears so at once, or only by silence.
    pub(super) fn node_died(&mut self, index: usize) {
        self.note(super::NAMES[index], || "is gone".into());
        self.clients_lose_node(index);
        if self.random.chance(1, 2) {
            self.doom();
        }
    }
}
