//! Everything that can happen, and how it reads in a trace.

use crate::protocol::Protocol;
use crate::state::{BLOCKS, Role, State};
use std::fmt;

/// One step. Messages are delivered in the step that sends them, or never: a delayed one is sent later. Each step may be left out
/// for ever, so lost messages, cut links and an unreachable kvdb need no steps of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the fields are nodes, blocks and domains by number; the steps say what they do"
)]
pub enum Action {
    /// A client writes a block at a primary.
    Write { primary: u8, block: u8 },
    /// A primary's next record reaches a follower.
    Append { primary: u8, node: u8 },
    /// A follower's journal makes durable what it holds, and its position reaches its primary.
    Ack { node: u8, primary: u8 },
    /// A primary commits and acknowledges what every counted member holds.
    Commit { primary: u8 },
    /// A primary's committed position reaches a follower.
    Tell { primary: u8, node: u8 },
    /// A follower promises, and its primary has the grant.
    Grant { node: u8, primary: u8 },
    /// A grant ends for its holder.
    GrantEnds { primary: u8, node: u8 },
    /// kvdb's grant ends for its holder.
    KvdbGrantEnds { primary: u8 },
    /// A promise ends for its giver: never before the grant that came of it has ended for its holder.
    PromiseEnds { node: u8 },
    /// kvdb confirms to a primary that its view is the newest.
    Confirm { primary: u8 },
    /// A replica hears the newest view.
    Learn { node: u8 },
    /// A primary greets a replica and tells where their logs meet.
    Handshake { primary: u8, node: u8 },
    /// The session between a primary and another is lost, or its loss is noticed.
    Disconnect { primary: u8, node: u8 },
    /// kvdb commits a shrink.
    Shrink { primary: u8, leaving: u8 },
    /// A primary asks for a growth, and kvdb commits it or never hears of it.
    Grow { primary: u8, node: u8, heard: bool },
    /// kvdb commits a new epoch without the joiner that was asked for.
    Renew { primary: u8 },
    /// The last client detaches: the primary gives its rights back.
    Release { primary: u8 },
    /// kvdb notes that.
    Released { primary: u8 },
    /// kvdb commits a promotion.
    Promote { node: u8 },
    /// kvdb commits that a promoted primary has levelled its set.
    Opened { primary: u8 },
    /// A joiner asks for a block, and the primary answers; the answer is under way.
    Copy { node: u8, block: u8 },
    /// The answer arrives.
    Copied { node: u8, block: u8 },
    /// A joiner has copied everything, durably, and its primary hears it.
    Whole { node: u8, primary: u8 },
    /// A replica's process dies. What it had not made durable is lost from `end` on; the committed position that it finds again is
    /// `committed`; `again`: the copies since its join were in no checkpoint.
    Crash {
        node: u8,
        end: u8,
        committed: u8,
        again: bool,
    },
    /// It starts again, and kvdb notes that.
    Restart { node: u8 },
    /// Its disk is replaced while it is down.
    ReplaceDisk { node: u8 },
    /// An operator deactivates a domain: one commit takes it out of every set.
    Deactivate { domain: u8 },
    /// No grant for the domain can be renewed any more; those that are out run out.
    FenceBegins { domain: u8 },
    /// The domain is proven to serve nothing.
    Deactivated { domain: u8 },
    /// An operator activates a domain.
    Activate { domain: u8 },
    /// Its nodes have caught up with kvdb.
    Activated { domain: u8 },
    /// An operator forces a new generation and names the replica that counts; every other node that is down is declared off.
    Force { node: u8 },
    /// Mutation: a primary drops a member by itself.
    DropMember { primary: u8, node: u8 },
    /// Mutation: a primary that has only asked for a shrink counts the member no more.
    AskShrink { primary: u8, node: u8 },
    /// Mutation: a promoted primary serves without kvdb's word.
    OpenAlone { primary: u8 },
}

/// The name of a node: its site's letter, and a number where a site has several.
pub(crate) fn name<const N: usize>(node: u8) -> String {
    let letter = if State::<N>::domain(usize::from(node)) == 0 {
        'A'
    } else {
        'B'
    };
    if N == 2 {
        letter.to_string()
    } else {
        format!("{letter}{}", usize::from(node) % (N / 2) + 1)
    }
}

