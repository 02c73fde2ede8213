//! Images made from the example actor's: the same program under another configuration.

use std::{fs, path::Path};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::provided;

/// An OCI layout in the empty directory `dir`; `change` gets the `config` part of the image's configuration. Answers
/// with its reference.
pub fn configured(dir: &Path, change: impl FnOnce(&mut Value)) -> String {
    edited(dir, |_, _, config| change(&mut config["config"]))
}

/// The same with one layer of these bytes in the place of all.
pub fn of_layer(dir: &Path, layer: &[u8]) -> String {
    edited(dir, |blobs, manifest, config| {
        let digest = hex::encode(Sha256::digest(layer));
        fs::write(blobs.join(&digest), layer).expect("write the layer");
        let (digest, media_type) = (format!("sha256:{digest}"), "application/vnd.oci.image.layer.v1.tar");
        config["rootfs"]["diff_ids"] = json!([digest]);
        manifest["layers"] = json!([{"mediaType": media_type, "digest": digest, "size": layer.len()}]);
    })
}

/// `change` gets the directory of the blobs, the image's manifest and its configuration.
fn edited(dir: &Path, change: impl FnOnce(&Path, &mut Value, &mut Value)) -> String {
    let from = provided("images/counter");
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a directory for the image");
    for blob in fs::read_dir(from.join("blobs/sha256")).expect("the image's blobs").flatten() {
        fs::copy(blob.path(), blobs.join(blob.file_name())).expect("copy a blob");
    }
    fs::copy(from.join("oci-layout"), dir.join("oci-layout")).expect("copy the layout's version");
    let read = |path: &Path| -> Value {
        serde_json::from_slice(&fs::read(path).expect("a part of the image")).expect("JSON of the image")
    };
    let mut index = read(&from.join("index.json"));
    let mut manifest = read(&blob(&blobs, &index["manifests"][0]));
    let mut config = read(&blob(&blobs, &manifest["config"]));
    change(&blobs, &mut manifest, &mut config);
    store(&blobs, &config, &mut manifest["config"]);
    store(&blobs, &manifest, &mut index["manifests"][0]);
    fs::write(dir.join("index.json"), index.to_string()).expect("write the index");
    format!("oci:{}", dir.display())
}

fn blob(blobs: &Path, descriptor: &Value) -> std::path::PathBuf {
    blobs.join(descriptor["digest"].as_str().expect("a digest").trim_start_matches("sha256:"))
}

/// Writes a blob and makes the descriptor that of it.
fn store(blobs: &Path, content: &Value, descriptor: &mut Value) {
    let text = content.to_string();
    let digest = hex::encode(Sha256::digest(&text));
    descriptor["digest"] = format!("sha256:{digest}").into();
    descriptor["size"] = text.len().into();
    fs::write(blobs.join(digest), text).expect("write a blob");
}
