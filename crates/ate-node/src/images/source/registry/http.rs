//! As much of the OCI distribution protocol as a pull needs: GET, with the credentials a registry asks for.
//!
//! Own code because every answer has a cap here: whoever names a registry in a template chooses who answers, and a client
//! that reads whole bodies lets that one fill the memory of the node. Without TLS only on this machine, redirects
//! included.

use std::{error::Error as _, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use http_auth::ChallengeRef;
use oci_spec::distribution::Reference;
use reqwest::{
    Client, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, WWW_AUTHENTICATE},
};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::super::super::{credentials, reference::is_loopback};

/// A registry that is up answers a connection within this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// No byte for this long: the transfer is dead.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// For a document or a token, however slowly it comes.
const SMALL_TIMEOUT: Duration = Duration::from_secs(120);
/// An answer with a token; tokens have some KiB.
const MAX_TOKEN: usize = 256 << 10;
/// Of what a registry says when it refuses.
const MAX_REASON: usize = 512;

pub(super) struct Http {
    client: Client,
    /// `https://HOST/v2/REPOSITORY`.
    base: String,
    repository: String,
    credentials: Option<(String, String)>,
    /// The header that was good for the last request.
    authorization: Mutex<Option<String>>,
}

pub(super) enum Failure {
    NotFound(String),
    Unavailable(String),
    /// More than was asked for.
    TooLarge(usize),
}

impl From<reqwest::Error> for Failure {
    fn from(e: reqwest::Error) -> Self {
        let mut message = e.to_string();
        let mut cause = e.source();
        while let Some(e) = cause {
            message = format!("{message}: {e}");
            cause = e.source();
        }
        Failure::Unavailable(message)
    }
}

impl Http {
    pub(super) async fn new(reference: &Reference) -> Result<Self, Failure> {
        let host = reference.resolve_registry();
        let plain = is_loopback(host);
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .https_only(!plain)
            .user_agent(concat!("ate/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let scheme = if plain { "http" } else { "https" };
        let repository = reference.repository().to_owned();
        let base = format!("{scheme}://{host}/v2/{repository}");
        let credentials = credentials::find(host).await;
        Ok(Http { client, base, repository, credentials, authorization: Mutex::default() })
    }

    /// A document of at most `max` bytes.
    pub(super) async fn document(&self, path: &str, accept: &str, max: usize) -> Result<Vec<u8>, Failure> {
        let read = async { whole(self.get(path, accept).await?, max).await };
        within(SMALL_TIMEOUT, read).await
    }

    /// The beginning of an answer; its body is to be read with a cap.
    pub(super) async fn get(&self, path: &str, accept: &str) -> Result<Response, Failure> {
        let url = format!("{}/{path}", self.base);
        let known = self.authorization.lock().await.clone();
        let mut response = self.ask(&url, accept, known.as_deref()).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(fresh) = within(SMALL_TIMEOUT, self.authorize(&response)).await?
        {
            response = self.ask(&url, accept, Some(&fresh)).await?;
            *self.authorization.lock().await = Some(fresh);
        }
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::NOT_FOUND => Err(Failure::NotFound(format!("{url} is not there"))),
            status => Err(refusal(&url, status, response).await),
        }
    }

    async fn ask(&self, url: &str, accept: &str, authorization: Option<&str>) -> Result<Response, Failure> {
        let mut request = self.client.get(url).header(ACCEPT, accept);
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        Ok(request.send().await?)
    }

    /// What the registry wants to see; nothing if it wants what we do not have.
    async fn authorize(&self, response: &Response) -> Result<Option<String>, Failure> {
        let wanted = response.headers().get_all(WWW_AUTHENTICATE).into_iter().filter_map(|v| v.to_str().ok());
        let wanted: Vec<ChallengeRef<'_>> =
            wanted.filter_map(|v| http_auth::parse_challenges(v).ok()).flatten().collect();
        let of = |scheme: &str| wanted.iter().find(|c| c.scheme.eq_ignore_ascii_case(scheme));
        if let Some(bearer) = of("Bearer") {
            return self.token(bearer).await.map(Some);
        }
        Ok(of("Basic").and_then(|_| self.basic()))
    }

    fn basic(&self) -> Option<String> {
        let (user, password) = self.credentials.as_ref()?;
        Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
    }

    async fn token(&self, challenge: &ChallengeRef<'_>) -> Result<String, Failure> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let unusable = |why: &str| Failure::Unavailable(format!("the registry wants a token, and {why}"));
        let param = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let realm = param("realm").ok_or_else(|| unusable("does not say where"))?;
        let mut url = Url::parse(&realm).map_err(|e| unusable(&format!("its place is no URL: {e}")))?;
        url.query_pairs_mut().append_pair("scope", &format!("repository:{}:pull", self.repository));
        if let Some(service) = param("service") {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let response = self.ask(url.as_str(), "application/json", self.basic().as_deref()).await?;
        match response.status() {
            status if status.is_success() => {}
            status => return Err(refusal(url.as_str(), status, response).await),
        }
        let token: Token = serde_json::from_slice(&whole(response, MAX_TOKEN).await?)
            .map_err(|e| unusable(&format!("the answer holds none: {e}")))?;
        let token = token.token.or(token.access_token).ok_or_else(|| unusable("the answer holds none"))?;
        Ok(format!("Bearer {token}"))
    }
}

/// The body, if it has at most so many bytes.
async fn whole(mut response: Response, max: usize) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > max {
            return Err(Failure::TooLarge(max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// With the beginning of what the registry says.
async fn refusal(url: &str, status: StatusCode, mut response: Response) -> Failure {
    let said = match within(SMALL_TIMEOUT, async { Ok(response.chunk().await?) }).await {
        Ok(Some(chunk)) => String::from_utf8_lossy(&chunk[..chunk.len().min(MAX_REASON)]).trim().to_owned(),
        _ => String::new(),
    };
    let place = url.split('?').next().unwrap_or_default();
    Failure::Unavailable(format!("{place} answers {status} {said}").trim_end().to_owned())
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let late = |_| Failure::Unavailable(format!("no whole answer within {limit:?}"));
    tokio::time::timeout(limit, work).await.map_err(late)?
}

#[cfg(test)]
mod tests;
