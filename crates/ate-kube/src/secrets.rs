//! Reads secrets that templates name. By default a node agent may read none: who owns a namespace lets it read those that
//! are meant for actors, one by one. So a denial says how.

use std::{collections::BTreeMap, fmt, time::Duration};

use ate_api::{Error, Reason};
use k8s_openapi::api::{authentication::v1::SelfSubjectReview, core::v1::Secret};
use kube::{
    Api, Client, Resource as _,
    api::{GetParams, PostParams},
    core::Request,
};

/// Somebody waits for an actor meanwhile.
const ANSWER: Duration = Duration::from_secs(10);
/// Whose rights they are when nobody says, as in manifests/base.
const ACCOUNT: &str = "--serviceaccount=ate-system:ate-node";

#[derive(Clone)]
pub struct KubeSecrets(Client);

impl KubeSecrets {
    pub fn new(client: Client) -> KubeSecrets {
        KubeSecrets(client)
    }

    /// All of a secret, by key. None: there is none of that name.
    ///
    /// # Errors
    /// `SECRET_UNAVAILABLE` if the client's own identity may not read it; `UNAVAILABLE` if the API server does not say.
    pub async fn read(&self, namespace: &str, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>, Error> {
        match tokio::time::timeout(ANSWER, self.get(namespace, name)).await {
            Ok(result) => result,
            Err(_) => Err(unanswered(format!("no answer within {ANSWER:?}"))),
        }
    }

    async fn get(&self, namespace: &str, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>, Error> {
        let request = Request::new(Secret::url_path(&(), Some(namespace))).get(name, &GetParams::default());
        let request = request.map_err(|e| unanswered(e.to_string()))?;
        // As a text: what cannot be read the client would log, and that is the secret.
        let text = match self.0.request_text(request).await {
            Ok(text) => text,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(kube::Error::Api(status)) if status.code == 403 => return Err(self.denied(namespace, name).await),
            Err(e) => return Err(unanswered(e.to_string())),
        };
        let secret: Secret =
            serde_json::from_str(&text).map_err(|_| unanswered("what it answers is no secret".to_owned()))?;
        Ok(Some(secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect()))
    }

    async fn denied(&self, namespace: &str, name: &str) -> Error {
        let (who, role) = (self.subject().await, format!("ate-read-{name}"));
        let message = format!("the node agents may not read it in namespace `{namespace}`");
        Error::new(Reason::SecretUnavailable, message).hint(format!(
            "allow it: kubectl -n {namespace} create role {role} --verb=get --resource=secrets --resource-name={name} && \
             kubectl -n {namespace} create rolebinding {role} --role={role} {who}"
        ))
    }

    /// Of the client, as `kubectl create rolebinding` takes it.
    async fn subject(&self) -> String {
        let review = Api::all(self.0.clone()).create(&PostParams::default(), &SelfSubjectReview::default()).await;
        subject(review.ok().and_then(|review| review.status?.user_info?.username).as_deref())
    }
}

fn subject(user: Option<&str>) -> String {
    let Some(user) = user else { return ACCOUNT.to_owned() };
    match user.strip_prefix("system:serviceaccount:") {
        Some(account) => format!("--serviceaccount={account}"),
        None => format!("--user={user}"),
    }
}

impl fmt::Debug for KubeSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KubeSecrets")
    }
}

fn unanswered(why: String) -> Error {
    Error::new(Reason::Unavailable, format!("the API server does not give it: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_is_for_whoever_asks_and_for_the_installed_account_when_nobody_says_who() {
        assert_eq!(subject(Some("system:serviceaccount:mine:agent")), "--serviceaccount=mine:agent");
        assert_eq!(subject(Some("somebody")), "--user=somebody");
        assert_eq!(subject(None), "--serviceaccount=ate-system:ate-node");
    }
}
