//! Which node.

/// A node of the tests' cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// In `site-a`.
    A1,
    /// In `site-b`.
    B1,
    /// In `witness`.
    W1,
}

impl Node {
    /// All of them.
    pub const ALL: [Node; 3] = [Node::A1, Node::B1, Node::W1];
    /// Those that hold replicas.
    pub const DATA: [Node; 2] = [Node::A1, Node::B1];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Node::A1 => "a1",
            Node::B1 => "b1",
            Node::W1 => "w1",
        }
    }

    /// Its domain's name.
    #[must_use]
    pub const fn domain(self) -> &'static str {
        match self {
            Node::A1 => "site-a",
            Node::B1 => "site-b",
            Node::W1 => "witness",
        }
    }

    /// The node at the other site.
    ///
    /// # Panics
    /// For the witness.
    #[must_use]
    pub const fn other(self) -> Node {
        match self {
            Node::A1 => Node::B1,
            Node::B1 => Node::A1,
            Node::W1 => panic!("the witness is at no site"),
        }
    }

    /// 0, 1, 2.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}
