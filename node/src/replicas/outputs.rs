//! What the host wants done outside.

use super::host_loop::HostLoop;
use super::inputs::{AttachError, Attached, Client, Served, Ticket, answer};
use crate::clock;
use isthmus_engine::{Epoch, NodeId, VolumeId};
use isthmus_host::{ClientError, Lane, Outcome, OutgoingFrame};
use std::collections::BTreeSet;

/// Whether an operator has to know.
fn is_trouble(event: &str) -> bool {
    let words = [
        "STOPPED:",
        "UNABLE:",
        "JOURNAL LOST:",
        "bad blocks:",
        "no space:",
    ];
    words.iter().any(|word| event.starts_with(word))
}

impl HostLoop {
    /// Does what the host wants done. Frames go first: the peers' journals are the longer way. Returns whether somebody outside was given
    /// something.
    pub(super) fn hand_out(&mut self) -> bool {
        let any = !self.outputs.frames.is_empty() || !self.outputs.replies.is_empty();
        // Before the replies, so that none of these says as an error what the end of the connection says; and behind them for who came now.
        let demoted = std::mem::take(&mut self.outputs.demoted);
        self.send_away(&demoted);
        let mut frames = std::mem::take(&mut self.outputs.frames);
        self.send(&mut frames);
        let mut replies = std::mem::take(&mut self.outputs.replies);
        for (ticket, outcome) in replies.drain(..) {
            match ticket {
                Ticket::Attach { .. } => self.answer_attach(ticket, outcome),
                ticket => answer(ticket, outcome),
            }
        }
        self.keep_memory(frames, replies);
        self.send_away(&demoted);
        if !demoted.is_empty() {
            // Clients of a replica that was removed: one that is made in its place knows nothing of them.
            let mirrors = self.host.mirrors();
            self.clients
                .retain(|volume, _| mirrors.contains_key(volume));
        }
        for (volume, proposal) in std::mem::take(&mut self.outputs.proposals) {
            self.propose(volume, proposal);
        }
        if std::mem::take(&mut self.outputs.confirm) {
            self.confirm();
        }
        for (volume, event) in std::mem::take(&mut self.outputs.events) {
            let mirror = self.host.mirrors().get(&volume);
            let epoch = mirror.map(|mirror| mirror.engine().configuration().epoch);
            let epoch = epoch.unwrap_or_default();
            if is_trouble(&event) {
                tracing::warn!(%volume, %epoch, "{event}");
            } else {
                tracing::info!(%volume, %epoch, "{event}");
            }
        }
        any
    }

    /// Closes the connections of these volumes' clients.
    fn send_away(&self, volumes: &[VolumeId]) {
        for volume in volumes {
            let unable = self
                .host
                .mirrors()
                .get(volume)
                .and_then(|mirror| mirror.engine().unable_because());
            let reason = match unable {
                Some(reason) => format!("this node can't serve the volume: {reason}"),
                None => "this node does not serve the volume any more".to_owned(),
            };
            for client in self.clients_of(*volume) {
                client.connection.close(reason.clone());
            }
        }
    }

    fn clients_of(&self, volume: VolumeId) -> impl Iterator<Item = &Client> {
        let clients = self.clients.get(&volume);
        clients.into_iter().flat_map(|clients| clients.values())
    }

    /// Closes the connections of clients that other nodes forward and may forward no more: their domain is not active (I8), or the volume is
    /// published elsewhere. Where it is published to a diskless node, also of those that came here before: once its client is let
    /// in, nobody else's requests are taken.
    pub(super) fn send_away_who_is_not_let_in(&self) {
        for volume in self.clients.keys() {
            for client in self.clients_of(*volume) {
                if !self.is_welcome(*volume, client.came_to) {
                    client.connection.close(self.unwelcome(client.came_to));
                }
            }
        }
    }