impl<const N: usize> Protocol<N> {
    /// Every step that could make sense; [`Protocol::step`] knows which of them can happen.
    pub(crate) fn candidates(&self, state: &State<N>, out: &mut Vec<Action>) {
        use Action as A;
        for node in 0..N as u8 {
            let replica = &state.replicas[usize::from(node)];
            if replica.role == Role::Down {
                out.extend([A::Restart { node }, A::ReplaceDisk { node }]);
                continue;
            }
            out.extend([
                A::PromiseEnds { node },
                A::Learn { node },
                A::Promote { node },
                A::Force { node },
            ]);
            self.crashes(state, node, out);
            if let Role::Following { primary, joining } = replica.role {
                out.extend([A::Ack { node, primary }, A::Grant { node, primary }]);
                if joining {
                    out.push(A::Whole { node, primary });
                    for block in 0..BLOCKS as u8 {
                        out.extend([A::Copy { node, block }, A::Copied { node, block }]);
                    }
                }
            }
            if replica.is_primary() {
                self.as_primary(node, out);
            }
        }
        for domain in 0..2 {
            out.extend([
                A::Deactivate { domain },
                A::FenceBegins { domain },
                A::Deactivated { domain },
                A::Activate { domain },
                A::Activated { domain },
            ]);
        }
    }

    fn as_primary(&self, primary: u8, out: &mut Vec<Action>) {
        use Action as A;
        for block in 0..BLOCKS as u8 {
            out.push(A::Write { primary, block });
        }
        out.extend([
            A::Commit { primary },
            A::KvdbGrantEnds { primary },
            A::Confirm { primary },
            A::Renew { primary },
            A::Release { primary },
            A::Released { primary },
            A::Opened { primary },
            A::OpenAlone { primary },
        ]);
        for node in (0..N as u8).filter(|node| *node != primary) {
            out.extend([
                A::Append { primary, node },
                A::Tell { primary, node },
                A::GrantEnds { primary, node },
                A::Handshake { primary, node },
                A::Disconnect { primary, node },
                A::Shrink {
                    primary,
                    leaving: 1 << node,
                },
                A::Grow {
                    primary,
                    node,
                    heard: true,
                },
                A::Grow {
                    primary,
                    node,
                    heard: false,
                },
                A::DropMember { primary, node },
                A::AskShrink { primary, node },
            ]);
        }
        if N == 4 {
            // A whole site is lost at once, more often than two replicas one after the other.
            let leaving = if State::<N>::domain(usize::from(primary)) == 0 {
                0b1100
            } else {
                0b0011
            };
            out.push(A::Shrink { primary, leaving });
        }
    }

    fn crashes(&self, state: &State<N>, node: u8, out: &mut Vec<Action>) {
        if state.spent.crashes >= self.bounds.crashes {
            return;
        }
        let replica = &state.replicas[usize::from(node)];
        let log = &replica.log;
        for end in log.durable..=log.end {
            for committed in log.base..=log.committed {
                out.push(Action::Crash {
                    node,
                    end,
                    committed,
                    again: false,
                });
                if replica.todo != replica.todo_durable {
                    out.push(Action::Crash {
                        node,
                        end,
                        committed,
                        again: true,
                    });
                }
            }
        }
    }

