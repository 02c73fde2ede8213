//! What an armed point does to the process that reaches it. Each test runs this program again as that process.
#![cfg(debug_assertions)]

use std::{
    fs,
    io::Error,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use ate_failpoint::{step, step_now};

const VARIABLE: &str = "ATE_FAILPOINTS";
const LIMIT: Duration = Duration::from_secs(10);

/// What the process does: a file gets a letter for each time the work was done.
async fn workflow(log: &Path) -> [Result<(), Error>; 3] {
    let write = |letter: &str| {
        let text = fs::read_to_string(log).unwrap_or_default() + letter;
        fs::write(log, text)
    };
    [
        step!("test.call", async { write("a") }, repeatable),
        step!("test.held", async { write("b") }, held),
        step_now!("test.now", write("c")),
    ]
}

#[tokio::test]
async fn the_process_under_test() {
    let Some(dir) = std::env::var_os(VARIABLE) else { return };
    for done in workflow(&Path::new(&dir).join("log")).await {
        println!("said {}", done.map_or_else(|e| e.to_string(), |()| "done".to_owned()));
    }
}

fn armed(points: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for sub in ["armed", "fired"] {
        fs::create_dir(dir.path().join(sub)).unwrap();
    }
    for (point, word) in points {
        fs::write(dir.path().join("armed").join(point), word).unwrap();
    }
    dir
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "the_process_under_test", "--nocapture"]).env(VARIABLE, dir);
    command
}

/// What it said, and the letters.
fn run(dir: &Path) -> (Output, Vec<String>, String) {
    let out = command(dir).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let said = text.lines().filter_map(|l| l.split_once("said ")).map(|(_, what)| what.to_owned()).collect();
    (out, said, fs::read_to_string(dir.join("log")).unwrap_or_default())
}

#[test]
fn nothing_happens_where_nothing_is_armed() {
    let dir = armed(&[]);
    let (_, said, log) = run(dir.path());
    assert_eq!((said.len(), said.iter().all(|s| s == "done"), log.as_str()), (3, true, "abc"));
}

#[test]
fn a_process_dies_at_the_point_and_only_once() {
    let dir = armed(&[("test.held.before", "abort")]);
    let (out, _, log) = run(dir.path());
    assert!(out.status.signal().is_some(), "{:?}", out.status);
    assert_eq!(log, "a");
    assert!(dir.path().join("fired/test.held.before").exists());
    let (out, _, log) = run(dir.path());
    assert!(out.status.success());
    assert_eq!(log, "aabc");
}

#[test]
fn an_error_before_comes_in_place_of_the_work_and_one_after_it_in_place_of_the_answer() {
    let dir = armed(&[("test.call.after", "error"), ("test.now.before", "error")]);
    let (_, said, log) = run(dir.path());
    assert_eq!(said, ["a fault was injected at test.call.after", "done", "a fault was injected at test.now.before"]);
    assert_eq!(log, "ab");
}

#[test]
fn a_step_is_run_twice_where_that_is_claimed_to_change_nothing() {
    let dir = armed(&[("test.call.twice", ""), ("test.held.twice", "")]);
    let (_, said, log) = run(dir.path());
    assert_eq!((said.len(), log.as_str()), (3, "aabc"));
}

#[test]
fn a_point_holds_until_it_is_let_go() {
    let dir = armed(&[("test.held.after", "hold")]);
    let mut child = command(dir.path()).spawn().unwrap();
    let fired = dir.path().join("fired/test.held.after");
    let began = Instant::now();
    while !fired.exists() {
        assert!(began.elapsed() < LIMIT, "the point is not reached");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert_eq!(fs::read_to_string(dir.path().join("log")).unwrap(), "ab");
    assert!(child.try_wait().unwrap().is_none());
    fs::remove_file(fired).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(fs::read_to_string(dir.path().join("log")).unwrap(), "abc");
}
