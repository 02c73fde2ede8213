//! `probe`: what binaries can do under a configuration, without a worker.

use std::{collections::BTreeMap, io::Read, path::PathBuf};

use anyhow::{Context, bail};
use ateom::{Probed, process::Processes};
use serde::Deserialize;

use crate::{binary::Binary, config::Config, describe::ASSET};

/// A configuration and a few paths.
const MAX_INPUT: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    #[serde(default)]
    config: serde_json::Map<String, serde_json::Value>,
    assets: BTreeMap<String, PathBuf>,
}

pub(crate) fn from_stdin() -> anyhow::Result<Probed> {
    let mut text = String::new();
    std::io::stdin().take(MAX_INPUT).read_to_string(&mut text)?;
    let input: Input =
        serde_json::from_str(&text).context("stdin is not {\"config\":{…},\"assets\":{\"runsc\":\"/path\"}}")?;
    let config = Config::parse(&serde_json::to_vec(&input.config)?)?;
    let Some(path) = input.assets.get(ASSET) else { bail!("no asset `{ASSET}`") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let binary =
        runtime.block_on(async { Binary::ask(&Processes::start()?, path).await.map_err(anyhow::Error::from) })?;
    Ok(binary.capabilities(&config)?)
}
