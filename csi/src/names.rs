//! Names of volumes: what an orchestrator calls a volume, and what the cluster calls it.
//!
//! The cluster's name is the volume's id. It is the orchestrator's name where that is one already (`pvc-…` is); any other is mapped to
//! a readable beginning and a hash, always the same. A name that looks like a mapped one is mapped, too: so no two
//! names meet, short of a collision of 128 bits.

/// Bytes of an orchestrator's name at most, as the interface's specification says.
pub const SUGGESTED_BYTES_MAX: usize = 128;
/// Bytes of the cluster's names at most.
const VOLUME_BYTES_MAX: usize = 63;
/// Between the readable beginning and the hash.
const MARK: &str = ".h";
const HASH_DIGITS: usize = 32;
const READABLE_BYTES_MAX: usize = VOLUME_BYTES_MAX - MARK.len() - HASH_DIGITS;

/// Whether the cluster could have a volume of that name.
pub fn is_volume_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().copied().is_some_and(is_plain)
        && bytes.len() <= VOLUME_BYTES_MAX
        && bytes
            .iter()
            .all(|byte| is_plain(*byte) || b"._-".contains(byte))
}

/// The cluster's name for a volume that the orchestrator calls `suggested`.
///
/// # Errors
/// A sentence, when that is no name.
pub fn volume_name(suggested: &str) -> Result<String, String> {
    if suggested.is_empty() {
        return Err("a volume needs a name".to_owned());
    }
    if suggested.len() > SUGGESTED_BYTES_MAX {
        return Err(format!(
            "the name has {} bytes; at most {SUGGESTED_BYTES_MAX} are allowed",
            suggested.len()
        ));
    }
    let banned = |letter: char| letter.is_control() && !matches!(letter, '\t' | '\n' | '\r');
    if suggested.chars().any(banned) {
        return Err("the name has control characters".to_owned());
    }
    if is_volume_name(suggested) && !looks_mapped(suggested) {
        return Ok(suggested.to_owned());
    }
    let readable: String = suggested
        .bytes()
        .map(|byte| byte.to_ascii_lowercase())
        .map(|byte| {
            if is_plain(byte) {
                char::from(byte)
            } else {
                '-'
            }
        })
        .skip_while(|letter| *letter == '-')
        .take(READABLE_BYTES_MAX)
        .collect();
    let readable = readable.trim_end_matches('-');
    let readable = if readable.is_empty() {
        "volume"
    } else {
        readable
    };
    let hash = blake3::hash(suggested.as_bytes()).to_hex();
    let name = format!("{readable}{MARK}{}", &hash[..HASH_DIGITS]);
    assert!(is_volume_name(&name), "{name:?} is no volume name");
    Ok(name)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn looks_mapped(name: &str) -> bool {
    let Some(at) = name.len().checked_sub(HASH_DIGITS) else {
        return false;
    };
    let (before, hash) = name.split_at(at);
    before.ends_with(MARK) && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_the_cluster_takes_is_kept() {
        for name in [
            "pvc-6f0c3f5e-7f8e-4c7b-9d44-0f2f0b5d4b6a",
            "a",
            "0._-",
            &"a".repeat(63),
        ] {
            assert_eq!(volume_name(name).as_deref(), Ok(name));
        }
    }

    #[test]
    fn any_other_name_is_mapped_always_the_same_and_apart_from_all_others() {
        let long = "a".repeat(128);
        let names = [
            "Sanity-Controller",
            "sanity-controller!",
            "-x",
            "日本",
            " ",
            &long,
            &long[..127],
        ];
        let mapped: Vec<String> = names
            .iter()
            .map(|name| volume_name(name).unwrap())
            .collect();
        for (index, name) in mapped.iter().enumerate() {
            assert!(is_volume_name(name), "{name}");
            assert_eq!(volume_name(names[index]).as_ref(), Ok(name));
            assert!(!mapped[..index].contains(name), "{name}");
        }
        assert!(mapped[0].starts_with("sanity-controller.h"));
    }

    #[test]
    fn a_name_that_looks_mapped_is_mapped() {
        let mapped = volume_name("UPPER").unwrap();
        assert!(is_volume_name(&mapped));
        assert_ne!(volume_name(&mapped).as_ref(), Ok(&mapped));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(129);
        for name in ["", "a\u{0}", "a\u{7f}", "a\u{85}", &long] {
            assert!(volume_name(name).is_err(), "{name:?}");
        }
        for name in ["", "A", "-a", "a/b", "a b", &"a".repeat(64)] {
            assert!(!is_volume_name(name), "{name:?}");
        }
    }
}
