//! Who may do what with the API.
//!
//! A call passes three places, and there is no way around any of them:
//!
//! 1. [`layer`] finds out who calls (token or peer credentials) before any service is reached.
//! 2. [`gate`] holds the core. A service gets it only by saying what is asked of which objects, so a method that
//!    asks nothing can do nothing.
//! 3. [`table`] decides: a pure function of the caller's grant, the verb, the kind and the space. About users of a cluster
//!    its own authorizer decides instead; see [`review`].
//!
//! Every write and every denial leaves a line with [`audit`]. What the router and the control plane do by themselves
//! does not come through the API and is asked nothing.

pub(crate) mod ask;
pub(crate) mod audit;
pub(crate) mod caller;
pub(crate) mod gate;
pub(crate) mod grant;
pub(crate) mod layer;
pub(crate) mod review;
pub(crate) mod rights;
pub(crate) mod table;
pub(crate) mod tokens;

pub(crate) use ask::Ask;
pub(crate) use gate::Gate;
pub(crate) use grant::{Grant, Reach};
pub(crate) use rights::Rights;
pub(crate) use table::Verb;

/// What the three places share.
pub(crate) struct Access {
    pub(crate) tokens: tokens::Tokens,
    pub(crate) audit: audit::Audit,
    /// Who knows the users of the cluster, if this runs in one.
    pub(crate) reviews: Option<std::sync::Arc<review::Reviews>>,
}
