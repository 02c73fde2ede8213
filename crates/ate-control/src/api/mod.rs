//! The gRPC services, one file each. They check and translate; what happens is in `workflow` and `resources`.

mod assets;
mod control;
mod deadline;
mod identity;
mod logs;
mod names;
mod resources;
mod snapshots;
mod views;
mod watch;

use ate_api::{
    DESCRIPTORS,
    ateapi::{control_server::ControlServer, session_identity_server::SessionIdentityServer},
    v1::{
        assets_server::AssetsServer, logs_server::LogsServer, resources_server::ResourcesServer,
        snapshots_server::SnapshotsServer,
    },
};
use tonic::service::Routes;

use crate::Control;

/// Largest message taken: an object of 1 MiB, or a chunk of an asset, and its envelope.
const MAX_MESSAGE: usize = 2 << 20;

impl Control {
    /// Every service of the control plane, health and reflection included.
    pub async fn services(&self) -> Routes {
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<ControlServer<control::ControlService>>().await;
        health.set_serving::<ResourcesServer<resources::ResourcesService>>().await;
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let core = &self.core;
        let mut routes = Routes::new(ControlServer::new(control::ControlService(core.clone())))
            .add_service(SessionIdentityServer::new(identity::IdentityService))
            .add_service(
                ResourcesServer::new(resources::ResourcesService(core.clone())).max_decoding_message_size(MAX_MESSAGE),
            )
            .add_service(AssetsServer::new(assets::AssetsService(core.clone())).max_decoding_message_size(MAX_MESSAGE))
            .add_service(SnapshotsServer::new(snapshots::SnapshotsService(core.clone())))
            .add_service(LogsServer::new(logs::LogsService(core.clone())))
            .add_service(health_service);
        // A descriptor set built into the program cannot fail at run time only.
        if let Ok(service) = reflection().build_v1() {
            routes = routes.add_service(service);
        }
        if let Ok(service) = reflection().build_v1alpha() {
            routes = routes.add_service(service);
        }
        routes
    }
}
