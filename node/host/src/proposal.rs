//! A replica's wish as a command for kvdb.

use isthmus_catalog::Command;
use isthmus_engine::{Proposal, ProposalKind, ReplicaId, VolumeId};

/// The command by which the replica `me` of `volume` asks kvdb for what its engine proposes.
///
/// # Panics
/// When a growth, or a copy, names nobody.
#[must_use]
pub fn command_of(volume: VolumeId, me: ReplicaId, proposal: &Proposal) -> Command {
    let (epoch, primary) = (proposal.epoch, me);
    match proposal.kind {
        ProposalKind::Promote => Command::Promote {
            volume,
            expected: epoch,
            candidate: me,
        },
        ProposalKind::Opened => Command::Opened {
            volume,
            epoch,
            primary,
        },
        ProposalKind::Shrink => Command::Shrink {
            volume,
            epoch,
            primary,
            leaving: proposal.replicas.clone(),
        },
        ProposalKind::CaughtUp => Command::CaughtUp {
            volume,
            epoch,
            primary,
            replicas: proposal.replicas.clone(),
        },
        ProposalKind::BeginCopy => Command::BeginCopy {
            volume,
            epoch,
            primary,
            joining: joining(proposal),
        },
        ProposalKind::Grow => Command::Grow {
            volume,
            epoch,
            primary,
            joining: joining(proposal),
        },
        ProposalKind::Renew => Command::Renew {
            volume,
            epoch,
            primary,
        },
        ProposalKind::Release => Command::Release {
            volume,
            epoch,
            primary,
        },
    }
}

fn joining(proposal: &Proposal) -> ReplicaId {
    let joining = proposal.replicas.first();
    *joining.expect("a growth names who joins, a copy who is copied to")
}
