//! Where `etcd` and `kube-apiserver` are: the directory that `KUBEBUILDER_ASSETS` names, as everywhere in the world of
//! Kubernetes, or what `script/kube-test-server` built.

use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) etcd: PathBuf,
    pub(crate) api_server: PathBuf,
}

impl Programs {
    /// # Errors
    /// Why there are none, as the end of "skipped, because …".
    ///
    /// # Panics
    /// When they are not where somebody says they are: whoever names them does not want tests to be skipped.
    pub(crate) fn find() -> Result<Programs, String> {
        if let Some(dir) = std::env::var_os("KUBEBUILDER_ASSETS").filter(|dir| !dir.is_empty()) {
            let missing = || panic!("KUBEBUILDER_ASSETS={} has no etcd and kube-apiserver", dir.display());
            return Ok(Programs::in_dir(Path::new(&dir)).unwrap_or_else(missing));
        }
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/kube-test-server");
        Programs::in_dir(&built).ok_or_else(|| {
            "there is no Kubernetes API server: run script/kube-test-server, or set KUBEBUILDER_ASSETS".to_owned()
        })
    }

    fn in_dir(dir: &Path) -> Option<Programs> {
        let programs = Programs { etcd: dir.join("etcd"), api_server: dir.join("kube-apiserver") };
        (programs.etcd.is_file() && programs.api_server.is_file()).then_some(programs)
    }
}
