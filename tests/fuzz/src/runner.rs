//! The loop: choose an input, run it, look at what it cost and reached, keep it if it is worth it.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::coverage::Coverage;
use crate::mutate::{flip_bit, mutate};
use crate::random::Random;
use crate::target::{Expect, Target, Verdict};
use crate::{allocation, current};

/// Inputs kept for a target. A full corpus lets a random one go for each new one.
const CORPUS_MAX: usize = 4096;
/// CPU time that one case may take: a thousand times what the slowest needs.
const CASE_CPU_MAX: Duration = Duration::from_secs(5);
/// Wall time under which nobody asks for the CPU time, which costs a system call.
const CASE_UNSUSPICIOUS: Duration = Duration::from_millis(200);
/// CPU time of the process after which a case that has not ended is called endless.
const ENDLESS_CPU: Duration = Duration::from_secs(20);

/// What came of a target's cases.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Cases run.
    pub cases: u64,
    /// Accepted.
    pub accepted: u64,
    /// Refused.
    pub refused: u64,
    /// Inputs kept.
    pub corpus: usize,
    /// Edges hit, where they are counted.
    pub edges_hit: usize,
    /// The most memory that a case had live at once.
    pub memory_bytes: usize,
    /// How long it all took.
    pub elapsed: Duration,
}

/// One target with its corpus.
pub struct Runner {
    target: Box<dyn Target>,
    random: Random,
    corpus: Vec<Vec<u8>>,
    coverage: Coverage,
    tally: Tally,
}

impl Runner {
    /// A runner that knows nothing yet.
    #[must_use]
    pub fn new(target: Box<dyn Target>, seed: u64) -> Runner {
        current::tell_panics();
        // Each target has its own stream, so that it runs the same cases alone and among others.
        let name = u64::from(crc32fast::hash(target.name().as_bytes()));
        Runner {
            target,
            random: Random::new(seed ^ name << 32),
            corpus: Vec::new(),
            coverage: Coverage::new(),
            tally: Tally::default(),
        }
    }

    /// The target.
    #[must_use]
    pub fn target(&self) -> &dyn Target {
        &*self.target
    }

    /// What came of it so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Whether coverage is measured.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        self.coverage.is_measured()
    }

    /// Runs so many cases.
    ///
    /// # Panics
    /// When a rule is broken: the case has been told and kept then.
    pub fn run(&mut self, cases: u64) {
        let begun = Instant::now();
        for _ in 0..cases {
            let (input, expect) = self.choose();
            let verdict = self.case(&input, expect);
            let is_new = self.coverage.stop();
            self.note(input, expect, verdict, is_new);
        }
        self.tally.elapsed += begun.elapsed();
    }

    /// Runs one case: of a file, say.
    ///
    /// # Panics
    /// When a rule is broken.
    pub fn case(&mut self, input: &[u8], expect: Expect) -> Verdict {
        let name = self.target.name();
        current::begin(name, expect, input);
        let begun = (Instant::now(), cpu_of_thread());
        allocation::start();
        self.coverage.start();
        let verdict = self.target.run(input, expect);
        let memory_bytes = allocation::stop();
        let bound = self.target.memory_bytes_max(input.len());
        assert!(
            memory_bytes <= bound,
            "{memory_bytes} bytes live at once for an input of {}, at most {bound} are needed",
            input.len()
        );
        if begun.0.elapsed() > CASE_UNSUSPICIOUS {
            let cpu = cpu_of_thread().saturating_sub(begun.1);
            assert!(cpu <= CASE_CPU_MAX, "{cpu:?} of CPU time for one case");
        }
        match expect {
            Expect::Anything => {}
            Expect::Whole => assert_eq!(verdict, Verdict::Accepted, "a valid input was refused"),
            Expect::Damaged => assert!(
                !self.target.is_sealed() || verdict == Verdict::Refused,
                "one wrong bit was not noticed"
            ),
            Expect::Cut => assert!(
                !self.target.refuses_prefixes() || verdict == Verdict::Refused,
                "what was cut off was accepted"
            ),
        }
        current::end();
        self.tally.memory_bytes = self.tally.memory_bytes.max(memory_bytes);
        verdict
    }

    fn choose(&mut self) -> (Vec<u8>, Expect) {
        let random = &mut self.random;
        let kind = random.below(16);
        let fresh = kind < 3 || self.corpus.is_empty() || random.once_in(5);
        let mut input = if fresh {
            self.target.seed(random)
        } else {
            self.corpus[random.index(self.corpus.len())].clone()
        };
        match kind {
            0 => return (input, Expect::Whole),
            1 => {
                flip_bit(&mut input, random);
                return (input, Expect::Damaged);
            }
            2 => {
                input.truncate(random.index(input.len()));
                return (input, Expect::Cut);
            }
            _ => {}
        }
        let empty = Vec::new();
        let other = match self.corpus.len() {
            0 => &empty,
            length => &self.corpus[random.index(length)],
        };
        if !self.target.mutate(&mut input, other, random) {
            mutate(&mut input, other, self.target.words(), random);
        }
        input.truncate(self.target.input_bytes_max());
        if !random.once_in(5) {
            self.target.reseal(&mut input, random);
        }
        (input, Expect::Anything)
    }

    fn note(&mut self, input: Vec<u8>, expect: Expect, verdict: Verdict, is_new: bool) {
        self.tally.cases += 1;
        match verdict {
            Verdict::Accepted => self.tally.accepted += 1,
            Verdict::Refused => self.tally.refused += 1,
        }
        // Without coverage, what was accepted although it was changed is the best there is to go on from.
        let worth = if self.coverage.is_measured() {
            is_new
        } else {
            expect == Expect::Anything && verdict == Verdict::Accepted && self.random.once_in(8)
        };
        if worth {
            if self.corpus.len() >= CORPUS_MAX {
                let gone = self.random.index(self.corpus.len());
                self.corpus.swap_remove(gone);
            }
            self.corpus.push(input);
        }
        self.tally.corpus = self.corpus.len();
        self.tally.edges_hit = self.coverage.edges_hit();
    }
}

