//! A member of kvdb's group never takes a vote back: what it has given, it has on disk, through every crash.
//!
//! Why it must hold: a leader is one because a majority will follow nobody lesser. A member that forgot whom it follows could help a
//! second leader to a majority, and two leaders would commit two histories. Votes are ordered by term, then by member (openraft's
//! `leader_id_adv`: a member may follow another one in the same term, but only a greater one), so a vote must never go back.
//!
//! Within a term, two answers may leave in another order than the votes in them were given; so only terms are compared here.
//! It is checked on the wire, where a vote begins to count, and against what a member knows after a restart. A replaced disk makes
//! another member (I12), which has given no vote yet.

use isthmus_engine::Incarnation;
use isthmus_kvdb::GivenVote;
use std::collections::BTreeMap;

/// The last vote that each member has given.
#[derive(Debug, Default)]
pub struct Votes(BTreeMap<(usize, Incarnation), GivenVote>);

impl Votes {
    /// A member's answer gives a vote.
    ///
    /// # Errors
    /// When it had given a greater one.
    pub fn gives(
        &mut self,
        member: usize,
        incarnation: Incarnation,
        vote: GivenVote,
    ) -> Result<(), String> {
        match self.0.insert((member, incarnation), vote) {
            Some(before) if before.term > vote.term => Err(format!(
                "member {member} gives {vote:?} after it had given {before:?}"
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// A member says which term it knows.
    ///
    /// # Errors
    /// When it has given a vote of a later one.
    pub fn knows(&self, member: usize, incarnation: Incarnation, term: u64) -> Result<(), String> {
        match self.0.get(&(member, incarnation)) {
            Some(given) if given.term > term => Err(format!(
                "member {member} knows of term {term}, and had given {given:?}"
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
        votes.gives(0, Incarnation(1), vote(5, 2)).unwrap();
        votes.gives(0, Incarnation(1), vote(5, 3)).unwrap();
        assert!(votes.knows(0, Incarnation(1), 4).is_err());
        votes.gives(0, Incarnation(9), vote(1, 1)).unwrap();
        assert!(votes.gives(0, Incarnation(1), vote(4, 1)).is_err());
    }
}
