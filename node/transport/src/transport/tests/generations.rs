//! Nodes of different generations tell each other where they come from, and nothing else.

use super::*;

fn at(cluster: &Cluster, me: NodeId, peers: &[(NodeId, SocketAddr)], lineage: &[u64]) -> Node {
    start(Config {
        lineage: lineage.to_vec(),
        ..cluster.config(me, peers)
    })
}

fn meet(ones: &[u64], twos: &[u64]) -> (Event, Event) {
    let cluster = Cluster::new();
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let two = at(&cluster, TWO, &[(ONE, nowhere)], twos);
    let one = at(&cluster, ONE, &[(TWO, two.address())], ones);
    (one.next(), two.next())
}

#[test]
fn nodes_of_different_generations_have_no_session_and_hear_of_each_other() {
    for (ones, twos) in [
        (&[][..], &[7][..]),
        (&[7], &[]),
        (&[7], &[7, 8]),
        (&[7], &[8]),
    ] {
        let told = (
            Event::Other(TWO, twos.to_vec()),
            Event::Other(ONE, ones.to_vec()),
        );
        assert_eq!(meet(ones, twos), told, "{ones:?} {twos:?}");
    }
}

#[test]
fn nodes_of_one_forced_generation_have_a_session() {
    let (one, two) = meet(&[7, 8], &[7, 8]);
    assert!(matches!(one, Event::Up(TWO, _)) && matches!(two, Event::Up(ONE, _)));
}
