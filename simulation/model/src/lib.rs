//! The protocol of a mirrored volume as a model, explored exhaustively within bounds (crate `stateright`, breadth first).
//!
//! The code is not run here, its *rules* are: each step says what `engine`, `kvdb/catalog` or `node/host` would do, and every order of
//! steps within the bounds is tried. The simulator runs the code, but only the orders that its seeds happen to give.
//!
//! Reading order: [`state`] (what there is), [`log`], [`action`] (what can happen), [`protocol`] (when, and what it does), [`replica`]
//! and [`catalog`] (what a replica and kvdb decide by themselves), [`properties`] (what must hold), [`mutation`] (rules broken on
//! purpose), [`configurations`] (the bounds), [`mod@run`].
//!
//! # What is modelled
//! Two replicas, one in each site, or four, two in each; one volume of two blocks. kvdb is atomic: one state that always has a majority
//! (so the witness is in it), which each replica reaches or not, step by step. Any step can stay out for ever; so cut links,
//! isolation, lost and delayed messages need no steps of their own. Replicas crash at any point, lose any part of their unsynced tail, and
//! find again any committed position between what was copied to them and what they knew.
//! *Time* is an order only: a grant ends for its holder at any moment, and the promise behind it ends for its giver any time after
//! that (the lease is counted from the question, the promise from the answer plus drift). `mutation` turns that order round.
//! *Reads* have no step: wherever a replica would answer one, the properties look at what it would say.
//!
//! # Where it differs from DESIGN, section 3: it follows the shipped rules
//! * Extents hold committed records only; logs are named by their histories, and reconciling cuts and fills logs
//!   (`docs/decisions/0001-extents-hold-committed-records-only.md`).
//! * The right to serve gates acknowledgements, too, not only reads.
//! * A replica that restarted follows nobody before kvdb has told it something.
//! * A forced generation is the design's: `isthmusd` has none yet.
//!
//! # Where it is coarser than the code, and why nothing is lost
//! * A message is taken when it is sent, or later by being sent later. On one session messages are in order, and what an older epoch
//!   or session sent is refused; so a message under way is a step that has not happened yet.
//! * `Prepare`, `Report` and the answer are one step: between them a member can only crash, or leave the epoch, which ends them.
//! * Durability comes with the step that needs it (an acknowledgement, a commit, an epoch): being durable earlier only means losing
//!   less in a crash, and a crash that loses less is a step, too.
//! * kvdb decides in the step that asks. A decision that comes later is compared and set on the epoch; what it was asked on the
//!   strength of holds as long as the epoch does. That the asker does not know yet is in the model; a growth can also go unheard.
//! * A promise whose grant is over for its holder, and that delays no epoch, is dropped: being bound longer only means doing less.
//! * One copy of a block is under way at a time; what happens to one block is no business of the other.
//! * A peer with another incarnation than its primary knows is not greeted. (In the code kvdb refuses it later.)
//! * A joiner is invited without the commit that notes it as incomplete (0014): that guards `--accept-data-loss` alone, and inviting
//!   sooner only means doing more.
//! * A promoted primary opens as soon as kvdb says `opened`, also where it hears it only with the next epoch.
//!
//! # What is not modelled
//! Losing kvdb's majority (nothing then commits: every step without kvdb is in the model all the same), kvdb's voters and the votes'
//! moves, `--accept-data-loss`, an operator whose word about a node that is off is false, trims and partial blocks, bad blocks and
//! full disks, histories that were forgotten, and of I10 the running digest: what stands for it is that no replica ever finds
//! what makes it stop. Nothing is said about progress: only about what must never be, and about what can be reached at all.
//!
//! States are told apart by a hash of 64 bits: with 10 million states the chance that any two were taken for one is about 3 in a
//! million.

pub mod action;
pub mod bounds;
pub mod catalog;
pub mod configurations;
pub mod log;
pub mod mutation;
pub mod properties;
pub mod protocol;
pub mod replica;
pub mod run;
pub mod state;

pub use run::{Arguments, run};
