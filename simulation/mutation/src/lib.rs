//! Rules broken on purpose, to see that the simulator finds it. Only in builds with the feature `enabled`, which nothing that ships
//! turns on: without it, [`Mutation::is_on`] is `false` for the compiler.
//!
//! Each breaks one rule at the place in the code that keeps it, as a real system once did or could. One at a time is on, for the
//! thread: `simulation` runs whole clusters in one.

/// A rule broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// A write is acknowledged when it is durable at the primary, whatever the members hold (I1).
    AcknowledgeBeforePeers,
    /// A member that was lost is left out as soon as kvdb is asked to, not when it has committed that (I2).
    ShrinkWithoutCommit,
    /// While a shrink is asked for, writes are acknowledged without the member; should it be refused, the member counts again (I2).
    AcknowledgeDuringShrink,
    /// Writes are acknowledged without a member whose link is too slow before its leaving is committed (I2).
    AcknowledgeWithoutSlowMembers,
    /// A joiner doesn't count for acknowledgements and grants before it is in the set (I6).
    JoinerDoesNotCount,
    /// kvdb is asked to add a joiner before it has copied everything (I6).
    GrowBeforeCopied,
    /// A new primary serves without waiting for the members' logs to be like its own (I5).
    OpenWithoutReconciling,
    /// A member that is told where the logs meet keeps what it holds beyond that (I5).
    KeepWhatWasRewound,
    /// What a returning replica wrote and nobody else holds is not compared (I7).
    ForgetDivergence,
    /// Of what a returning replica committed without the primary nothing is compared (I7).
    ForgetWhatWasCommittedAlone,
    /// Writes are not marked in the dirty map of an absent replica.
    DoNotMarkWrites,
    /// Recovery forgets the dirty maps of its last checkpoint.
    ForgetMapsInRecovery,
    /// Records replayed in recovery are not marked in the dirty maps.
    DoNotMarkReplayed,
    /// A replica takes records and asks for grants of a lower epoch than its own (I4).
    AcceptOldEpoch,
    /// A replica acts under an epoch before that is durable (I4).
    SpeakBeforeEpochIsDurable,
    /// Reads and writes are answered when the members' grants are over.
    ServePastGrants,
    /// Reads and writes are answered when kvdb's grant is over.
    ServePastKvdbGrant,
    /// The right to serve is not checked again after the data of a read was fetched (I11).
    DeliverWithoutRight,
    /// The holder of a grant counts from when the answer came, not from when it asked (I3).
    CountGrantFromItsAnswer,
    /// The giver of a grant counts the lease by its own clock, without drift (I3).
    ForgetDrift,
    /// A restarted giver does not wait for what it may have promised before (I3).
    RestartForgetsPromise,
    /// A replica takes a new epoch though it has promised not to (I3).
    TakeEpochDespitePromise,
    /// A giver that knows of a higher epoch goes on promising to the old primary (I3).
    PromiseDespiteNewEpoch,
    /// A restarted replica follows before kvdb has told it anything.
    FollowWithoutView,
    /// Writes are applied, and so read, before all members hold them (I11).
    ReadUncommitted,
    /// Resync writes what it was sent over what newer records brought.
    CopyOverNewerWrites,
    /// What is to be copied is off the to-do map when it is asked for, not when it is in the extents.
    ClearToDoTooEarly,
    /// A secondary carries a trim out when it arrives, not in its order.
    TrimOutOfOrder,
    /// The journal's records count as durable when they are written, not when they are synced.
    JournalDoesNotSync,
    /// A checkpoint gives the journal free when it begins.
    ReleaseJournalEarly,
    /// A checkpoint is begun before what it carries forward is durable.
    CheckpointBeforeCarried,
    /// Recovery takes a torn group at the journal's tail for whole.
    TakeTornTail,
    /// Recovery stops one group before the journal's end.
    StopRecoveryEarly,
    /// Recovery drops what was committed before a rebase with what was in doubt then.
    DropCommittedAtRebase,
    /// Recovery takes a join's to-do map as it was journalled, though what was copied by then is in no checkpoint.
    ForgetWhatWasNotKept,
    /// A block whose checksum is wrong is returned.
    ReturnBadBlocks,
    /// A node whose disk was replaced comes back as the same replica (I12).
    KeepIncarnation,
    /// A flush is answered when this replica's own journal is synced, whatever the members' are.
    FlushWithoutPeers,
    /// A durable group of the journal does not make those before it durable.
    SyncOnlyTheLastGroup,
    /// A node that lost power says that it runs under the same boot as before: its replicas may be promoted though others kept their
    /// memory (I3).
    ForgetReboot,
    /// kvdb is told that a rebooted member has caught up before it holds what was answered.
    CaughtUpTooEarly,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 41] = [
        Mutation::AcknowledgeBeforePeers,
        Mutation::ShrinkWithoutCommit,
        Mutation::AcknowledgeDuringShrink,
        Mutation::AcknowledgeWithoutSlowMembers,
        Mutation::JoinerDoesNotCount,
        Mutation::GrowBeforeCopied,
        Mutation::OpenWithoutReconciling,
        Mutation::KeepWhatWasRewound,
        Mutation::ForgetDivergence,
        Mutation::ForgetWhatWasCommittedAlone,
        Mutation::DoNotMarkWrites,
        Mutation::ForgetMapsInRecovery,
        Mutation::DoNotMarkReplayed,
        Mutation::AcceptOldEpoch,
        Mutation::SpeakBeforeEpochIsDurable,
        Mutation::ServePastGrants,
        Mutation::ServePastKvdbGrant,
        Mutation::DeliverWithoutRight,
        Mutation::CountGrantFromItsAnswer,
        Mutation::ForgetDrift,
        Mutation::RestartForgetsPromise,
        Mutation::TakeEpochDespitePromise,
        Mutation::PromiseDespiteNewEpoch,
        Mutation::FollowWithoutView,
        Mutation::ReadUncommitted,
        Mutation::CopyOverNewerWrites,
        Mutation::ClearToDoTooEarly,
        Mutation::TrimOutOfOrder,
        Mutation::JournalDoesNotSync,
        Mutation::ReleaseJournalEarly,
        Mutation::CheckpointBeforeCarried,
        Mutation::TakeTornTail,
        Mutation::StopRecoveryEarly,
        Mutation::DropCommittedAtRebase,
        Mutation::ForgetWhatWasNotKept,
        Mutation::ReturnBadBlocks,
        Mutation::KeepIncarnation,
        Mutation::FlushWithoutPeers,
        Mutation::SyncOnlyTheLastGroup,
        Mutation::ForgetReboot,
        Mutation::CaughtUpTooEarly,
    ];

    /// Its name in commands and files: lower case, with hyphens.
    #[must_use]
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }

    /// Whether this rule is broken now.
    #[cfg(feature = "enabled")]
    #[must_use]
    pub fn is_on(self) -> bool {
        switch::ON.get() == Some(self)
    }

    /// Whether this rule is broken now: never, in this build.
    #[cfg(not(feature = "enabled"))]
    #[must_use]
    #[inline(always)]
    pub const fn is_on(self) -> bool {
        false
    }

    /// Breaks this rule, or none, in this thread from now on.
    #[cfg(feature = "enabled")]
    pub fn turn_on(mutation: Option<Mutation>) {
        switch::ON.set(mutation);
    }
}

#[cfg(feature = "enabled")]
mod switch {
    use super::Mutation;
    use std::cell::Cell;

    std::thread_local! {
        pub static ON: Cell<Option<Mutation>> = const { Cell::new(None) };
    }
}
