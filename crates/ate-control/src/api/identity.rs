//! `ateapi.SessionIdentity`: not offered on this installation.

use ate_api::{
    Error, Reason,
    ateapi::{
        MintCertRequest, MintCertResponse, MintJwtRequest, MintJwtResponse, session_identity_server::SessionIdentity,
    },
};
use tonic::{Request, Response, Status};

pub(crate) struct IdentityService;

fn not_offered() -> Status {
    Error::new(Reason::Unimplemented, "session credentials are not offered by this server").into()
}

#[tonic::async_trait]
impl SessionIdentity for IdentityService {
    async fn mint_jwt(&self, _: Request<MintJwtRequest>) -> Result<Response<MintJwtResponse>, Status> {
        Err(not_offered())
    }

    async fn mint_cert(&self, _: Request<MintCertRequest>) -> Result<Response<MintCertResponse>, Status> {
        Err(not_offered())
    }
}
