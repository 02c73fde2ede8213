//! The real program, where it needs no server: help, usage errors, exit codes, files that are refused.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Output},
};

/// A port nobody listens on: 1 needs root to bind and has no service anywhere.
const NOBODY: &str = "http://127.0.0.1:1";

fn ate(args: &[&str]) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_ate")).args(args))
}

fn run(command: &mut Command) -> Output {
    for name in ["ATE_SERVER", "ATE_ATESPACE", "ATE_NAMESPACE", "ATE_DATA_DIR", "ATE_CONFIG"] {
        command.env_remove(name);
    }
    command.output().expect("the program starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_names_every_verb_and_the_exit_codes() {
    let help = ate(&["help"]);
    assert_eq!(help.status.code(), Some(0));
    let text = stdout(&help);
    for verb in [
        "up",
        "run",
        "apply",
        "get",
        "describe",
        "delete",
        "create",
        "resume",
        "pause",
        "suspend",
        "logs",
        "sandbox",
        "doctor",
        "completion",
    ] {
        assert!(text.lines().any(|l| l.trim_start().starts_with(verb)), "{verb} is missing in\n{text}");
    }
    assert!(text.contains("Exit codes:\n  0  done"), "{text}");
}

#[test]
fn as_a_kubectl_plugin_help_shows_what_the_user_typed() {
    let help = run(Command::new(env!("CARGO_BIN_EXE_ate")).arg0("/usr/bin/kubectl-ate").args(["get", "--help"]));
    assert!(stdout(&help).contains("Usage: kubectl ate get"), "{}", stdout(&help));
}

#[test]
fn usage_errors_end_with_2_and_say_what_is_wrong() {
    for (args, said) in [
        (vec!["gte", "actors"], "unrecognized subcommand"),
        (vec!["get"], "KIND"),
        (vec!["get", "acotrs"], "did you mean \"actors\"?"),
        (vec!["get", "actor/a", "b"], "not KIND/NAME"),
        (vec!["delete", "actors"], "name the actor to delete"),
        (vec!["suspend", "pool", "p"], "only actors can be moved"),
        (vec!["resume", "actor", "a", "--timeout", "5"], "write 90s"),
        (vec!["logs", "template", "t"], "only actors have logs"),
        (vec!["apply"], "--filename"),
        (vec!["sandbox", "import", "--name", "n", "runsc"], "KEY=VALUE"),
        (vec!["up", "--listen", "everywhere"], "HOST:PORT"),
    ] {
        let output = ate(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn without_a_server_the_error_says_how_to_get_one_and_ends_with_6() {
    let output = ate(&["--server", NOBODY, "get", "actors"]);
    assert_eq!(output.status.code(), Some(6));
    let text = stderr(&output);
    assert!(text.starts_with(&format!("error: cannot reach the server at {NOBODY}: ")), "{text}");
    assert!(text.contains("\n  reason: UNAVAILABLE\n") && text.contains("ate up"), "{text}");
}

#[test]
fn an_apply_checks_every_file_before_it_looks_for_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let pool =
        "apiVersion: ate.dev/v1alpha1\nkind: WorkerPool\nmetadata: {name: p}\nspec: {replicas: 1, ateomImage: x}\n";
    std::fs::write(path("a.yaml"), pool).unwrap();
    std::fs::write(path("b.yaml"), "kind: WorkerPool\nmetadata: {nam").unwrap();
    let output = ate(&["--server", NOBODY, "apply", "-f", &path("")]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("b.yaml"), "{}", stderr(&output));

    let missing = ate(&["--server", NOBODY, "apply", "-f", &path("none.yaml")]);
    assert_eq!(missing.status.code(), Some(3), "{}", stderr(&missing));
}

#[test]
fn completion_scripts_know_the_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        let output = ate(&["completion", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("suspend"), "{shell}");
    }
}

#[test]
fn doctor_tells_about_the_machine_without_a_server() {
    let output = ate(&["doctor", "-o", "json"]);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", stderr(&output));
    let groups: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> = groups["machine"].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect();
    for name in ["root", "kernel", "overlayfs", "namespaces", "nft", "disk"] {
        assert!(names.contains(&name), "{name} is not checked: {names:?}");
    }
}
