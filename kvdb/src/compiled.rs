//! Makes the compiler write down here, once, what every program that runs kvdb on tokio needs: Raft is generic over its runtime, so each crate
//! that uses it would otherwise compile it again. (Where optimization is low, as in tests, crates share what they have instantiated.)

use crate::{Detour, Kvdb};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use isthmus_catalog::Request;
use isthmus_engine::NodeId;
use std::time::Duration;

/// What can be asked of kvdb on tokio. Nobody calls this.
#[must_use]
pub fn on_tokio<'a>(
    kvdb: &'a Kvdb,
    detour: &'a Detour,
    request: Request,
) -> [BoxFuture<'a, ()>; 7] {
    let within = Duration::ZERO;
    let nothing = || (String::new(), 0, Default::default(), Default::default());
    let (name, id, domains, nodes) = nothing();
    let (command, cause) = (request.command.clone(), request.cause.clone());
    [
        kvdb.propose_request(request, within).map(drop).boxed(),
        kvdb.propose(command, cause.clone()).map(drop).boxed(),
        kvdb.confirm_within(within).map(drop).boxed(),
        kvdb.serve(NodeId(0), Bytes::new()).map(drop).boxed(),
        kvdb.form(name, id, domains, nodes, cause).map(drop).boxed(),
        kvdb.stop().boxed(),
        detour.confirm(within).map(drop).boxed(),
    ]
}
