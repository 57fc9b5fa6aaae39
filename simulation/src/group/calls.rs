//! Questions of one member to another, their answers, and the sessions that both believe to have.

use super::process::{CallAnswer, Service};
use super::{Call, Event, Group, Inbound, MEMBERS, SESSIONS_LOOK};
use crate::schedule::{MILLISECOND, SECOND};
use bytes::Bytes;
use isthmus_engine::NodeId;
use std::io;
use std::time::Duration;

impl Group {
    /// A session is up where both ways are whole, and is given up after a time of silence.
    pub(super) fn look_at_sessions(&mut self) {
        self.schedule.after(SESSIONS_LOOK, Event::Sessions);
        let now = self.now();
        for from in 0..MEMBERS {
            for to in (0..MEMBERS).filter(|to| *to != from) {
                let is_whole = !self.wires.is_cut(from, to) && !self.wires.is_cut(to, from);
                if is_whole && self.answers(from) && self.answers(to) {
                    self.silent_since[from][to] = now;
                }
                let is_reached = now - self.silent_since[from][to] < self.plan.session_timeout;
                if let Some(process) = &self.members[from].process {
                    process.set_reached(to, is_reached);
                }
            }
        }
    }

    pub(super) fn send_request(
        &mut self,
        from: usize,
        to: NodeId,
        (service, request): (Service, Bytes),
        within: Duration,
        answer: CallAnswer,
    ) {
        let to = to.0 as usize - 1;
        self.calls_made += 1;
        let call = self.calls_made;
        let life = self.members[from].life;
        self.calls.insert(
            call,
            Call {
                from,
                life,
                to,
                request: request.clone(),
                answer: Some(answer),
            },
        );
        // Whoever asks waits no longer than this, whatever becomes of the rest; nor do we remember the call.
        let within = u64::try_from(within.as_nanos())
            .unwrap_or(u64::MAX)
            .min(60 * SECOND);
        let late = Inbound::Answer {
            call,
            result: Err(io::ErrorKind::TimedOut.into()),
        };
        self.deliver(from, life, within * 101 / 100 + MILLISECOND, late);
        let delay = self.wires.delay(from, to, &mut self.random);
        let target = &self.members[to];
        match delay {
            Some(delay) if target.process.is_some() => {
                let inbound = Inbound::Request {
                    call,
                    from,
                    service,
                    request,
                };
                self.deliver(to, target.life, delay, inbound);
            }
            // No session: an error soon, or silence until the asker gives up.
            _ if self.random.chance(1, 2) => {
                let delay = self.random.below(2 * MILLISECOND);
                let result = Err(io::ErrorKind::NotConnected.into());
                self.deliver(from, life, delay, Inbound::Answer { call, result });
            }
            _ => {}
        }
    }

    pub(super) fn answer(&mut self, by: usize, call: u64, result: io::Result<Bytes>) {
        let Some((from, life)) = self.calls.get(&call).map(|call| (call.from, call.life)) else {
            return;
        };
        if let Some(delay) = self.wires.delay(by, from, &mut self.random) {
            self.deliver(from, life, delay, Inbound::Answer { call, result });
        }
    }

    fn deliver(&mut self, to: usize, life: u64, delay: u64, inbound: Inbound) {
        self.schedule
            .after(delay, Event::Deliver { to, life, inbound });
    }
}
