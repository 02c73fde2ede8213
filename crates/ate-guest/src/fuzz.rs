//! What one side of a port may send to the other.

use ate_fuzz::Target;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    frame::{self, HEADER, Kind},
    protocol::{
        Answer, Boot, Container, ENTROPY, Event, MAX_DATA, MAX_REQUEST, MessageError, Mount, Network, Request, VERSION,
        Volume, Wake, decode, encode,
    },
};

#[test]
fn frames() {
    Target::named("guest.frames")
        .sample("three", || {
            let frames = [(Kind::Message, &b"message"[..]), (Kind::Data, &[7; 100]), (Kind::Log, b"\0\x01hello")];
            frames.map(|(kind, payload)| frame::encode(kind, payload)).concat()
        })
        .run(|bytes| {
            let mut rest = bytes;
            while let Some((head, after)) = rest.split_first_chunk::<HEADER>() {
                let (kind, len) = frame::parse_header(*head, MAX_DATA).map_err(|e| e.to_string())?;
                assert!(len <= MAX_DATA && frame::header(kind, len) == *head);
                rest = after.get(len..).ok_or("cut off")?;
            }
            if rest.is_empty() { Ok(()) } else { Err("half a header".to_owned()) }
        });
}

fn wake() -> Wake {
    Wake { now_ns: u64::MAX, entropy: [7; ENTROPY], identity: vec![("name".into(), "a".into())] }
}

fn boot() -> Boot {
    let container = Container {
        name: "main".into(),
        disk: "disk0".into(),
        args: vec!["/app".into(), "serve".into()],
        env: vec!["A=1".into()],
        cwd: "/".into(),
        uid: 1000,
        gid: 1001,
        additional_gids: vec![50],
        mounts: vec![Mount { volume: "data".into(), path: "/data".into() }],
    };
    let (address, gateway) = ("10.0.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap());
    Boot {
        hostname: "actor".into(),
        network: Network { address, prefix: 24, gateway, gateway_mac: [2; 6] },
        resolv_conf: "nameserver 10.0.0.1\n".into(),
        hosts: "127.0.0.1 localhost\n".into(),
        volumes: vec![Volume { name: "data".into(), uid: 1000, gid: 1001 }],
        containers: vec![container],
        wake: wake(),
    }
}

/// What is read is written so that it reads the same. Postcard has numbers in more than one form, so bytes may differ.
fn read<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Result<(), MessageError> {
    let message: T = decode(bytes)?;
    let written = encode(&message).unwrap();
    assert!(written.len() <= bytes.len());
    assert_eq!(decode::<T>(&written), Ok(message));
    Ok(())
}

#[test]
fn requests_to_the_agent() {
    Target::named("guest.requests")
        .sample("boot", || encode(&Request::Boot(Box::new(boot()))).unwrap())
        .sample("wake", || encode(&Request::Wake(wake())).unwrap())
        .memory(2 * MAX_REQUEST)
        .run(read::<Request>);
}

#[test]
fn answers_of_the_agent() {
    Target::named("guest.answers")
        .sample("hello", || {
            encode(&Answer::Hello { protocol: VERSION, version: "1".into(), kernel: "6.1".into() }).unwrap()
        })
        .sample("failed", || encode(&Answer::Failed { message: "it did not work".into() }).unwrap())
        .sample("exited", || encode(&Event::Exited { container: 3, code: Some(-1), signal: Some(9) }).unwrap())
        .run(|bytes| read::<Answer>(bytes).or_else(|_| read::<Event>(bytes)));
}
