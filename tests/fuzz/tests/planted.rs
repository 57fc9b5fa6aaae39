//! The loop finds what is wrong: faults that decoders really have had, planted into a small one.

use fuzz::current;
use fuzz::random::Random;
use fuzz::runner::Runner;
use fuzz::target::{Expect, Target, Verdict};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What is wrong with the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// A wrong checksum is passed over.
    ChecksumIgnored,
    /// What is missing at the end is taken as zeroes.
    CutAccepted,
    /// Memory is taken before anything is checked.
    LengthBelieved,
    /// A value that only a wrong length gives, behind the checksum, is used as an index.
    PanicBehindChecksum,
    /// What the encoder makes is not understood.
    OwnRefused,
    /// Something is added to a number from outside.
    Overflow,
}

const CASES: u64 = 20_000;
/// More would end the process: see `fuzz::allocation`.
const BELIEVED_MAX: usize = 1 << 20;

/// `length u32 · crc32 of the rest u32 · rest`.
struct Planted(Fault);

impl Target for Planted {
    fn name(&self) -> &'static str {
        "planted"
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let length = random.index(60) + 4;
        let mut bytes = vec![0; 8];
        bytes.extend(random.bytes(length));
        self.reseal(&mut bytes, random);
        bytes
    }

    fn reseal(&self, bytes: &mut Vec<u8>, _: &mut Random) {
        if bytes.len() >= 8 {
            let (head, rest) = bytes.split_at_mut(8);
            head[..4].copy_from_slice(&(rest.len() as u32).to_le_bytes());
            head[4..].copy_from_slice(&crc32fast::hash(rest).to_le_bytes());
        }
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        1024 + 4 * input_bytes
    }

    fn is_sealed(&self) -> bool {
        true
    }

    fn refuses_prefixes(&self) -> bool {
        true
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        let fault = self.0;
        let (Some(length), Some(checksum)) = (input.first_chunk::<4>(), input.get(4..8)) else {
            return Verdict::Refused;
        };
        let length = u32::from_le_bytes(*length) as usize;
        let mut rest = input[8..].to_vec();
        if fault == Fault::LengthBelieved {
            drop(std::hint::black_box(vec![1_u8; length.min(BELIEVED_MAX)]));
        }
        if fault == Fault::CutAccepted && rest.len() < length.min(100) {
            rest.resize(length.min(BELIEVED_MAX), 0);
            return Verdict::Accepted;
        }
        let is_sound = crc32fast::hash(&rest).to_le_bytes() == *checksum;
        if rest.len() != length || (!is_sound && fault != Fault::ChecksumIgnored) {
            return Verdict::Refused;
        }
        match fault {
            Fault::PanicBehindChecksum if rest.len() < 4 => assert!(rest.len() >= 4, "too short"),
            Fault::OwnRefused if rest.len().is_multiple_of(7) => return Verdict::Refused,
            Fault::Overflow => {
                let number = rest.first().copied().unwrap_or_default();
                assert!(number.checked_add(1).is_some(), "an overflow");
            }
            _ => {}
        }
        Verdict::Accepted
    }
}

#[test]
fn planted_faults_are_found_and_a_sound_decoder_passes() {
    let folder = std::env::temp_dir().join(format!("isthmus-planted-{}", std::process::id()));
    current::keep_in(folder.clone());
    let seed = Random::fresh_seed();
    println!("seed {seed}");
    let breaks = |fault| {
        let mut runner = Runner::new(Box::new(Planted(fault)), seed);
        catch_unwind(AssertUnwindSafe(|| runner.run(CASES))).is_err()
    };
    for fault in [
        Fault::ChecksumIgnored,
        Fault::CutAccepted,
        Fault::LengthBelieved,
        Fault::PanicBehindChecksum,
        Fault::OwnRefused,
        Fault::Overflow,
    ] {
        assert!(breaks(fault), "{fault:?} was not found in {CASES} cases");
    }
    assert!(!breaks(Fault::None), "a sound decoder was blamed");
    let kept = std::fs::read_dir(&folder)
        .expect("inputs were kept")
        .count();
    assert!(kept >= 5, "{kept} inputs were kept");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
}