    /// An action in words.
    #[must_use]
    pub fn describe(&self, action: Action) -> String {
        use Action as A;
        let name = name::<N>;
        let site = |domain: u8| if domain == 0 { "site A" } else { "site B" };
        match action {
            A::Write { primary, block } => {
                format!("a client writes block {block} at {}", name(primary))
            }
            A::Append { primary, node } => {
                format!("{} sends its next record to {}", name(primary), name(node))
            }
            A::Ack { node, primary } => format!(
                "{} tells {} its durable position",
                name(node),
                name(primary)
            ),
            A::Commit { primary } => format!("{} commits and acknowledges", name(primary)),
            A::Tell { primary, node } => format!(
                "{} tells {} its committed position",
                name(primary),
                name(node)
            ),
            A::Grant { node, primary } => {
                format!("{} grants {} the right to serve", name(node), name(primary))
            }
            A::GrantEnds { primary, node } => {
                format!("{}'s grant ends at {}", name(node), name(primary))
            }
            A::KvdbGrantEnds { primary } => format!("kvdb's grant ends at {}", name(primary)),
            A::PromiseEnds { node } => format!("{}'s promise is over", name(node)),
            A::Confirm { primary } => format!("kvdb confirms {}", name(primary)),
            A::Learn { node } => format!("{} hears the newest view from kvdb", name(node)),
            A::Handshake { primary, node } => format!("{} greets {}", name(primary), name(node)),
            A::Disconnect { primary, node } => {
                format!("{} loses its session with {}", name(primary), name(node))
            }
            A::Shrink { primary, leaving } => {
                let gone: Vec<String> = (0..N as u8)
                    .filter(|node| leaving >> node & 1 == 1)
                    .map(name)
                    .collect();
                format!(
                    "kvdb commits {}'s shrink by {}",
                    name(primary),
                    gone.join(" and ")
                )
            }
            A::Grow {
                primary,
                node,
                heard: true,
            } => format!("kvdb commits {}'s growth by {}", name(primary), name(node)),
            A::Grow {
                primary,
                node,
                heard: false,
            } => format!(
                "{} asks for a growth by {}, which kvdb does not hear",
                name(primary),
                name(node)
            ),
            A::Renew { primary } => format!(
                "kvdb commits a new epoch for {} without its joiner",
                name(primary)
            ),
            A::Release { primary } => format!(
                "{} has no client any more, and gives its rights back",
                name(primary)
            ),
            A::Released { primary } => {
                format!("kvdb notes that {} gave its rights back", name(primary))
            }
            A::Promote { node } => format!("kvdb promotes {}", name(node)),
            A::Opened { primary } => {
                format!("kvdb commits that {} has levelled its set", name(primary))
            }
            A::Copy { node, block } => format!(
                "{} asks for block {block}; the answer is under way",
                name(node)
            ),
            A::Copied { node, block } => {
                format!("the copy of block {block} arrives at {}", name(node))
            }
            A::Whole { node, primary } => format!(
                "{} tells {} that it has copied everything",
                name(node),
                name(primary)
            ),
            A::Crash {
                node,
                end,
                committed,
                again,
            } => format!(
                "{} crashes: its log ends at {end} and is known committed up to {committed}{}",
                name(node),
                if again {
                    "; its copies were in no checkpoint"
                } else {
                    ""
                }
            ),
            A::Restart { node } => format!("{} starts again, and kvdb notes it", name(node)),
            A::ReplaceDisk { node } => format!("the disk of {} is replaced", name(node)),
            A::Deactivate { domain } => format!("{} is deactivated", site(domain)),
            A::FenceBegins { domain } => {
                format!("no grant for {} can be renewed any more", site(domain))
            }
            A::Deactivated { domain } => format!("{} is proven to serve nothing", site(domain)),
            A::Activate { domain } => format!("{} is activated", site(domain)),
            A::Activated { domain } => format!("{} has caught up", site(domain)),
            A::Force { node } => format!("an operator forces a new generation from {}", name(node)),
            A::DropMember { primary, node } => {
                format!("{} drops {} by itself", name(primary), name(node))
            }
            A::AskShrink { primary, node } => {
                format!("{} asks for a shrink by {}", name(primary), name(node))
            }
            A::OpenAlone { primary } => format!("{} serves without kvdb's word", name(primary)),
        }
    }
}

struct Bit(bool, char);

impl fmt::Display for Bit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 {
            write!(out, "{}", self.1)
        } else {
            Ok(())
        }
    }
}

impl<const N: usize> State<N> {
    /// One line for each replica and one for kvdb.
    #[must_use]
    pub fn describe(&self) -> String {
        let epoch = |epoch: u8| {
            if epoch >> 4 == 0 {
                (epoch & 15).to_string()
            } else {
                format!("{}.{}", epoch >> 4, epoch & 15)
            }
        };
        let set = |set: u8| {
            (0..8u8)
                .filter(|bit| set >> bit & 1 == 1)
                .map(|bit| format!("{}{}", name::<N>(bit % 4), if bit >= 4 { "'" } else { "" }))
                .collect::<Vec<_>>()
                .join("+")
        };
        let kvdb = &self.kvdb.configuration;
        let primary = if kvdb.primary == crate::state::NOBODY {
            "nobody".to_owned()
        } else {
            name::<N>(kvdb.primary)
        };
        let mut text = format!(
            "kvdb: epoch {} primary {primary} set {}{} {:?}",
            epoch(kvdb.epoch),
            set(kvdb.in_sync),
            Bit(!kvdb.opened, '?'),
            self.kvdb.domains
        );
        for (node, replica) in self.replicas.iter().enumerate() {
            let log: Vec<String> = (1..=replica.log.end)
                .map(|at| format!("{}:w{}", epoch(replica.log.epoch(at)), replica.log.id(at)))
                .collect();
            text.push_str(&format!(
                "\n      {}: {:?} epoch {} log [{}] durable {} committed {} blocks {:?}{}",
                name::<N>(node as u8),
                replica.role,
                epoch(replica.configuration.epoch),
                log.join(" "),
                replica.log.durable,
                replica.log.committed,
                replica.extents,
                if replica.whole { "" } else { " not whole" },
            ));
        }
        text
    }
}
