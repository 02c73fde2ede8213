//! Who needs a revision, by name, a page at a time: running actors, templates, actors at rest, snapshots.

use ate_api::{Error, Reason, id::ActorName};

use crate::{
    core::Core,
    records::{ConfigKey, keys},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum UserKind {
    Running,
    Golden,
    Suspended,
    Snapshot,
}

/// In the order in which they are listed.
const KINDS: [UserKind; 4] = [UserKind::Running, UserKind::Golden, UserKind::Suspended, UserKind::Snapshot];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct User {
    pub(crate) kind: UserKind,
    pub(crate) revision: ConfigKey,
    /// `ATESPACE/NAME`, `NAMESPACE/NAME`, or a digest.
    pub(crate) name: String,
}

impl User {
    /// As errors and messages name it.
    pub(crate) fn label(&self) -> String {
        match self.kind {
            UserKind::Running | UserKind::Suspended => format!("actor/{}", self.name),
            UserKind::Golden => format!("actortemplate/{}", self.name),
            UserKind::Snapshot => format!("snapshot/{}", &self.name[..self.name.len().min(12)]),
        }
    }

    /// Where the next page begins.
    pub(crate) fn token(&self) -> String {
        let kind = KINDS.iter().position(|k| *k == self.kind).unwrap_or_default();
        format!("{kind}/{}/{}/{}", self.revision.name, self.revision.revision, self.name)
    }

    pub(crate) fn from_token(token: &str) -> Result<User, Error> {
        let read = || {
            let mut parts = token.splitn(4, '/');
            let kind = *KINDS.get(parts.next()?.parse::<usize>().ok()?)?;
            let (name, revision) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
            Some(User { kind, revision: ConfigKey { name, revision }, name: parts.next()?.to_owned() })
        };
        read().ok_or_else(|| Error::new(Reason::Invalid, "page_token is not one of this list"))
    }
}

impl Core {
    /// At most `limit` users of these revisions (in order), after one of them. Fewer: there are no more.
    pub(crate) async fn users(
        &self,
        revisions: &[ConfigKey],
        after: Option<&User>,
        limit: usize,
    ) -> Result<Vec<User>, Error> {
        let mut users = Vec::new();
        for kind in KINDS {
            for revision in revisions {
                if users.len() >= limit {
                    return Ok(users);
                }
                let begun = after.map(|a| (a.kind, &a.revision).cmp(&(kind, revision)));
                let after = match begun {
                    Some(std::cmp::Ordering::Greater) => continue,
                    Some(std::cmp::Ordering::Equal) => after.map(|a| a.name.as_str()),
                    _ => None,
                };
                let room = limit - users.len();
                let names = match kind {
                    UserKind::Running => first(self.running_under(revision), after, room),
                    UserKind::Golden => first(self.goldens_under(revision), after, room),
                    UserKind::Suspended => self.suspended_under(revision, after, room).await?,
                    UserKind::Snapshot => self.entries(keys::BY_CONFIG, revision, after, room).await?,
                };
                users.extend(names.into_iter().map(|name| User { kind, revision: revision.clone(), name }));
            }
        }
        Ok(users)
    }

    fn running_under(&self, revision: &ConfigKey) -> Vec<String> {
        let holders = self.scheduler.holders().into_iter();
        holders.filter(|(_, h)| h.sandbox == *revision).map(|(_, h)| h.actor.to_string()).collect()
    }

    fn goldens_under(&self, revision: &ConfigKey) -> Vec<String> {
        let templates = self.catalog.templates.all().into_iter();
        let made = templates.filter(|(_, t)| t.value.goldens().any(|g| g.sandbox == *revision));
        made.map(|(name, _)| name.to_string()).collect()
    }

    pub(crate) async fn suspended_under(
        &self,
        revision: &ConfigKey,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        let mut names: Vec<String> = Vec::new();
        let mut after = after.map(str::to_owned);
        loop {
            let page = self.entries(keys::NEEDED_BY, revision, after.as_deref(), limit).await?;
            let last = page.len() < limit;
            after = page.last().cloned();
            let at_rest = page.into_iter().filter(|name| {
                let actor = name.split_once('/').map(|(atespace, name)| ActorName::new(atespace, name));
                actor.is_none_or(|actor| self.scheduler.holder_of(&actor).is_none())
            });
            names.extend(at_rest);
            if last || names.len() >= limit {
                names.truncate(limit);
                return Ok(names);
            }
        }
    }

    /// Entries of an index, without what they have in common.
    async fn entries(
        &self,
        index: &str,
        revision: &ConfigKey,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        let prefix = keys::of_revision(index, revision);
        let after = after.map(|after| format!("{prefix}{after}"));
        let page = self.db.page(&prefix, after.as_deref(), limit).await?;
        Ok(page.into_iter().map(|(key, _)| key[prefix.len()..].to_owned()).collect())
    }
}

fn first(mut names: Vec<String>, after: Option<&str>, limit: usize) -> Vec<String> {
    names.sort();
    names.retain(|name| after.is_none_or(|after| name.as_str() > after));
    names.truncate(limit);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_the_user_it_was_made_of_and_others_are_refused() {
        let user = User {
            kind: UserKind::Suspended,
            revision: ConfigKey { name: "gvisor-default".into(), revision: 3 },
            name: "default/a".into(),
        };
        assert_eq!(User::from_token(&user.token()).unwrap(), user);
        for bad in ["", "9/c/1/x", "0/c", "0/c/x/y", "a/b/c/d"] {
            assert_eq!(User::from_token(bad).unwrap_err().reason, Reason::Invalid, "{bad:?}");
        }
    }
}
