//! Serving clients: I1, I9 and I11.
//!
//! A write is acknowledged when every counted member holds it durably (or, where the volume's policy says that this is enough, when
//! every counted member's kernel has it: `flushing`), under an epoch that is durable itself. A read is fetched and
//! answered only while the right to serve holds, checked again after the fetch; it sees committed entries only, because only those
//! reach the extents. What waits, waits in here, and is failed when the replica steps down.

use super::{Member, Phase, Primary, ReadState, Replica, Role, Stage};
use crate::blocks::BlockRange;
use crate::effect::{ClientOp, Effect, Effects, NotServed, ProposalKind};
use crate::ids::{NodeId, Position, Seq};
use crate::log::{Entry, RecordKind};
use crate::message::Message;
use crate::time::Time;
use isthmus_mutation::Mutation;
use std::collections::BTreeSet;

impl Replica {
    /// Whether the next write can be ordered here.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if primary.phase == Phase::Serving)
    }

    /// A client writes. On success its seq is told, *before* any effect is carried out: the host puts the bytes there.
    ///
    /// # Errors
    /// When this replica doesn't serve; nothing has changed then.
    pub fn on_write(
        &mut self,
        now: Time,
        op: ClientOp,
        kind: RecordKind,
        range: BlockRange,
        effects: &mut Effects,
    ) -> Result<Seq, NotServed> {
        if !self.is_serving() {
            return Err(NotServed::NotPrimary);
        }
        assert!(range.count > 0, "a record is about at least one block");
        let (epoch, committed) = (self.configuration.epoch, self.log.committed());
        let entry = Entry {
            position: Position {
                epoch,
                seq: self.log.end().next(),
            },
            kind,
            range,
        };
        let token = self.token();
        self.log.append(entry, token);
        let Some(primary) = self.primary_mut() else {
            unreachable!("is_serving")
        };
        primary.pending.push_back((entry.position.seq, op, now));
        let followers: Vec<NodeId> = primary
            .members
            .iter()
            .filter(|(_, member)| member.stage == Stage::Aligned)
            .map(|(node, _)| *node)
            .collect();
        // First to the wire, then to the disk: both then work at the same time.
        for node in followers {
            self.send(
                node,
                Message::Append {
                    epoch,
                    entry,
                    committed,
                },
                Some(self.adopted),
                effects,
            );
        }
        effects.push(Effect::Append { token, entry });
        if !self.held_is_enough() {
            self.make_durable(now, entry.position.seq, effects);
        }
        Ok(entry.position.seq)
    }

    /// A client flushes: what was answered has to be committed. Where it is, this only needs the right to say so.
    ///
    /// # Errors
    /// When this replica doesn't serve.
    pub fn on_flush(
        &mut self,
        now: Time,
        op: ClientOp,
        effects: &mut Effects,
    ) -> Result<(), NotServed> {
        if !self.is_serving() {
            return Err(NotServed::NotPrimary);
        }
        let Some(primary) = self.primary_mut() else {
            unreachable!("is_serving")
        };
        let through = primary.answered;
        primary.flushes.push((op, through));
        if Mutation::FlushWithoutPeers.is_on() {
            // The members are asked at the next tick, as without a flush.
            effects.push(Effect::Sync);
        } else {
            self.make_durable(now, through, effects);
        }
        self.serve(now, effects);
        Ok(())
    }

    /// A client reads.
    ///
    /// # Errors
    /// When this replica doesn't serve.
    pub fn on_read(
        &mut self,
        now: Time,
        op: ClientOp,
        effects: &mut Effects,
    ) -> Result<(), NotServed> {
        if !self.is_serving() {
            return Err(NotServed::NotPrimary);
        }
        let Role::Primary(primary) = &self.role else {
            unreachable!("is_serving")
        };
        let state = if self.may_serve(now, primary) {
            effects.push(Effect::Fetch { op });
            ReadState::Fetching
        } else {
            ReadState::Waiting
        };
        if let Some(primary) = self.primary_mut() {
            primary.reads.insert(op, state);
        }
        Ok(())
    }

    /// The data of a read was fetched; the right to serve is checked again now, after the fetch. Unknown reads were failed.
    pub fn on_fetched(&mut self, now: Time, op: ClientOp, effects: &mut Effects) {
        let Role::Primary(primary) = &self.role else {
            return;
        };
        let may_read = self.may_serve(now, primary) || Mutation::DeliverWithoutRight.is_on();
        let Some(primary) = self.primary_mut() else {
            return;
        };
        let Some(state) = primary.reads.get_mut(&op) else {
            return;
        };
        assert_eq!(*state, ReadState::Fetching, "a read is fetched once");
        if may_read {
            primary.reads.remove(&op);
            effects.push(Effect::Deliver { op });
        } else {
            *state = ReadState::Fetched;
        }
    }

    /// A member's kernel has everything up to the first position, its journal holds everything up to the second durably.
    pub(super) fn on_member_holds(
        &mut self,
        now: Time,
        from: NodeId,
        epoch: crate::ids::Epoch,
        (held, durable): (Seq, Seq),
        effects: &mut Effects,
    ) {
        let (current, end) = (self.configuration.epoch, self.log.end());
        let Some(primary) = self.primary_mut() else {
            return;
        };
        if epoch != current || held.max(durable) > end {
            return;
        }
        let Some(member) = primary.members.get_mut(&from) else {
            return;
        };
        if member.stage != Stage::Aligned {
            return;
        }
        member.durable = member.durable.max(durable);
        member.held = member.held.max(held);
        member.heard = now;
        self.step(now, effects);
    }

    /// Whatever may be committed, acknowledged, fetched or delivered now, is.
    pub(super) fn serve(&mut self, now: Time, effects: &mut Effects) {
        let Role::Primary(primary) = &self.role else {
            return;
        };
        if self.may_serve(now, primary) {
            let counted = || {
                primary
                    .members
                    .values()
                    .filter(|member| self.waits_for(member))
            };
            let durable = counted().map(|member| member.durable).min();
            let held = counted().map(|member| member.held).min();
            let mut committed = self.log.durable().min(durable.unwrap_or(Seq(u64::MAX)));
            if Mutation::AcknowledgeBeforePeers.is_on() {
                committed = self.log.durable();
            }
            let answered = match self.held_is_enough() {
                true => self
                    .log
                    .held()
                    .min(held.unwrap_or(Seq(u64::MAX)))
                    .max(committed),
                false => committed,
            };
            self.commit(now, committed, answered, effects);
        }
        self.answer_reads(now, effects);
        let Role::Primary(primary) = &self.role else {
            return;
        };
        if self.wanted || !primary.pending.is_empty() || !primary.reads.is_empty() {
            return;
        }
        if primary.flushes.is_empty() && self.log.end() == self.log.committed() {
            self.give_back(now, effects);
        } else {
            // The last client is gone: nothing is left that only kernels have.
            self.make_durable(now, self.log.end(), effects);
        }
    }

    /// Whether acknowledgements and the right to serve wait for this member.
    pub(super) fn waits_for(&self, member: &Member) -> bool {
        let is_asked_out = matches!(self.asked, Some((ProposalKind::Shrink, _)));
        if Mutation::AcknowledgeDuringShrink.is_on() && is_asked_out && member.lost.is_some() {
            return false;
        }
        if Mutation::AcknowledgeWithoutSlowMembers.is_on()
            && self.slow.contains(&member.replica.node)
        {
            return false;
        }
        member.counts()
    }

    fn commit(&mut self, now: Time, committed: Seq, answered: Seq, effects: &mut Effects) {
        let acknowledged = committed;
        let committed = if Mutation::ReadUncommitted.is_on() {
            self.log.durable()
        } else {
            committed
        };
        if committed > self.log.committed() && self.log.commit(committed) > 0 {
            effects.push(Effect::Apply { through: committed });
        }
        let committed = self.log.committed().min(acknowledged);
        let synced = match Mutation::FlushWithoutPeers.is_on() {
            true => self.log.durable(),
            false => committed,
        };
        let Some(primary) = self.primary_mut() else {
            return;
        };
        let answered = primary.answered.max(answered.max(committed));
        if answered > primary.answered {
            primary.answered = answered;
            if answered > committed {
                effects.push(Effect::Show { through: answered });
            }
        }
        while let Some((seq, op, _)) = primary.pending.front().copied() {
            if seq > answered {
                break;
            }
            primary.pending.pop_front();
            effects.push(Effect::Acknowledge { op });
        }
        primary.flushes.retain(|(op, through)| {
            if *through <= synced {
                effects.push(Effect::Acknowledge { op: *op });
            }
            *through > synced
        });
        Primary::note_synced(&mut primary.syncing, now, committed);
    }

    fn answer_reads(&mut self, now: Time, effects: &mut Effects) {
        let Role::Primary(primary) = &self.role else {
            return;
        };
        if primary.reads.is_empty() || !self.may_serve(now, primary) {
            return;
        }
        let Some(primary) = self.primary_mut() else {
            return;
        };
        primary.reads.retain(|op, state| match state {
            ReadState::Waiting => {
                *state = ReadState::Fetching;
                effects.push(Effect::Fetch { op: *op });
                true
            }
            ReadState::Fetching => true,
            ReadState::Fetched => {
                effects.push(Effect::Deliver { op: *op });
                false
            }
        });
    }

    /// Everything that waits fails (I9): it is never replayed.
    pub(super) fn fail_everything(&mut self, why: NotServed, effects: &mut Effects) {
        let Some(primary) = self.primary_mut() else {
            return;
        };
        primary.syncing = None;
        let writes = primary.pending.drain(..).map(|(_, op, _)| op);
        let flushes = primary.flushes.drain(..).map(|(op, _)| op);
        let reads = std::mem::take(&mut primary.reads).into_keys();
        for op in writes.chain(flushes).chain(reads) {
            effects.push(Effect::Fail {
                op,
                why: why.clone(),
            });
        }
    }

    /// The last client is gone: give everything back, so that any member may be primary next.
    pub(super) fn give_back(&mut self, now: Time, effects: &mut Effects) {
        let (epoch, committed) = (self.configuration.epoch, self.log.committed());
        let adopted = self.adopted;
        let Some(primary) = self.primary_mut() else {
            return;
        };
        primary.phase = Phase::Releasing;
        let members: Vec<(NodeId, bool)> = primary
            .members
            .iter()
            .map(|(node, member)| (*node, member.stage == Stage::Aligned))
            .collect();
        for (node, aligned) in members {
            if aligned {
                // Carries the last committed position; the promise that it asks for is given up right behind it.
                self.send(
                    node,
                    Message::GrantRequest {
                        epoch,
                        asked: now,
                        committed,
                    },
                    Some(adopted),
                    effects,
                );
            }
            self.send(node, Message::GiveUp { epoch }, Some(adopted), effects);
        }
        effects.push(Effect::Demoted);
        self.release(now, effects);
    }

    pub(super) fn release(&mut self, now: Time, effects: &mut Effects) {
        self.propose(now, ProposalKind::Release, BTreeSet::new(), effects);
    }

    /// Whether this replica serves, and clients' requests can't be answered now.
    #[must_use]
    pub fn is_frozen(&self, now: Time) -> bool {
        matches!(&self.role, Role::Primary(primary)
            if primary.phase == Phase::Serving && self.frozen_because(now, primary).is_some())
    }

    pub(super) fn frozen_because(&self, now: Time, primary: &Primary) -> Option<String> {
        if self.persisted < self.adopted {
            return Some("the new epoch is not durable here yet".into());
        }
        if self.needs_kvdb() && primary.kvdb_until <= now {
            return Some("kvdb does not confirm that this site may serve alone: no majority of its voters can be reached".into());
        }
        let silent: Vec<String> = primary
            .members
            .values()
            .filter(|member| {
                member.counts() && (member.grant_until <= now || member.lost.is_some())
            })
            .map(|member| member.replica.node.to_string())
            .collect();
        (!silent.is_empty()).then(|| {
            format!(
                "waiting for the replica on {}, or for kvdb to commit the set without it",
                silent.join(", ")
            )
        })
    }
}
