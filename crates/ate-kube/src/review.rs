//! Answers the control plane's questions about its callers: TokenReview says whose a token is, SubjectAccessReview what they
//! may. So Kubernetes' roles and bindings are the one truth about the users of a cluster.

use std::fmt;

use ate_api::{Error, Reason};
use ate_control::{Identity, Question, Reviewer};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};

use crate::crd::GROUP;

#[derive(Clone)]
pub struct KubeReviewer(Client);

impl KubeReviewer {
    /// The client's own identity has to be allowed to create token reviews and subject access reviews.
    pub fn new(client: Client) -> KubeReviewer {
        KubeReviewer(client)
    }
}

impl fmt::Debug for KubeReviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KubeReviewer")
    }
}

#[async_trait::async_trait]
impl Reviewer for KubeReviewer {
    async fn identify(&self, token: &str) -> Result<Identity, Error> {
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviewed = Api::all(self.0.clone()).create(&PostParams::default(), &review).await.map_err(unanswered)?;
        let status = reviewed.status.unwrap_or_default();
        // A user without a name is nobody, whatever else is said.
        let user = status.user.filter(|_| status.authenticated == Some(true));
        let user = user.filter(|u| u.username.as_ref().is_some_and(|n| !n.is_empty()));
        let user = user.ok_or_else(|| {
            Error::new(Reason::Unauthenticated, "the cluster does not know this token, or it has expired")
                .hint("log in to the cluster anew, or have one made: kubectl create token SERVICE_ACCOUNT")
        })?;
        Ok(Identity {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        })
    }

    async fn may(&self, who: &Identity, what: &Question) -> Result<bool, Error> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let attributes = ResourceAttributes {
            group: Some(GROUP.to_owned()),
            resource: Some(what.resource.to_owned()),
            subresource: some(what.subresource),
            verb: Some(what.verb.to_owned()),
            namespace: some(&what.namespace),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(who.name.clone()),
            uid: some(&who.uid),
            groups: Some(who.groups.clone()),
            extra: Some(who.extra.clone()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let reviewed = Api::all(self.0.clone()).create(&PostParams::default(), &review).await.map_err(unanswered)?;
        Ok(reviewed.status.is_some_and(|s| s.allowed && s.denied != Some(true)))
    }
}

/// Nobody said no, so this is no denial; but nothing is allowed either.
fn unanswered(e: kube::Error) -> Error {
    match e {
        kube::Error::Api(status) if status.code == 403 => Error::new(
            Reason::Unavailable,
            format!("the control plane may not ask the cluster who calls: {}", status.message),
        )
        .hint("its service account needs create on tokenreviews and subjectaccessreviews"),
        e => Error::new(Reason::Unavailable, format!("the cluster does not say who calls and what they may: {e}")),
    }
}
