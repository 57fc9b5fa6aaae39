//! Why a volume or a domain is in its state, which rule holds it, and what would change that.

mod domain;
mod volume;

use isthmus_api::Remedy;

pub use domain::domain;
pub use volume::volume;

fn remedy(command: impl Into<String>, consequence: impl Into<String>) -> Remedy {
    Remedy {
        command: command.into(),
        consequence: consequence.into(),
    }
}

fn deactivate(domain: &str) -> String {
    format!("domain-ctl deactivate clusterdomain {domain} --wait")
}

fn activate(domain: &str) -> String {
    format!("domain-ctl activate clusterdomain {domain} --wait")
}

/// `a1`, `a1 and b1`, `a1, b1 and c1`.
fn all_of(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}
