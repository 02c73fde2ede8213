//! Frames: a length, a kind, bytes. Both sides cap what they accept.
//!
//! ```text
//! u32 little-endian: bytes that follow the kind │ u8 kind │ bytes
//! ```

/// Bytes before the payload.
pub const HEADER: usize = 5;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A message of [`crate::protocol`].
    Message,
    /// A piece of a stream of bytes; an empty one ends it.
    Data,
    /// What a container wrote: u8 container, u8 stream (1 stdout, 2 stderr), bytes.
    Log,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub payload: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes, at most {1} are accepted")]
    TooLong(usize, usize),
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Kind::Message => 0,
            Kind::Data => 1,
            Kind::Log => 2,
        }
    }

    fn parse(byte: u8) -> Result<Self, FrameError> {
        match byte {
            0 => Ok(Kind::Message),
            1 => Ok(Kind::Data),
            2 => Ok(Kind::Log),
            other => Err(FrameError::Kind(other)),
        }
    }
}

/// The header of a frame, for writers that hold the payload elsewhere.
pub fn header(kind: Kind, len: usize) -> [u8; HEADER] {
    let len = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
    [len[0], len[1], len[2], len[3], kind.byte()]
}

/// A whole frame.
pub fn encode(kind: Kind, payload: &[u8]) -> Vec<u8> {
    [&header(kind, payload.len())[..], payload].concat()
}

/// Kind and payload length.
pub fn parse_header(bytes: [u8; HEADER], max: usize) -> Result<(Kind, usize), FrameError> {
    let len = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    if len > max {
        return Err(FrameError::TooLong(len, max));
    }
    Ok((Kind::parse(bytes[4])?, len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_longer_than_the_cap_is_refused_before_it_is_read() {
        let header = header(Kind::Data, 1 << 20);
        assert_eq!(parse_header(header, 1 << 20), Ok((Kind::Data, 1 << 20)));
        assert_eq!(parse_header(header, 100), Err(FrameError::TooLong(1 << 20, 100)));
    }

    proptest! {
        #[test]
        fn no_header_can_ask_for_more_than_the_cap(bytes: [u8; HEADER], max in 0usize..1 << 24) {
            if let Ok((_, len)) = parse_header(bytes, max) {
                prop_assert!(len <= max);
            }
        }

        #[test]
        fn what_is_encoded_is_what_is_parsed(payload: Vec<u8>) {
            let frame = encode(Kind::Log, &payload);
            let (head, rest) = frame.split_at(HEADER);
            let parsed = parse_header(head.try_into().unwrap(), 1 << 20).unwrap();
            prop_assert_eq!(parsed, (Kind::Log, payload.len()));
            prop_assert_eq!(rest, &payload[..]);
        }
    }
}
