//! Golden snapshots for workers that cannot restore the one there is: of another architecture, or without a CPU feature
//! of the machine it was made on.
//!
//! They are siblings: made under the same revision, each by a golden actor of its own that only workers of its platform boot,
//! and restored once before anybody begins with it. One is made at a time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use ate_api::{
    Error,
    id::{ActorName, Digest, GOLDEN_ATESPACE, Uid},
    resource::template::Scope,
};
use ate_snapshot::manifest::Platform;

use crate::{
    core::Core,
    records::{ActorRecord, ConfigKey, TemplateRecord},
    workflow::{golden::say_ready, start::Start},
};

/// Workers come and go; whether all are served is looked at this many ticks apart.
const TICKS: u32 = 10;
/// One that could not be made is tried again after this many looks.
const REST: u32 = 60;

/// A template on workers of one platform.
type Place = (Uid, ConfigKey, Digest);

pub(crate) async fn run(core: Arc<Core>) {
    let pause = core.options.tick * TICKS;
    let mut resting: HashMap<Place, Instant> = HashMap::new();
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let now = Instant::now();
        resting.retain(|_, until| *until > now);
        let platforms = core.scheduler.platforms();
        for (_, template) in core.catalog.templates.all() {
            serve(&core, &template.value, &platforms, &mut resting, pause * REST).await;
        }
    }
}

async fn serve(
    core: &Arc<Core>,
    template: &TemplateRecord,
    platforms: &BTreeMap<Digest, Platform>,
    resting: &mut HashMap<Place, Instant>,
    rest: Duration,
) {
    let Some(golden) = template.golden.as_ref().filter(|g| g.scope == Scope::Full && !template.deleting) else {
        return;
    };
    for (digest, platform) in platforms {
        let place = (template.uid().clone(), golden.sandbox.clone(), digest.clone());
        if resting.contains_key(&place) || !core.is_unserved(template, platform) {
            continue;
        }
        if let Err(e) = core.make_sibling(template, digest, platform).await {
            tracing::warn!(template = %template.name(), platform = digest.short(), error = %e, "no golden snapshot for it yet");
            resting.insert(place, Instant::now() + rest);
        }
    }
}

impl Core {
    /// Whether workers of this platform could run the template and can restore none of its golden snapshots.
    fn is_unserved(&self, template: &TemplateRecord, platform: &Platform) -> bool {
        if template.beginnings().any(|golden| self.fits_platform(golden, platform)) {
            return false;
        }
        // A rollout makes its own first.
        if self.catalog.rollouts.get(&template.class).is_some_and(|r| r.value.phase.is_active()) {
            return false;
        }
        let name = ActorName::new(GOLDEN_ATESPACE, template.uid().to_string());
        let record = ActorRecord::new(template.name(), template.uid().clone(), Default::default());
        let start = self.start_of(&name, &record, Arc::new(template.clone()), true);
        let able = |start: &Start| {
            let mut need = start.need(&name, &record);
            (need.platform, need.same_platform) = (Some(Arc::new(platform.clone())), true);
            self.scheduler.reach(&need).1 > 0
        };
        start.as_ref().is_ok_and(able)
    }

    async fn make_sibling(
        self: &Arc<Self>,
        template: &TemplateRecord,
        digest: &Digest,
        platform: &Platform,
    ) -> Result<(), Error> {
        let Some(golden) = &template.golden else { return Ok(()) };
        self.trusted_revision(&golden.sandbox)?;
        let actor = self.ensure_golden_actor(template, Some(&golden.sandbox), Some((digest, platform))).await?;
        let snapshot = self.golden_snapshot(&actor).await?;
        self.restore_golden(&actor).await?;
        self.update_template(&template.name(), template.uid(), |t| {
            t.add_sibling(snapshot.clone());
            say_ready(t);
        })
        .await?;
        self.scheduler.idle.notify_one();
        tracing::info!(template = %template.name(), platform = digest.short(), "another golden snapshot for workers of its own");
        Ok(())
    }
}
