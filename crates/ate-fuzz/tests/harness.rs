//! The harness finds what it is there to find: a panic, a hang, a greedy parser, a stack that runs over. Each is tried in a
//! process of its own, which is this test again.

use std::{
    env, fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use ate_fuzz::Target;

/// Set in the process that is to break, with the place of its corpus.
const BROKEN: &str = "ATE_FUZZ_TEST_CORPUS";

/// Tries a parser whose sample begins with `good`; the rest is up to the mutator.
fn try_out(name: &'static str, parser: impl Fn(&[u8])) {
    let Some(corpus) = env::var_os(BROKEN) else { return };
    Target::named(name).corpus(corpus).memory(8 << 20).run(|bytes| {
        if bytes.starts_with(b"good") {
            parser(bytes);
            Ok(())
        } else {
            Err("it does not begin well")
        }
    });
}

#[test]
#[ignore = "breaks; started by the others"]
fn broken_panics() {
    try_out("test.panics", |bytes| assert!(bytes.len() < 10, "too long for it"));
}

#[test]
#[ignore = "breaks; started by the others"]
fn broken_hangs() {
    try_out("test.hangs", |bytes| {
        while bytes.len() > 10 {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
#[ignore = "breaks; started by the others"]
fn broken_is_greedy() {
    try_out("test.greedy", |bytes| drop(vec![1u8; bytes.len() << 20]));
}

#[test]
#[ignore = "breaks; started by the others"]
fn broken_recurses() {
    fn depth(bytes: &[u8]) -> usize {
        let room = std::hint::black_box([1usize; 512]);
        if bytes.is_empty() { 0 } else { depth(&bytes[1..]) + room[0] }
    }
    try_out("test.recurses", |bytes| assert!(depth(bytes) <= bytes.len()));
}

fn run(test: &str, target: &str, corpus: &Path) -> Output {
    fs::create_dir_all(corpus.join(target)).unwrap();
    fs::write(corpus.join(target).join("good-sample"), b"good").unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    command.env(BROKEN, corpus).env("ATE_FUZZ_SECONDS", "60").env("ATE_FUZZ_LIMIT_MS", "500");
    command.output().unwrap()
}

fn kept(corpus: &Path, target: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(corpus.join(target)).unwrap().map(|e| e.unwrap().path());
    files.filter(|p| !p.ends_with("good-sample")).map(|p| fs::read(p).unwrap()).collect()
}

/// It fails, says why, and the input is among the kept ones, at the latest when it is started again.
fn finds(test: &str, target: &str, says: &str) {
    let corpus = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let output = run(test, target, corpus.path());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(says), "{}: {said}", output.status);
    }
    let kept = kept(corpus.path(), target);
    assert!(!kept.is_empty() && kept.iter().all(|input| input.starts_with(b"good")), "{kept:?}");
}

#[test]
fn a_panic_is_found_and_its_input_is_kept() {
    finds("broken_panics", "test.panics", "too long for it");
}

#[test]
fn a_hang_is_found_and_its_input_is_kept() {
    finds("broken_hangs", "test.hangs", "takes longer than 500 ms");
}

#[test]
fn a_greedy_parser_is_found_and_its_input_is_kept() {
    finds("broken_is_greedy", "test.greedy", "more than its cap");
}

#[test]
fn a_stack_that_runs_over_is_found_and_its_input_is_kept() {
    finds("broken_recurses", "test.recurses", "overflow");
}

#[test]
#[should_panic(expected = "the sample good-sample is refused")]
fn a_sample_that_is_refused_is_an_error() {
    let corpus = tempfile::tempdir().unwrap();
    fs::create_dir(corpus.path().join("test.refuses")).unwrap();
    fs::write(corpus.path().join("test.refuses/good-sample"), b"x").unwrap();
    Target::named("test.refuses").corpus(corpus.path()).run(|_| Err("never"));
}
