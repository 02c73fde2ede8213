//! Durations as Go writes them: `90s`, `15m`, `1h30m`, `1.5h`, `500ms`, `0`.

use std::time::Duration;

/// Longest duration anybody may ask for. Longer is a typing error, and sums of deadlines must not overflow.
pub const MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Longest text: Go writes at most `2562047h47m16.854775807s`.
const MAX_TEXT: usize = 32;

const UNITS: [(&str, f64); 7] =
    [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("not a duration; write for example 90s, 15m, 1h30m or 0")]
    Malformed,
    #[error("longer than {} days", MAX.as_secs() / 86400)]
    TooLong,
}

/// Reads numbers with units, one after the other; `0` needs none. Never negative.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    use DurationError::{Malformed, TooLong};
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() || text.len() > MAX_TEXT {
        return Err(Malformed);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let number_ends = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(Malformed)?;
        let (number, after) = rest.split_at(number_ends);
        let unit_ends = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_ends);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(Malformed)?;
        seconds += number.parse::<f64>().map_err(|_| Malformed)? * factor;
        rest = after;
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|d| *d <= MAX).ok_or(TooLong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_read_as_go_reads_them() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("90s", 90_000),
            ("15m", 900_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("500ms", 500),
            (".5s", 500),
            ("1h0m0.25s", 3_600_250),
            ("8784h", 366 * 86_400_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", "5", "-5s", "+5s", "s", "1d", "1 s", "1h30", "1..5s", ".", ".s", "1e3s", "∞", "inf", "NaNs"]
        {
            assert_eq!(parse(text), Err(DurationError::Malformed), "{text}");
        }
        for text in ["8784h1s", "99999999999999999999h"] {
            assert_eq!(parse(text), Err(DurationError::TooLong), "{text}");
        }
        assert_eq!(parse(&"1s".repeat(100)), Err(DurationError::Malformed));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(s in "\\PC*") {
            let _ = parse(&s);
        }
    }
}
