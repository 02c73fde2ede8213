//! What changes in the headers on the way: what belongs to one connection goes, who asked is added.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, Entry},
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The protocol asked for in `Upgrade`, if `Connection` says so too.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(header::UPGRADE)?;
    tokens(headers, header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade")).then(|| protocol.clone())
}

/// Whether the client can only be served over HTTP/2: gRPC, whose status is in the trailers.
pub(crate) fn needs_http2(headers: &HeaderMap) -> bool {
    let grpc = |v: &HeaderValue| {
        let kind = v.as_bytes().strip_prefix(b"application/grpc");
        kind.is_some_and(|rest| rest.first().is_none_or(|b| matches!(b, b'+' | b';')))
    };
    headers.get(header::CONTENT_TYPE).is_some_and(grpc)
        || tokens(headers, header::TE).any(|token| token.eq_ignore_ascii_case("trailers"))
}

/// Removes what is meant for the next hop only.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> =
            tokens(headers, header::CONNECTION).filter_map(|token| token.parse().ok()).collect();
        for name in named {
            // A client must not make us drop what the framing or the routing rests on.
            if name != header::HOST && name != header::CONTENT_LENGTH {
                headers.remove(name);
            }
        }
        headers.remove(header::CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
}

/// Removes the same from a request, and what the router itself answers for.
pub(crate) fn strip_request(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(header::EXPECT);
    headers.remove(header::PROXY_AUTHORIZATION);
    if headers.contains_key(header::TE) {
        let trailers = tokens(headers, header::TE).any(|token| token.eq_ignore_ascii_case("trailers"));
        headers.remove(header::TE);
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Asks for an upgrade, or grants it.
pub(crate) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

/// Says who asked, and for what. An earlier proxy's word on protocol and host stands.
pub(crate) fn add_forwarded(headers: &mut HeaderMap, client: &HeaderValue, host: &HeaderValue) {
    match headers.entry(FORWARDED_FOR) {
        Entry::Vacant(none) => {
            none.insert(client.clone());
        }
        Entry::Occupied(mut earlier) => {
            let all = earlier.iter().chain([client]).map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b", "[..]);
            if let Ok(all) = HeaderValue::from_bytes(&all) {
                earlier.insert(all);
            }
        }
    }
    headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    headers.entry(FORWARDED_HOST).or_insert_with(|| host.clone());
}

/// HTTP/2 may split cookies over several fields; HTTP/1.1 may not.
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_some() {
        let all =
            headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
        if let Ok(all) = HeaderValue::from_bytes(&all) {
            headers.insert(header::COOKIE, all);
        }
    }
}

/// The comma-separated items of a header, over all its lines.
fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim)
}
