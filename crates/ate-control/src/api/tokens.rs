//! `ate.v1.Tokens`: making bearer tokens. They are listed and revoked as objects of kind Token.

use ate_api::v1::{CreateTokenRequest, CreateTokenResponse, tokens_server::Tokens};
use tonic::{Request, Response, Status};

use super::Kind;
use crate::access::{Ask, Gate, Verb, tokens::Wanted};

pub(crate) struct TokensService(pub(crate) Gate);

#[tonic::async_trait]
impl Tokens for TokensService {
    async fn create(&self, request: Request<CreateTokenRequest>) -> Result<Response<CreateTokenResponse>, Status> {
        let wanted = Wanted::of(request.get_ref())?;
        let core = self.0.admit(&request, &[Ask::object(Verb::Create, Kind::Token, "", &wanted.name)]).await?.core;
        let name = wanted.name.clone();
        let secret = core.create_token(wanted).await?;
        Ok(Response::new(CreateTokenResponse { name, secret }))
    }
}
