//! Rules broken on purpose. A model that a mutation does not upset proves nothing about the rule.

/// One rule, left out or turned round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum Mutation {
    /// A member acknowledges what it has received, durable or not (I1).
    AckBeforeDurable,
    /// A primary goes on without a lost member and asks nobody (I2).
    ShrinkWithoutCommit,
    /// A primary goes on without a lost member once it has *asked* for the shrink (I2).
    AckDuringShrink,
    /// Any whole replica may be promoted, of the set or not (I3).
    PromoteFromOutside,
    /// A promoted primary serves before kvdb has committed `opened` (I3).
    ServeBeforeOpened,
    /// A member obeys a primary of an older epoch than its own (I4).
    AcceptOldEpoch,
    /// A new epoch is acted under before it is durable (I4).
    EpochNotPersisted,
    /// A new primary opens without levelling its members' logs (I5).
    SkipReconcile,
    /// A joiner is asked into the set before it has copied everything (I6).
    GrowBeforeCopied,
    /// A joiner is not waited for before it is in the set (I6).
    JoinerNotCounted,
    /// A joiner that was asked into the set and then lost is waited for no more (I6).
    LostJoinerNotCounted,
    /// A returning replica does not name what it wrote alone (I7).
    SkipDivergence,
    /// The marks in a dirty map since it was started do not survive a crash (I7).
    ForgetMapOnCrash,
    /// A dirty map is used although it starts after the last record in common (I7).
    UseLateMap,
    /// A domain counts as fenced at once (I8).
    FenceWithoutProof,
    /// Writes held by a demoted primary are ordered again when it is promoted (I9).
    ReplayAfterDemotion,
    /// Reads see the tail that is not committed yet (I11).
    ReadUncommitted,
    /// A replaced disk keeps the name of the old one, and counts as whole (I12).
    ReplacedDiskCounts,
    /// Reads are answered without the right to serve.
    ReadAfterGrant,
    /// The holder counts its grant from its receipt, so the promise can end first.
    GrantFromReceipt,
    /// A set in one domain serves without kvdb's grant.
    NoKvdbGrant,
    /// A restarted giver does not wait out the promise it may have given.
    RestartForgetsPromise,
    /// A restarted replica follows and promises before kvdb has told it anything.
    RestartFollowsAtOnce,
    /// A giver that knows of a higher epoch renews all the same.
    PromiseDespiteNewEpoch,
    /// A copied block overwrites what a newer mirrored write brought.
    CopyOverNewer,
    /// A forced generation leaves the old set in force.
    ForcedKeepsSet,
}
