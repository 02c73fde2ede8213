//! Bearer tokens: 256 random bits that are shown once. The store and the memory hold their sha256 only, and a caller
//! is found by looking that up, so neither a copy of the store nor the time of an answer helps to guess one.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use ate_api::{
    Error, Reason,
    id::{DEFAULT_SPACE, Digest},
    role::Role,
    v1::CreateTokenRequest,
};
use ate_store::{Expect, Transaction};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{
    Grant, Reach,
    caller::{Standing, expired_token},
};
use crate::{
    api::names,
    core::Core,
    records::{from_json, keys, now_ms, to_json},
    resources::not_found,
};

/// In front of every token, so that people and scanners for lost secrets recognise one.
pub(super) const PREFIX: &str = "ate_";
const SECRET_BYTES: usize = 32;
/// Nothing longer is looked at.
const MAX_PRESENTED: usize = 256;
/// More than anybody hands out; all of them are in memory.
const MAX_TOKENS: usize = 10_000;
/// Spaces of one token.
const MAX_SPACES: usize = 100;
/// A token that should count for longer can count for ever.
const MAX_TTL_MS: u64 = 100 * 365 * 24 * 3600 * 1000;
/// Random part of a name the server makes.
const NAME_BYTES: usize = 4;

/// A token as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    pub(crate) name: String,
    pub(crate) grant: Grant,
    /// Of the whole text of the token.
    pub(crate) sha256: Digest,
    pub(crate) created_ms: i64,
    #[serde(default)]
    pub(crate) expires_ms: Option<i64>,
}

/// A token that counts, and the commit that wrote it.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) version: u64,
    pub(crate) record: TokenRecord,
    pub(crate) grant: Arc<Grant>,
    revoked: CancellationToken,
}

impl Token {
    fn new(version: u64, record: TokenRecord) -> Arc<Token> {
        let grant = Arc::new(record.grant.clone());
        Arc::new(Token { version, record, grant, revoked: CancellationToken::new() })
    }

    pub(crate) fn standing(&self) -> Standing {
        Standing { expires_ms: self.record.expires_ms, revoked: self.revoked.clone() }
    }
}

/// All tokens, by their hash. The store is the truth; this changes after it.
#[derive(Debug, Default)]
pub(crate) struct Tokens(RwLock<HashMap<Digest, Arc<Token>>>);

