//! Every attack of the suite ends in a typed error or does no harm, and nothing of the attacker's is executed.

use std::io::Write as _;

use ate_e2e::attacks::SUITES;

#[test]
fn every_attack_on_a_node_is_stopped_and_the_node_serves_on() {
    every_attack_is_stopped("gvisor");
}

#[test]
fn every_attack_on_a_node_of_machines_is_stopped_and_the_node_serves_on() {
    every_attack_is_stopped("microvm");
}

fn every_attack_is_stopped(class: &str) {
    let suite = SUITES.into_iter().find(|s| s.class == class).expect("a suite");
    let outcomes = suite.run(|outcome| {
        let word = match &outcome.stopped {
            Ok(stopped) => format!("stopped ({stopped})"),
            Err(why) => format!("NOT STOPPED: {why}"),
        };
        // What is printed, the test harness keeps.
        let _ = writeln!(std::io::stderr(), "{class}: {}: {word}", outcome.name);
    });
    let failed: Vec<_> = outcomes.iter().filter(|o| o.stopped.is_err()).map(|o| o.name).collect();
    assert!(failed.is_empty(), "of {} attacks these were not stopped: {failed:#?}", outcomes.len());
}
