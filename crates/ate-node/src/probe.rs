//! What binaries can do: asks the class's herder program, which needs no worker for that.

use std::{
    collections::{BTreeMap, HashMap},
    process::Stdio,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ate_agent::Probed;
use ate_api::{Error, Reason, id::Digest};
use ate_sandbox::SandboxRef;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::workers::{Herders, Verified};

/// The binaries are started to be asked their version and their options.
const LIMIT: Duration = Duration::from_secs(60);
/// A few words and versions.
const MAX_ANSWER: u64 = 64 << 10;
/// Of what a herder says went wrong, in our error.
const MAX_REASON: u64 = 2 << 10;
/// Answers that are kept; sandboxes are few.
const KEPT: usize = 1024;

#[derive(Deserialize)]
struct Answer {
    capabilities: Vec<String>,
    #[serde(default)]
    versions: BTreeMap<String, String>,
}

/// Answers by sandbox: the same binaries under the same configuration always give the same.
#[derive(Default)]
pub(crate) struct Probes(Mutex<HashMap<Digest, Probed>>);

impl Probes {
    pub(crate) async fn probe(
        &self,
        herders: &Herders,
        verified: &Verified,
        sandbox: &SandboxRef,
    ) -> Result<Probed, Error> {
        let assets = verified.ensure(sandbox).await?.asset_paths;
        if let Some(known) = self.known(sandbox) {
            return Ok(known);
        }
        let question = serde_json::json!({ "config": sandbox.config.values, "assets": assets }).to_string();
        let asked = timeout(LIMIT, ask(herders, &sandbox.class, &question)).await;
        let late = |_| failed(format!("no answer within {LIMIT:?}"));
        let probed =
            asked.map_err(late).flatten().map_err(|e| e.on(format!("sandboxconfig/{}", sandbox.config.name)))?;
        self.learn(sandbox, probed.clone());
        Ok(probed)
    }

    pub(crate) fn known(&self, sandbox: &SandboxRef) -> Option<Probed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&sandbox.key()).cloned()
    }

    pub(crate) fn learn(&self, sandbox: &SandboxRef, probed: Probed) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(sandbox.key(), probed);
    }
}

async fn ask(herders: &Herders, class: &str, question: &str) -> Result<Probed, Error> {
    let io = |e: std::io::Error| failed(e.to_string());
    let mut command = herders.command(class)?;
    command.arg("probe").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(io)?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(failed("it has no pipes"));
    };
    stdin.write_all(question.as_bytes()).await.map_err(io)?;
    drop(stdin);
    let (mut answer, mut reason) = (Vec::new(), Vec::new());
    let (mut stdout, mut stderr) = (stdout.take(MAX_ANSWER), stderr.take(MAX_REASON));
    let read = tokio::try_join!(stdout.read_to_end(&mut answer), stderr.read_to_end(&mut reason));
    read.map_err(io)?;
    drop((stdout, stderr)); // what is beyond the limits must not block the program
    if !child.wait().await.map_err(io)?.success() {
        return Err(failed(String::from_utf8_lossy(&reason).trim()));
    }
    let answer: Answer =
        serde_json::from_slice(&answer).map_err(|e| failed(format!("its answer is not valid: {e}")))?;
    Ok(Probed { capabilities: answer.capabilities, versions: answer.versions })
}

fn failed(why: impl std::fmt::Display) -> Error {
    Error::new(Reason::SandboxFailed, format!("the herder cannot say what the binaries can do: {why}"))
}
