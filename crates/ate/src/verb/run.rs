//! `ate run`: an image, a template and an actor in one go.

use std::{path::Path, time::Duration};

use ate_api::{
    Error, Reason, ateapi,
    resource::{
        API_VERSION, ActorTemplate, ActorTemplateSpec, ObjectMeta,
        template::{Container, EnvVar, HttpGet, Readyz, Scope, SnapshotsConfig},
    },
};
use clap::Args;

use super::{create::create, duration, pair};
use crate::{
    cli::Global,
    client::{Client, actor_ref, timed},
    failure::{Outcome, Trying as _},
    kind::Kind,
    progress::Progress,
    show::{columns::text, print},
    target::Target,
    wait,
};

/// The port a host name without a port leads to.
const HTTP_PORT: u16 = 80;

/// Run an image: makes a template and an actor of it, wakes the actor and prints its URL.
#[derive(Args)]
#[command(after_help = "Examples:
  ate run ./image-layout --name hello
  ate run oci:/srv/images/app:v2 --port 8080 --readyz /healthz --env MODE=fast
  ate run registry.example/team/app@sha256:… -- /app --verbose")]
pub(crate) struct Run {
    /// An OCI layout directory, a docker-archive file, oci:DIR[:TAG], docker-archive:FILE or a registry reference.
    image: String,
    /// Name of the template and the actor [default: from the image].
    #[arg(long)]
    name: Option<String>,
    /// Sandbox class [default: as configured].
    #[arg(long)]
    class: Option<String>,
    /// TCP port it serves HTTP on.
    #[arg(long, short, default_value_t = HTTP_PORT)]
    port: u16,
    /// Path that answers 2xx as soon as it is ready, on that port; without it, started means ready.
    #[arg(long, value_name = "PATH")]
    readyz: Option<String>,
    /// Environment variable. May be repeated.
    #[arg(long, short, value_parser = pair, value_name = "KEY=VALUE")]
    env: Vec<(String, String)>,
    /// Suspend it when it had no request for so long; 0 means never [default: 60s].
    #[arg(long, value_name = "TIME")]
    idle_timeout: Option<String>,
    /// How long to wait for the golden snapshot and for the actor.
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "TIME")]
    timeout: Duration,
    /// Where the router listens; for the URL, when the server does not say.
    #[arg(long, env = "ATE_ROUTER_LISTEN", default_value = "127.0.0.1:8000", value_name = "ADDRESS")]
    router: String,
    /// Command in place of the image's own.
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

impl Run {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => name_of(&self.image)
                .ok_or_else(|| Error::new(Reason::Invalid, "no name can be made from the image").hint("give --name"))
                .trying(|| format!("cannot run {}", self.image))?,
        };
        let image = image_reference(&self.image).trying(|| format!("cannot run {}", self.image))?;
        let template = Target::one(Kind::ActorTemplate, &name, &global.spaces);
        let actor = Target::one(Kind::Actor, &name, &global.spaces);
        let client = Client::connect(&global.server).await?;

        let object = serde_json::to_value(self.template(&template, image)).unwrap_or_default();
        client.apply(&object, false).await.trying(|| format!("cannot apply {template}")).map_err(|f| {
            match f.reason() {
                Some(Reason::Immutable) => f.hint(format!(
                    "a template {name} with other contents is there; choose another --name or delete it"
                )),
                _ => f,
            }
        })?;
        let mut progress = Progress::spinner(template.to_string());
        wait::until_ready(&client, &template, self.timeout, &mut progress).await?;
        progress.end();

        match create(&client, &actor, &template, &[]).await {
            Err(f) if f.reason() == Some(Reason::AlreadyExists) => print(&format!("{actor} is there already\n")),
            other => other?,
        }
        let mut progress = Progress::spinner(actor.to_string());
        progress.say("waking it");
        let request = ateapi::ResumeActorRequest { actor_ref: actor_ref(&actor), boot: false };
        let resumed = client.control().resume_actor(timed(request, self.timeout)).await;
        resumed.trying(|| format!("cannot resume {actor}"))?;
        let took = progress.end();
        let served = text(&client.get(&actor).await?.value, "/status/url");
        let url = url(&served, &self.router, &actor, self.port);
        print(&format!("{actor} running after {} ms\n{url}\n", took.as_millis()));
        Ok(())
    }

    fn template(&self, target: &Target, image: String) -> ActorTemplate {
        let env = self.env.iter().map(|(k, v)| EnvVar { name: k.clone(), value: Some(v.clone()), value_from: None });
        let port = i32::from(self.port);
        ActorTemplate {
            api_version: API_VERSION.to_owned(),
            kind: Kind::ActorTemplate.name().to_owned(),
            metadata: ObjectMeta {
                name: target.name.clone().unwrap_or_default(),
                namespace: target.space.clone(),
                ..Default::default()
            },
            spec: ActorTemplateSpec {
                pause_image: None,
                containers: vec![Container {
                    name: "app".to_owned(),
                    image,
                    command: self.command.clone(),
                    env: env.collect(),
                    readyz: self.readyz.clone().map(|path| Readyz { http_get: HttpGet { path, port } }),
                    volume_mounts: Vec::new(),
                }],
                snapshots_config: SnapshotsConfig {
                    location: "default".to_owned(),
                    on_pause: Scope::Full,
                    on_commit: Scope::Full,
                },
                sandbox_class: self.class.clone(),
                worker_selector: None,
                volumes: Vec::new(),
                idle_timeout: self.idle_timeout.clone(),
            },
            status: None,
        }
    }
}

