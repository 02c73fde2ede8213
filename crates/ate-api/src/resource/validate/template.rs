//! Rules of `ActorTemplate`.

use std::collections::BTreeSet;

use super::{image, rules};
use crate::{
    name,
    resource::{
        ActorTemplateSpec, Violation, duration,
        template::{Container, EnvVar, HttpGet, Scope, Volume},
        violation::quoted,
    },
};

const MAX_CONTAINERS: usize = 10;
const MAX_COMMAND: usize = 64;
const MAX_ENV: usize = 32;
const MAX_MOUNTS: usize = 32;
const MAX_VOLUMES: usize = 32;
/// Longest readiness path in bytes.
const MAX_READYZ_PATH: usize = 1024;
/// Longest mount path in bytes: PATH_MAX.
const MAX_MOUNT_PATH: usize = 4096;

pub(super) fn check(spec: &ActorTemplateSpec, v: &mut Vec<Violation>) {
    if spec.pause_image.as_ref().is_some_and(|image| !image.contains('@')) {
        v.push(Violation::invalid("spec.pauseImage", "must be pinned by a digest (@sha256:…)"));
    }
    containers(spec, v);
    volumes(&spec.volumes, v);
    let snapshots = &spec.snapshots_config;
    if snapshots.location.is_empty() {
        v.push(Violation::invalid("spec.snapshotsConfig.location", "empty"));
    }
    if snapshots.on_pause == Scope::Data && snapshots.on_commit != Scope::Data {
        let message = "must be Data when onPause is Data: memory given up by a pause cannot be committed";
        v.push(Violation::invalid("spec.snapshotsConfig.onCommit", message));
    }
    if let Some(class) = &spec.sandbox_class {
        rules::class(class, "spec.sandboxClass", v);
    }
    if let Some(selector) = &spec.worker_selector {
        rules::selector(selector, "spec.workerSelector", v);
    }
    // Ours: the field is.
    if let Some(Err(e)) = spec.idle_timeout.as_deref().map(duration::parse) {
        v.push(Violation::invalid("spec.idleTimeout", e.to_string()));
    }
}

fn containers(spec: &ActorTemplateSpec, v: &mut Vec<Violation>) {
    // Ours: without a container there is nothing to run, and two of one name share a log.
    if spec.containers.is_empty() {
        v.push(Violation::invalid("spec.containers", "needs at least one"));
    }
    rules::at_most(spec.containers.len(), MAX_CONTAINERS, "spec.containers", v);
    let names = spec.containers.iter().map(|c| c.name.as_str());
    rules::unique(names, |i| format!("spec.containers[{i}].name"), v);
    for (i, c) in spec.containers.iter().enumerate() {
        let at = format!("spec.containers[{i}]");
        rules::label(&c.name, &format!("{at}.name"), v);
        if let Err(message) = image::check(&c.image) {
            v.push(Violation::invalid(format!("{at}.image"), message));
        }
        rules::at_most(c.command.len(), MAX_COMMAND, &format!("{at}.command"), v);
        rules::at_most(c.env.len(), MAX_ENV, &format!("{at}.env"), v);
        for (j, env) in c.env.iter().enumerate() {
            env_var(env, &format!("{at}.env[{j}]"), v);
        }
        if let Some(readyz) = &c.readyz {
            http_get(&readyz.http_get, &format!("{at}.readyz.httpGet"), v);
        }
        mounts(c, &spec.volumes, &at, v);
    }
}

fn env_var(env: &EnvVar, at: &str, v: &mut Vec<Violation>) {
    if env.name.is_empty() || !env.name.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'=') {
        let message = format!("{} is not a variable's name: printable ASCII without =", quoted(&env.name));
        v.push(Violation::invalid(format!("{at}.name"), message));
    }
    if env.value.is_some() == env.value_from.is_some() {
        v.push(Violation::invalid(at, "needs exactly one of value and valueFrom"));
    }
    let Some(secret) = env.value_from.as_ref().map(|from| &from.secret_key_ref) else { return };
    let at = format!("{at}.valueFrom.secretKeyRef");
    if !name::is_subdomain(&secret.name) {
        let message = format!("{} is not a DNS name: {}", quoted(&secret.name), name::SUBDOMAIN_RULE);
        v.push(Violation::invalid(format!("{at}.name"), message));
    }
    let key_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if secret.key.is_empty() || !secret.key.bytes().all(key_char) {
        let message = format!("{} is not a key: letters, digits, -, . and _", quoted(&secret.key));
        v.push(Violation::invalid(format!("{at}.key"), message));
    }
}

