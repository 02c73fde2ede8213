//! From a template and its images to what a herder runs: every value final, nothing left to look up.
//!
//! Containers behave as users of containers expect: `command` stands in place of the image's entrypoint *and* its
//! command; the template's environment wins over the image's; directory and user are the image's.

use std::sync::Arc;

use ate_agent::Template;
use ate_api::{
    Error, Reason,
    id::Digest,
    resource::template::{Container, EnvVar},
};
use ate_snapshot::manifest;
use ateom::driver as pb;
use prost::Message;

use crate::{
    images::{Image, ImageConfig, ImageFile, User},
    secrets::Values,
};

/// What a program finds when its image says nothing, as other container runtimes have it.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A template's container with the image it runs.
pub(crate) struct Part<'a> {
    pub(crate) container: &'a Container,
    pub(crate) image: Arc<Image>,
    /// The image as one file, if the class takes it so; else as its layers.
    pub(crate) file: Option<ImageFile>,
}

/// The digest a template's image was resolved to.
pub(crate) fn image_digest<'a>(template: &'a Template, container: &Container) -> Result<&'a Digest, Error> {
    template.images.get(&container.image).ok_or_else(|| {
        let message = format!("no digest was recorded for image `{}`", container.image);
        Error::new(Reason::ImageNotFound, message).on(format!("template/{}", template.name))
    })
}

/// What the manifest of a snapshot says about images.
pub(crate) fn manifest_images(template: &Template) -> Result<Vec<manifest::Image>, Error> {
    let image = |c: &Container| {
        let digest = image_digest(template, c)?.clone();
        Ok(manifest::Image { container: c.name.clone(), reference: c.image.clone(), digest })
    };
    template.spec.containers.iter().map(image).collect()
}

