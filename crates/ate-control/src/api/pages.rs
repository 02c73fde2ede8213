//! Lists that are too long for one answer, page by page, with what the caller may not see left out.
//!
//! A page token is the last key of the page before. It names an object, so it is only ever made of one the caller sees,
//! and snapshots, whose keys are digests.

use ate_api::{Error, Reason, id::ActorName};

use crate::{
    access::{Ask, Reach, Verb, caller::Caller},
    api::Kind,
    core::Core,
    db::Stored,
    records::{ActorRecord, SnapshotRecord, keys, unpack},
};

pub(crate) type ActorPage = Vec<(ActorName, Stored<ActorRecord>)>;

impl Core {
    /// Actors of one atespace, or of all that the caller sees. The caller was admitted to an atespace that is named.
    pub(crate) async fn actors_page(
        &self,
        caller: &Caller,
        atespace: &str,
        token: &str,
        size: usize,
    ) -> Result<(ActorPage, String), Error> {
        let prefixes: Vec<String> = match (atespace, caller.rights.atespaces(Verb::List, Kind::Actor)) {
            ("", Reach::All) => vec![keys::ACTORS.to_owned()],
            ("", Reach::Only(own)) => own.iter().map(|a| format!("{}{a}/", keys::ACTORS)).collect(),
            (one, _) => vec![format!("{}{one}/", keys::ACTORS)],
        };
        let first = match token {
            "" => 0,
            token => prefixes.iter().position(|p| token.starts_with(p)).ok_or_else(not_of_this_list)?,
        };
        let mut after = (!token.is_empty()).then(|| token.to_owned());
        let mut found = Vec::new();
        for prefix in &prefixes[first..] {
            for (key, v) in self.db.page(prefix, after.take().as_deref(), size - found.len()).await? {
                if let Some(name) = keys::actor_of(&key) {
                    let stored = Stored { version: v.version, value: unpack::<ActorRecord>(&key, &v.value)? };
                    found.push((name.clone(), self.freshest(&name, stored)));
                }
                after = Some(key);
            }
            if found.len() >= size {
                return Ok((found, after.unwrap_or_default()));
            }
            after = None;
        }
        Ok((found, String::new()))
    }

    /// Snapshots, fewer than `size` where some are left out.
    pub(crate) async fn snapshots_page(
        &self,
        caller: &Caller,
        token: &str,
        size: usize,
    ) -> Result<(Vec<(SnapshotRecord, u64)>, String), Error> {
        let after = match token {
            "" => None,
            token if token.starts_with(keys::SNAPSHOTS) => Some(token),
            _ => return Err(not_of_this_list()),
        };
        let page = self.db.page(keys::SNAPSHOTS, after, size).await?;
        let next =
            if page.len() == size { page.last().map(|(k, _)| k.clone()).unwrap_or_default() } else { String::new() };
        let mut found = Vec::with_capacity(page.len());
        for (key, v) in page {
            let record: SnapshotRecord = unpack(&key, &v.value)?;
            if caller.sees(&Ask::snapshot(Verb::List, &record)) {
                found.push((record, v.version));
            }
        }
        Ok((found, next))
    }
}

fn not_of_this_list() -> Error {
    Error::new(Reason::Invalid, "page_token is not one of this list")
}
