//! Upgrades: WebSocket through the router, and its end.

use std::time::Duration;

use ate_api::id::Activation;
use futures::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::fixture::{Fixture, name, within};

async fn echo_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if !message.is_close() && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

async fn connect(router: &Fixture) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
    let request = "ws://a.default.localhost/chat".into_client_request().unwrap();
    let stream = TcpStream::connect(router.address).await.unwrap();
    within(tokio_tungstenite::client_async(request, MaybeTlsStream::Plain(stream))).await.unwrap().0
}

#[tokio::test]
async fn websocket_messages_go_there_and_back() {
    let router = Fixture::start().await;
    router.control.place("a", 1, echo_server().await);
    let mut socket = connect(&router).await;
    for i in 0..100 {
        socket.send(Message::text(format!("hello {i}"))).await.unwrap();
        assert_eq!(within(socket.next()).await.unwrap().unwrap(), Message::text(format!("hello {i}")));
    }
    assert_eq!(router.table.idle_for(&name("a")), None, "an open socket is in flight");
    within(socket.close(None)).await.unwrap();
    while within(socket.next()).await.is_some() {}
    drop(socket);
    within(async {
        while router.table.idle_for(&name("a")).is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn closing_the_route_cuts_a_websocket() {
    let router = Fixture::start().await;
    router.control.place("a", 1, echo_server().await);
    let mut socket = connect(&router).await;
    within(router.table.close(&name("a"), Activation(1), Duration::from_millis(50))).await;
    assert!(!matches!(within(socket.next()).await, Some(Ok(Message::Text(_)))));
}