    /// Whether clients of the volume that came to that node are served here, as far as the catalog says. Those that came to this node are
    /// sent away by the host where it steps down; here they are where a diskless node has the volume.
    fn is_welcome(&self, volume: VolumeId, came_to: NodeId) -> bool {
        let me = self.host.me().node;
        let published = self.catalog.published.get(&volume);
        let is_forwarded =
            published.is_some_and(|published| self.catalog.diskless.contains(&published.node));
        let checked = came_to != me || is_forwarded;
        !checked || self.catalog.lets_in(volume, me, came_to)
    }

    fn unwelcome(&self, came_to: NodeId) -> String {
        let node = self.catalog.node_name(came_to);
        format!("clients of {node} are not served any more")
    }

    /// The next round's frames and replies go where these were, unless there are some already.
    fn keep_memory(&mut self, frames: Vec<OutgoingFrame>, replies: Vec<(Ticket, Outcome)>) {
        if self.outputs.frames.is_empty() {
            self.outputs.frames = frames;
        }
        if self.outputs.replies.is_empty() {
            self.outputs.replies = replies;
        }
    }

    fn send(&mut self, frames: &mut Vec<OutgoingFrame>) {
        let mut broken: BTreeSet<NodeId> = BTreeSet::new();
        for OutgoingFrame {
            to,
            volume,
            lane,
            head,
            body,
        } in frames.drain(..)
        {
            let (Some(transport), Some(session)) =
                (self.outlet.transport(), self.sessions.get(&to))
            else {
                continue;
            };
            if broken.contains(&to) {
                continue;
            }
            let lane = match lane {
                Lane::Write => isthmus_transport::Lane::Write(volume),
                Lane::Resync => isthmus_transport::Lane::Resync(volume),
            };
            let parts = if body.is_empty() {
                vec![head]
            } else {
                vec![head, body]
            };
            if let Err(error) = transport.send(to, *session, lane, parts) {
                tracing::debug!(peer = %to, %volume, %error, "a frame was not taken");
                broken.insert(to);
            }
        }
        // A lane with a hole is no lane: what went into it begins anew.
        for peer in broken {
            let now = clock::now();
            self.host.on_session_down(now, peer, &mut self.outputs);
            let present = self
                .outlet
                .transport()
                .and_then(|transport| transport.connected(peer));
            if present.is_some() && present == self.sessions.get(&peer).copied() {
                self.host.on_session_up(now, peer, &mut self.outputs);
            }
        }
    }

    fn answer_attach(&mut self, ticket: Ticket, outcome: Outcome) {
        let Ticket::Attach {
            volume,
            client,
            answer,
        } = ticket
        else {
            return;
        };
        match outcome {
            Outcome::Attached => {
                let number = client.connection.number();
                // Whoever of the two ends has it last detaches the client.
                let attached = Attached::new(volume, number, self.inputs.clone());
                // The catalog that forbids it may have come in the same round, behind the request to be let in.
                let unwelcome =
                    (!self.is_welcome(volume, client.came_to)).then_some(client.came_to);
                self.clients
                    .entry(volume)
                    .or_default()
                    .insert(number, client);
                let mirror = self.host.mirrors().get(&volume);
                let answered = match unwelcome {
                    Some(node) => Err(AttachError::Client(ClientError::NotServed(
                        self.unwelcome(node),
                    ))),
                    None => Ok(Served {
                        bytes: mirror.map_or(0, isthmus_host::mirror::Mirror::bytes),
                        epoch: mirror.map_or_else(Epoch::default, |mirror| {
                            mirror.engine().configuration().epoch
                        }),
                        attached,
                    }),
                };
                // The client may have gone.
                let _ = answer.send(answered);
            }
            Outcome::Failed(error) => {
                // The client may have gone.
                let _ = answer.send(Err(AttachError::Client(error)));
            }
            other => {
                tracing::error!(%volume, ?other, "an attachment was answered with something else")
            }
        }
    }
}
