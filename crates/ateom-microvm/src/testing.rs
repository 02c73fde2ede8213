//! What a hostile guest may send: noise, and frames that are almost right.

use ate_guest::frame::{self, Kind};
use proptest::{collection::vec, prelude::*, sample::select};

pub(crate) fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let kind = select(vec![Kind::Message, Kind::Data, Kind::Log]);
    let messages: Vec<&[u8]> = vec![
        br#"{"answer":"frozen"}"#,
        br#"{"answer":"failed","message":"no"}"#,
        br#"{"answer":"hello","protocol":-1}"#,
        br#"{"event":"exited","container":0,"code":3}"#,
        br#"{"event":"exited","container":18446744073709551615}"#,
        b"[[[[[[[[",
        b"null",
    ];
    let payload = prop_oneof![
        vec(any::<u8>(), 0..2000),
        select(messages).prop_map(<[u8]>::to_vec),
        (0u8..4, 0u8..4, vec(any::<u8>(), 0..200))
            .prop_map(|(container, stream, text)| { [&[container, stream][..], &text].concat() }),
    ];
    let piece = prop_oneof![
        4 => (kind.clone(), payload).prop_map(|(kind, payload)| frame::encode(kind, &payload)),
        1 => (kind, any::<u32>()).prop_map(|(kind, len)| frame::header(kind, len as usize).to_vec()),
        1 => vec(any::<u8>(), 0..64),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}
