//! Values of the trait on the wire, and the largest there may be.

use ate_api::{Error, Reason};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::pb::Json;

/// A manifest has at most a few megabytes, and everything else less.
pub(crate) const MAX_MESSAGE: usize = 64 << 20;
/// Pieces of what may be larger.
pub(crate) const PIECE: usize = 1 << 20;
/// What is still referenced, with two million entries of a hundred bytes.
pub(crate) const MAX_PIECES: usize = 512 << 20;

pub(crate) fn encode(value: &impl Serialize) -> Result<Json, Error> {
    let json =
        serde_json::to_vec(value).map_err(|e| Error::new(Reason::Internal, format!("cannot be written: {e}")))?;
    Ok(Json { json: json.into() })
}

pub(crate) fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|e| {
        Error::new(Reason::Internal, format!("the other end says what cannot be read: {e}"))
            .hint("control plane and nodes must be of one version")
    })
}

pub(crate) fn pieces(whole: Bytes) -> impl Iterator<Item = Json> {
    (0..whole.len()).step_by(PIECE).map(move |at| Json { json: whole.slice(at..whole.len().min(at + PIECE)) })
}
