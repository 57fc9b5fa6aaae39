//! placeholder
use crate::random::Random;
use crate::target::{Expect, Target, Verdict};
/// x
pub struct Frames;
impl Frames {
    /// x
    pub fn new() -> Frames {
        Frames
    }
}
impl Target for Frames {
    fn name(&self) -> &'static str {
        "host-frames"
    }
    fn seed(&mut self, _: &mut Random) -> Vec<u8> {
        vec![0]
    }
    fn memory_bytes_max(&self, _: usize) -> usize {
        1 << 20
    }
    fn run(&mut self, _: &[u8], _: Expect) -> Verdict {
        Verdict::Accepted
    }
}
