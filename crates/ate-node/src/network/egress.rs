//! Outbound traffic of actors: masquerade behind this machine's address, in an nftables table of the node's own.

use std::process::Stdio;

use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::{Cidr, NetworkError};
use std::time::Duration;

/// A table with one rule; a machine under load takes milliseconds.
const LIMIT: Duration = Duration::from_secs(10);
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// The node's table; named after the node, so that a crashed run's is replaced by the next.
pub(crate) struct Egress {
    table: String,
}

impl Egress {
    /// `mark` is unique for the node on this machine.
    pub(crate) fn new(mark: &str) -> Self {
        Egress { table: format!("ate_{mark}") }
    }

    /// Lets actors reach what this machine reaches. Turns on IPv4 forwarding of the machine and leaves it on:
    /// others may rely on it by then.
    pub(crate) async fn open(&self, cidr: Cidr) -> Result<(), NetworkError> {
        tokio::fs::write(FORWARDING, "1").await.map_err(NetworkError::io("turn on IPv4 forwarding"))?;
        let table = &self.table;
        nft(&format!(
            "table ip {table} {{}}
             delete table ip {table}
             table ip {table} {{
                 chain postrouting {{
                     type nat hook postrouting priority srcnat;
                     ip saddr {cidr} oifname != \"ate*\" masquerade
                 }}
             }}"
        ))
        .await
    }

    /// Removes the table, also that of an earlier run; absent is fine.
    pub(crate) async fn close(&self) -> Result<(), NetworkError> {
        let table = &self.table;
        nft(&format!("table ip {table} {{}}\n delete table ip {table}")).await
    }
}

async fn nft(rules: &str) -> Result<(), NetworkError> {
    let run = async {
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(rules.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    match timeout(LIMIT, run).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(NetworkError::Nft(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        Ok(Err(e)) => Err(NetworkError::Nft(e.to_string())),
        Err(_) => Err(NetworkError::Nft(format!("no answer within {LIMIT:?}"))),
    }
}
