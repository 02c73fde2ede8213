//! `ate certs`: an authority and the certificates of the components, where nothing else (cert-manager, say) makes them.
//!
//! Everything lies in one directory, a component in each folder below it, in the layout of a `kubernetes.io/tls` secret:
//! `ca.crt` (whom it trusts), `tls.crt` (its certificate), `tls.key`. The authority's own key stays in that directory: a
//! cluster is given the components' secrets only. A second run changes what ends soon or what was asked otherwise.

mod authority;
mod component;
mod files;
mod manifest;
mod verb;

pub(crate) use files::AUTHORITY;
pub(crate) use manifest::AUTHORITY_MAP;
pub(crate) use verb::Certs;
