//! Opens the URLs of assets: `file`, `http`, `https`, `s3` and `gs`. What comes is not trusted.

use std::{io::SeekFrom, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, ObjectStore, RetryConfig, aws::AmazonS3Builder,
    gcp::GoogleCloudStorageBuilder, http::HttpBuilder, path::Path,
};
use rustix::fs::OFlags;
use tokio::io::AsyncSeekExt;
use tokio_util::io::ReaderStream;
use url::Url;

/// A server that is up answers a connection within this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// No byte for this long: the transfer is dead.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// For a server that is busy or restarting.
const RETRIES: usize = 4;
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// Read from a local file in pieces of this size.
const BUFFER: usize = 1 << 20;

/// An opened URL.
pub(super) struct Opened {
    /// Size of the whole object.
    pub(super) total: u64,
    /// Its bytes from the offset on.
    pub(super) bytes: BoxStream<'static, Result<Bytes, String>>,
}

/// The local path a URL means, if it means one.
pub(super) fn local_path(url: &str) -> Option<PathBuf> {
    Url::parse(url).ok().filter(|u| u.scheme() == "file").and_then(|u| u.to_file_path().ok())
}

/// Opens `url` at `offset`.
pub(super) async fn open(url: &str, offset: u64) -> Result<Opened, String> {
    let parsed = Url::parse(url).map_err(|e| format!("not a url: {e}"))?;
    match parsed.scheme() {
        "file" => open_file(&parsed, offset).await,
        "http" | "https" | "s3" | "gs" => open_remote(&parsed, offset).await,
        other => Err(format!("{other} urls are not supported; use file, http, https, s3 or gs")),
    }
}

async fn open_file(url: &Url, offset: u64) -> Result<Opened, String> {
    let path = url.to_file_path().map_err(|()| "not the url of a local file".to_owned())?;
    // Not blocking on a pipe that somebody put there.
    let opened =
        tokio::fs::OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(&path).await;
    let mut file = opened.map_err(|e| e.to_string())?;
    let meta = file.metadata().await.map_err(|e| e.to_string())?;
    if !meta.is_file() {
        return Err("not a regular file".into());
    }
    file.seek(SeekFrom::Start(offset)).await.map_err(|e| e.to_string())?;
    let bytes = ReaderStream::with_capacity(file, BUFFER).map_err(|e| e.to_string()).boxed();
    Ok(Opened { total: meta.len(), bytes })
}

async fn open_remote(url: &Url, offset: u64) -> Result<Opened, String> {
    let (store, path) = store(url)?;
    let range = (offset > 0).then_some(GetRange::Offset(offset));
    let got = store.get_opts(&path, GetOptions { range, ..GetOptions::default() }).await.map_err(|e| e.to_string())?;
    if got.range.start != offset {
        return Err("the server sent another range than asked for".into());
    }
    Ok(Opened { total: got.meta.size, bytes: got.into_stream().map_err(|e| e.to_string()).boxed() })
}

/// Credentials of `s3` and `gs` come from the environment of the node, as their own tools read it.
fn store(url: &Url) -> Result<(Arc<dyn ObjectStore>, Path), String> {
    let options = ClientOptions::new()
        .with_allow_http(true)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_read_timeout(READ_TIMEOUT)
        // The whole transfer has the deadline of the fetch.
        .with_timeout_disabled();
    let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT };
    let path = Path::from_url_path(url.path()).map_err(|e| e.to_string())?;
    let store: Result<Arc<dyn ObjectStore>, _> = match url.scheme() {
        "s3" => {
            let builder = AmazonS3Builder::from_env().with_url(url.as_str());
            builder.with_client_options(options).with_retry(retry).build().map(|s| Arc::new(s) as _)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(url.as_str());
            builder.with_client_options(options).with_retry(retry).build().map(|s| Arc::new(s) as _)
        }
        _ => {
            // The query stays with the base: signed urls carry their signature there.
            let mut base = url.clone();
            base.set_path("/");
            base.set_fragment(None);
            let builder = HttpBuilder::new().with_url(base).with_client_options(options).with_retry(retry);
            builder.build().map(|s| Arc::new(s) as _)
        }
    };
    Ok((store.map_err(|e| e.to_string())?, path))
}
