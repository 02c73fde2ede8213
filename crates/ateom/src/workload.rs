//! What every class does alike with a workload: checks it, and gives containers what users expect to find.

use ate_api::{Error, Reason};

use crate::{
    driver::{Container, Workload},
    network::ACTOR_ADDRESS,
};

/// A sandbox may be made before it is known who will live in it, and a restored one keeps the name it was saved with:
/// so all have the same. Who an actor is, it reads in its identity directory.
pub const HOSTNAME: &str = "actor";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Names are DNS labels.
const MAX_NAME: usize = 63;

/// Refuses names that are none (they become paths), containers without a command, and mounts of nothing.
pub fn check(workload: &Workload) -> Result<(), Error> {
    let invalid = |message: String| Err(Error::new(Reason::Invalid, message));
    for volume in &workload.volumes {
        check_name("volume", &volume.name)?;
    }
    for c in &workload.containers {
        check_name("container", &c.name)?;
        if c.args.is_empty() {
            return invalid(format!("container `{}` has no command", c.name));
        }
        for mount in &c.mounts {
            if !workload.volumes.iter().any(|v| v.name == mount.volume) {
                return invalid(format!("container `{}` mounts `{}`, which is no volume", c.name, mount.volume));
            }
        }
    }
    Ok(())
}

fn check_name(kind: &str, name: &str) -> Result<(), Error> {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('-') && name.bytes().all(fine) {
        return Ok(());
    }
    Err(Error::new(
        Reason::Invalid,
        format!("`{name}` is not a {kind} name: a-z, 0-9 and `-`, at most {MAX_NAME} characters"),
    ))
}

/// Whom a durable directory belongs to: who writes to it first, as with a volume of a container engine.
pub fn volume_owner(workload: &Workload, volume: &str) -> (u32, u32) {
    let user = |c: &&Container| c.mounts.iter().any(|m| m.volume == volume);
    workload.containers.iter().find(user).map_or((0, 0), |c| (c.uid, c.gid))
}

/// The container's environment with PATH and HOSTNAME if it has none.
pub fn environment(container: &Container) -> Vec<String> {
    let mut env = container.env.clone();
    for default in [PATH.to_owned(), format!("HOSTNAME={HOSTNAME}")] {
        let name = &default[..=default.find('=').unwrap_or(0)];
        if !env.iter().any(|e| e.starts_with(name)) {
            env.push(default);
        }
    }
    env
}

/// Contents of /etc/hosts.
pub fn hosts() -> String {
    format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{ACTOR_ADDRESS}\t{HOSTNAME}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_gets_the_environment_users_expect_and_keeps_its_own() {
        let container = Container { env: vec!["PATH=/mine".into(), "A=1".into()], ..Container::default() };
        assert_eq!(environment(&container), ["PATH=/mine", "A=1", "HOSTNAME=actor"]);
    }

    #[test]
    fn names_that_could_be_paths_are_refused() {
        for bad in ["", "a/b", "..", "-a", "A", &"a".repeat(64)] {
            assert!(check_name("volume", bad).is_err(), "{bad}");
        }
        check_name("volume", "data-1").unwrap();
    }
}
