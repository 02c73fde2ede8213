//! What a kubelet prepares for a pod before its container starts: the environment, and volumes of secrets.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
};

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret},
};
use kube::{Api, Client, ResourceExt as _};

use super::runtime::expanded;

/// The environment that the spec of a pod's container asks for.
pub(super) async fn environment(client: &Client, pod: &Pod, container: &Container) -> Vec<(String, String)> {
    let namespace = pod.namespace().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let mut env = Vec::new();
    for source in container.env_from.iter().flatten() {
        if let Some(of) = &source.config_map_ref {
            let found = maps.get_opt(&of.name).await.unwrap();
            assert!(found.is_some() || of.optional == Some(true), "no config map {}", of.name);
            env.extend(found.and_then(|m| m.data).unwrap_or_default());
        }
        if let Some(of) = &source.secret_ref {
            let found = secrets.get_opt(&of.name).await.unwrap();
            assert!(found.is_some() || of.optional == Some(true), "no secret {}", of.name);
            env.extend(found.and_then(|s| s.data).unwrap_or_default().into_iter().map(|(name, v)| (name, text(v))));
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => expanded(value, &env),
            (None, Some(EnvVarSource { field_ref: Some(field), .. })) => field_of(pod, &field.field_path),
            (None, Some(EnvVarSource { secret_key_ref: Some(key), .. })) => {
                let secret = secrets.get(&key.name).await.unwrap_or_else(|e| panic!("secret {}: {e}", key.name));
                text(secret.data.and_then(|mut data| data.remove(&key.key)).expect("a key of a secret"))
            }
            source => panic!("{}: {source:?} is not played", variable.name),
        };
        env.retain(|(name, _)| *name != variable.name);
        env.push((variable.name.clone(), value));
    }
    env
}

fn field_of(pod: &Pod, path: &str) -> String {
    match path {
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace().unwrap_or_default(),
        "metadata.uid" => pod.uid().unwrap_or_default(),
        "spec.nodeName" => pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default(),
        "status.podIP" => pod.status.as_ref().and_then(|s| s.pod_ip.clone()).unwrap_or_default(),
        path => panic!("{path} is not played"),
    }
}

fn text(bytes: ByteString) -> String {
    String::from_utf8(bytes.0).expect("text")
}

/// A volume of a secret: its files are links into a directory that is replaced as a whole, as the kubelet has it.
pub(super) struct SecretVolume {
    pub(super) secret: String,
    pub(super) dir: PathBuf,
    pub(super) mode: u32,
    /// Who may read it beside root.
    pub(super) group: u32,
}

impl SecretVolume {
    /// Makes the files those of the secret.
    pub(super) async fn refresh(&self, client: &Client, namespace: &str) {
        let secret = Api::<Secret>::namespaced(client.clone(), namespace).get(&self.secret).await.unwrap();
        self.write(&secret.data.unwrap_or_default().into_iter().map(|(name, value)| (name, value.0)).collect());
    }

    pub(super) fn write(&self, files: &BTreeMap<String, Vec<u8>>) {
        let version = format!("..{:08x}", fastrand::u32(..));
        let (new, data) = (self.dir.join(&version), self.dir.join("..data"));
        fs::create_dir_all(&new).unwrap();
        for (name, content) in files {
            self.file(&new.join(name), content);
            let _ = symlink(Path::new("..data").join(name), self.dir.join(name));
        }
        let before = fs::read_link(&data).ok();
        let next = self.dir.join("..data_tmp");
        symlink(&version, &next).unwrap();
        fs::rename(next, &data).unwrap();
        if let Some(before) = before {
            fs::remove_dir_all(self.dir.join(before)).unwrap();
        }
    }

    fn file(&self, path: &Path, content: &[u8]) {
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(self.mode)).unwrap();
        chown(path, Some(0), Some(self.group)).unwrap();
    }
}
