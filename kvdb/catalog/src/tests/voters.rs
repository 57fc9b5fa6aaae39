use super::*;

fn all_started() -> Cluster {
    let mut cluster = Cluster::with_volume();
    cluster.done(started(4, 4, 1));
    cluster.done(started(5, 5, 1));
    cluster
}

#[test]
fn with_all_domains_active_one_node_of_each_votes() {
    let catalog = all_started().catalog;
    assert_eq!(
        catalog.voters(&nodes(&[1, 2, 3, 4, 5]), &nodes(&[])),
        nodes(&[1, 2, 3])
    );
}

#[test]
fn a_reachable_voter_keeps_its_vote_and_an_unreachable_one_hands_it_over_within_its_domain() {
    let catalog = all_started().catalog;
    assert_eq!(
        catalog.voters(&nodes(&[1, 2, 3, 4, 5]), &nodes(&[4, 2, 3])),
        nodes(&[2, 3, 4])
    );
    assert_eq!(
        catalog.voters(&nodes(&[1, 2, 3, 5]), &nodes(&[4, 2, 3])),
        nodes(&[1, 2, 3])
    );
    assert_eq!(
        catalog.voters(&nodes(&[1, 2, 4, 5]), &nodes(&[1, 2, 3])),
        nodes(&[1, 2, 3]),
        "the witness is the only one there"
    );
}

#[test]
fn with_one_site_left_its_one_node_holds_all_votes() {
    let mut cluster = Cluster::with_volume();
    cluster.done(Cluster::deactivate(A, &[2, 3]));
    assert_eq!(
        cluster.catalog.voters(&nodes(&[2, 3]), &nodes(&[1, 2, 3])),
        nodes(&[2])
    );
}

#[test]
fn with_two_nodes_left_the_witness_keeps_its_vote() {
    let mut cluster = all_started();
    cluster.done(Cluster::deactivate(A, &[2, 3, 5]));
    assert_eq!(
        cluster
            .catalog
            .voters(&nodes(&[2, 3, 5]), &nodes(&[1, 2, 3])),
        nodes(&[2, 3, 5])
    );
    assert_eq!(
        cluster.catalog.voters(&nodes(&[3, 5]), &nodes(&[1, 2, 3])),
        nodes(&[5]),
        "one of them does not answer"
    );
}

#[test]
fn without_the_witness_both_sites_vote() {
    let mut cluster = Cluster::with_volume();
    cluster.done(Cluster::deactivate(WITNESS, &[]));
    assert_eq!(
        cluster
            .catalog
            .voters(&nodes(&[1, 2, 3]), &nodes(&[1, 2, 3])),
        nodes(&[1, 2])
    );
}

#[test]
fn a_domain_that_is_being_activated_votes_once_a_node_of_it_is_reachable() {
    let mut cluster = Cluster::with_volume();
    cluster.done(Cluster::deactivate(A, &[2, 3]));
    cluster.done(Command::Deactivated {
        domain: A,
        proof: String::new(),
    });
    cluster.done(Command::Activate { domain: A });
    assert_eq!(
        cluster.catalog.voters(&nodes(&[2, 3]), &nodes(&[2])),
        nodes(&[2])
    );
    assert_eq!(
        cluster.catalog.voters(&nodes(&[1, 2, 3]), &nodes(&[2])),
        nodes(&[1, 2, 3])
    );
}

#[test]
fn nodes_that_have_not_registered_do_not_vote() {
    let mut cluster = Cluster {
        catalog: Catalog::default(),
        requests: 0,
    };
    cluster.done(form());
    assert_eq!(
        cluster.catalog.voters(&nodes(&[1, 2, 3]), &nodes(&[1])),
        nodes(&[1]),
        "nobody fits: the current ones stay"
    );
    cluster.done(started(1, 1, 1));
    cluster.done(started(2, 2, 1));
    assert_eq!(
        cluster.catalog.voters(&nodes(&[1, 2, 3]), &nodes(&[1])),
        nodes(&[1, 2])
    );
}
