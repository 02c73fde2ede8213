//! What the image cache promises: honest images come out as they were built, others not at all.

#[path = "../support/mod.rs"]
mod support;

mod cache;
mod erofs;
mod hostile;
mod layers;
mod registry;
mod sources;

use std::{path::PathBuf, sync::Arc};

use ate_node::images::{Image, ImageCache, ImageError};
use support::{Layer, Layout, Parts, names};
use tempfile::TempDir;

struct Bed {
    dir: TempDir,
    cache: ImageCache,
}

impl Bed {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = ImageCache::open(dir.path().join("images")).await.unwrap();
        Bed { dir, cache }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn layout(&self) -> Layout {
        Layout::new(self.path("layout"))
    }

    async fn unpack(&self, layers: &[&Layer]) -> Result<Arc<Image>, ImageError> {
        let reference = self.layout().add(&Parts::new(layers), "t");
        self.cache.resolve(&reference).await
    }

    /// After a failure nothing may be left, neither finished nor half done.
    fn assert_empty(&self) {
        for dir in ["layers", "tmp"] {
            assert_eq!(names(&self.path("images").join(dir)), Vec::<String>::new(), "left in {dir}");
        }
    }
}

fn invalid<T: std::fmt::Debug>(result: Result<T, ImageError>) -> String {
    match result {
        Err(ImageError::Invalid { message, .. }) => message,
        other => panic!("expected an invalid image, got {other:?}"),
    }
}
