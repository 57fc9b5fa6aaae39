//! Which run of its machine's kernel this process lives in: what is written and not synced is gone with it.

use crate::random;
use isthmus_catalog::BootId;
use std::path::PathBuf;

/// The kernel's word; Linux makes a random one at each boot.
const FILE: &str = "/proc/sys/kernel/random/boot_id";
/// Names another file, so that tests can have several machines on one kernel, and boot them anew.
const VARIABLE: &str = "ISTHMUS_BOOT_ID_FILE";

/// The boot id. Where it can't be known it is another one for each start: then every start counts as one after a loss of power.
///
/// # Errors
/// That there are no random numbers.
pub fn boot_id() -> std::io::Result<BootId> {
    let file = std::env::var_os(VARIABLE).map_or_else(|| PathBuf::from(FILE), PathBuf::from);
    let said = std::fs::read_to_string(&file).ok();
    match said.as_deref().and_then(parsed) {
        Some(boot) => Ok(boot),
        None => {
            tracing::warn!(file = %file.display(), "holds no boot id: this start counts as one after a loss of power");
            let half = || random::number().map(u128::from);
            Ok(BootId(half()? << 64 | half()?))
        }
    }
}

/// 32 hexadecimal digits, with hyphens anywhere.
fn parsed(text: &str) -> Option<BootId> {
    let digits: String = text
        .trim()
        .chars()
        .filter(|letter| *letter != '-')
        .collect();
    let number = u128::from_str_radix(&digits, 16).ok();
    number.filter(|_| digits.len() == 32).map(BootId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_word_is_read_and_nothing_else() {
        let text = "f3b4c1e2-0a0b-4c0d-8e0f-000102030405\n";
        let boot = BootId(0xf3b4_c1e2_0a0b_4c0d_8e0f_0001_0203_0405);
        assert_eq!(parsed(text), Some(boot));
        assert_eq!(
            (parsed(""), parsed("f3b4"), parsed("+12")),
            (None, None, None)
        );
    }
}
