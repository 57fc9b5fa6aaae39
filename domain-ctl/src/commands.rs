//! The commands, a file for each kind of thing.

mod domains;
mod events;
mod explain;
mod failovers;
mod links;
mod manual;
mod members;
mod nodes;
mod places;
mod recovery;
mod status;
mod volumes;

use crate::arguments::{
    Activate, Arguments, Command, Create, Deactivate, Delete, Describe, Expand, Get, Report, Set,
};
use crate::client::Client;
use crate::failure::Failure;

/// What storkctl says when there is nothing to show.
const NOTHING_FOUND: &str = "No resources found.\n";

/// Does what the command line says.
///
/// # Errors
/// When it can't be done; the text is for the user.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = Client::new(&arguments.api)?;
    match arguments.command {
        Command::Get { what } => match what {
            Get::ClusterDomainsStatus(selection) => domains::get_status(&client, &selection),
            Get::ClusterDomainUpdate(selection) => domains::get_updates(&client, &selection),
            Get::ClusterDomains(selection) => domains::get_domains(&client, &selection),
            Get::Volumes(selection) => volumes::get(&client, &selection),
            Get::Nodes(selection) => nodes::get(&client, &selection),
            Get::Links(showing) => links::get(&client, &showing),
            Get::Events(wanted) => events::get(&client, &wanted),
        },
        Command::Activate {
            what: Activate::ClusterDomain { name, all, waiting },
        } => domains::activate(&client, name, all, &waiting),
        Command::Deactivate {
            what:
                Deactivate::ClusterDomain {
                    name,
                    dry_run,
                    accept_data_loss,
                    waiting,
                },
        } => domains::deactivate(&client, name, dry_run, accept_data_loss, &waiting),
        Command::Create {
            what:
                Create::Volume {
                    name,
                    size,
                    block_size,
                    on_peer_loss,
                    durability,
                    preferred_domain,
                    replicas,
                },
        } => volumes::create(
            &client,
            name,
            size,
            &block_size,
            (on_peer_loss, durability),
            (preferred_domain, replicas),
        ),
        Command::Add { what } => members::add(&client, &what),
        Command::Remove { what } => members::remove(&client, &what),
        Command::Describe {
            what: Describe::Volume { name, output },
        } => volumes::describe(&client, &name, output),
        Command::Delete {
            what: Delete::Volume { name },
        } => volumes::delete(&client, &name),
        Command::Expand {
            what: Expand::Volume { name, size },
        } => volumes::expand(&client, &name, size),
        Command::Set {
            what:
                Set::Volume {
                    name,
                    on_peer_loss,
                    durability,
                    preferred_domain,
                },
        } => volumes::set(&client, &name, (on_peer_loss, durability), preferred_domain),
        Command::Relocate { what } => places::relocate(&client, &what),
        Command::Publish { what } => places::publish(&client, &what),
        Command::Unpublish { what } => places::unpublish(&client, &what),
        Command::Report {
            what: Report::Failover(selection),
        } => failovers::report(&client, &selection),
        Command::Kvdb { what } => recovery::kvdb(&client, &what),
        Command::Recover { what } => recovery::recover(&client, &what),
        Command::Status { output, watch } => status::show(&client, output, watch),
        Command::Explain { what } => explain::show(&client, &what),
        Command::Completion { shell } => manual::completion(shell),
        Command::Manual { command } => manual::page(&command),
    }
}
