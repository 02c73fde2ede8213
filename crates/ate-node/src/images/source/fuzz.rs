//! Images in one file, and what a registry may answer.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use ate_api::id::Digest;
use ate_fuzz::{Target, tar::with_checksums};
use serde_json::json;

use super::{super::document::architecture, *};

/// What `docker save` writes.
fn saved() -> Vec<u8> {
    let layer = crate::unpack::sample::layer();
    let diff_ids = [format!("sha256:{}", Digest::of(&layer))];
    let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
    let config = json!({ "os": "linux", "architecture": architecture(), "rootfs": rootfs }).to_string();
    let manifest = json!([{ "Config": "c.json", "RepoTags": ["web:v1"], "Layers": ["l/layer.tar"] }]).to_string();
    packed(&[("l/layer.tar", &layer), ("c.json", config.as_bytes()), ("manifest.json", manifest.as_bytes())])
}

/// A layout in one file.
fn layout() -> Vec<u8> {
    let layer = crate::unpack::sample::tree();
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes));
    let descriptor = |kind: &str, bytes: &[u8]| {
        let media_type = format!("application/vnd.oci.image.{kind}");
        json!({ "mediaType": media_type, "digest": format!("sha256:{}", Digest::of(bytes)), "size": bytes.len() })
    };
    let layers = [descriptor("layer.v1.tar", &layer)];
    let manifest = json!({ "schemaVersion": 2, "config": descriptor("config.v1+json", b"{}"), "layers": layers });
    let manifest = manifest.to_string().into_bytes();
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor("manifest.v1+json", &manifest)] }).to_string();
    packed(&[(&blob(&manifest), &manifest), (&blob(&layer), &layer), ("index.json", index.as_bytes())])
}

fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn archives() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("image.tar");
    Target::named("node.image-archive").sample("docker", saved).sample("oci", layout).run(|bytes| {
        std::fs::write(&path, with_checksums(bytes)).unwrap();
        let open = |file: &Path| -> Result<(), ImageError> {
            let (file, tag) = (file.to_owned(), None);
            let docker = Archive::open(&Reference::DockerArchive { file: file.clone(), tag: tag.clone() });
            let archive = docker.or_else(|_| Archive::open(&Reference::LayoutArchive { file, tag }))?;
            archive.document(None).map(drop)
        };
        open(&path)
    });
}

/// Answers every request with the same bytes.
fn serve(answer: Arc<Mutex<Vec<u8>>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.lock().unwrap().clone();
            let _ = one(stream, &answer);
        }
    });
    port
}

fn one(mut stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
        head.push(byte[0]);
    }
    stream.write_all(answer)?;
    stream.shutdown(Shutdown::Both)
}

#[test]
fn answers_of_registries() {
    let answer = Arc::new(Mutex::new(Vec::new()));
    let port = serve(answer.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let reference = Reference::parse(&format!("127.0.0.1:{port}/team/app:v1")).unwrap();
    let registry = runtime.block_on(Source::open(&reference)).unwrap();
    Target::named("node.registry-answer")
        .sample("manifest", || {
            let body = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
            let digest = Digest::of(body.as_bytes());
            let kind = "application/vnd.oci.image.manifest.v1+json";
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ndocker-content-digest: sha256:{digest}\r\n");
            format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
        })
        .run(|bytes| {
            *answer.lock().unwrap() = bytes.to_vec();
            let asked = async {
                let document = registry.document(None).await?;
                assert!(document.len() as u64 <= super::super::document::MAX_DOCUMENT);
                Ok::<_, ImageError>(())
            };
            let limit = Duration::from_secs(10);
            runtime.block_on(async { tokio::time::timeout(limit, asked).await }).expect("it has an end")
        });
}
