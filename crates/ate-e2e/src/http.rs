//! Plain HTTP to an actor through the router, as curl would do it.

use std::{net::SocketAddr, time::Duration};

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    pub retry_after: Option<String>,
}

/// One GET on a connection of its own. `host` is the actor's name as a host name.
pub fn get(router: SocketAddr, host: &str, path: &str, limit: Duration) -> anyhow::Result<Answer> {
    read(agent(limit).get(format!("http://{router}{path}")).header("host", host).call()?)
}

/// One PUT on a connection of its own.
pub fn put(router: SocketAddr, host: &str, path: &str, body: &str, limit: Duration) -> anyhow::Result<Answer> {
    read(agent(limit).put(format!("http://{router}{path}")).header("host", host).send(body)?)
}

fn agent(limit: Duration) -> ureq::Agent {
    ureq::Agent::config_builder().timeout_global(Some(limit)).http_status_as_error(false).build().into()
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> anyhow::Result<Answer> {
    let retry_after = response.headers().get("retry-after").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let body = response.body_mut().read_to_string()?;
    Ok(Answer { status: response.status().as_u16(), body, retry_after })
}
