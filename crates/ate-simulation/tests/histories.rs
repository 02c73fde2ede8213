//! That the simulation can be believed: the same seed is the same history. That histories violate no invariant is what
//! `script/test` looks at, with an optimised build.

use std::process::Command;

/// Runs the simulation; returns what it said.
fn simulate(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ate-simulation"));
    command.env_remove("RUST_LOG");
    let output = command.args(arguments).output().expect("the simulation starts");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in 1..=10 {
        let seed = seed.to_string();
        let first = simulate(&["--seed", &seed]);
        let second = simulate(&["--seed", &seed]);
        assert!(first.lines().count() > 100, "a history without much in it: {first}");
        assert_eq!(first, second, "seed {seed}");
    }
}
