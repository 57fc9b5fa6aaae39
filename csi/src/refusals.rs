//! From the cluster's troubles to the interface's codes.

use crate::cluster::Trouble;
use tonic::Status;

/// The code that a trouble has where nothing more particular is said.
pub fn status(trouble: Trouble) -> Status {
    let text = trouble.to_string();
    match trouble {
        Trouble::Unknown(_) => Status::not_found(text),
        Trouble::Invalid(_) => Status::invalid_argument(text),
        Trouble::Conflict { .. } => Status::failed_precondition(text),
        Trouble::Outdated(_) => Status::unimplemented(text),
        Trouble::Unavailable(_) => Status::unavailable(text),
    }
}

/// NOT_FOUND for a volume whose id no volume can have, or has.
pub fn no_such_volume(id: &str) -> Status {
    Status::not_found(format!("there is no volume {id:?}"))
}

/// INVALID_ARGUMENT for a field that must be there.
pub fn needed<'a>(field: &str, value: &'a str) -> Result<&'a str, Status> {
    if value.is_empty() {
        return Err(Status::invalid_argument(format!("{field} is missing")));
    }
    Ok(value)
}
