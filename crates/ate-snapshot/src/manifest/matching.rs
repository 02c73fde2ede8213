//! Whether a snapshot fits: this machine, the sandbox recorded for it, and the actor that wants it.
//!
//! And whether the base fits that it may rest on. All of it is asked before anything is started. A snapshot of scope `Data` holds a plain archive of files:
//! it fits every machine and every sandbox, and only has to have the right owner.

use std::collections::BTreeSet;

use ate_api::{
    id::{Digest, GOLDEN_ATESPACE, Uid},
    resource::template::Scope,
};
use ate_sandbox::SandboxRef;

use super::{Manifest, Platform};
use crate::Error;

impl Manifest {
    /// Memory can only be restored where the same instructions exist.
    pub fn check_platform(&self, host: &Platform) -> Result<(), Error> {
        if self.scope == Scope::Data {
            return Ok(());
        }
        let made = &self.platform;
        if (&made.os, &made.arch) != (&host.os, &host.arch) {
            let (os, arch) = (&host.os, &host.arch);
            return Err(Error::Platform(format!("it needs {}/{}, this machine is {os}/{arch}", made.os, made.arch)));
        }
        let here: BTreeSet<_> = host.cpu_features.iter().collect();
        let missing: Vec<&str> = made.cpu_features.iter().filter(|f| !here.contains(f)).map(String::as_str).collect();
        if !missing.is_empty() {
            return Err(Error::Platform(format!("the CPU of this machine lacks {}", missing.join(", "))));
        }
        Ok(())
    }

    /// The binaries and settings must be exactly those the control plane recorded for the snapshot.
    pub fn check_sandbox(&self, expected: &SandboxRef) -> Result<(), Error> {
        if self.scope == Scope::Data {
            return Ok(());
        }
        let made = &self.sandbox.sandbox;
        if made.class != expected.class {
            return Err(Error::Class { expected: expected.class.clone(), found: made.class.clone() });
        }
        if made.config.digest != expected.config.digest {
            let (a, b) = (made.config_label(), expected.config_label());
            return Err(Error::Sandbox(format!("its configuration is {a}, not {b}, and their values differ")));
        }
        let pins =
            |s: &SandboxRef| s.assets.iter().map(|a| (a.name.clone(), a.sha256.clone())).collect::<BTreeSet<_>>();
        let (made, expected) = (pins(made), pins(expected));
        if let Some((name, sha256)) = made.symmetric_difference(&expected).next() {
            let who = if made.contains(&(name.clone(), sha256.clone())) { "only it names" } else { "it does not name" };
            return Err(Error::Sandbox(format!("{who} asset {name} with digest {}", sha256.short())));
        }
        Ok(())
    }

    /// A snapshot rests on the base recorded for it or on none. A base is whole, so that there never is a chain, and of
    /// the same template, sandbox and images, because the differences mean nothing with others.
    pub fn check_base(&self, recorded: Option<(&Digest, &Manifest)>) -> Result<(), Error> {
        let (needed, digest, base) = match (&self.base, recorded) {
            (None, None) => return Ok(()),
            (Some(needed), Some((digest, base))) => (&needed.manifest, digest, base),
            (Some(needed), None) => {
                return Err(Error::Base(format!("it needs {}, and none is recorded for it", needed.manifest.short())));
            }
            (None, Some((digest, _))) => {
                return Err(Error::Base(format!("it needs none, and {} is recorded for it", digest.short())));
            }
        };
        let wrong = |what: String| Err(Error::Base(format!("{}: {what}", digest.short())));
        if needed != digest {
            return wrong(format!("it needs another, {}", needed.short()));
        }
        if base.base.is_some() {
            return wrong("that one is not whole itself".to_owned());
        }
        if base.scope != Scope::Full {
            return wrong("that one holds no memory".to_owned());
        }
        if base.images != self.images {
            return wrong("that one was made from other images".to_owned());
        }
        let fits = base
            .check_owner(&self.actor.uid, &self.template.uid, &self.template.spec_digest)
            .and_then(|()| base.check_sandbox(&self.sandbox.sandbox))
            .and_then(|()| base.check_platform(&self.platform));
        fits.or_else(|e| wrong(e.to_string()))
    }

    /// An actor is restored from its own snapshots or from the golden one of its template, never from another's.
    pub fn check_owner(&self, actor: &Uid, template: &Uid, spec_digest: &Digest) -> Result<(), Error> {
        if self.template.uid != *template {
            return Err(Error::Owner(format!("it was made from template {}, not {template}", self.template.uid)));
        }
        if self.template.spec_digest != *spec_digest {
            return Err(Error::Owner("its template had another spec".to_owned()));
        }
        if self.actor.uid != *actor && self.actor.atespace != GOLDEN_ATESPACE {
            return Err(Error::Owner(format!("it is of actor {}, not {actor}", self.actor.uid)));
        }
        Ok(())
    }
}
