//! What a first start makes when nothing is configured, so that `ate run` works right away: for each sandbox class whose
//! binaries are on the PATH a default `SandboxConfig` and a pool, and the atespace `default`.
//!
//! Goes through the API like any client, so it can do nothing that a user could not.

use ate_api::{
    Error, Reason, ateapi,
    id::DEFAULT_SPACE,
    resource::{API_VERSION, ObjectMeta, WorkerPool, WorkerPoolSpec},
};
use ate_sandbox::{ClassDescriptor, Registry, registry::PREFIX};

use crate::{
    client::Client,
    failure::{Failure, Outcome, Trying as _},
    kind::Kind,
    programs,
    show::print,
    verb::{apply::word, sandbox::Import},
};

/// Makes what is missing, if nothing at all is configured.
pub(crate) async fn configure(client: &Client, classes: &Registry, workers: u32) -> Outcome {
    for kind in [Kind::SandboxConfig, Kind::WorkerPool, Kind::ActorTemplate] {
        if !client.list(kind, "").await?.is_empty() {
            return Ok(());
        }
    }
    print("nothing is configured yet, so a first configuration is made (--empty to prevent it)\n");
    let request = ateapi::CreateAtespaceRequest { name: DEFAULT_SPACE.to_owned() };
    match client.control().create_atespace(request).await {
        Ok(_) => print("atespace/default created\n"),
        Err(status) if status.code() == tonic::Code::AlreadyExists => {}
        Err(status) => return Err(Failure::new("cannot create atespace/default", Error::from(&status))),
    }
    for class in classes.classes().map(|herder| &herder.descriptor) {
        if let Err(e) = class.may_be_default() {
            print(&format!("no configuration for {}: {}\n", class.name, e.message));
            continue;
        }
        match found(class) {
            Ok(assets) => {
                Import::first(&class.name, format!("{}-default", class.name), assets).run(client).await?;
                pool(client, class, workers).await?;
            }
            Err(missing) => print(&format!(
                "no configuration for {0}: {missing}; `ate sandbox import --class {0}` makes one\n",
                class.name
            )),
        }
    }
    Ok(())
}

/// Where the class's binaries are, or why there is none of the first that is missing.
fn found(class: &ClassDescriptor) -> Result<Vec<(String, String)>, String> {
    let required = class.required_assets.iter();
    required
        .map(|asset| match asset.found_on_path_as.as_str() {
            "" => Err(format!("its {} is no single program", asset.name)),
            program => match programs::on_path(program) {
                Some(path) => Ok((asset.name.clone(), path.display().to_string())),
                None => Err(format!("{program} is not on the PATH")),
            },
        })
        .collect()
}

async fn pool(client: &Client, class: &ClassDescriptor, workers: u32) -> Outcome {
    let name = if class.name == ate_api::resource::template::default_class() { "default" } else { &class.name };
    let pool = WorkerPool {
        api_version: API_VERSION.to_owned(),
        kind: Kind::WorkerPool.name().to_owned(),
        metadata: ObjectMeta { name: name.to_owned(), namespace: DEFAULT_SPACE.to_owned(), ..Default::default() },
        spec: WorkerPoolSpec {
            replicas: i32::try_from(workers).unwrap_or(i32::MAX),
            ateom_image: format!("{}{}", PREFIX, class.name),
            template: None,
            sandbox_class: class.name.clone(),
            sandbox_config_name: None,
        },
        status: None,
    };
    let what = || format!("cannot apply workerpool/{name}");
    let object = serde_json::to_value(pool).map_err(|e| Error::new(Reason::Internal, e.to_string())).trying(what)?;
    let applied = client.apply(&object, false).await.trying(what)?;
    print(&format!("workerpool/{DEFAULT_SPACE}/{name} {} with {workers} workers\n", word(applied.outcome())));
    Ok(())
}
