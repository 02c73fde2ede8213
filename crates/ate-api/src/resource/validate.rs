//! Every rule of every resource, in one place. All violations are reported, not only the first.
//!
//! The rules of the CRDs hold here as they do there: what is valid there is valid here. Ours beyond them are
//! marked "ours" where they are checked; they refuse only what could never run. Whether a class, its settings and
//! its assets exist is not a rule of the object: that depends on which herders are installed.

mod image;
mod meta;
mod rules;
mod sandbox_config;
mod template;
mod worker_pool;

use super::{Invalid, Resource, Violation};
use crate::{Error, Reason};

/// Whether an image names its content: `…@DIGEST`, a local form or a registry reference with a tag.
pub use image::check as check_image;

/// Every violation of a new object. Empty: it is valid.
pub fn validate(resource: &Resource) -> Vec<Violation> {
    let mut v = Vec::new();
    meta::check(resource, &mut v);
    match resource {
        // Its spec is one class name, or nothing.
        Resource::Atespace(o) => {
            if let Some(class) = &o.spec.default_sandbox_class {
                rules::class(class, "spec.defaultSandboxClass", &mut v);
            }
        }
        Resource::SandboxConfig(o) => sandbox_config::check(&o.spec, &mut v),
        Resource::WorkerPool(o) => worker_pool::check(&o.spec, &mut v),
        Resource::ActorTemplate(o) => template::check(&o.spec, &mut v),
    }
    v
}

/// [`validate`] as a result; the error names the object and every violation.
pub fn check(resource: &Resource) -> Result<(), Error> {
    Invalid::check(resource.label(), validate(resource)).map_err(Error::from)
}

/// Every violation of `new` in place of `old`: its own, and fields that may not change.
pub fn validate_update(old: &Resource, new: &Resource) -> Vec<Violation> {
    let mut v = validate(new);
    if let (Resource::ActorTemplate(old), Resource::ActorTemplate(new)) = (old, new)
        && old.spec != new.spec
    {
        let message = "the spec of a template cannot change: snapshots were made from it";
        v.push(Violation::new("spec", Reason::Immutable, message));
    }
    v
}
