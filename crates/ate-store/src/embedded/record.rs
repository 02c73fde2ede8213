//! How a record lies in the tree: its version in eight bytes, big-endian, then its value.

use bytes::{BufMut, Bytes, BytesMut};
use fjall::UserValue;

use crate::{Result, StoreError, Versioned};

const VERSION_BYTES: usize = 8;

pub(super) struct Record;

impl Record {
    pub(super) fn encode(version: u64, value: &[u8]) -> UserValue {
        let mut out = BytesMut::with_capacity(VERSION_BYTES + value.len());
        out.put_u64(version);
        out.put_slice(value);
        out.freeze().into()
    }

    /// The value shares the memory of the tree's block.
    pub(super) fn decode(stored: UserValue) -> Result<Versioned> {
        let version = Self::version(&stored)?;
        Ok(Versioned { version, value: Bytes::from(stored).slice(VERSION_BYTES..) })
    }

    pub(super) fn version(stored: &[u8]) -> Result<u64> {
        let Some((version, _)) = stored.split_first_chunk::<VERSION_BYTES>() else {
            return Err(StoreError::Unavailable("the store is damaged: a record has no version".to_owned()));
        };
        Ok(u64::from_be_bytes(*version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_records_on_disk() {
        ate_fuzz::Target::named("store.record").sample("value", || Record::encode(7, b"value").to_vec()).run(|bytes| {
            let found = Record::decode(bytes.into())?;
            assert_eq!(Record::encode(found.version, &found.value).to_vec(), bytes);
            Ok::<_, StoreError>(())
        });
    }
}
