//! What binaries can do, and what a template needs of them. The words are the contract's (`ProbeResponse`).

use ate_api::{
    Error, Reason,
    id::ObjectName,
    resource::{ActorTemplateSpec, template::Scope},
};

/// Save and restore memory and files.
pub const SNAPSHOT_FULL: &str = "snapshot.full";
/// Save and restore the durable directories.
pub const SNAPSHOT_DATA: &str = "snapshot.data";
/// Snapshots of actors with several containers.
pub const SNAPSHOT_MULTI_CONTAINER: &str = "snapshot.multi-container";
/// Start a sandbox before anyone asks.
pub const PREPARE: &str = "prepare";
/// Snapshots may hold only what differs from the one the actor was restored from.
pub const SNAPSHOT_BASE: &str = "snapshot.base";
/// Restore a template's golden snapshot ahead, so that a new actor only has to go on.
pub const STANDBY: &str = "standby";
/// A failed checkpoint leaves the actor running.
pub const CHECKPOINT_LEAVE_RUNNING: &str = "checkpoint.leave-running";

/// What a template needs, in a fixed order.
///
/// A scope `Full` needs [`SNAPSHOT_FULL`]. A durable directory needs [`SNAPSHOT_DATA`], so a class without it (as
/// microVMs are in the reference) refuses one.
pub fn needs(spec: &ActorTemplateSpec) -> Vec<&'static str> {
    let snapshots = &spec.snapshots_config;
    let scopes = [snapshots.on_pause, snapshots.on_commit];
    let durable = spec.volumes.iter().any(|v| v.durable_dir.is_some());
    let mut needs = Vec::new();
    if scopes.contains(&Scope::Full) {
        needs.push(SNAPSHOT_FULL);
    }
    if scopes.contains(&Scope::Data) || durable {
        needs.push(SNAPSHOT_DATA);
    }
    if spec.containers.len() > 1 {
        needs.push(SNAPSHOT_MULTI_CONTAINER);
    }
    needs
}

/// What a template's golden snapshot holds: memory if the binaries can save it, so that new actors need not boot;
/// else the durable directories as they are when the actor is ready, which a template without scope `Full` may do with.
pub fn golden_scope<S: AsRef<str>>(has: &[S]) -> Scope {
    if has.iter().any(|h| h.as_ref() == SNAPSHOT_FULL) { Scope::Full } else { Scope::Data }
}

/// Whether a configuration can do what a template needs.
///
/// # Errors
/// `MISSING_CAPABILITY`, naming the template, the configuration (`name@revision`) and all that is missing, in words.
pub fn check<S: AsRef<str>>(
    template: &ObjectName,
    spec: &ActorTemplateSpec,
    config: &str,
    has: &[S],
) -> Result<(), Error> {
    let missing: Vec<_> = needs(spec).into_iter().filter(|need| !has.iter().any(|h| h.as_ref() == *need)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let words: Vec<_> = missing.iter().map(|word| format!("{} ({word})", plain(word, spec))).collect();
    let message = format!("SandboxConfig {config} cannot {}", words.join(", and cannot "));
    let hint = match missing.contains(&SNAPSHOT_FULL) {
        true => "use another class or newer binaries, or keep durable directories only: onPause: Data, onCommit: Data",
        false => "use a pool whose SandboxConfig names newer binaries, or a template that needs less",
    };
    Err(Error::new(Reason::MissingCapability, message).on(format!("actortemplate/{template}")).hint(hint))
}

fn plain(word: &str, spec: &ActorTemplateSpec) -> String {
    match word {
        SNAPSHOT_FULL => "save and restore the memory of an actor, which scope Full is about".to_owned(),
        SNAPSHOT_DATA => "save and restore durable directories on their own".to_owned(),
        SNAPSHOT_MULTI_CONTAINER => {
            format!("snapshot an actor of several containers, and the template has {}", spec.containers.len())
        }
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(containers: usize, scope: &str, durable: bool) -> ActorTemplateSpec {
        let containers: Vec<_> = (0..containers).map(|i| json!({ "name": format!("c{i}"), "image": "x:1" })).collect();
        let volumes = if durable { json!([{ "name": "d", "durableDir": {} }]) } else { json!([]) };
        serde_json::from_value(json!({
            "containers": containers,
            "snapshotsConfig": { "location": "default", "onPause": "Full", "onCommit": scope },
            "volumes": volumes,
        }))
        .unwrap()
    }

    #[test]
    fn needs_follow_from_containers_scopes_and_volumes() {
        assert_eq!(needs(&spec(1, "Full", false)), [SNAPSHOT_FULL]);
        assert_eq!(needs(&spec(2, "Full", false)), [SNAPSHOT_FULL, SNAPSHOT_MULTI_CONTAINER]);
        assert_eq!(needs(&spec(1, "Data", false)), [SNAPSHOT_FULL, SNAPSHOT_DATA]);
        assert_eq!(needs(&spec(1, "Full", true)), [SNAPSHOT_FULL, SNAPSHOT_DATA]);
        let mut nothing_full = spec(1, "Data", false);
        nothing_full.snapshots_config.on_pause = Scope::Data;
        assert_eq!(needs(&nothing_full), [SNAPSHOT_DATA]);
    }

    #[test]
    fn a_golden_snapshot_holds_memory_wherever_it_can() {
        assert_eq!(golden_scope(&[SNAPSHOT_DATA, SNAPSHOT_FULL]), Scope::Full);
        assert_eq!(golden_scope(&[SNAPSHOT_DATA]), Scope::Data);
    }

    #[test]
    fn everything_missing_is_named_in_plain_words() {
        let name = ObjectName::new("default", "t");
        let spec = spec(2, "Full", true);
        assert_eq!(check(&name, &spec, "new@1", &[SNAPSHOT_FULL, SNAPSHOT_DATA, SNAPSHOT_MULTI_CONTAINER]), Ok(()));
        let e = check(&name, &spec, "old@3", &[SNAPSHOT_FULL]).unwrap_err();
        assert_eq!((e.reason, e.object.as_str()), (Reason::MissingCapability, "actortemplate/default/t"));
        for word in ["old@3", SNAPSHOT_DATA, SNAPSHOT_MULTI_CONTAINER, "several containers", "durable directories"] {
            assert!(e.message.contains(word), "{word} is not in {e}");
        }
        assert!(!e.message.contains(SNAPSHOT_FULL), "{e}");
    }
}
