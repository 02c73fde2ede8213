//! What tests put into an API server: objects as JSON has them, and the tokens of service accounts.

use k8s_openapi::api::{authentication::v1::TokenRequest, core::v1::ServiceAccount};
use kube::{Api, Client, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// # Panics
/// When it is no such object, or the API server refuses it.
pub async fn create<K>(api: Api<K>, object: Value)
where
    K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

/// A token of a service account.
///
/// # Panics
/// When the API server gives none.
pub async fn token(client: &Client, namespace: &str, account: &str) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let made = accounts.create_token_request(account, &PostParams::default(), &TokenRequest::default()).await.unwrap();
    made.status.unwrap().token.unwrap()
}
