//! What decides about a caller: a role given with a token of this server, or whoever else knows them.

use std::{fmt, sync::Arc};

use ate_api::{Error, Reason};

use super::{
    Ask, Grant, Reach,
    review::{Identity, Question, Reviews, question},
    table::{Decision, Space, Verb, allowed},
};
use crate::{api::Kind, catalog::Catalog};

#[derive(Debug, Clone)]
pub(crate) enum Rights {
    /// A role and where it counts; [`allowed`] decides.
    Granted(Arc<Grant>),
    Reviewed(Reviewed),
}

/// A caller whom a [`super::review::Reviewer`] knows.
#[derive(Clone)]
pub(crate) struct Reviewed {
    reviews: Arc<Reviews>,
    identity: Arc<Identity>,
    /// To ask later whether it still counts.
    token: Arc<str>,
    /// Where they may do what was asked so far. A list or watch shows what is in it, and a stream lasts while it is so.
    seen: Vec<(Verb, Kind, Reach)>,
}

impl fmt::Debug for Reviewed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reviewed").field("name", &self.identity.name).finish_non_exhaustive()
    }
}

impl Reviewed {
    pub(super) fn new(reviews: Arc<Reviews>, identity: Arc<Identity>, token: &str) -> Reviewed {
        Reviewed { reviews, identity, token: token.into(), seen: Vec::new() }
    }

    /// Asks, and remembers the answer for what is shown later. `false`: they may not.
    pub(super) async fn may(&mut self, ask: &Ask, catalog: &Catalog) -> Result<bool, Error> {
        let Some(reach) = self.reviews.reach(&self.identity, ask, catalog).await? else { return Ok(false) };
        self.seen.push((ask.verb, ask.kind, reach));
        Ok(true)
    }

    /// All that was asked so far, as it was allowed.
    fn questions(&self) -> Vec<Question> {
        let mut all = Vec::new();
        for (verb, kind, reach) in &self.seen {
            match reach {
                Reach::All => all.push(question(*verb, *kind, "")),
                Reach::Only(names) => all.extend(names.iter().map(|name| question(*verb, *kind, name))),
            }
        }
        all
    }

    fn sees(&self, ask: &Ask) -> bool {
        let reaches = self.seen.iter().filter(|(verb, kind, _)| (*verb, *kind) == (ask.verb, ask.kind));
        reaches.map(|(_, _, reach)| reach).any(|reach| match &ask.space {
            Space::Atespace(name) | Space::Namespace(name) => reach.has(name),
            Space::Shared | Space::Every | Space::Mine => *reach == Reach::All,
        })
    }

    /// Returns once the token counts no more, or something that was allowed is not any longer. Nobody who could say
    /// so is no reason to end.
    pub(super) async fn over(&self) -> Error {
        let (mut who, questions) = (self.identity.clone(), self.questions());
        loop {
            tokio::time::sleep(self.reviews.counts).await;
            match self.reviews.identify(&self.token).await {
                Err(e) if e.reason == Reason::Unauthenticated => return e,
                Ok(now) if now.name != who.name || now.uid != who.uid => {
                    return Error::new(Reason::Unauthenticated, "the token is somebody else's by now");
                }
                // Groups may come and go.
                Ok(now) => who = now,
                Err(_) => {}
            }
            for question in &questions {
                if let Ok(false) = self.reviews.may(&who, question.clone()).await {
                    let message = format!("{} may no longer do this: {question}", who.name);
                    return Error::new(Reason::PermissionDenied, message);
                }
            }
        }
    }
}

impl Rights {
    /// A role, where there is one.
    pub(crate) fn role(&self) -> &'static str {
        match self {
            Rights::Granted(grant) => grant.role.as_str(),
            Rights::Reviewed(_) => "",
        }
    }

    pub(crate) fn sees(&self, ask: &Ask) -> bool {
        match self {
            Rights::Granted(grant) => allowed(grant, ask.verb, ask.kind, &ask.space) == Decision::Allowed,
            Rights::Reviewed(reviewed) => reviewed.sees(ask),
        }
    }

    /// Atespaces whose objects of this kind are shown to them.
    pub(crate) fn atespaces(&self, verb: Verb, kind: Kind) -> Reach {
        match self {
            Rights::Granted(grant) => grant.atespaces.clone(),
            Rights::Reviewed(r) => {
                let mut names = std::collections::BTreeSet::new();
                for (_, _, reach) in r.seen.iter().filter(|(v, k, _)| (*v, *k) == (verb, kind)) {
                    match reach {
                        Reach::All => return Reach::All,
                        Reach::Only(some) => names.extend(some.iter().cloned()),
                    }
                }
                Reach::Only(names)
            }
        }
    }
}
