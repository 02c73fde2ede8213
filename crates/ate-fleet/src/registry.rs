//! How nodes become known: each says every few seconds that it is there, at the address where the control plane is
//! reached. Whoever leads calls it back at its own address. So nothing has to be remembered when the leader changes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ate_api::{Error, Reason};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    Fleet, PROTOCOL, RemoteNode,
    pb::{
        RegisterRequest, RegisterResponse,
        registry_client::RegistryClient,
        registry_server::{self, RegistryServer},
    },
    remote::NODE,
    server::CONTROL,
    tls::{self, Certificates},
};

/// How often a node says that it is there. A new leader waits for it several times as long before it gives anybody up.
const EVERY: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(5);
/// Longest name of a node, as in Kubernetes.
const MAX_NAME: usize = 253;

/// Lets nodes join a fleet: to be served on connections of [`tls::accept_all`], beside whatever else is.
pub fn service(fleet: Fleet, arch: String, certificates: Arc<Certificates>) -> RegistryServer<Registry> {
    RegistryServer::new(Registry { fleet, arch, certificates, known: Mutex::default() })
}

pub struct Registry {
    fleet: Fleet,
    arch: String,
    certificates: Arc<Certificates>,
    /// Addresses of nodes by name.
    known: Mutex<BTreeMap<String, String>>,
}

#[tonic::async_trait]
impl registry_server::Registry for Registry {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        let shown = request.peer_certs();
        if !shown.is_some_and(|shown| shown.first().is_some_and(|first| tls::is_for(first, NODE))) {
            let message = format!("whoever registers must show a certificate for `{NODE}`");
            return Err(Error::new(Reason::Unauthenticated, message).into());
        }
        let RegisterRequest { name, address, protocol, arch } = request.into_inner();
        if protocol != PROTOCOL {
            let message = format!("the node speaks protocol {protocol}, the control plane {PROTOCOL}");
            return Err(Error::new(Reason::WrongState, message).hint("install both from one build").into());
        }
        if arch != self.arch {
            let message = format!("the node is {arch}, and the binaries admitted here are for {}", self.arch);
            return Err(Error::new(Reason::ArchMismatch, message).into());
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) || !address.contains(':') {
            return Err(Error::new(Reason::Invalid, "a node needs a name and an address host:port").into());
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.fleet.has(&name) || known.get(&name) != Some(&address) {
            tracing::info!(node = name, address, "a node registers");
            known.insert(name.clone(), address.clone());
            self.fleet.join(Arc::new(RemoteNode::new(name, address, self.certificates.clone())));
        }
        Ok(Response::new(RegisterResponse {}))
    }
}

/// Who a node is, and where it serves.
#[derive(Debug, Clone)]
pub struct Registration {
    pub name: String,
    /// host:port, as the control plane reaches it.
    pub address: String,
    pub arch: String,
}

/// Registers again and again with whoever leads at `control` (host:port), until `stop`.
pub async fn keep_registered(
    node: Registration,
    control: String,
    certificates: Arc<Certificates>,
    stop: CancellationToken,
) {
    let mut registry = RegistryClient::new(tls::channel(control.clone(), certificates, CONTROL));
    let mut last: Option<String> = None;
    loop {
        let Registration { name, address, arch } = node.clone();
        let request = RegisterRequest { name, address, protocol: PROTOCOL, arch };
        let said = match tokio::time::timeout(ANSWER, registry.register(request)).await {
            Ok(Ok(_)) => format!("registered with the control plane at {control}"),
            Ok(Err(status)) => format!("not registered with the control plane at {control}: {}", tls::cause(&status)),
            Err(_) => format!("not registered: no answer of the control plane at {control} within {ANSWER:?}"),
        };
        // Once for each change.
        if last.as_ref() != Some(&said) {
            tracing::info!("{said}");
            last = Some(said);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
