//! One answer of those of many nodes.

use std::collections::BTreeMap;

use ate_agent::{AssetPhase, AssetReport, LogTail};
use ate_api::id::Digest;
use tokio::sync::mpsc;

/// Lines that a reader may be behind.
const BACKLOG: usize = 256;

/// Each asset once: as the node has it that is furthest with it. Says on how many it is, if not on all.
pub(super) fn assets(reports: impl IntoIterator<Item = Vec<AssetReport>>, nodes: usize) -> Vec<AssetReport> {
    let rank = |phase| match phase {
        AssetPhase::Verified => 0,
        AssetPhase::Fetching => 1,
        AssetPhase::Failed => 2,
        AssetPhase::Missing => 3,
    };
    let mut merged: BTreeMap<Digest, (AssetReport, usize)> = BTreeMap::new();
    for report in reports.into_iter().flatten() {
        let verified = usize::from(report.phase == AssetPhase::Verified);
        match merged.get_mut(&report.sha256) {
            None => drop(merged.insert(report.sha256.clone(), (report, verified))),
            Some((best, on)) => {
                *on += verified;
                if rank(report.phase) < rank(best.phase) {
                    *best = report;
                }
            }
        }
    }
    let say = |(mut report, on): (AssetReport, usize)| {
        if on > 0 && on < nodes {
            report.message = format!("on {on} of {nodes} nodes");
        }
        report
    };
    merged.into_values().map(say).collect()
}

/// Lines of several nodes. Those there are come in the order of their time; new ones as they come.
pub(super) fn logs(mut tails: Vec<LogTail>, tail: u32, follow: bool) -> LogTail {
    if tails.len() == 1
        && let Some(only) = tails.pop()
    {
        return only;
    }
    let (to, lines) = mpsc::channel(BACKLOG);
    if follow {
        for mut tail in tails {
            let to = to.clone();
            tokio::spawn(async move {
                while let Some(line) = tail.recv().await {
                    if to.send(line).await.is_err() {
                        return;
                    }
                }
            });
        }
        return lines;
    }
    tokio::spawn(async move {
        let mut all = Vec::new();
        for mut tail in tails {
            while let Some(line) = tail.recv().await {
                all.push(line);
            }
        }
        all.sort_by(|a, b| a.time.cmp(&b.time));
        let first = if tail == 0 { 0 } else { all.len().saturating_sub(tail as usize) };
        for line in all.drain(first..) {
            if to.send(line).await.is_err() {
                return;
            }
        }
    });
    lines
}
