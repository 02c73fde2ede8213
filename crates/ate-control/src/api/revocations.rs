//! `ate.v1.Revocations`: binaries that must not run any more.

use std::collections::BTreeSet;

use ate_api::{
    Error, Reason,
    id::{ActorName, Digest},
    v1::{
        self, AffectedActor, ListRevocationsResponse, RevokeRequest, RevokeResponse, UnrevokeRequest,
        affected_actor::State, revocations_server::Revocations,
    },
};
use tonic::{Request, Response, Status};

use super::{Kind, names};
use crate::{
    access::{Ask, Gate, Verb},
    core::Core,
    revocation::stop::Fate,
};

pub(crate) struct RevocationsService(pub(crate) Gate);

#[tonic::async_trait]
impl Revocations for RevocationsService {
    async fn revoke(&self, request: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        let digest = names::digest(&request.get_ref().digest)?;
        let core =
            self.0.admit(&request, &[Ask::object(Verb::Update, Kind::Asset, "", &digest.to_string())]).await?.core;
        let r = request.into_inner();
        let reason = r.reason.trim();
        if reason.is_empty() {
            return Err(Error::new(Reason::Invalid, "a revocation needs a reason")
                .hint("whoever finds an actor refused will read it: name the CVE, for example")
                .into());
        }
        let object = format!("asset/{digest}");
        let digests = BTreeSet::from([digest]);
        core.revoke(&digests, reason).await.map_err(|e| e.on(object))?;
        let running = core.running_on(&digests);
        let running = if r.stop {
            let fates = core.stop_all(running, &format!("a binary it ran under was revoked: {reason}")).await;
            fates.into_iter().map(|(actor, fate)| affected(actor, fate)).collect()
        } else {
            running.into_iter().map(|h| state(h.actor, State::Running, String::new())).collect()
        };
        Ok(Response::new(RevokeResponse { running, configs: configs(&core, &digests) }))
    }

    async fn unrevoke(&self, request: Request<UnrevokeRequest>) -> Result<Response<()>, Status> {
        let digest = names::digest(&request.get_ref().digest)?;
        let core =
            self.0.admit(&request, &[Ask::object(Verb::Update, Kind::Asset, "", &digest.to_string())]).await?.core;
        core.unrevoke(&digest).await?;
        Ok(Response::new(()))
    }

    async fn list_revocations(&self, request: Request<()>) -> Result<Response<ListRevocationsResponse>, Status> {
        let core = self.0.admit(&request, &[Ask::all(Verb::List, Kind::Asset, "")]).await?.core;
        let list = core.revocations();
        let revocations = list.digests.iter().map(|(digest, revocation)| v1::Revocation {
            digest: digest.to_string(),
            reason: revocation.reason.clone(),
            time: revocation.at.to_string(),
            configs: configs(&core, &BTreeSet::from([digest.clone()])),
        });
        Ok(Response::new(ListRevocationsResponse { revocations: revocations.collect() }))
    }
}

fn configs(core: &Core, digests: &BTreeSet<Digest>) -> Vec<String> {
    core.naming(digests).iter().map(ToString::to_string).collect()
}

fn affected(actor: ActorName, fate: Fate) -> AffectedActor {
    match fate {
        Fate::Suspended => state(actor, State::Suspended, String::new()),
        Fate::Stopped => state(actor, State::Stopped, String::new()),
        Fate::Failed(e) => state(actor, State::Failed, e.to_string()),
    }
}

fn state(actor: ActorName, state: State, message: String) -> AffectedActor {
    AffectedActor { atespace: actor.atespace, name: actor.name, state: state.into(), message }
}
