//! Which names are allowed: DNS labels and subdomains, atespaces, actors, and Kubernetes' label syntax.
//!
//! Names become host names, paths and store keys. A name that passes here is safe in all three: lower-case
//! ASCII without separators, never empty, never `.` or `..`.

use crate::id::GOLDEN_ATESPACE;

/// Longest DNS label (RFC 1035).
pub const MAX_LABEL: usize = 63;
/// Longest DNS name (RFC 1035).
pub const MAX_SUBDOMAIN: usize = 253;
/// Most digits a port has. As many or fewer in front of a dash are a port in a host name.
pub const MAX_PORT_DIGITS: usize = 5;

/// A DNS label as RFC 1123 has it: 1–63 of `a-z`, `0-9` and `-`, no dash at either end.
pub fn is_label(s: &str) -> bool {
    let inner = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
    !s.is_empty() && s.len() <= MAX_LABEL && s.bytes().all(inner) && !s.starts_with('-') && !s.ends_with('-')
}

/// Labels joined by dots, at most 253 bytes. Kubernetes lets one label be longer than 63 bytes, so do we.
pub fn is_subdomain(s: &str) -> bool {
    let label = |l: &str| {
        let inner = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        !l.is_empty() && l.bytes().all(inner) && !l.starts_with('-') && !l.ends_with('-')
    };
    s.len() <= MAX_SUBDOMAIN && s.split('.').all(label)
}

/// A name an atespace may have: a DNS label.
pub fn check_atespace(s: &str) -> Result<(), String> {
    if is_label(s) { Ok(()) } else { Err(format!("{s:?} is not a DNS label: {LABEL_RULE}")) }
}

/// An atespace that users may create, fill or delete: not the one that golden actors live in.
pub fn check_user_atespace(s: &str) -> Result<(), String> {
    check_atespace(s)?;
    if s == GOLDEN_ATESPACE {
        return Err(format!("the atespace {GOLDEN_ATESPACE} is reserved for golden actors"));
    }
    Ok(())
}

/// A name an actor may have: a DNS label that does not begin with one to five digits and a dash.
///
/// In the host name `[PORT-]ACTOR.ATESPACE…` such a beginning always means a port: `8080-web.default.localhost` is
/// port 8080 of `web`, and an actor called `8080-web` could not be reached. More digits than a port has are no
/// port, so UUIDs (`12345678-…`) are good names, and so are digits alone (`8080`).
pub fn check_actor(s: &str) -> Result<(), String> {
    if !is_label(s) {
        return Err(format!("{s:?} is not a DNS label: {LABEL_RULE}"));
    }
    match split_port(s) {
        (Some(port), rest) => Err(format!("{s:?} would mean port {port} of actor {rest} in a host name")),
        (None, _) => Ok(()),
    }
}

/// Splits `PORT-REST` by the rule of [`check_actor`]. The port is text: whether it is a good one is not said.
pub(crate) fn split_port(label: &str) -> (Option<&str>, &str) {
    match label.split_once('-') {
        Some((digits, rest))
            if (1..=MAX_PORT_DIGITS).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) =>
        {
            (Some(digits), rest)
        }
        _ => (None, label),
    }
}

/// The rule of [`is_label`], for messages.
pub const LABEL_RULE: &str = "1 to 63 of a-z, 0-9 and -, no dash at either end";
/// The rule of [`is_subdomain`], for messages.
pub const SUBDOMAIN_RULE: &str =
    "at most 253 of a-z, 0-9, - and ., each part beginning and ending with a letter or digit";

/// A Kubernetes label key: `[PREFIX/]NAME`, PREFIX a DNS subdomain, NAME 1–63 bytes.
pub fn is_label_key(s: &str) -> bool {
    match s.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_qualified(name),
        None => is_qualified(s),
    }
}

/// A Kubernetes label value: empty, or 1–63 of letters, digits, `-`, `_`, `.`, alphanumeric at both ends.
pub fn is_label_value(s: &str) -> bool {
    s.is_empty() || is_qualified(s)
}

fn is_qualified(s: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    s.len() <= MAX_LABEL && s.bytes().all(inner) && end(s.as_bytes().first()) && end(s.as_bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_what_dns_allows() {
        for good in ["a", "0", "a-b", "8080", &"x".repeat(63)] {
            assert!(is_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", "a/b", "..", &"x".repeat(64)] {
            assert!(!is_label(bad), "{bad}");
        }
    }

    #[test]
    fn subdomains_have_no_empty_part() {
        for good in ["a", "a.b-c.d", "0.1"] {
            assert!(is_subdomain(good), "{good}");
        }
        for bad in ["", ".", "..", "a.", ".a", "a..b", "a.-b", "A.b", "a/b", &"a.".repeat(127)] {
            assert!(!is_subdomain(bad), "{bad}");
        }
    }

    #[test]
    fn an_actor_name_is_never_taken_for_a_port() {
        for good in ["web", "8080", "a-8080", "12345678-9abc-4def-8123-456789abcdef", "123456-x"] {
            assert_eq!(check_actor(good), Ok(()), "{good}");
        }
        for bad in ["8080-web", "1-a", "99999-a", "00-a"] {
            assert!(check_actor(bad).unwrap_err().contains("port"), "{bad}");
        }
    }

    #[test]
    fn the_golden_atespace_is_not_for_users() {
        assert!(check_atespace(GOLDEN_ATESPACE).is_ok());
        assert!(check_user_atespace(GOLDEN_ATESPACE).unwrap_err().contains("reserved"));
        assert!(check_user_atespace("default").is_ok());
    }

    #[test]
    fn label_keys_and_values_follow_kubernetes() {
        for good in ["app", "ate.dev/worker-pool", "a_b.c-D"] {
            assert!(is_label_key(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "-a", "a b", "A.dev/x"] {
            assert!(!is_label_key(bad), "{bad}");
        }
        assert!(is_label_value("") && is_label_value("v1.2_x") && !is_label_value("-x") && !is_label_value("a/b"));
    }
}
