//! What the store holds, and under which keys.
//!
//! Actors and snapshots change on the hot path and are MessagePack with field names (compact, and old records can
//! still be read when fields are added). Resources change rarely and are JSON, as people wrote them.

pub(crate) mod actor;
pub(crate) mod keys;
pub(crate) mod resource;
pub(crate) mod rollout;
pub(crate) mod snapshot;

pub(crate) use actor::{ActorRecord, Phase, Seat};
pub(crate) use resource::{AtespaceRecord, ConfigRecord, DefaultClass, Failure, PoolRecord, Revision, TemplateRecord};
pub(crate) use rollout::{MaxUnavailable, Rollout, RolloutPhase, RolloutPolicy, Step, StepState, Stopped};
pub(crate) use snapshot::{Base, ConfigKey, Garbage, Location, Snapshot, SnapshotRecord};

use ate_api::{Error, Reason};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// Nesting of a record; ours have five levels. A damaged one must not run over the stack, whoever reads it.
const MAX_DEPTH: usize = 32;

pub(crate) fn pack<T: Serialize>(value: &T) -> Result<Bytes, Error> {
    rmp_serde::to_vec_named(value).map(Bytes::from).map_err(|e| damaged("record", &e))
}

pub(crate) fn unpack<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, Error> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(MAX_DEPTH);
    T::deserialize(&mut reader).map_err(|e| damaged(key, &e))
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<Bytes, Error> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|e| damaged("record", &e))
}

pub(crate) fn from_json<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|e| damaged(key, &e))
}

fn damaged(key: &str, e: &dyn std::fmt::Display) -> Error {
    Error::new(Reason::Internal, format!("stored object cannot be read or written: {e}")).on(key)
}

/// Milliseconds since 1970, UTC.
pub(crate) fn now_ms() -> i64 {
    ate_api::time::Timestamp::now().as_millisecond()
}

pub(crate) fn timestamp(ms: i64) -> ate_api::time::Timestamp {
    ate_api::time::Timestamp::from_millisecond(ms).unwrap_or(ate_api::time::Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_nests_without_end_is_damaged_and_no_more() {
        // Lists of one entry, each in the one before, in a field that nobody knows.
        let nested = [&[0x81, 0xa1, b'x'][..], &[0x91; 100_000]].concat();
        let e = unpack::<ActorRecord>("actor/default/a", &nested).unwrap_err();
        assert_eq!((e.reason, e.object.as_str()), (Reason::Internal, "actor/default/a"));
    }
}
