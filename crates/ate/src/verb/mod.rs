//! The verbs, one file each. A verb is its flags and what it does with them; `up` has a folder of its own.

pub(crate) mod apply;
pub(crate) mod completion;
pub(crate) mod crd;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod get;
pub(crate) mod lifecycle;
pub(crate) mod logs;
pub(crate) mod run;
pub(crate) mod sandbox;
pub(crate) mod token;

use std::time::Duration;

/// Longest time a flag may ask to wait.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// `90s`, `5m`, `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| "write 90s, 5m or 1h30m".to_owned())?;
    let duration = Duration::try_from(parsed).map_err(|_| "it must not be negative".to_owned())?;
    if duration > MAX_WAIT { Err("at most 24h".to_owned()) } else { Ok(duration) }
}

/// `KEY=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_pairs_are_read_or_refused() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("5").is_err() && duration("-5s").is_err() && duration("25h").is_err());
        assert_eq!(pair("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert!(pair("=x").is_err() && pair("x").is_err());
    }
}
