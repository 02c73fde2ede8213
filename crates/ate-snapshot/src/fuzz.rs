//! What object storage and the node's disk may give back: manifests, places, stored files.

use ate_api::id::Digest;
use ate_fuzz::Target;

use crate::{Error, Manifest, Prefix, files::Stamp, repository, sample};

#[test]
fn manifests() {
    Target::named("snapshot.manifest")
        .sample("documented", || sample::manifest().to_bytes())
        .sample("whole", || {
            let mut manifest = sample::manifest();
            (manifest.base, manifest.parent) = (None, None);
            manifest.to_bytes()
        })
        .run(|bytes| {
            let manifest = Manifest::parse_verified(bytes, &Digest::of(bytes))?;
            let written = manifest.to_bytes();
            let again =
                Manifest::parse_verified(&written, &Digest::of(&written)).expect("what was written is a manifest");
            assert_eq!((&again, again.to_bytes()), (&manifest, written));
            for file in &manifest.files {
                assert_eq!(std::path::Path::new(&file.name).file_name(), Some(file.name.as_ref()), "{:?}", file.name);
            }
            assert!(manifest.total_size() <= 1 << 40);
            // Whatever it says, it can be compared.
            let here = sample::manifest();
            let _ = manifest.check_platform(&here.platform);
            let _ = manifest.check_sandbox(&here.sandbox.sandbox);
            Ok::<_, Error>(())
        });
}

#[test]
fn places() {
    Target::named("snapshot.prefix")
        .sample("folder", || format!("file:///var/lib/ate/a%20b/actors/{}/00000007-12", sample::ACTOR).into_bytes())
        .sample("bucket", || format!("s3://bucket/some/path/actors/{}/00000001-1", sample::ACTOR).into_bytes())
        .run(|bytes| {
            let text = std::str::from_utf8(bytes).map_err(|_| "not text".to_owned())?;
            let prefix: Prefix = text.parse().map_err(|e: Error| e.to_string())?;
            assert_eq!(prefix.to_string(), text);
            assert!(!text.split('/').any(|part| matches!(part, ".." | ".")), "{text}");
            Ok::<_, String>(())
        });
}

/// Whether the bytes are taken as that file, and what was written then.
fn received(bytes: &[u8], encoding: Option<&str>) -> Result<Vec<u8>, Error> {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("file");
    let file = crate::manifest::File { encoding: encoding.map(str::to_owned), ..sample::file("file", &content()) };
    let received = repository::receive::receive(&Digest::of(b""), &file, bytes, &path);
    match received {
        Ok(_) => Ok(std::fs::read(&path).unwrap()),
        Err(e) => {
            assert!(!path.exists(), "nothing is left of a damaged file");
            Err(e)
        }
    }
}

fn content() -> Vec<u8> {
    b"the same words again and again, ".repeat(100)
}

#[test]
fn stored_files() {
    Target::named("snapshot.stored-file")
        .sample("compressed", || zstd::encode_all(&content()[..], 1).unwrap())
        .sample("with-checksum", || {
            let mut encoder = zstd::Encoder::new(Vec::new(), 19).unwrap();
            encoder.include_checksum(true).unwrap();
            std::io::Write::write_all(&mut encoder, &content()).unwrap();
            encoder.finish().unwrap()
        })
        .run(|bytes| {
            assert!(received(bytes, None).is_ok_and(|found| found == content()) == (bytes == content()));
            let taken = received(bytes, Some("zstd"))?;
            assert!(taken == content(), "other bytes are taken for the file");
            Ok::<_, Error>(())
        });
}

#[test]
fn notes_about_files() {
    Target::named("snapshot.stamps")
        .sample("one", || {
            let metadata = std::fs::metadata(std::env::current_exe().unwrap()).unwrap();
            serde_json::to_vec(&std::collections::BTreeMap::from([("pages.img", Stamp::of(&metadata))])).unwrap()
        })
        .run(|bytes| {
            let stamps: std::collections::BTreeMap<String, Stamp> =
                serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
            let written = serde_json::to_vec(&stamps).unwrap();
            assert!(serde_json::from_slice::<std::collections::BTreeMap<String, Stamp>>(&written).unwrap() == stamps);
            Ok::<_, String>(())
        });
}
