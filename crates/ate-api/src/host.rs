//! Host names of actors: `[PORT-]ACTOR.ATESPACE.SUFFIX`, SUFFIX being the system's domain or `localhost`.

use crate::{
    id::{ACTOR_DNS_SUFFIX, ActorName},
    name::{self, MAX_PORT_DIGITS, MAX_SUBDOMAIN},
};

/// What browsers and curl resolve to this machine without any DNS set-up.
pub const LOCAL_SUFFIX: &str = "localhost";
/// Longest authority: a DNS name with a final dot, a colon and a port.
pub const MAX_HOST: usize = MAX_SUBDOMAIN + 2 + MAX_PORT_DIGITS;

/// Which actor a host name means, and which of its TCP ports; `None`: its default port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ActorHost {
    pub actor: ActorName,
    pub port: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error(
        "the host name is malformed; expected [PORT-]ACTOR.ATESPACE.{ACTOR_DNS_SUFFIX} or [PORT-]ACTOR.ATESPACE.localhost"
    )]
    Malformed,
    /// A good host name, of something else.
    #[error("the host name is not that of an actor")]
    NotOurs,
}

/// Reads a `Host` header or an authority. Case does not matter, one final dot and a `:PORT` of the router are
/// ignored.
pub fn parse(host: &str) -> Result<ActorHost, HostError> {
    if host.is_empty() || host.len() > MAX_HOST || !host.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(HostError::Malformed);
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.len() <= MAX_PORT_DIGITS && port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) => return Err(HostError::Malformed),
        None => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let ours = name.strip_suffix(ACTOR_DNS_SUFFIX).or_else(|| name.strip_suffix(LOCAL_SUFFIX));
    let labels = ours.and_then(|labels| labels.strip_suffix('.')).ok_or(HostError::NotOurs)?;
    let (actor, atespace) = labels.split_once('.').ok_or(HostError::NotOurs)?;
    let (port, actor) = name::split_port(actor);
    let port = match port {
        Some(digits) => Some(digits.parse().ok().filter(|&p: &u16| p != 0).ok_or(HostError::Malformed)?),
        None => None,
    };
    if name::check_actor(actor).is_err() || !name::is_label(atespace) {
        return Err(HostError::Malformed);
    }
    Ok(ActorHost { actor: ActorName::new(atespace, actor), port })
}

/// The host name below `suffix`, for example [`LOCAL_SUFFIX`]. An actor whose name is longer than 57 bytes has no
/// name with a port that DNS would carry.
pub fn name(actor: &ActorName, port: Option<u16>, suffix: &str) -> String {
    let ActorName { atespace, name } = actor;
    match port {
        Some(port) => format!("{port}-{name}.{atespace}.{suffix}"),
        None => format!("{name}.{atespace}.{suffix}"),
    }
}

/// The URL under which a router on this machine, listening on `router_port`, serves the actor.
pub fn local_url(actor: &ActorName, port: Option<u16>, router_port: u16) -> String {
    let host = name(actor, port, LOCAL_SUFFIX);
    match router_port {
        80 => format!("http://{host}/"),
        _ => format!("http://{host}:{router_port}/"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ours(atespace: &str, actor: &str, port: Option<u16>) -> Result<ActorHost, HostError> {
        Ok(ActorHost { actor: ActorName::new(atespace, actor), port })
    }

    #[test]
    fn both_suffixes_ports_and_case_are_understood() {
        assert_eq!(parse("web.default.localhost"), ours("default", "web", None));
        assert_eq!(parse("WEB.Default.LocalHost:8080"), ours("default", "web", None));
        assert_eq!(parse("8080-web.team.localhost."), ours("team", "web", Some(8080)));
        assert_eq!(parse("65535-a.b.actors.resources.substrate.ate.dev:443"), ours("b", "a", Some(65535)));
        assert_eq!(parse("123456-a.b.localhost"), ours("b", "123456-a", None));
        assert_eq!(parse("8080.b.localhost"), ours("b", "8080", None));
    }

    #[test]
    fn what_is_not_an_actor_is_told_apart_from_what_is_nothing() {
        for other in ["localhost", "localhost:80", "a.localhost", "example.com", "127.0.0.1:80", "a.b.localhost.org"] {
            assert_eq!(parse(other), Err(HostError::NotOurs), "{other}");
        }
        let long = format!("{}.b.localhost", "x".repeat(64));
        for bad in [
            "",
            "a b.c.localhost",
            "a.b.localhost:x",
            "0-a.b.localhost",
            "70000-a.b.localhost",
            "80-.b.localhost",
            "80-81-a.b.localhost",
            "a_b.c.localhost",
            "a.b.c.localhost",
            ".b.localhost",
            "a..localhost",
            "ä.b.localhost",
            "a.b.localhost:123456",
            "a/../b.c.localhost",
            &long,
            &"x".repeat(1000),
        ] {
            assert_eq!(parse(bad), Err(HostError::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_url_shows_the_port_of_the_router_only_when_it_must() {
        let a = ActorName::new("default", "web");
        assert_eq!(local_url(&a, None, 80), "http://web.default.localhost/");
        assert_eq!(local_url(&a, Some(9000), 8080), "http://9000-web.default.localhost:8080/");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(s in "\\PC*") {
            let _ = parse(&s);
        }

        #[test]
        fn what_is_built_reads_back(actor in "[a-z0-9][a-z0-9-]{0,20}[a-z0-9]", space in "[a-z0-9]{1,9}", port in proptest::option::of(1u16..)) {
            prop_assume!(name::check_actor(&actor).is_ok());
            let actor = ActorName::new(space, actor);
            for suffix in [LOCAL_SUFFIX, ACTOR_DNS_SUFFIX] {
                let read = parse(&super::name(&actor, port, suffix));
                prop_assert_eq!(read, Ok(ActorHost { actor: actor.clone(), port }));
            }
        }
    }
}
