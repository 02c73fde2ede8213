//! What a hostile guest may send: noise, and frames that are almost right.

use ate_guest::{
    frame::{self, Kind},
    protocol::{Answer, Event, encode},
};
use proptest::{collection::vec, prelude::*, sample::select};

pub(crate) fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let kind = select(vec![Kind::Message, Kind::Data, Kind::Log]);
    let answers = [
        Answer::Frozen,
        Answer::Failed { message: "no".into() },
        Answer::Hello { protocol: u32::MAX, version: String::new(), kernel: "\0".into() },
    ];
    let events = [0, usize::MAX].map(|container| Event::Exited { container, code: Some(3), signal: None });
    let mut messages: Vec<Vec<u8>> = answers.iter().filter_map(|a| encode(a).ok()).collect();
    messages.extend(events.iter().filter_map(|e| encode(e).ok()));
    // Strings that say they are longer than all there is.
    messages.extend([vec![4, 0xff, 0xff, 0xff, 0xff, 0x0f], vec![0, 1, 0xff, 0xff, 0xff, 0x7f]]);
    let payload = prop_oneof![
        vec(any::<u8>(), 0..2000),
        select(messages),
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
