//! The messages, version [`VERSION`].
//!
//! Two ports, both streams of [`crate::frame`]s. On [`CONTROL`] the herder asks and the agent answers each question
//! with one [`Answer`]; [`Request::Unpack`] is followed by data before the answer, [`Request::Pack`] by data before
//! it. On [`LOG`] the agent tells what containers write and [`Event`]s, and the herder says nothing.
//!
//! Between [`Answer::Frozen`] and the next [`Request::Wake`] the agent writes nothing to either port: that is when the
//! machine is saved, and whoever restores it finds both ports between two frames.
//!
//! Messages are in postcard's format, which takes the fewest instructions to read: what a machine runs for the first
//! time after a restore is slow, and a [`Wake`] is the first thing of all.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub const VERSION: u32 = 2;
/// Names of the virtio-serial ports.
pub const CONTROL: &str = "ate.control";
pub const LOG: &str = "ate.log";

/// Largest message to the agent: commands and environments of all containers.
pub const MAX_REQUEST: usize = 4 << 20;
/// Largest message from the agent, which is not trusted.
pub const MAX_ANSWER: usize = 64 << 10;
/// Largest piece of data or log.
pub const MAX_DATA: usize = 256 << 10;
/// Bytes of fresh entropy with each [`Request::Wake`].
pub const ENTROPY: usize = 32;
/// Containers in one machine: each has a device of its own.
pub const MAX_CONTAINERS: usize = 16;

/// Bytes that are no message of this protocol.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MessageError {
    #[error(transparent)]
    Malformed(#[from] postcard::Error),
    #[error("{0} bytes after the end of a message")]
    Trailing(usize),
}

pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, MessageError> {
    Ok(postcard::to_allocvec(message)?)
}

/// Nothing that is longer than `bytes` is allocated, whatever they say.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    match postcard::take_from_bytes(bytes)? {
        (message, []) => Ok(message),
        (_, rest) => Err(MessageError::Trailing(rest.len())),
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Who are you? Asked once after a boot.
    Hello,
    /// Mount, configure, make everything ready to start. Answered with [`Answer::Done`].
    Boot(Box<Boot>),
    /// Data follows: a tar archive of all volumes, unpacked before anything is started.
    Unpack,
    /// Start the containers.
    Start,
    /// Stop everything that runs, write out what it logged.
    Freeze,
    /// Go on, perhaps elsewhere and as somebody else: set clock and identity and reseed before anything runs.
    Wake(Wake),
    /// Send a tar archive of all volumes. Only while frozen.
    Pack,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    Hello {
        protocol: u32,
        version: String,
        kernel: String,
    },
    Done,
    Frozen,
    Awake,
    /// It did not work; nothing was changed that matters.
    Failed {
        message: String,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A container has ended: exit code, or the signal that ended it.
    Exited { container: usize, code: Option<i32>, signal: Option<i32> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Boot {
    pub hostname: String,
    pub network: Network,
    /// Contents of /etc/resolv.conf and /etc/hosts in each container.
    pub resolv_conf: String,
    pub hosts: String,
    pub volumes: Vec<Volume>,
    pub containers: Vec<Container>,
    pub wake: Wake,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    pub address: std::net::Ipv4Addr,
    pub prefix: u8,
    pub gateway: std::net::Ipv4Addr,
    pub gateway_mac: [u8; 6],
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Container {
    pub name: String,
    /// Serial number of the block device with its image.
    pub disk: String,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    pub mounts: Vec<Mount>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    pub volume: String,
    pub path: String,
}

/// What a machine cannot know that was saved or copied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wake {
    /// Nanoseconds since 1970.
    pub now_ns: u64,
    /// Mixed into the kernel's random numbers.
    pub entropy: [u8; ENTROPY],
    /// File name below /run/ate → content. Empty: as it was.
    pub identity: Vec<(String, String)>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written_and_nothing_may_follow() {
        let wake = Wake { now_ns: u64::MAX, entropy: [7; ENTROPY], identity: vec![("name".into(), "a".into())] };
        let mut bytes = encode(&Request::Wake(wake.clone())).unwrap();
        assert_eq!(decode::<Request>(&bytes).unwrap(), Request::Wake(wake));
        assert!(decode::<Request>(&bytes[..bytes.len() - 1]).is_err());
        bytes.push(0);
        assert_eq!(decode::<Request>(&bytes), Err(MessageError::Trailing(1)));
    }

    proptest! {
        #[test]
        fn noise_is_an_error_or_a_message_and_no_more(bytes: Vec<u8>) {
            let _ = decode::<Request>(&bytes);
            let _ = decode::<Answer>(&bytes);
            let _ = decode::<Event>(&bytes);
        }
    }
}
