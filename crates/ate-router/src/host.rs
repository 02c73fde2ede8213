//! Which actor, and which of its ports, a host name means.

use ate_api::id::{ACTOR_DNS_SUFFIX, ActorName};

/// Longest host name there is, with room for a port.
const MAX_HOST: usize = 253 + 6;
const MAX_LABEL: usize = 63;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ActorHost {
    pub(crate) actor: ActorName,
    pub(crate) port: Option<u16>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HostError {
    Malformed,
    /// A good host name, of something else.
    NotOurs,
}

/// Reads `[PORT-]ACTOR.ATESPACE.SUFFIX[:ANY]`, SUFFIX being the system's domain or `localhost`.
pub(crate) fn parse(host: &str) -> Result<ActorHost, HostError> {
    if host.is_empty() || host.len() > MAX_HOST || host.contains(|c: char| !c.is_ascii_graphic()) {
        return Err(HostError::Malformed);
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) => return Err(HostError::Malformed),
        None => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let ours = name.strip_suffix(ACTOR_DNS_SUFFIX).or_else(|| name.strip_suffix("localhost"));
    let Some(labels) = ours.and_then(|labels| labels.strip_suffix('.')) else { return Err(HostError::NotOurs) };
    let Some((actor, atespace)) = labels.split_once('.') else { return Err(HostError::NotOurs) };
    let (port, actor) = split_port(actor)?;
    if !is_label(actor) || !is_label(atespace) {
        return Err(HostError::Malformed);
    }
    Ok(ActorHost { actor: ActorName::new(atespace, actor), port })
}

fn split_port(label: &str) -> Result<(Option<u16>, &str), HostError> {
    match label.split_once('-') {
        Some((digits, actor)) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            let port = digits.parse().ok().filter(|&port| port != 0).ok_or(HostError::Malformed)?;
            Ok((Some(port), actor))
        }
        _ => Ok((None, label)),
    }
}

fn is_label(s: &str) -> bool {
    let inner = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
    !s.is_empty() && s.len() <= MAX_LABEL && s.bytes().all(inner) && !s.starts_with('-') && !s.ends_with('-')
}
