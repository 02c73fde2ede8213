//! The pods of the system itself, as the manifests describe them: control planes and node agents, in containers of their images
//! with the rights they have there. What differs is said here: they use the network of the machine, on ports of the test.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use ate_kube_harness::{Cluster as ApiServer, create, token};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{Pod, PodTemplateSpec, VolumeMount},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    ASSETS, SYSTEM,
    container::Container,
    images::image,
    machine::Machine,
    pods::{SecretVolume, environment},
    runtime,
};
use crate::provided;

/// Where the rights of a pod's account are; the API server adds it to every pod that wants them.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A started pod of the system, and the secrets it sees.
pub(super) struct Started {
    pub(super) container: Container,
    pub(super) secrets: Vec<SecretVolume>,
}

/// What starting them takes.
pub(super) struct System<'a> {
    pub(super) api_server: &'a ApiServer,
    pub(super) client: Client,
    pub(super) dir: &'a Path,
}

impl System<'_> {
    /// One replica of the Deployment, that listens there: for the API, and for actors.
    pub(super) async fn control(&self, name: &str, node: &str, [api, router]: [SocketAddr; 2]) -> Started {
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), SYSTEM);
        let template = deployments.get("ate-control").await.unwrap().spec.unwrap().template;
        let mut pod = pod_of(template, name, node);
        for port in pod.spec.as_mut().unwrap().containers[0].ports.iter_mut().flatten() {
            let of = if port.name.as_deref() == Some("api") { api } else { router };
            port.container_port = of.port().into();
        }
        let env = [("ATE_LISTEN", api.to_string()), ("ATE_ROUTER_LISTEN", router.to_string())];
        self.start(pod, &env, None).await
    }

    /// The DaemonSet's pod on a machine.
    pub(super) async fn node(&self, machine: &Machine, control: SocketAddr) -> Started {
        let sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), SYSTEM);
        let template = sets.get("ate-node").await.unwrap().spec.unwrap().template;
        let pod = pod_of(template, &format!("ate-{}", machine.name), &machine.name);
        let env = [("ATE_LISTEN", "127.0.0.1:0".to_owned()), ("ATE_CONTROL", control.to_string())];
        self.start(pod, &env, Some(machine)).await
    }

    async fn start(&self, pod: Pod, differs: &[(&str, String)], machine: Option<&Machine>) -> Started {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), SYSTEM);
        let name = pod.name_any();
        create(pods.clone(), serde_json::to_value(&pod).unwrap()).await;
        let status = json!({"status": {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
        let pod = pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
        let spec = pod.spec.as_ref().unwrap();
        let mut container = spec.containers[0].clone();
        let mut env = environment(&self.client, &pod, &container).await;
        env.retain(|(name, _)| differs.iter().all(|(other, _)| name != other));
        env.extend(differs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let address = self.api_server.address();
        env.push(("KUBERNETES_SERVICE_HOST".to_owned(), address.ip().to_string()));
        env.push(("KUBERNETES_SERVICE_PORT".to_owned(), address.port().to_string()));

        let below = |name: &str| self.dir.join("volumes").join(pod.name_any()).join(name);
        let group = spec.security_context.as_ref().and_then(|c| c.fs_group).unwrap_or(0);
        let group = u32::try_from(group).unwrap();
        let (mut volumes, mut secrets) = (HashMap::new(), Vec::new());
        for volume in spec.volumes.iter().flatten() {
            let dir = below(&volume.name);
            if let Some(of) = &volume.secret {
                let mode = u32::try_from(of.default_mode.unwrap_or(0o644)).unwrap();
                let secret = of.secret_name.clone().unwrap();
                let volume = SecretVolume { secret, dir: dir.clone(), mode, group };
                volume.refresh(&self.client, SYSTEM).await;
                secrets.push(volume);
            } else if volume.empty_dir.is_some() {
                open_dir(&dir);
            }
            let on_machine = volume.host_path.as_ref().map(|h| {
                assert_eq!(h.path, Machine::PATH);
                machine.expect("a pod with a machine").data_dir.clone()
            });
            volumes.insert(volume.name.clone(), on_machine.unwrap_or(dir));
        }
        let account = spec.service_account_name.as_deref().unwrap_or("default");
        volumes.insert("account".to_owned(), self.account(account, below("account")).await);
        let mount =
            VolumeMount { name: "account".to_owned(), mount_path: ACCOUNT.to_owned(), ..VolumeMount::default() };
        container.volume_mounts.get_or_insert_default().push(VolumeMount { read_only: Some(true), ..mount });

        let image = image(self.dir, container.image.as_deref().unwrap());
        // Images and binaries of the tests, which a real cluster fetches over the network.
        let assets = self.dir.join(ASSETS);
        fs::create_dir_all(&assets).unwrap();
        let seen = vec![provided("images").canonicalize().unwrap(), provided("runsc").canonicalize().unwrap(), assets];
        let cgroup = format!("/ate-e2e-{}", pod.uid().unwrap());
        let given = runtime::Given { program: image.entrypoint, env, volumes, seen, network: None, cgroup };
        let config = runtime::config(spec, &container, given);
        Started { container: Container::start(self.dir, &name, &image.root, config), secrets }
    }

    /// The files by which a pod proves to the API server which account it has.
    async fn account(&self, account: &str, dir: PathBuf) -> PathBuf {
        let shown = token(&self.client, SYSTEM, account).await;
        let files = [("ca.crt", self.api_server.authority()), ("token", shown), ("namespace", SYSTEM.to_owned())];
        let files: BTreeMap<_, _> =
            files.into_iter().map(|(name, text)| (name.to_owned(), text.into_bytes())).collect();
        SecretVolume { secret: String::new(), dir: dir.clone(), mode: 0o644, group: 0 }.write(&files);
        dir
    }
}

fn pod_of(template: PodTemplateSpec, name: &str, node: &str) -> Pod {
    let mut pod = Pod { metadata: template.metadata.unwrap_or_default(), spec: template.spec, ..Pod::default() };
    pod.metadata.name = Some(name.to_owned());
    pod.spec.as_mut().unwrap().node_name = Some(node.to_owned());
    pod
}

/// For whoever the container runs as.
fn open_dir(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
}
