//! The gRPC services, one file each. They check and translate; what happens is in `workflow` and `resources`.

mod assets;
mod choices;
mod control;
pub(crate) mod deadline;
mod identity;
mod logs;
pub(crate) mod names;
mod pages;
mod resources;
mod revocations;
mod rollouts;
mod snapshots;
mod tokens;
mod usage;
mod views;
mod watch;

use ate_api::{
    DESCRIPTORS,
    ateapi::{control_server::ControlServer, session_identity_server::SessionIdentityServer},
    v1::{
        assets_server::AssetsServer, choices_server::ChoicesServer, logs_server::LogsServer,
        resources_server::ResourcesServer, revocations_server::RevocationsServer, rollouts_server::RolloutsServer,
        snapshots_server::SnapshotsServer, tokens_server::TokensServer, usage_server::UsageServer,
    },
};
use tonic::service::Routes;

pub(crate) use self::resources::Kind;
use crate::{
    Control,
    access::{Gate, layer::Authenticate},
};

/// Largest message taken: an object of 1 MiB, or a chunk of an asset, and its envelope.
const MAX_MESSAGE: usize = 2 << 20;

impl Control {
    /// Every service of the control plane, health and reflection included. Nothing but health is reached by callers
    /// that are unknown.
    pub async fn services(&self) -> Routes {
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<ControlServer<control::ControlService>>().await;
        health.set_serving::<ResourcesServer<resources::ResourcesService>>().await;
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let gate = || Gate::new(self.core.clone());
        let mut routes = Routes::new(ControlServer::new(control::ControlService(gate())))
            .add_service(SessionIdentityServer::new(identity::IdentityService))
            .add_service(
                ResourcesServer::new(resources::ResourcesService(gate())).max_decoding_message_size(MAX_MESSAGE),
            )
            .add_service(AssetsServer::new(assets::AssetsService(gate())).max_decoding_message_size(MAX_MESSAGE))
            .add_service(SnapshotsServer::new(snapshots::SnapshotsService(gate())))
            .add_service(LogsServer::new(logs::LogsService(gate())))
            .add_service(UsageServer::new(usage::UsageService(gate())))
            .add_service(RevocationsServer::new(revocations::RevocationsService(gate())))
            .add_service(RolloutsServer::new(rollouts::RolloutsService(gate())))
            .add_service(ChoicesServer::new(choices::ChoicesService(gate())))
            .add_service(TokensServer::new(tokens::TokensService(gate())))
            .add_service(health_service);
        // A descriptor set built into the program cannot fail at run time only.
        if let Ok(service) = reflection().build_v1() {
            routes = routes.add_service(service);
        }
        if let Ok(service) = reflection().build_v1alpha() {
            routes = routes.add_service(service);
        }
        Routes::from(routes.into_axum_router().layer(Authenticate(self.core.clone())))
    }
}
