//! When is an actor ready? When it answers its readiness probe, and not before: a sandbox that says it runs may hold
//! an actor that does not.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ate_api::{Error, Reason};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::{Instant, sleep, timeout},
};

use crate::{
    driver::{Container, Readyz},
    network::ACTOR_ADDRESS,
};

/// A SYN that is lost while the network comes up is retried by the kernel after 1 s only; a new socket asks at once.
const CONNECT: Duration = Duration::from_millis(5);
/// On a machine under load 5 ms may never be enough: after this long, connecting gets `CONNECT_PATIENT`.
const IMPATIENT: Duration = Duration::from_secs(1);
const CONNECT_PATIENT: Duration = Duration::from_millis(250);
const BETWEEN: Duration = Duration::from_millis(1);
/// After `IMPATIENT` nobody is served by asking a thousand times a second.
const BETWEEN_PATIENT: Duration = Duration::from_millis(20);
/// An actor may do real work in its probe.
const ANSWER: Duration = Duration::from_secs(5);
/// The status line is all that is read.
const STATUS_LINE: usize = 64;

/// What is known of the way to the actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It is being made: what is sent may be lost.
    Appearing,
    /// It is there: what is sent arrives, if late. Asking again would only make a slow sandbox slower.
    There,
}

/// Whether any container has to answer a probe.
pub fn asks(containers: &[Container]) -> bool {
    containers.iter().any(|c| c.readyz.is_some())
}

/// Returns when every container of the actor that has a probe answers it. Endless: the caller bounds it.
pub async fn all_ready(containers: &[Container], way: Way) {
    for readyz in containers.iter().filter_map(|c| c.readyz.as_ref()) {
        wait_ready(ACTOR_ADDRESS.into(), readyz, way).await;
    }
}

/// What the actor was asked until the deadline, and did not answer.
pub fn not_ready(containers: &[Container]) -> Error {
    let probe = |c: &Container| {
        let readyz = c.readyz.as_ref()?;
        Some(format!("container `{}` at port {} with GET {}", c.name, readyz.port, readyz.path))
    };
    let probes: Vec<_> = containers.iter().filter_map(probe).collect();
    Error::new(Reason::NotReady, format!("not ready in time; asked {}", probes.join(", ")))
        .hint("see the actor's log; it must answer 2xx within the time")
}

/// Returns when `GET path` at `address` answers 2xx. Endless: the caller bounds it.
async fn wait_ready(address: IpAddr, readyz: &Readyz, way: Way) {
    let Ok(port) = u16::try_from(readyz.port) else { return std::future::pending().await };
    let path = if readyz.path.starts_with('/') { readyz.path.clone() } else { format!("/{}", readyz.path) };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}:{port}\r\nUser-Agent: ate-readyz\r\n\r\n");
    let since = Instant::now();
    loop {
        let patient = since.elapsed() > IMPATIENT;
        let connect = if patient || way == Way::There { CONNECT_PATIENT } else { CONNECT };
        if attempt(SocketAddr::new(address, port), connect, request.as_bytes()).await {
            return;
        }
        sleep(if patient { BETWEEN_PATIENT } else { BETWEEN }).await;
    }
}

async fn attempt(to: SocketAddr, connect: Duration, request: &[u8]) -> bool {
    let Ok(socket) = TcpSocket::new_v4() else { return false };
    let Ok(Ok(mut stream)) = timeout(connect, socket.connect(to)).await else { return false };
    // We leave first and at once: a connection the actor closes first lingers inside for a minute, and sandboxes that
    // cannot save connections could not be saved for as long.
    let _ = stream.set_zero_linger();
    let ask = async {
        stream.write_all(request).await.ok()?;
        let mut line = Vec::with_capacity(STATUS_LINE);
        while line.len() < STATUS_LINE && !line.contains(&b'\n') {
            if stream.read_buf(&mut line).await.ok()? == 0 {
                break;
            }
        }
        Some(is_success(&line))
    };
    timeout(ANSWER, ask).await.ok().flatten().unwrap_or(false)
}

fn is_success(status_line: &[u8]) -> bool {
    let mut words = status_line.split(|&b| b == b' ');
    let http = words.next().is_some_and(|w| w.starts_with(b"HTTP/1."));
    http && words.next().is_some_and(|code| code.len() == 3 && code[0] == b'2')
}

#[cfg(test)]
mod tests {
    use super::is_success;

    #[test]
    fn only_a_2xx_status_line_counts_as_ready() {
        assert!(is_success(b"HTTP/1.1 200 OK\r\n"));
        assert!(is_success(b"HTTP/1.0 204 No Content\r\n"));
        for not in
            [&b"HTTP/1.1 503 Service Unavailable\r\n"[..], b"HTTP/1.1 302 Found\r\n", b"220 smtp\r\n", b"", b"HTTP/1.1"]
        {
            assert!(!is_success(not));
        }
    }
}
