//! What an activation is restored from: found, checked, and brought to this node. All that can be refused is refused
//! before anything large is fetched.

use std::path::PathBuf;

use ate_agent::{SnapshotLocation, SnapshotRef, Template};
use ate_api::{
    Error, Reason,
    id::{Digest, Uid},
    resource::template::Scope,
};
use ate_sandbox::SandboxRef;
use ate_snapshot::{
    LocalSnapshot, Manifest,
    manifest::{Image, Platform},
};

use crate::{node::Inner, workers::Seat, workload::manifest_images};

/// Verified copies on this node.
pub(crate) struct Restored {
    pub(crate) snapshot: LocalSnapshot,
    /// What the snapshot rests on.
    pub(crate) base: Option<LocalSnapshot>,
}

/// What a snapshot has to fit.
struct Fit<'a> {
    platform: &'a Platform,
    sandbox: &'a SandboxRef,
    /// None: whoever begins with it.
    actor: Option<&'a Uid>,
    template: &'a Uid,
    spec_digest: &'a Digest,
    images: &'a [Image],
}

enum Found {
    Here(LocalSnapshot),
    /// In object storage; its manifest is known.
    There(Box<Manifest>),
}

impl Found {
    fn manifest(&self) -> &Manifest {
        match self {
            Found::Here(snapshot) => &snapshot.manifest,
            Found::There(manifest) => manifest,
        }
    }
}

impl Inner {
    /// The snapshot and its base, if they may be restored here, under these binaries, for this actor.
    pub(crate) async fn restored(
        &self,
        snapshot: &SnapshotRef,
        base: Option<&SnapshotRef>,
        seat: &Seat,
    ) -> Result<Restored, Error> {
        let object = |e: Error| e.on(format!("snapshot/{}", snapshot.manifest.short()));
        let fit = Fit {
            platform: &self.context.platform,
            sandbox: &seat.sandbox,
            actor: Some(&seat.actor.uid),
            template: &seat.template_uid,
            spec_digest: &seat.spec_digest,
            images: &seat.images,
        };
        let found = self.find(snapshot).await.map_err(object)?;
        fit.check(found.manifest(), snapshot).map_err(object)?;
        let Some(base) = base else {
            found.manifest().check_base(None).map_err(|e| object(e.into()))?;
            return Ok(Restored { snapshot: self.bring(found, snapshot).await.map_err(object)?, base: None });
        };
        let of_base = |e| of_base(&snapshot.manifest, &base.manifest, e);
        let found_base = self.find(base).await.map_err(of_base)?;
        let fits = found.manifest().check_base(Some((&base.manifest, found_base.manifest())));
        fits.map_err(|e| object(e.into()))?;
        Ok(Restored {
            snapshot: self.bring(found, snapshot).await.map_err(object)?,
            base: Some(self.bring(found_base, base).await.map_err(of_base)?),
        })
    }

    /// What new actors of the template begin with: a whole snapshot, which may be restored before it is known for whom.
    pub(crate) async fn beginning(
        &self,
        snapshot: &SnapshotRef,
        template: &Template,
        sandbox: &SandboxRef,
    ) -> Result<LocalSnapshot, Error> {
        let object = |e: Error| e.on(format!("snapshot/{}", snapshot.manifest.short()));
        let fit = Fit {
            platform: &self.context.platform,
            sandbox,
            actor: None,
            template: &template.uid,
            spec_digest: &template.spec_digest,
            images: &manifest_images(template)?,
        };
        let found = self.find(snapshot).await.map_err(object)?;
        fit.check(found.manifest(), snapshot).map_err(object)?;
        found.manifest().check_base(None).map_err(|e| object(e.into()))?;
        self.bring(found, snapshot).await.map_err(object)
    }

    /// The archive of the durable directories in a snapshot of this actor, whatever else is in it. Files fit every machine
    /// and every sandbox.
    pub(crate) async fn kept_files(&self, snapshot: &SnapshotRef, seat: &Seat) -> Result<PathBuf, Error> {
        let object = |e: Error| e.on(format!("snapshot/{}", snapshot.manifest.short()));
        let found = self.find(snapshot).await.map_err(object)?;
        let owner = found.manifest().check_owner(&seat.actor.uid, &seat.template_uid, &seat.spec_digest);
        owner.map_err(|e| object(e.into()))?;
        let archive =
            found.manifest().files.iter().find(|f| f.media_type == ateom::data::MEDIA_TYPE).map(|f| f.name.clone());
        let archive = archive.ok_or_else(|| {
            let message = "the snapshot has the durable directories inside its memory, not as files";
            let hint = "resume it and suspend it files-only first, where its binaries may run";
            object(Error::new(Reason::MissingCapability, message).hint(hint))
        })?;
        Ok(self.bring(found, snapshot).await.map_err(object)?.files_dir().join(archive))
    }

    /// The node's verified copy; fetched if it is not here.
    async fn snapshot(&self, snapshot: &SnapshotRef) -> Result<LocalSnapshot, Error> {
        Ok(match &snapshot.location {
            SnapshotLocation::Local { .. } => self.local.get(&snapshot.manifest).await?,
            SnapshotLocation::External { prefix } => {
                self.repository.fetch(&prefix.parse()?, &snapshot.manifest, &self.local).await?
            }
        })
    }

    async fn find(&self, snapshot: &SnapshotRef) -> Result<Found, Error> {
        match (self.local.get(&snapshot.manifest).await, &snapshot.location) {
            (Ok(found), _) => Ok(Found::Here(found)),
            (Err(e), SnapshotLocation::Local { .. }) => Err(e.into()),
            (Err(_), SnapshotLocation::External { prefix }) => {
                let (manifest, _) = self.repository.read_manifest(&prefix.parse()?, &snapshot.manifest).await?;
                Ok(Found::There(Box::new(manifest)))
            }
        }
    }

    async fn bring(&self, found: Found, snapshot: &SnapshotRef) -> Result<LocalSnapshot, Error> {
        match found {
            Found::Here(snapshot) => Ok(snapshot),
            // By digest: its manifest is the one that was checked.
            Found::There(_) => self.snapshot(snapshot).await,
        }
    }
}

impl Fit<'_> {
    fn check(&self, manifest: &Manifest, snapshot: &SnapshotRef) -> Result<(), Error> {
        manifest.check_platform(self.platform)?;
        manifest.check_sandbox(self.sandbox)?;
        manifest.check_owner(self.actor.unwrap_or(&manifest.actor.uid), self.template, self.spec_digest)?;
        if manifest.scope != snapshot.scope {
            let message = format!("the manifest's scope is {:?}, recorded is {:?}", manifest.scope, snapshot.scope);
            return Err(Error::new(Reason::ManifestInvalid, message));
        }
        if manifest.scope == Scope::Full && manifest.images != self.images {
            let message = "the snapshot was made from other images than the template's";
            return Err(Error::new(Reason::ManifestInvalid, message));
        }
        Ok(())
    }
}

/// The snapshot is as good as lost with its base: whoever reads this has to know of both.
fn of_base(snapshot: &Digest, base: &Digest, e: Error) -> Error {
    let message = format!("its base {} cannot be used: {}", base.short(), e.message);
    Error { message, object: format!("snapshot/{}", snapshot.short()), ..e }
}