fn http_get(get: &HttpGet, at: &str, v: &mut Vec<Violation>) {
    rules::at_most(get.path.len(), MAX_READYZ_PATH, &format!("{at}.path"), v);
    if !is_url_path(&get.path) {
        let message = format!("{} is not an absolute path of a URL (without ? and #)", quoted(&get.path));
        v.push(Violation::invalid(format!("{at}.path"), message));
    }
    if !(1..=65535).contains(&get.port) {
        v.push(Violation::invalid(format!("{at}.port"), format!("{} is not between 1 and 65535", get.port)));
    }
}

/// `path-absolute` of RFC 3986, where empty segments are fine.
fn is_url_path(path: &str) -> bool {
    let mut bytes = path.bytes();
    let hex = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_hexdigit());
    if bytes.next() != Some(b'/') {
        return false;
    }
    while let Some(b) = bytes.next() {
        let ok = match b {
            b'%' => hex(bytes.next()) && hex(bytes.next()),
            b'/' | b':' | b'@' | b'-' | b'.' | b'_' | b'~' => true,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => true,
            b => b.is_ascii_alphanumeric(),
        };
        if !ok {
            return false;
        }
    }
    true
}

fn mounts(container: &Container, volumes: &[Volume], at: &str, v: &mut Vec<Violation>) {
    let mounts = &container.volume_mounts;
    rules::at_most(mounts.len(), MAX_MOUNTS, &format!("{at}.volumeMounts"), v);
    for (i, mount) in mounts.iter().enumerate() {
        let at = format!("{at}.volumeMounts[{i}]");
        rules::label(&mount.name, &format!("{at}.name"), v);
        if let Err(message) = mount_path(&mount.mount_path) {
            v.push(Violation::invalid(format!("{at}.mountPath"), message));
        }
        // Ours: data would be written to nowhere.
        if !volumes.iter().any(|volume| volume.name == mount.name) {
            v.push(Violation::invalid(format!("{at}.name"), format!("there is no volume {}", quoted(&mount.name))));
        }
    }
    // Ours: the second would hide the first.
    let paths = mounts.iter().map(|m| m.mount_path.as_str());
    rules::unique(paths, |i| format!("{at}.volumeMounts[{i}].mountPath"), v);
    let durable: BTreeSet<_> = volumes.iter().filter(|o| o.durable_dir.is_some()).map(|o| o.name.as_str()).collect();
    if mounts.iter().filter(|m| durable.contains(m.name.as_str())).count() > 1 {
        v.push(Violation::invalid(format!("{at}.volumeMounts"), "a container can mount one durableDir only"));
    }
}

fn mount_path(path: &str) -> Result<(), String> {
    if path.len() > MAX_MOUNT_PATH {
        return Err(format!("{} bytes are more than the {MAX_MOUNT_PATH} allowed", path.len()));
    }
    let segments = path.strip_prefix('/').ok_or_else(|| format!("{} is not absolute", quoted(path)))?;
    let segment_ok = |s: &str| !matches!(s, "" | "." | "..");
    match segments.split('/').all(segment_ok) && !path.contains(|c: char| c == ':' || c.is_control()) {
        true => Ok(()),
        false => Err(format!("{} is not a clean path below /", quoted(path))),
    }
}

fn volumes(volumes: &[Volume], v: &mut Vec<Violation>) {
    rules::at_most(volumes.len(), MAX_VOLUMES, "spec.volumes", v);
    for (i, volume) in volumes.iter().enumerate() {
        rules::label(&volume.name, &format!("spec.volumes[{i}].name"), v);
        if volume.durable_dir.is_none() {
            v.push(Violation::invalid(format!("spec.volumes[{i}]"), "needs exactly one source: durableDir"));
        }
    }
    // Ours: which of two would a mount mean?
    rules::unique(volumes.iter().map(|o| o.name.as_str()), |i| format!("spec.volumes[{i}].name"), v);
    if volumes.iter().filter(|o| o.durable_dir.is_some()).count() > 1 {
        v.push(Violation::invalid("spec.volumes", "a template can have one durableDir only"));
    }
}