impl Tokens {
    /// Whose token this is, if it counts now.
    pub(crate) fn find(&self, presented: &str) -> Result<Arc<Token>, Error> {
        let unknown = || {
            Error::new(Reason::Unauthenticated, "the token is not one of this server, or was revoked")
                .hint("have a new one made with `ate token create`")
        };
        if presented.len() > MAX_PRESENTED || !presented.starts_with(PREFIX) {
            return Err(unknown());
        }
        let found = self.read().get(&Digest::of(presented.as_bytes())).cloned().ok_or_else(unknown)?;
        if found.standing().has_expired() { Err(expired_token()) } else { Ok(found) }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Token>> {
        self.read().values().find(|t| t.record.name == name).cloned()
    }

    /// By name.
    pub(crate) fn all(&self) -> Vec<Arc<Token>> {
        let mut all: Vec<_> = self.read().values().cloned().collect();
        all.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        all
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<Digest, Arc<Token>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<Digest, Arc<Token>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token that is asked for, checked.
pub(crate) struct Wanted {
    pub(crate) name: String,
    grant: Grant,
    /// 0: for ever.
    ttl_seconds: u64,
}

impl Wanted {
    pub(crate) fn of(r: &CreateTokenRequest) -> Result<Wanted, Error> {
        let grant = grant(r)?;
        let name = match r.name.as_str() {
            "" => format!("{}-{}", grant.role, random_hex::<NAME_BYTES>()?),
            name => name.to_owned(),
        };
        names::label("token name", &name)?;
        Ok(Wanted { name, grant, ttl_seconds: r.ttl_seconds })
    }
}

/// Only limited roles have spaces, and they have at least one.
fn grant(r: &CreateTokenRequest) -> Result<Grant, Error> {
    let invalid = |message: String| Error::new(Reason::Invalid, message);
    let role: Role = r.role.parse().map_err(invalid)?;
    let named = !r.atespaces.is_empty() || !r.namespaces.is_empty();
    if named && !role.is_limited() {
        return Err(invalid(format!(
            "a token of role {role} counts everywhere, so it takes no atespaces and namespaces"
        )));
    }
    if named && r.every_space {
        return Err(invalid("every space, and some that are named, cannot both be meant".to_owned()));
    }
    if r.every_space || !role.is_limited() {
        return Ok(Grant::everywhere(role));
    }
    let reach = |what: &str, names: &[String]| {
        if names.len() > MAX_SPACES {
            return Err(invalid(format!("a token has at most {MAX_SPACES} {what}s")));
        }
        names.iter().try_for_each(|n| names::label(what, n))?;
        let names = if names.is_empty() { &[DEFAULT_SPACE.to_owned()] } else { names };
        Ok(Reach::Only(names.iter().cloned().collect()))
    };
    Ok(Grant { role, atespaces: reach("atespace", &r.atespaces)?, namespaces: reach("namespace", &r.namespaces)? })
}

impl Core {
    pub(crate) async fn load_tokens(&self) -> Result<(), Error> {
        let mut found = Vec::new();
        self.db
            .scan(keys::TOKENS, |key, v| {
                found.push(Token::new(v.version, from_json(&key, &v.value)?));
                Ok(())
            })
            .await?;
        self.access.tokens.write().extend(found.into_iter().map(|t| (t.record.sha256.clone(), t)));
        Ok(())
    }

    /// Makes a token and gives its secret, which is nowhere else.
    pub(crate) async fn create_token(&self, wanted: Wanted) -> Result<String, Error> {
        let name = wanted.name;
        let object = format!("token/{name}");
        let ttl_ms = wanted.ttl_seconds.saturating_mul(1000).min(MAX_TTL_MS);
        if self.access.tokens.read().len() >= MAX_TOKENS {
            return Err(Error::new(Reason::Invalid, format!("there are {MAX_TOKENS} tokens already"))
                .hint("revoke those that nobody uses: `ate get tokens`"));
        }
        let secret = format!("{PREFIX}{}", random_hex::<SECRET_BYTES>()?);
        let created_ms = now_ms();
        let record = TokenRecord {
            name: name.clone(),
            grant: wanted.grant,
            sha256: Digest::of(secret.as_bytes()),
            created_ms,
            expires_ms: (ttl_ms > 0).then(|| created_ms + i64::try_from(ttl_ms).unwrap_or(i64::MAX / 2)),
        };
        let key = keys::token(&name);
        let tx = Transaction::new().check(key.clone(), Expect::Absent).put(key, to_json(&record)?);
        let version = self.db.commit(tx).await.map_err(|e| match e.reason {
            Reason::Conflict => Error::new(Reason::AlreadyExists, "there is a token of this name")
                .on(object)
                .hint("choose another name, or revoke that one first"),
            _ => e,
        })?;
        self.access.tokens.write().insert(record.sha256.clone(), Token::new(version, record));
        Ok(secret)
    }

    /// When this returns the token counts nowhere any more, and streams that were opened with it end.
    pub(crate) async fn revoke_token(&self, name: &str) -> Result<(), Error> {
        let found = self.access.tokens.get(name).ok_or_else(|| not_found("token", name))?;
        let key = keys::token(name);
        let tx = Transaction::new().check(key.clone(), Expect::Version(found.version)).delete(key);
        self.db.commit(tx).await.map_err(|e| e.on(format!("token/{name}")))?;
        self.access.tokens.write().remove(&found.record.sha256);
        found.revoked.cancel();
        Ok(())
    }
}

fn random_hex<const N: usize>() -> Result<String, Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| Error::new(Reason::Internal, format!("no random numbers: {e}")))?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(role: &str, atespaces: &[&str], every_space: bool) -> Result<Grant, Error> {
        let atespaces = atespaces.iter().map(|s| s.to_string()).collect();
        grant(&CreateTokenRequest { role: role.into(), atespaces, every_space, ..Default::default() })
    }

    #[test]
    fn only_limited_roles_have_spaces_and_without_any_named_it_is_the_default_one() {
        assert!(wanted("viewer", &[], false).unwrap().atespaces.has("default"));
        assert!(!wanted("viewer", &["team-a"], false).unwrap().atespaces.has("default"));
        assert!(!wanted("viewer", &["team-a"], false).unwrap().is_everywhere());
        assert!(wanted("viewer", &[], true).unwrap().is_everywhere());
        assert!(wanted("admin", &[], false).unwrap().is_everywhere());
        for (role, spaces, every) in [
            ("admin", &["team-a"][..], false),
            ("sandbox-admin", &["a"], false),
            ("king", &[], false),
            ("viewer", &["../x"], false),
            ("viewer", &["a"], true),
        ] {
            assert_eq!(wanted(role, spaces, every).unwrap_err().reason, Reason::Invalid, "{role} {spaces:?}");
        }
    }

    #[test]
    fn a_token_has_256_random_bits() {
        let (a, b) = (random_hex::<SECRET_BYTES>().unwrap(), random_hex::<SECRET_BYTES>().unwrap());
        assert_eq!(a.len(), 64);
        assert_ne!(a, b);
    }
}
