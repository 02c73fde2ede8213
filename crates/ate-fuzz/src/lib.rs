//! Fuzzing of every parser of outside data, on stable Rust, as ordinary tests.
//!
//! A parser is a [`Target`] in the tests of its own crate, where nothing of it need be public for that:
//!
//! ```no_run
//! # fn parse(_: &[u8]) -> Result<(), String> { Ok(()) }
//! ate_fuzz::Target::named("snapshot.manifest").sample("documented", || b"{}".to_vec()).run(parse);
//! ```
//!
//! Its samples, and every input that ever broke it, are kept in `corpus/NAME`. First they are tried as they are: a sample
//! (`good-…`) must be accepted, or the target tests nothing. Then what [`mutate`] makes of them is tried until the time is
//! over. Nothing may panic, take longer than [`watch::LIMIT`] or more memory than the target's cap; a target says
//! what else must hold by asserting it, most often that what was accepted reads back the same when written.
//!
//! An input that gives an answer of a new kind is kept for the run and built upon: on stable there is no cheap way to
//! ask which branches were taken, and for parsers whose every refusal has words of its own these come close.
//!
//! Why not bolero: its engine for stable makes inputs of noise alone, which gets no further than the first byte of
//! most formats. mutatis knows typed values, not bytes with lengths, digits and brackets in them.
//!
//! | variable | |
//! |---|---|
//! | `ATE_FUZZ_SECONDS` | how long each target is tried (1) |
//! | `ATE_FUZZ_SEED` | where the random numbers begin; without, the same for each run of the default length |
//! | `ATE_FUZZ_WRITE` | write the samples anew, by the code as it is |

mod corpus;
mod memory;
pub mod mutate;
mod pool;
pub mod tar;
pub mod watch;

use std::{
    fmt::Display,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::{Duration, Instant},
};

use corpus::Corpus;
use pool::Pool;

/// How long a target is tried when nobody says.
const SECONDS: f64 = 1.0;
const SEED: u64 = 1;
/// Bytes one input may make a parser hold, unless its target says otherwise. Inputs have some KiB.
const MEMORY: usize = 64 << 20;

/// One parser, and what it is tried with.
pub struct Target {
    name: &'static str,
    samples: Vec<(String, Sample)>,
    memory: usize,
    corpus: PathBuf,
}

/// Makes a kept input.
type Sample = Box<dyn FnOnce() -> Vec<u8>>;

/// What became of a run.
#[derive(Debug, Default, Clone)]
pub struct Report {
    pub executions: u64,
    pub accepted: u64,
    /// Answers that differ in more than numbers.
    pub kinds: usize,
    pub slowest: Duration,
    pub most_memory: usize,
}

impl Target {
    pub fn named(name: &'static str) -> Self {
        let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus");
        Target { name, samples: Vec::new(), memory: MEMORY, corpus }
    }

    /// A good input, as the code itself writes it. Made only when the corpus is written.
    #[must_use]
    pub fn sample(mut self, name: &'static str, make: impl FnOnce() -> Vec<u8> + 'static) -> Self {
        self.samples.push((format!("{}{name}", corpus::GOOD), Box::new(make)));
        self
    }

    /// An input that need not be accepted wherever it is tried, and is worth changing all the same.
    #[must_use]
    pub fn other(mut self, name: &'static str, make: impl FnOnce() -> Vec<u8> + 'static) -> Self {
        self.samples.push((name.to_owned(), Box::new(make)));
        self
    }

    /// Another cap than 64 MiB.
    #[must_use]
    pub fn memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }

    /// Another place for what is kept.
    #[must_use]
    pub fn corpus(mut self, dir: impl Into<PathBuf>) -> Self {
        self.corpus = dir.into();
        self
    }

    /// Tries the parser. It answers whether it accepted the bytes, or why not.
    ///
    /// # Panics
    /// If an input breaks it, or a sample is refused.
    pub fn run<E: Display>(self, parser: impl Fn(&[u8]) -> Result<(), E>) -> Report {
        let seconds = variable("ATE_FUZZ_SECONDS");
        let seed =
            variable("ATE_FUZZ_SEED").unwrap_or_else(|| if seconds.is_none() { SEED } else { fastrand::u64(..) });
        let corpus = Corpus::open(&self.corpus, self.name);
        if std::env::var_os("ATE_FUZZ_WRITE").is_some() {
            self.samples.into_iter().for_each(|(name, make)| corpus.write(&name, &make()));
        }
        let kept = corpus.read();
        assert!(!kept.is_empty(), "{} has no samples: run it once with ATE_FUZZ_WRITE=1", self.name);

        let mut trial = Trial { parser, corpus, memory: self.memory, seed, report: Report::default() };
        watch::over(self.name, |watch| {
            let mut pool = Pool::default();
            for input in kept {
                let answer = trial.attempt(watch, &input.bytes);
                if let (true, Err(why)) = (input.is_good, &answer) {
                    trial.corpus.done();
                    panic!("{}: the sample {} is refused: {why}", self.name, input.name);
                }
                pool.keep(&input.bytes);
                pool.add(&input.bytes, &answer);
            }
            let mut random = fastrand::Rng::with_seed(seed);
            let end = Instant::now() + Duration::from_secs_f64(seconds.unwrap_or(SECONDS));
            while Instant::now() < end {
                let input = pool.input(&mut random);
                let answer = trial.attempt(watch, &input);
                pool.add(&input, &answer);
            }
            trial.report.kinds = pool.kinds();
        });
        trial.corpus.passed();
        let Report { executions, accepted, kinds, slowest, most_memory } = &trial.report;
        // Not captured: how much was tried is worth as much as that nothing was found.
        let _ = writeln!(
            std::io::stderr(),
            "fuzz {}: {executions} executions, {accepted} accepted, {kinds} kinds of answers, slowest {slowest:.1?}, \
             most memory {} KiB",
            self.name,
            most_memory >> 10
        );
        trial.report
    }
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

struct Trial<P> {
    parser: P,
    corpus: Corpus,
    memory: usize,
    seed: u64,
    report: Report,
}

impl<P: Fn(&[u8]) -> Result<(), E>, E: Display> Trial<P> {
    fn attempt(&mut self, watch: &watch::Watch, input: &[u8]) -> Result<(), String> {
        self.corpus.about_to_try(input);
        let begun = Instant::now();
        let attempt = watch.during(|| {
            memory::capped(self.memory, || {
                catch_unwind(AssertUnwindSafe(|| (self.parser)(input).map_err(|e| e.to_string())))
            })
        });
        let (answer, memory) = attempt;
        let report = &mut self.report;
        report.executions += 1;
        report.slowest = report.slowest.max(begun.elapsed());
        report.most_memory = report.most_memory.max(memory);
        match answer {
            Ok(answer) => {
                report.accepted += u64::from(answer.is_ok());
                answer
            }
            Err(_) => {
                let path = self.corpus.keep_crasher(input);
                panic!("the {} bytes in {} broke it (seed {})", input.len(), path.display(), self.seed)
            }
        }
    }
}
