//! The core behind a question: a service holds a [`Gate`], and gets at the core only by saying what is asked.

use std::sync::Arc;

use ate_api::{Error, Reason, role::Role};
use tonic::Request;

use super::{
    Ask, Grant, Rights,
    caller::Caller,
    review::question,
    table::{Decision, Space, allowed, role_may},
};
use crate::core::Core;

#[derive(Clone)]
pub(crate) struct Gate(Arc<Core>);

/// A caller who may, and what they may use.
pub(crate) struct Admitted {
    pub(crate) core: Arc<Core>,
    pub(crate) caller: Caller,
}

impl Gate {
    pub(crate) fn new(core: Arc<Core>) -> Gate {
        Gate(core)
    }

    /// Lets the call through if its caller may do all that is asked. Writes and denials are put on record.
    ///
    /// Errors: `UNAUTHENTICATED` when nobody said who calls, `PERMISSION_DENIED`; `UNAVAILABLE` when somebody else
    /// decides and cannot be asked.
    pub(crate) fn admit<'a, T>(
        &'a self,
        request: &Request<T>,
        asks: &'a [Ask],
    ) -> impl Future<Output = Result<Admitted, Error>> + Send + use<'a, T> {
        // Taken out now, so that the request need not be kept over a wait.
        let caller = request.extensions().get::<Caller>().cloned();
        async move {
            let caller = caller.ok_or_else(|| Error::new(Reason::Unauthenticated, "nobody said who calls"))?;
            let mut admitted = Admitted { core: self.0.clone(), caller };
            for ask in asks {
                admitted.check(ask).await?;
            }
            for ask in asks.iter().filter(|a| a.verb.is_write()) {
                self.0.access.audit.allowed(&admitted.caller, ask);
            }
            Ok(admitted)
        }
    }
}

impl Admitted {
    /// Asks for more, once the call has found out what else it is about.
    pub(crate) async fn check(&mut self, ask: &Ask) -> Result<(), Error> {
        let denial = match &mut self.caller.rights {
            Rights::Granted(grant) => match allowed(grant, ask.verb, ask.kind, &ask.space) {
                Decision::Allowed => return Ok(()),
                decision => denial(&self.caller.name, grant, ask, decision),
            },
            Rights::Reviewed(reviewed) => match reviewed.may(ask, &self.core.catalog).await {
                Ok(true) => return Ok(()),
                Ok(false) => not_in_the_cluster(&self.caller.name, ask),
                Err(e) if e.reason == Reason::PermissionDenied => e.on(ask.label()),
                Err(e) => return Err(e),
            },
        };
        self.core.access.audit.denied(&self.caller, ask, &denial);
        Err(denial)
    }
}

impl Caller {
    /// Whether a list or a watch shows them this.
    pub(crate) fn sees(&self, ask: &Ask) -> bool {
        self.rights.sees(ask)
    }
}

fn not_in_the_cluster(who: &str, ask: &Ask) -> Error {
    let namespace = match &ask.space {
        Space::Atespace(name) | Space::Namespace(name) => name.as_str(),
        Space::Shared | Space::Every | Space::Mine => "",
    };
    let message = format!("{who} may not {} {}s", ask.verb.word(), ask.kind.word());
    let hint =
        format!("the cluster's RBAC decides; it would have to allow {}", question(ask.verb, ask.kind, namespace));
    Error::new(Reason::PermissionDenied, message).on(ask.label()).hint(hint)
}

fn denial(who: &str, grant: &Grant, ask: &Ask, decision: Decision) -> Error {
    let (verb, kinds) = (ask.verb.word(), format!("{}s", ask.kind.word()));
    let (message, hint) = match decision {
        Decision::NotThere if ask.space == Space::Every => (
            format!("{who} ({}) may {verb} {kinds} only if its token counts in every atespace", grant.role),
            "have a token made with `ate token create -A`".to_owned(),
        ),
        Decision::NotThere => (
            format!(
                "{who} ({}) may {verb} {kinds} in atespaces {} and namespaces {} only",
                grant.role,
                grant.atespaces.names().join(", "),
                grant.namespaces.names().join(", ")
            ),
            "have a token made that counts there: `ate token create -a ATESPACE -n NAMESPACE`".to_owned(),
        ),
        _ => {
            let able = Role::ALL.into_iter().filter(|r| role_may(*r, ask.verb, ask.kind)).map(Role::as_str);
            (
                format!("{who} ({}) may not {verb} {kinds}", grant.role),
                format!("roles that may: {}", able.collect::<Vec<_>>().join(", ")),
            )
        }
    };
    Error::new(Reason::PermissionDenied, message).on(ask.label()).hint(hint)
}
