//! `--from DIR`: the class's own herder makes the assets; nothing here knows what they are.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use ate_api::{Error, Reason};
use ate_sandbox::{Registry, registry::directories};
use tokio::{io::AsyncReadExt as _, process::Command};

use crate::{
    failure::{Outcome, Trying as _},
    progress::Progress,
    show::print,
};

/// Some seconds on a slow disk; nobody waits longer for a herder that hangs.
const LIMIT: Duration = Duration::from_secs(300);
/// Names and paths of a few assets.
const MAX_ANSWER: u64 = 1 << 20;
/// Of what a herder that failed said.
const MAX_SAID: u64 = 64 << 10;

/// Assets that a herder made. They are gone when this is dropped.
pub(super) struct Collected {
    pub(super) assets: BTreeMap<String, PathBuf>,
    _dir: tempfile::TempDir,
}

/// Has the herder of a class make its assets from what lies in a directory.
pub(super) async fn collect(class: &str, from: &Path, herder_dir: Option<&Path>) -> Outcome<Collected> {
    let what = || format!("cannot make the assets of class {class} from {}", from.display());
    let (herders, _) = Registry::discover(&directories(herder_dir), ateom::CONTRACT_VERSION);
    let program = herders.get(class).trying(what)?.program.clone();
    let dir = tempfile::Builder::new().prefix("ate-import-").tempdir().trying(what)?;
    let progress = Progress::spinner(format!("making the assets from {}", from.display()));
    let assets = run(&program, from, dir.path()).await.trying(what)?;
    let took = progress.end().as_secs_f64();
    print(&format!("made from {} in {took:.1}s: {}\n", from.display(), names(&assets)));
    Ok(Collected { assets, _dir: dir })
}

fn names(assets: &BTreeMap<String, PathBuf>) -> String {
    assets.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

async fn run(program: &Path, from: &Path, out: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
    let name = program.display();
    let failed = |e: std::io::Error| Error::new(Reason::Internal, format!("{name}: {e}"));
    let mut command = Command::new(program);
    command.arg("collect").arg("--from").arg(from).arg("--out").arg(out);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut herder = command.spawn().map_err(failed)?;
    let (stdout, stderr) = (herder.stdout.take(), herder.stderr.take());
    let (mut answer, mut said) = (Vec::new(), Vec::new());
    let all = async {
        // What is beyond is not read; a herder that talks on gets a closed pipe.
        let answer = async { stdout.ok_or(closed())?.take(MAX_ANSWER).read_to_end(&mut answer).await };
        let said = async { stderr.ok_or(closed())?.take(MAX_SAID).read_to_end(&mut said).await };
        tokio::try_join!(answer, said)?;
        herder.wait().await
    };
    let late = |_| Error::new(Reason::DeadlineExceeded, format!("{name} was not done after {} s", LIMIT.as_secs()));
    let status = tokio::time::timeout(LIMIT, all).await.map_err(late)?.map_err(failed)?;
    if !status.success() {
        let said = String::from_utf8_lossy(&said);
        let said = if said.trim().is_empty() { format!("{name}: {status}") } else { said.trim().to_owned() };
        return Err(Error::new(Reason::Invalid, said));
    }
    serde_json::from_slice(&answer).map_err(|e| {
        let hint = "the herder is of another version than ate; install both anew";
        Error::new(Reason::Internal, format!(r#"{name} did not answer {{"ASSET":"/path"}}: {e}"#)).hint(hint)
    })
}

fn closed() -> std::io::Error {
    std::io::ErrorKind::BrokenPipe.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A herder that does this, in place of making anything.
    async fn herder(script: &str) -> Result<BTreeMap<String, PathBuf>, Error> {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("ateom-test");
        // Written by another process: the kernel starts no program that anybody may write to, and a descriptor of
        // ours could live on in a child that a test beside this one is just starting.
        let write = ["-c", r#"printf '#!/bin/sh\n%s\n' "$2" >"$1" && chmod 755 "$1""#, "sh"];
        let status = Command::new("sh").args(write).arg(&program).arg(script).status().await.unwrap();
        assert!(status.success());
        run(&program, Path::new("/packages"), dir.path()).await
    }

    #[tokio::test]
    async fn the_herder_is_told_where_from_and_where_to_and_names_the_assets() {
        let script = r#"[ "$1 $2 $3 $4" = "collect --from /packages --out" ] && echo "{\"a\":\"$5/a\"}""#;
        let assets = herder(script).await.unwrap();
        assert!(assets["a"].ends_with("a") && assets.len() == 1, "{assets:?}");
    }

    #[tokio::test]
    async fn what_a_herder_says_when_it_fails_is_the_error() {
        let error = herder("echo 'qboot.rom is missing' >&2; exit 1").await.unwrap_err();
        assert_eq!(error.message, "qboot.rom is missing");
        let error = herder("exit 3").await.unwrap_err();
        assert!(error.message.contains("ateom-test") && error.message.contains('3'), "{error}");
    }

    #[tokio::test]
    async fn an_answer_that_is_none_is_refused() {
        let error = herder("echo nonsense").await.unwrap_err();
        assert!(error.message.contains("did not answer"), "{error}");
    }
}
