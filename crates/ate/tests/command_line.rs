//! The real program, where it needs no server: help, usage errors, exit codes, files that are refused.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Output},
};

/// A port nobody listens on: 1 needs root to bind and has no service anywhere.
const NOBODY: &str = "http://127.0.0.1:1";

fn ate(args: &[&str]) -> Output {
    run(clean().args(args))
}

/// The program, in an environment that says nothing of a server.
fn clean() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ate"));
    std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ATE_")).for_each(|(name, _)| {
        command.env_remove(name);
    });
    command
}

fn run(command: &mut Command) -> Output {
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
        "token",
        "control",
        "node",
        "certs",
        "crd",
        "doctor",
        "completion",
    ] {
        assert!(text.lines().any(|l| l.trim_start().starts_with(verb)), "{verb} is missing in\n{text}");
    }
    assert!(text.contains("Exit codes:\n  0  done"), "{text}");
}

#[test]
fn as_a_kubectl_plugin_help_shows_what_the_user_typed() {
    let help = run(clean().arg0("/usr/bin/kubectl-ate").args(["get", "--help"]));
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
fn without_a_server_named_it_is_the_socket_of_the_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(clean().env("ATE_DATA_DIR", dir.path()).args(["get", "actors"]));
    assert_eq!(output.status.code(), Some(6));
    let socket = format!("unix:{}/ate.sock: ", dir.path().display());
    assert!(stderr(&output).contains(&socket) && stderr(&output).contains("ate up"), "{}", stderr(&output));
}

#[test]
fn a_token_is_no_argument_and_crosses_no_network_unencrypted() {
    assert_eq!(ate(&["--token", "ate_x", "get", "actors"]).status.code(), Some(2));
    let far = run(clean().env("ATE_TOKEN", "ate_x").args(["--server", "http://192.0.2.1:7600", "get", "actors"]));
    assert_eq!(far.status.code(), Some(2), "{}", stderr(&far));
    assert!(stderr(&far).contains("https://"), "{}", stderr(&far));
    let missing = ate(&["--server", NOBODY, "--token-file", "/nonexistent", "get", "actors"]);
    assert_eq!(missing.status.code(), Some(3), "{}", stderr(&missing));
    // What is wrong with a token is told without telling it.
    let broken = run(clean().env("ATE_TOKEN", "secret\nsecret").args(["--server", NOBODY, "get", "actors"]));
    assert_eq!(broken.status.code(), Some(2), "{}", stderr(&broken));
    assert!(!stderr(&broken).contains("secret"), "{}", stderr(&broken));
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
