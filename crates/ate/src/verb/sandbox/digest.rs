//! Binaries named by the first digits of their digest.

use ate_api::id::Digest;

use crate::{client::Client, failure::Outcome, kind::Kind, target::Target, verb::get};

/// The whole digest. One that is written out need not be known to the server.
pub(crate) async fn whole(client: &Client, text: &str) -> Outcome<String> {
    if let Some(digest) = Digest::parse(text) {
        return Ok(digest.to_string());
    }
    let name = text.strip_prefix("sha256:").unwrap_or(text).to_owned();
    let target = Target { kind: Kind::Asset, space: String::new(), name: Some(name) };
    Ok(get::find(client, &target).await?.name)
}
