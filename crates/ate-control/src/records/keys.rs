//! Keys of the store. Names are checked DNS labels, so `/` separates safely.

use ate_api::id::{ActorName, Digest, ObjectName, Uid};

use super::ConfigKey;

pub(crate) const ACTORS: &str = "actor/";
pub(crate) const ATESPACES: &str = "atespace/";
pub(crate) const BUSY: &str = "busy/";
pub(crate) const BY_CONFIG: &str = "by-config/";
pub(crate) const CONFIGS: &str = "config/";
/// Which class is the default of the cluster. Every change of it writes this, so that two never pass.
pub(crate) const DEFAULT_CLASS: &str = "default-class";
pub(crate) const GARBAGE: &str = "garbage/";
pub(crate) const NEEDED_BY: &str = "needed-by/";
pub(crate) const PLATFORMS: &str = "platform/";
pub(crate) const POOLS: &str = "pool/";
/// All revocations: one record, because they change as one list.
pub(crate) const REVOCATIONS: &str = "revocations";
pub(crate) const REVISIONS: &str = "config-revision/";
/// The last rollout of each class.
pub(crate) const ROLLOUTS: &str = "rollout/";
pub(crate) const SNAPSHOTS: &str = "snapshot/";
pub(crate) const TEMPLATES: &str = "template/";
pub(crate) const TOKENS: &str = "token/";

pub(crate) fn actor(name: &ActorName) -> String {
    format!("{ACTORS}{}/{}", name.atespace, name.name)
}

pub(crate) fn actor_of(key: &str) -> Option<ActorName> {
    let (atespace, name) = key.strip_prefix(ACTORS).or_else(|| key.strip_prefix(BUSY))?.split_once('/')?;
    Some(ActorName::new(atespace, name))
}

/// There while the actor's phase is a transient one or it holds a worker: what a restart has to look at.
pub(crate) fn busy(name: &ActorName) -> String {
    format!("{BUSY}{}/{}", name.atespace, name.name)
}

/// Which actors were made from a template.
pub(crate) fn by_template(template: &Uid, actor: &ActorName) -> String {
    format!("{}{}/{}", by_template_prefix(template), actor.atespace, actor.name)
}

pub(crate) fn by_template_prefix(template: &Uid) -> String {
    format!("by-template/{template}/")
}

/// Which snapshots need a revision of a configuration.
pub(crate) fn by_config(config: &ConfigKey, manifest: &Digest) -> String {
    format!("{}{manifest}", of_revision(BY_CONFIG, config))
}

pub(crate) fn by_config_prefix(name: &str) -> String {
    format!("{BY_CONFIG}{name}/")
}

/// Which actors have a snapshot that resumes under a revision of a configuration. Written when that changes, which is
/// seldom; golden actors have none.
pub(crate) fn needed_by(config: &ConfigKey, actor: &ActorName) -> String {
    format!("{}{}/{}", of_revision(NEEDED_BY, config), actor.atespace, actor.name)
}

/// The entries of one revision in one of the two indexes above.
pub(crate) fn of_revision(index: &str, config: &ConfigKey) -> String {
    format!("{index}{}/{:010}/", config.name, config.revision)
}

/// The revision an entry of one of the two indexes is of.
pub(crate) fn revision_of(index: &str, key: &str) -> Option<ConfigKey> {
    let (name, rest) = key.strip_prefix(index)?.split_once('/')?;
    let (revision, _) = rest.split_once('/')?;
    Some(ConfigKey { name: name.to_owned(), revision: revision.parse().ok()? })
}

/// Which snapshots rest on another: that one stays while there is any.
pub(crate) fn by_base(base: &Digest, manifest: &Digest) -> String {
    format!("{}{manifest}", by_base_prefix(base))
}

pub(crate) fn by_base_prefix(base: &Digest) -> String {
    format!("by-base/{base}/")
}

pub(crate) fn snapshot(manifest: &Digest) -> String {
    format!("{SNAPSHOTS}{manifest}")
}

/// A snapshot nobody references any more, to be removed from storage.
pub(crate) fn garbage(manifest: &Digest) -> String {
    format!("{GARBAGE}{manifest}")
}

pub(crate) fn platform(digest: &Digest) -> String {
    format!("{PLATFORMS}{digest}")
}

pub(crate) fn rollout(class: &str) -> String {
    format!("{ROLLOUTS}{class}")
}

pub(crate) fn template(name: &ObjectName) -> String {
    format!("{TEMPLATES}{}/{}", name.namespace, name.name)
}

pub(crate) fn pool(name: &ObjectName) -> String {
    format!("{POOLS}{}/{}", name.namespace, name.name)
}

pub(crate) fn config(name: &str) -> String {
    format!("{CONFIGS}{name}")
}

pub(crate) fn revision(key: &ConfigKey) -> String {
    format!("{REVISIONS}{}/{:010}", key.name, key.revision)
}

/// The last revision number used for a name. Outlives the configuration, so that a number never means two things.
pub(crate) fn revision_counter(name: &str) -> String {
    format!("config-counter/{name}")
}

/// Name of the default configuration of a class. Every change of a default writes it, so that two never pass.
pub(crate) fn default_config(class: &str) -> String {
    format!("default-config/{class}")
}

pub(crate) fn token(name: &str) -> String {
    format!("{TOKENS}{name}")
}

pub(crate) fn atespace(name: &str) -> String {
    format!("{ATESPACES}{name}")
}