/// A path that is there becomes a reference the server can use; anything else stays.
fn image_reference(image: &str) -> Result<String, Error> {
    let (path, tag) = match image.rsplit_once(':') {
        Some((path, tag)) if Path::new(path).is_dir() => (path, format!(":{tag}")),
        _ => (image, String::new()),
    };
    let io = |e: std::io::Error| Error::new(Reason::Invalid, e.to_string());
    match std::fs::metadata(path) {
        Ok(m) if m.is_dir() && !Path::new(path).join("oci-layout").exists() => {
            Err(Error::new(Reason::ImageInvalid, "the directory is no OCI layout: it has no file oci-layout"))
        }
        Ok(m) => {
            let path = std::fs::canonicalize(path).map_err(io)?;
            let scheme = if m.is_dir() { "oci" } else { "docker-archive" };
            Ok(format!("{scheme}:{}{tag}", path.display()))
        }
        Err(_) => Ok(image.to_owned()),
    }
}

/// `registry.example/team/My_App:v2@sha256:…` → `my-app`.
fn name_of(image: &str) -> Option<String> {
    let image = image.split('@').next()?;
    let last = image.trim_end_matches('/').rsplit('/').next()?;
    let base = last.split(':').next()?;
    let base = base.strip_suffix(".tar").unwrap_or(base);
    let mut name: String =
        base.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    name.truncate(63);
    let name = name.trim_matches('-').to_owned();
    (!name.is_empty()).then_some(name)
}

/// What to type into a browser. A port other than 80 is part of the host name.
fn url(served: &str, router: &str, actor: &Target, port: u16) -> String {
    let name = actor.name.as_deref().unwrap_or_default();
    let router_port = router.rsplit(':').next().unwrap_or_default();
    let url = match served {
        "" => format!("http://{name}.{}.localhost:{router_port}/", actor.space),
        served => format!("{}/", served.trim_end_matches('/')),
    };
    match port {
        HTTP_PORT => url,
        _ => url.replacen("://", &format!("://{port}-"), 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_from_the_image() {
        for (image, name) in [
            ("registry.example:5000/team/My_App:v2", "my-app"),
            ("app@sha256:ab", "app"),
            ("./layouts/counter/", "counter"),
            ("image.tar", "image"),
        ] {
            assert_eq!(name_of(image).as_deref(), Some(name));
        }
        assert_eq!(name_of("..."), None);
    }

    #[test]
    fn a_layout_on_this_machine_is_given_by_its_full_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let text = path.display().to_string();
        assert!(image_reference(&text).is_err(), "a directory that is no layout");
        std::fs::write(path.join("oci-layout"), "{}").unwrap();
        assert_eq!(image_reference(&text).unwrap(), format!("oci:{text}"));
        assert_eq!(image_reference(&format!("{text}:v1")).unwrap(), format!("oci:{text}:v1"));
        assert_eq!(image_reference("registry.example/x:v1").unwrap(), "registry.example/x:v1");
    }

    #[test]
    fn the_url_names_the_actor_and_a_port_that_is_not_80() {
        let actor = Target { kind: Kind::Actor, space: "team".into(), name: Some("a".into()) };
        assert_eq!(url("", "127.0.0.1:8000", &actor, 80), "http://a.team.localhost:8000/");
        assert_eq!(url("http://a.team.localhost:9/", "", &actor, 8080), "http://8080-a.team.localhost:9/");
    }
}