/// Runs the input of a file: what is expected of it is its extension.
///
/// # Errors
/// When it can't be read, or is called otherwise.
///
/// # Panics
/// When a rule is broken.
pub fn replay(runner: &mut Runner, file: &Path) -> std::io::Result<Verdict> {
    let word = file.extension().unwrap_or_default().to_string_lossy();
    let expect = Expect::ALL.into_iter().find(|expect| expect.word() == word);
    let expect = expect.ok_or_else(|| {
        std::io::Error::other("its extension must be anything, whole, damaged or cut")
    })?;
    Ok(runner.case(&std::fs::read(file)?, expect))
}

/// Runs all cases, a round for each target in turn, and tells how it goes.
///
/// # Panics
/// When a rule is broken.
pub fn run_all(runners: &mut [Runner], cases: u64) {
    let begun = Instant::now();
    let shares: u64 = runners.iter().map(|runner| runner.target.share()).sum();
    let terminal = std::io::stderr().is_terminal();
    let pause = Duration::from_secs(if terminal { 1 } else { 60 });
    let mut told = Instant::now();
    let total =
        |runners: &[Runner]| -> u64 { runners.iter().map(|runner| runner.tally.cases).sum() };
    while total(runners) < cases {
        let round = (cases - total(runners)).min(shares * 8);
        for index in 0..runners.len() {
            let part = (round * runners[index].target.share()).div_ceil(shares);
            let left = cases - total(runners).min(cases);
            runners[index].run(part.min(left));
            if told.elapsed() >= pause {
                told = Instant::now();
                tell(runners, index, cases, begun.elapsed(), terminal);
            }
        }
    }
    if terminal {
        eprint!("\r\x1b[K");
    }
}

fn tell(runners: &[Runner], index: usize, cases: u64, elapsed: Duration, terminal: bool) {
    let done: u64 = runners.iter().map(|runner| runner.tally.cases).sum();
    let speed = done as f64 / elapsed.as_secs_f64().max(0.001);
    let left = Duration::from_secs_f64((cases - done.min(cases)) as f64 / speed.max(0.001));
    let (runner, corpus) = (
        &runners[index],
        runners
            .iter()
            .map(|runner| runner.tally.corpus)
            .sum::<usize>(),
    );
    let line = format!(
        "{done} of {cases} cases ({} %), {speed:.0}/s, {} s left; corpus {corpus}; {}: {} accepted, {} refused, {} edges",
        done * 100 / cases.max(1),
        left.as_secs(),
        runner.target.name(),
        runner.tally.accepted,
        runner.tally.refused,
        runner.tally.edges_hit
    );
    if terminal {
        eprint!("\r\x1b[K{line}");
        // A terminal that takes nothing is no reason to stop.
        let _ = std::io::stderr().flush();
    } else {
        eprintln!("{line}");
    }
}

fn cpu_of_thread() -> Duration {
    duration(rustix::time::clock_gettime(
        rustix::time::ClockId::ThreadCPUTime,
    ))
}

fn cpu_of_process() -> Duration {
    duration(rustix::time::clock_gettime(
        rustix::time::ClockId::ProcessCPUTime,
    ))
}

fn duration(time: rustix::time::Timespec) -> Duration {
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// Ends the process, with the case told and kept, when a case does not end.
pub fn watch_for_endless_cases() {
    std::thread::spawn(|| {
        let mut since = (current::number(), cpu_of_process());
        loop {
            std::thread::park_timeout(Duration::from_secs(1));
            let now = (current::number(), cpu_of_process());
            if now.0.is_none() || now.0 != since.0 {
                since = now;
            } else if now.1.saturating_sub(since.1) > ENDLESS_CPU {
                current::fail("the case does not end");
                std::process::exit(1);
            }
        }
    });
}
