//! Ages, sizes and digests for people.

use ate_api::time::Timestamp;

/// `42s`, `5m`, `3h20m`, `6d`: as kubectl writes ages.
pub(crate) fn age(seconds: i64) -> String {
    let s = seconds.max(0);
    match s {
        0..120 => format!("{s}s"),
        120..600 if s % 60 != 0 => format!("{}m{}s", s / 60, s % 60),
        120..10_800 => format!("{}m", s / 60),
        10_800..28_800 if s % 3600 >= 60 => format!("{}h{}m", s / 3600, s % 3600 / 60),
        10_800..172_800 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

/// The age of an RFC 3339 time; empty if there is none.
pub(crate) fn age_of(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(t) => age((now.as_millisecond() - t.as_millisecond()) / 1000),
        Err(_) => String::new(),
    }
}

/// `812B`, `1.4KiB`, `23MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes}B"),
        _ if value < 10.0 => format!("{value:.1}{}", UNITS[unit]),
        _ => format!("{value:.0}{}", UNITS[unit]),
    }
}

/// The first twelve digits of a digest; anything else as it is.
pub(crate) fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    match hex.len() == 64 && hex.is_ascii() {
        true => &hex[..12],
        false => digest,
    }
}

/// A version without what its maker says of it in brackets: `10.0.2 (Debian 1:10.0.2+ds-2)` → `10.0.2`.
pub(crate) fn version(full: &str) -> &str {
    full.split_once(" (").map_or(full, |(version, _)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_read_as_people_write_them() {
        for (s, text) in [
            (-5, "0s"),
            (59, "59s"),
            (119, "119s"),
            (300, "5m"),
            (330, "5m30s"),
            (3600, "60m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (100_000, "27h"),
            (600_000, "6d"),
        ] {
            assert_eq!(age(s), text);
        }
        assert_eq!(version("10.0.2 (Debian 1:10.0.2+ds-2)"), "10.0.2");
        assert_eq!(version("0.0~20240729.0"), "0.0~20240729.0");
        for (b, text) in [(0, "0B"), (1023, "1023B"), (1434, "1.4KiB"), (23 << 20, "23MiB"), (3 << 40, "3.0TiB")] {
            assert_eq!(size(b), text);
        }
    }
}
