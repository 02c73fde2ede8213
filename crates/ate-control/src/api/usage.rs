//! `ate.v1.Usage`: what runs where.

use ate_api::{
    Error, Reason,
    v1::{self, GetUsageRequest, GetUsageResponse, RevisionUsage, usage_server::Usage},
};
use tonic::{Request, Response, Status};

use super::{Kind, names};
use crate::{
    access::{Ask, Gate, Verb},
    core::Core,
    records::ConfigKey,
    usage::{
        Filter,
        page::{User, UserKind},
    },
};

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

pub(crate) struct UsageService(pub(crate) Gate);

#[tonic::async_trait]
impl Usage for UsageService {
    async fn get_usage(&self, request: Request<GetUsageRequest>) -> Result<Response<GetUsageResponse>, Status> {
        // It names actors of all atespaces.
        let core = self.0.admit(&request, &[Ask::every(Verb::List, Kind::Actor)]).await?.core;
        let r = request.into_inner();
        let filter = filter(&r)?;
        let size = match r.page_size {
            0 => DEFAULT_PAGE,
            n => (n as usize).min(MAX_PAGE),
        };
        let after = if r.page_token.is_empty() { None } else { Some(User::from_token(&r.page_token)?) };
        let revisions = core.revisions(&filter);
        if let (Some(config), true) = (&filter.config, revisions.is_empty() && filter.digest.is_none()) {
            return Err(Error::new(Reason::NotFound, "there is no such revision of a configuration")
                .on(format!("sandboxconfig/{config}"))
                .hint("`ate get sandboxconfigs` lists what there is")
                .into());
        }
        let users = core.users(&revisions, after.as_ref(), size).await?;
        let next_page_token = users.last().filter(|_| users.len() == size).map(User::token).unwrap_or_default();
        Ok(Response::new(GetUsageResponse {
            revisions: core.revision_usage(&revisions).await?,
            users: users.into_iter().map(user).collect(),
            next_page_token,
        }))
    }
}

impl Core {
    async fn revision_usage(&self, revisions: &[ConfigKey]) -> Result<Vec<RevisionUsage>, Error> {
        let usage = self.usage(revisions).await?;
        let described = usage.into_iter().filter_map(|(key, usage)| {
            let revision = self.catalog.revisions.get(&key)?.value;
            let current = self.catalog.configs.get(&key.name).is_some_and(|c| c.value.revision == key.revision);
            let assets = revision.reference.assets.iter();
            Some(RevisionUsage {
                config: key.name,
                revision: key.revision,
                sandbox_class: revision.reference.class.clone(),
                current,
                assets: assets.map(|a| (a.name.clone(), a.sha256.to_string())).collect(),
                revoked: self.revocations().check(&revision.reference).err().map(|e| e.message).unwrap_or_default(),
                running: usage.running,
                suspended: usage.suspended,
                goldens: usage.goldens,
                snapshots: usage.snapshots,
            })
        });
        Ok(described.collect())
    }
}

fn filter(r: &GetUsageRequest) -> Result<Filter, Error> {
    let mut filter = Filter::default();
    if !r.config.is_empty() {
        let (name, revision) = match r.config.split_once('@') {
            None => (r.config.as_str(), None),
            Some((name, revision)) => {
                let number = revision.parse().map_err(|_| {
                    Error::new(Reason::Invalid, "the part after @ must be the number of a revision")
                        .hint("NAME or NAME@REVISION, for example gvisor-default@2")
                })?;
                (name, Some(number))
            }
        };
        names::subdomain(name)?;
        filter.config = Some(name.to_owned());
        filter.revision = revision;
    }
    if !r.digest.is_empty() {
        filter.digest = Some(names::digest(&r.digest)?);
    }
    Ok(filter)
}

fn user(user: User) -> v1::User {
    let kind = match user.kind {
        UserKind::Running => v1::user::Kind::RunningActor,
        UserKind::Golden => v1::user::Kind::Golden,
        UserKind::Suspended => v1::user::Kind::SuspendedActor,
        UserKind::Snapshot => v1::user::Kind::Snapshot,
    };
    v1::User { kind: kind.into(), name: user.name, config: user.revision.name, revision: user.revision.revision }
}
