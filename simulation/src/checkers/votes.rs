//! A member of kvdb's group never takes a vote back: what it has given, it has on disk, through every crash.
//!
//! Why it must hold: a leader is one because a majority will follow nobody lesser. A member that forgot whom it follows could help a
//! second leader to a majority, and two leaders would commit two histories. Votes are ordered by term, then by member (openraft's
//! `leader_id_adv`: a member may follow another one in the same term, but only a greater one), so a vote must never go back.
//!
//! It is checked on the wire, where a vote begins to count, and against what a member knows. Two answers may leave in another order than
//! the votes in them were given, so within one life of a member only what it knows is compared; what it gave in an earlier life (answers
//! that had not left died with it) binds it in all later ones. What a member says that it knows (its metrics) may be older than what it has
//! given in this life: it says so only once its disk has done all that it was working on (seed 11000188: a slow disk). A replaced disk makes another member (I12), which has given no vote yet.

use isthmus_engine::Incarnation;
use isthmus_kvdb::GivenVote;
use std::collections::BTreeMap;

/// What each member has given.
#[derive(Debug, Default)]
pub struct Votes(BTreeMap<(usize, Incarnation), Given>);

#[derive(Debug)]
struct Given {
    /// The member's process.
    life: u64,
    /// The greatest vote of its earlier lives.
    before: Option<GivenVote>,
    /// The greatest of all.
    greatest: GivenVote,
}

impl Votes {
    /// A member's answer gives a vote.
    ///
    /// # Errors
    /// When it had given a greater one before it was started.
    pub fn gives(
        &mut self,
        member: usize,
        incarnation: Incarnation,
        life: u64,
        vote: GivenVote,
    ) -> Result<(), String> {
        let given = self.0.entry((member, incarnation)).or_insert(Given {
            life,
            before: None,
            greatest: vote,
        });
        if given.life != life {
            given.life = life;
            given.before = Some(given.greatest);
        }
        if vote.term > given.greatest.term {
            given.greatest = vote;
        }
        match given.before {
            Some(before) if before.term > vote.term => Err(format!(
                "member {member} gives {vote:?} after it had given {before:?} in an earlier life"
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// A member says which term it knows.
    ///
    /// # Errors
    /// When it had given a vote of a later one before it was started.
    pub fn knows(
        &self,
        member: usize,
        incarnation: Incarnation,
        life: u64,
        term: u64,
    ) -> Result<(), String> {
        let Some(given) = self.0.get(&(member, incarnation)) else {
            return Ok(());
        };
        let before = match given.life == life {
            true => given.before,
            false => Some(given.greatest),
        };
        match before {
            Some(before) if before.term > term => Err(format!(
                "member {member} knows of term {term}, and had given {before:?} in an earlier life"
            )),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isthmus_engine::NodeId;
    use isthmus_kvdb::MemberId;

    fn vote(term: u64, node: u32) -> GivenVote {
        let leader = MemberId {
            node: NodeId(node),
            incarnation: Incarnation(1),
        };
        GivenVote { term, leader }
    }

    #[test]
    fn a_vote_that_goes_back_is_found_and_another_store_is_another_member() {
        let mut votes = Votes::default();
        let (one, other) = (Incarnation(1), Incarnation(9));
        votes.gives(0, one, 1, vote(5, 2)).unwrap();
        votes.gives(0, one, 1, vote(5, 3)).unwrap();
        // What it says may be behind what it does; in a later life nothing excuses it.
        votes.knows(0, one, 1, 4).unwrap();
        assert!(votes.knows(0, one, 2, 4).is_err());
        votes.knows(0, one, 2, 5).unwrap();
        votes.gives(0, other, 1, vote(1, 1)).unwrap();
        // Given before, and late on its way.
        votes.gives(0, one, 1, vote(4, 1)).unwrap();
        assert!(votes.gives(0, one, 2, vote(4, 1)).is_err());
        votes.gives(0, one, 2, vote(6, 1)).unwrap();
        assert!(votes.knows(0, one, 2, 4).is_err());
    }
}
