//! A real registry on this machine, over HTTP.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use ate_api::id::Digest;
use ate_node::images::ImageError;
use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol},
};

use crate::{
    Bed,
    support::{CONFIG, LAYER, Layer, MANIFEST, Parts, descriptor, gzip},
};

struct Registry {
    process: Child,
    address: String,
    storage: PathBuf,
}

impl Registry {
    fn start(dir: &Path) -> Self {
        let storage = dir.join("storage");
        let config = dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
            storage.display()
        );
        fs::write(&config, text).unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/docker-registry/docker-registry");
        let started = Command::new(program)
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut process = started.expect("docker-registry is missing: run script/setup");
        let log = BufReader::new(process.stderr.take().unwrap());
        let (send, port) = mpsc::channel();
        // Reads on after that, so that the registry never waits for its log.
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let _ = send.send(rest.split(['"', ' ']).next().unwrap_or_default().to_owned());
                }
            }
        });
        let address = port.recv_timeout(Duration::from_secs(30)).expect("the registry says where it listens");
        Registry { process, address, storage }
    }

    /// Stores an image under a tag and returns the digest of its manifest.
    async fn push(&self, repository: &str, tag: &str, parts: &Parts) -> Digest {
        let config = ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() };
        let client = Client::new(config);
        let reference: Reference = format!("{}/{repository}:{tag}", self.address).parse().unwrap();
        let put = async |bytes: Vec<u8>| {
            let digest = format!("sha256:{}", Digest::of(&bytes));
            client.push_blob(&reference, bytes, &digest).await.unwrap();
        };
        let config = parts.config.to_string().into_bytes();
        let mut layers = Vec::new();
        for (stored, _) in &parts.layers {
            layers.push(descriptor(LAYER, stored));
            put(stored.clone()).await;
        }
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, &config), "layers": layers,
        });
        put(config).await;
        let manifest = manifest.to_string().into_bytes();
        let digest = Digest::of(&manifest);
        client.push_manifest_raw(&reference, manifest, MANIFEST.parse().unwrap()).await.unwrap();
        digest
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_from_a_registry_by_tag_and_by_digest() {
    let bed = Bed::new().await;
    let registry = Registry::start(bed.dir.path());
    let plain = Layer::new().file("hello", "from a registry").bytes();
    let stored = gzip(&plain);
    let digest = registry.push("team/app", "v1", &Parts::stored(vec![(stored.clone(), plain)])).await;
    let tagged = format!("{}/team/app:v1", registry.address);
    let image = bed.cache.resolve(&tagged).await.unwrap();
    assert_eq!(image.digest, digest);
    assert_eq!(fs::read(image.layers[0].join("hello")).unwrap(), b"from a registry");

    let by_digest = format!("{}/team/app@sha256:{digest}", registry.address);
    let fresh = Bed::new().await;
    assert_eq!(fresh.cache.resolve(&by_digest).await.unwrap().digest, digest);
    // The tag moved on, the actor did not.
    registry.push("team/app", "v1", &Parts::new(&[&Layer::new().file("hello", "newer")])).await;
    let fresh = Bed::new().await;
    assert_eq!(fresh.cache.ensure(&tagged, &digest).await.unwrap().digest, digest);
    assert_ne!(fresh.cache.resolve(&tagged).await.unwrap().digest, digest);

    for absent in ["team/app:nope", "nobody/nothing:v1"] {
        let result = fresh.cache.resolve(&format!("{}/{absent}", registry.address)).await;
        assert!(matches!(result, Err(ImageError::NotFound { .. })), "{absent}: {result:?}");
    }

    // A registry that hands out other bytes than it promised.
    let digest_dir = Digest::of(&stored);
    let blob = registry.storage.join("docker/registry/v2/blobs/sha256").join(&digest_dir.as_str()[..2]);
    let blob = blob.join(digest_dir.as_str()).join("data");
    let mut evil = fs::read(&blob).unwrap();
    let middle = evil.len() / 2;
    evil[middle] ^= 1;
    fs::write(&blob, evil).unwrap();
    let fresh = Bed::new().await;
    let refused = fresh.cache.resolve(&by_digest).await;
    assert!(refused.is_err(), "{refused:?}");
    fresh.assert_empty();

    drop(registry);
    let result = Bed::new().await.cache.resolve(&tagged).await;
    assert!(matches!(result, Err(ImageError::Unavailable { .. })), "{result:?}");
}