/// Puts everything together. Reads user names from the images' files.
pub(crate) async fn assemble(template: &Template, parts: &[Part<'_>], secrets: &Values) -> Result<pb::Workload, Error> {
    let mut containers = Vec::with_capacity(parts.len());
    for Part { container, image, file } in parts {
        let user = image.user(&image.config.user).await.map_err(Error::from)?;
        let assembled = assemble_container(container, &image.config, &user, secrets);
        let mut assembled = assembled.map_err(|e| e.on(format!("template/{}", template.name)))?;
        match file {
            None => assembled.layers = image.layers.iter().map(|l| l.to_string_lossy().into_owned()).collect(),
            Some(ImageFile { path, sha256 }) => {
                let (path, sha256) = (path.to_string_lossy().into_owned(), sha256.to_string());
                assembled.image = Some(pb::ImageFile { path, sha256 });
            }
        }
        containers.push(assembled);
    }
    let durable = template.spec.volumes.iter().filter(|v| v.durable_dir.is_some());
    let volumes = durable.map(|v| pb::Volume { name: v.name.clone() }).collect();
    let mut workload = pb::Workload { containers, volumes, key: String::new() };
    if let Values::Read(_) = secrets {
        // Nothing was prepared for it, and no digest of a secret leaves this function: a short one could be guessed.
        workload.key = uuid::Uuid::new_v4().simple().to_string();
        return Ok(workload);
    }
    // Over everything that is run: the same for each activation of a template, another for another template.
    let identity = format!("{}\0{}\0", template.uid, template.spec_digest);
    workload.key = Digest::of(&[identity.as_bytes(), &workload.encode_to_vec()].concat()).to_string();
    Ok(workload)
}

/// All but the image itself.
fn assemble_container(
    container: &Container,
    image: &ImageConfig,
    user: &User,
    secrets: &Values,
) -> Result<pb::Container, Error> {
    let args = match container.command.is_empty() {
        false => container.command.clone(),
        true => [image.entrypoint.clone(), image.cmd.clone()].concat(),
    };
    if args.is_empty() {
        let message = format!(
            "container `{}`: neither the template nor image `{}` names a command",
            container.name, container.image
        );
        return Err(Error::new(Reason::Invalid, message).hint("set `command` in the template"));
    }
    let readyz = container.readyz.as_ref().map(|r| pb::Readyz {
        path: r.http_get.path.clone(),
        port: r.http_get.port.clamp(0, i32::from(u16::MAX)).unsigned_abs(),
    });
    let mounts = container.volume_mounts.iter();
    Ok(pb::Container {
        name: container.name.clone(),
        layers: Vec::new(),
        args,
        env: environment(image, &container.env, user, secrets)
            .map_err(|e| e.on(format!("container/{}", container.name)))?,
        cwd: image.workdir.clone(),
        uid: user.uid,
        gid: user.gid,
        additional_gids: user.additional_gids.clone(),
        readyz,
        mounts: mounts.map(|m| pb::Mount { volume: m.name.clone(), path: m.mount_path.clone() }).collect(),
        image: None,
    })
}

/// The image's variables with the template's over them; PATH and HOME if neither has them.
fn environment(image: &ImageConfig, template: &[EnvVar], user: &User, secrets: &Values) -> Result<Vec<String>, Error> {
    let mut env = image.env.clone();
    for var in template {
        let Some(value) = value(var, secrets)? else { continue };
        set(&mut env, format!("{}={value}", var.name));
    }
    for default in [DEFAULT_PATH.to_owned(), format!("HOME={}", user.home)] {
        if !env.iter().any(|v| name(v) == name(&default)) {
            env.push(default);
        }
    }
    Ok(env)
}

/// `None`: an optional secret that is not there, or one that nobody is going to read.
fn value<'a>(var: &'a EnvVar, secrets: &'a Values) -> Result<Option<&'a str>, Error> {
    let secret = match (&var.value, &var.value_from) {
        (Some(value), _) => return Ok(Some(value)),
        (None, None) => return Ok(Some("")),
        (None, Some(from)) => &from.secret_key_ref,
    };
    match secrets {
        Values::Unread => Ok(None),
        Values::Read(values) => Ok(values.get(secret)),
        Values::Nowhere if secret.optional == Some(true) => Ok(None),
        Values::Nowhere => {
            let message = format!(
                "variable `{}` comes from key `{}` of secret `{}`, and there are no secrets on a single machine",
                var.name, secret.key, secret.name
            );
            Err(Error::new(Reason::Invalid, message).hint("give the variable a `value`, or mark the secret `optional`"))
        }
    }
}

fn set(env: &mut Vec<String>, new: String) {
    match env.iter_mut().find(|v| name(v) == name(&new)) {
        Some(old) => *old = new,
        None => env.push(new),
    }
}

fn name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use ate_api::resource::template::{EnvVarSource, SecretKeyRef};

    use super::*;

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: vec!["/server".into()],
            cmd: vec!["--quiet".into()],
            env: vec!["A=image".into(), "B=image".into()],
            workdir: "/srv".into(),
            user: "app".into(),
            exposed_ports: vec![80],
            labels: Default::default(),
        }
    }

    fn user() -> User {
        User { uid: 7, gid: 8, additional_gids: vec![9], home: "/home/app".into() }
    }

    fn container() -> Container {
        serde_json::from_str(r#"{"name": "main", "image": "i"}"#).unwrap()
    }

    fn var(name: &str, value: &str) -> EnvVar {
        EnvVar { name: name.into(), value: Some(value.into()), value_from: None }
    }

    fn secret(optional: Option<bool>) -> EnvVar {
        let secret_key_ref = SecretKeyRef { name: "s".into(), key: "k".into(), optional };
        EnvVar { name: "S".into(), value: None, value_from: Some(EnvVarSource { secret_key_ref }) }
    }

    #[test]
    fn an_image_runs_its_entrypoint_with_its_command_in_its_directory_as_its_user() {
        let c = assemble_container(&container(), &image(), &user(), &Values::Nowhere).unwrap();
        assert_eq!(c.args, ["/server", "--quiet"]);
        assert_eq!((c.cwd.as_str(), c.uid, c.gid, c.additional_gids), ("/srv", 7, 8, vec![9]));
    }

    #[tokio::test]
    async fn an_image_reaches_the_herder_as_layers_or_as_one_file_and_never_as_both() {
        let layer = tempfile::tempdir().unwrap();
        let template = Template {
            name: ate_api::id::ObjectName::new("default", "t"),
            uid: ate_api::id::Uid::generate(),
            spec_digest: Digest::of(b"spec"),
            spec: serde_json::from_str(r#"{"containers": [], "snapshotsConfig": {"location": "default"}}"#).unwrap(),
            images: Default::default(),
        };
        let config = ImageConfig { user: String::new(), ..image() };
        let layers = vec![layer.path().to_owned()];
        let image = Arc::new(Image { digest: Digest::of(b"image"), layers, config });
        let container = container();
        let assembled = async |file: Option<ImageFile>| {
            let part = Part { container: &container, image: image.clone(), file };
            assemble(&template, &[part], &Values::Nowhere).await.unwrap()
        };
        let as_layers = assembled(None).await;
        assert_eq!(as_layers.containers[0].layers, [layer.path().to_string_lossy()]);
        assert_eq!(as_layers.containers[0].image, None);

        let file = |bytes: &[u8]| Some(ImageFile { path: "/images/file".into(), sha256: Digest::of(bytes) });
        let as_file = assembled(file(b"one")).await;
        assert!(as_file.containers[0].layers.is_empty());
        let expected = pb::ImageFile { path: "/images/file".into(), sha256: Digest::of(b"one").to_string() };
        assert_eq!(as_file.containers[0].image, Some(expected));
        // What was prepared for one is not used for the other, nor for another file of the same image.
        assert_ne!(as_file.key, as_layers.key);
        assert_ne!(as_file.key, assembled(file(b"other")).await.key);
    }

    #[test]
    fn the_templates_command_replaces_entrypoint_and_command() {
        let container = Container { command: vec!["/other".into()], ..container() };
        assert_eq!(assemble_container(&container, &image(), &user(), &Values::Nowhere).unwrap().args, ["/other"]);
    }

    #[test]
    fn an_image_without_a_command_is_refused_when_the_template_names_none() {
        let image = ImageConfig { entrypoint: vec![], cmd: vec![], ..image() };
        let error = assemble_container(&container(), &image, &user(), &Values::Nowhere).unwrap_err();
        assert_eq!(error.reason, Reason::Invalid);
        assert!(error.message.contains("main"), "{error}");
    }

    #[test]
    fn the_templates_environment_wins_and_what_nobody_sets_has_a_default() {
        let env = environment(&image(), &[var("B", "template"), var("C", "")], &user(), &Values::Nowhere).unwrap();
        assert_eq!(env, ["A=image", "B=template", "C=", DEFAULT_PATH, "HOME=/home/app"]);
        let own = environment(&image(), &[var("PATH", "/p"), var("HOME", "/h")], &user(), &Values::Nowhere).unwrap();
        assert_eq!(own, ["A=image", "B=image", "PATH=/p", "HOME=/h"]);
    }

    #[test]
    fn where_there_are_no_secrets_one_is_refused_unless_it_is_optional() {
        let error = environment(&image(), &[secret(None)], &user(), &Values::Nowhere).unwrap_err();
        assert_eq!(error.reason, Reason::Invalid);
        assert!(error.message.contains("`S`") && !error.hint.is_empty(), "{error}");
        let env = environment(&image(), &[secret(Some(true))], &user(), &Values::Nowhere).unwrap();
        assert!(!env.iter().any(|v| v.starts_with("S=")));
    }

    #[test]
    fn what_is_restored_or_prepared_knows_nothing_of_secrets() {
        for optional in [None, Some(true)] {
            let env = environment(&image(), &[secret(optional)], &user(), &Values::Unread).unwrap();
            assert!(!env.iter().any(|v| v.starts_with("S=")));
        }
    }
}
