//! The body of a response: streamed from the actor frame by frame, or a short text of our own.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::{route::InFlight, wire::Http1};

pub(crate) enum Body {
    Text(Full<Bytes>),
    Stream(Stream),
}

/// Holds its request in flight until it is dropped, and gives the connection back once the last byte has come.
pub(crate) struct Stream {
    body: Incoming,
    ended: bool,
    connection: Option<(u16, Http1)>,
    in_flight: InFlight,
}

impl Body {
    pub(crate) fn text(text: impl Into<Bytes>) -> Self {
        Body::Text(Full::new(text.into()))
    }

    /// `connection`: what to give back at the end; none for a shared one.
    pub(crate) fn stream(body: Incoming, connection: Option<(u16, Http1)>, in_flight: InFlight) -> Self {
        Body::Stream(Stream { body, ended: false, connection, in_flight })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Body::Text(text) => Pin::new(text).poll_frame(cx).map_err(|never| match never {}),
            Body::Stream(stream) => {
                let mut frame = Pin::new(&mut stream.body).poll_frame(cx);
                if frame.is_pending()
                    && let Some((_, connection)) = &stream.connection
                {
                    connection.drive(cx);
                    frame = Pin::new(&mut stream.body).poll_frame(cx);
                }
                let frame = ready!(frame);
                stream.ended = frame.is_none();
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Text(text) => text.is_end_stream(),
            Body::Stream(stream) => stream.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Text(text) => text.size_hint(),
            Body::Stream(stream) => stream.body.size_hint(),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some((port, connection)) = self.connection.take()
            && (self.ended || self.body.is_end_stream())
        {
            self.in_flight.route.pools.give_back_http1(port, connection);
        }
    }
}
