//! `ate.v1.Choices`: the defaults, and why something runs as it does.

use ate_api::{
    Error, Reason,
    v1::{
        ExplainResponse, ObjectRef, SetDefaultClassRequest, SetDefaultConfigRequest, SetDefaultResponse,
        choices_server::Choices,
    },
};
use tonic::{Request, Response, Status};

use super::{Kind, names};
use crate::access::{Ask, Gate, Verb};

pub(crate) struct ChoicesService(pub(crate) Gate);

#[tonic::async_trait]
impl Choices for ChoicesService {
    async fn set_default_class(
        &self,
        request: Request<SetDefaultClassRequest>,
    ) -> Result<Response<SetDefaultResponse>, Status> {
        let ask = match request.get_ref().atespace.as_str() {
            "" => Ask::all(Verb::Update, Kind::SandboxConfig, ""),
            atespace => Ask::object(Verb::Update, Kind::Atespace, "", atespace),
        };
        let core = self.0.admit(&request, &[ask]).await?.core;
        let r = request.into_inner();
        let class = Some(r.sandbox_class.as_str()).filter(|class| !class.is_empty());
        class.map_or(Ok(()), |class| names::label("class", class))?;
        let (before, object) = if r.atespace.is_empty() {
            core.is_declared_here("SandboxConfig")?;
            let before = core.catalog.default_class.get(&()).map(|c| c.value.class.clone());
            let config = match class {
                Some(class) => Some(core.set_default_class(class).await?),
                None => core.unset_default_class().await?,
            };
            (before, config.map(|c| (Kind::SandboxConfig, c.value.resource.metadata.name.clone())))
        } else {
            names::label("atespace", &r.atespace)?;
            let before = core.catalog.atespaces.get(&r.atespace);
            let before = before.and_then(|a| a.value.resource.spec.default_sandbox_class.clone());
            core.set_atespace_class(&r.atespace, class).await?;
            (before, Some((Kind::Atespace, r.atespace.clone())))
        };
        let object = match object {
            Some((kind, name)) => Some(core.get_object(kind, "", &name).await?),
            None => None,
        };
        Ok(Response::new(SetDefaultResponse { object, before: before.unwrap_or_default() }))
    }

    async fn set_default_config(
        &self,
        request: Request<SetDefaultConfigRequest>,
    ) -> Result<Response<SetDefaultResponse>, Status> {
        let name = request.get_ref().name.clone();
        let core = self.0.admit(&request, &[Ask::object(Verb::Update, Kind::SandboxConfig, "", &name)]).await?.core;
        names::subdomain(&name)?;
        core.is_declared_here("SandboxConfig")?;
        let all = core.catalog.configs.all();
        let class = all.iter().find(|(n, _)| *n == name).map(|(_, c)| c.value.resource.spec.sandbox_class.clone());
        let had_it =
            |spec: &ate_api::resource::SandboxConfigSpec| spec.default && Some(&spec.sandbox_class) == class.as_ref();
        let before = all.iter().find(|(_, c)| had_it(&c.value.resource.spec)).map(|(n, _)| n.clone());
        core.set_default_config(&name).await?;
        let object = Some(core.get_object(Kind::SandboxConfig, "", &name).await?);
        Ok(Response::new(SetDefaultResponse { object, before: before.unwrap_or_default() }))
    }

    async fn explain(&self, request: Request<ObjectRef>) -> Result<Response<ExplainResponse>, Status> {
        let kind = Kind::parse(&request.get_ref().kind)?;
        let r = request.get_ref();
        let core = self.0.admit(&request, &[Ask::object(Verb::Get, kind, &r.namespace, &r.name)]).await?.core;
        let explanation = match kind {
            Kind::Actor => core.explain_actor(&names::actor_object(&r.namespace, &r.name)?).await?,
            Kind::ActorTemplate => core.explain_template(&names::object(&r.namespace, &r.name)?).await?,
            _ => {
                return Err(Error::new(Reason::Invalid, format!("a {} has no sandbox to explain", r.kind))
                    .hint("ask about an Actor or an ActorTemplate")
                    .into());
            }
        };
        let json = serde_json::to_vec(&explanation)
            .map_err(|e| Error::new(Reason::Internal, format!("cannot write the explanation: {e}")))?;
        Ok(Response::new(ExplainResponse { json }))
    }
}
