//! `ate.v1.Logs`: what an actor's containers wrote.

use ate_api::{
    Error, Reason,
    id::ActorName,
    v1::{LogLine, TailRequest, logs_server::Logs},
};
use futures::{Stream, StreamExt};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::names;
use crate::access::{Ask, Gate, Verb};

pub(crate) struct LogsService(pub(crate) Gate);

#[tonic::async_trait]
impl Logs for LogsService {
    type TailStream = std::pin::Pin<Box<dyn Stream<Item = Result<LogLine, Status>> + Send>>;

    async fn tail(&self, request: Request<TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        let r = request.get_ref();
        names::label("atespace", &r.atespace)?;
        names::label("actor name", &r.name)?;
        let name = ActorName::new(r.atespace.clone(), r.name.clone());
        let admitted = self.0.admit(&request, &[Ask::actor(Verb::Logs, &name)]).await?;
        let (core, caller) = (admitted.core, admitted.caller);
        let r = request.into_inner();
        let actor = core.load(&name).await?.value;
        let template = core.catalog.template(&actor.template, &actor.template_uid);
        let mut containers: Vec<String> = match template {
            Some(t) => t.value.resource.spec.containers.iter().map(|c| c.name.clone()).collect(),
            None => vec![r.container.clone()],
        };
        if !r.container.is_empty() {
            names::label("container", &r.container)?;
            containers.retain(|c| *c == r.container);
            if containers.is_empty() {
                return Err(Error::new(Reason::NotFound, format!("the actor has no container {}", r.container))
                    .on(format!("actor/{name}"))
                    .into());
            }
        }
        let mut lines = futures::stream::SelectAll::new();
        for container in &containers {
            let of_one = core.node.logs(&actor.uid, container, r.tail_lines, r.follow).await?;
            lines.push(ReceiverStream::new(of_one));
        }
        let stream = lines.map(|l| {
            Ok(LogLine {
                time: l.time,
                container: l.container,
                stream: l.stream,
                text: l.text,
                activation: l.activation.0,
            })
        });
        let stop = core.stop.clone().cancelled_owned();
        Ok(Response::new(Box::pin(caller.while_it_holds(stream).take_until(stop))))
    }
}
