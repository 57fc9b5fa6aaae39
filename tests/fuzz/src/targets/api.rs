//! Bodies of the admin API: what clients send, and what `domain-ctl` reads.

use isthmus_api::{
    ApiError, ClusterDomainsStatus, CreateVolume, DomainChange, NodeList, NodeRuntime, Status,
    VolumeList, size,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::marker::PhantomData;

use crate::random::Random;
use crate::target::{Expect, Target, Verdict};

const WORDS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b"true",
    b"-1",
    b"1e400",
    b"18446744073709551616",
    b"\"\\ud800\"",
    b"\"name\":",
    b"\"bytes\":",
    b"\"reason\":",
    b"\"volumes\":",
    b"\"domains\":",
    b"\"observed\":",
    b"[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":",
    b"\xff",
];

struct Body<T> {
    name: &'static str,
    examples: fn(&mut Random) -> String,
    form: PhantomData<T>,
}

/// A target for each body.
#[must_use]
pub fn bodies() -> Vec<Box<dyn Target>> {
    vec![
        body::<CreateVolume>("api-create-volume", |random| {
            format!(
                r#"{{"name":"{}","bytes":{},"block_bytes":4096}}"#,
                random.name(),
                random.next_u64() >> 1
            )
        }),
        body::<DomainChange>("api-domain-change", |random| {
            format!(r#"{{"reason":"{}"}}"#, random.name())
        }),
        body::<ApiError>("api-error", |random| {
            json(
                &ApiError::new(random.name())
                    .because(random.name())
                    .next(random.name()),
            )
        }),
        Box::new(Sizes),
    ]
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("it is JSON")
}

fn body<T: DeserializeOwned + Serialize + PartialEq + Debug + 'static>(
    name: &'static str,
    examples: fn(&mut Random) -> String,
) -> Box<dyn Target> {
    Box::new(Body::<T> {
        name,
        examples,
        form: PhantomData,
    })
}

/// As the server reads a body: with the path to what is wrong, and nothing behind it.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).ok()?;
    json.end().ok()?;
    Some(value)
}

impl<T: DeserializeOwned + Serialize + PartialEq + Debug> Target for Body<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn share(&self) -> u64 {
        16
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        (self.examples)(random).into_bytes()
    }

    fn words(&self) -> &'static [&'static [u8]] {
        WORDS
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        (64 << 10) + 64 * input_bytes
    }

    fn refuses_prefixes(&self) -> bool {
        true
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        // The same bytes, as the answers that domain-ctl understands.
        let _ = parse::<Status>(input);
        let _ = parse::<VolumeList>(input);
        let _ = parse::<NodeList>(input);
        let _ = parse::<NodeRuntime>(input);
        let _ = parse::<ClusterDomainsStatus>(input);
        let value = parse::<T>(input);
        if let Some(value) = &value {
            assert_eq!(parse::<T>(json(value).as_bytes()).as_ref(), Some(value));
        }
        Verdict::of(&value)
    }
}

/// Sizes as people write them.
struct Sizes;

impl Target for Sizes {
    fn name(&self) -> &'static str {
        "api-size"
    }

    fn share(&self) -> u64 {
        8
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let unit = ["", "KiB", "M", " gib", "T"][random.index(5)];
        format!("{}{unit}", random.below(9999) + 1).into_bytes()
    }

    fn input_bytes_max(&self) -> usize {
        128
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        1024 + 16 * input_bytes
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        let parsed = std::str::from_utf8(input)
            .ok()
            .and_then(|text| size::parse(text).ok());
        if let Some(bytes) = parsed {
            assert!(bytes > 0);
            assert!(!size::format(bytes).is_empty());
        }
        Verdict::of(&parsed)
    }
}
