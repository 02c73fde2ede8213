//! Why an actor or template runs under what it runs under: the same decisions as a start makes, with their reasons, and
//! nothing started.

mod places;

use std::sync::Arc;

use ate_agent::AssetPhase;
use ate_api::{
    Error, Reason,
    id::{ActorName, GOLDEN_ATESPACE, ObjectName},
    resource::{
        Choice, Explanation, Rule,
        explanation::{Binary, Change, Obstacle, Origin, RunsOn, SnapshotFacts, StartsFrom},
        template::Scope,
    },
};

use crate::{
    core::Core,
    reconcile::templates::why_not_ready,
    records::{ActorRecord, ConfigKey, Location, Revision, RolloutPolicy, Snapshot, TemplateRecord, timestamp},
    resources::not_found,
    scheduler::Wanted,
    workflow::start::Start,
};

/// Who is asked about: an actor, or whoever will be made from a template next.
struct Subject {
    object: String,
    name: ActorName,
    record: ActorRecord,
    template: Arc<TemplateRecord>,
    is_actor: bool,
}

impl Core {
    pub(crate) async fn explain_actor(&self, name: &ActorName) -> Result<Explanation, Error> {
        let record = self.load(name).await?.value.clone();
        let object = format!("actor/{name}");
        let template = self
            .catalog
            .template(&record.template, &record.template_uid)
            .ok_or_else(|| Error::new(Reason::NotFound, "the template of the actor is gone").on(object.clone()))?;
        let subject = Subject { object, name: name.clone(), record, template: template.value, is_actor: true };
        self.explain(&subject).await
    }

    pub(crate) async fn explain_template(&self, name: &ObjectName) -> Result<Explanation, Error> {
        let found = self.catalog.templates.get(name).ok_or_else(|| not_found("actortemplate", &name.to_string()))?;
        let template = found.value;
        // Without a golden snapshot yet, the question is how that comes about.
        let space = if template.golden.is_some() { name.namespace.as_str() } else { GOLDEN_ATESPACE };
        let subject = Subject {
            object: format!("actortemplate/{name}"),
            name: ActorName::new(space, &name.name),
            record: ActorRecord::new(name.clone(), template.uid().clone(), Default::default()),
            template,
            is_actor: false,
        };
        self.explain(&subject).await
    }

    async fn explain(&self, subject: &Subject) -> Result<Explanation, Error> {
        let Subject { name, record, template, .. } = subject;
        let mut obstacles = Vec::new();
        let waits_for_golden = record.snapshot.is_none() && template.golden.is_none();
        if waits_for_golden {
            obstacles.push(Obstacle {
                reason: Reason::TemplateNotReady.as_str().to_owned(),
                message: format!("there is no golden snapshot yet: {}", why_not_ready(template)),
                hint: String::new(),
            });
        }
        let snapshot = record.snapshot.as_ref().or(template.golden.as_ref());
        let start = self.start_of(name, record, template.clone(), waits_for_golden);
        let (places, pools_config) = match &start {
            Ok(start) => self.places(&start.need(name, record)),
            Err(_) => Default::default(),
        };
        let settled = match &start {
            Ok(Start { wanted: Wanted::Pinned(revision), .. }) => Some(revision.key()),
            _ => None,
        };
        match start {
            Err(e) => obstacles.push(e.into()),
            Ok(_) if places.next.is_none() && record.seat.is_none() => {
                obstacles.extend(self.in_the_way(template, &places));
            }
            Ok(_) => {}
        }
        let running = record.seat.as_ref().map(|seat| &seat.sandbox);
        let pinned = running.or(settled.as_ref()).or(snapshot.map(|s| &s.sandbox));
        let config = match pinned {
            Some(key) => Some(self.pinned(subject, key, snapshot)),
            None => pools_config,
        };
        let revision = pinned.cloned().or_else(|| config.as_ref().and_then(|c| key_of(&c.name)));
        let revision = revision.and_then(|key| self.catalog.revisions.get(&key)).map(|r| r.value);
        Ok(Explanation {
            object: subject.object.clone(),
            phase: if subject.is_actor { record.phase.as_str() } else { template.phase() }.to_owned(),
            template: subject.is_actor.then(|| record.template.to_string()),
            class: template.class_choice(),
            binaries: match &revision {
                Some(revision) => self.binaries(revision).await?,
                None => Vec::new(),
            },
            settings: revision.map(|r| r.reference.config.values.clone()).unwrap_or_default(),
            changes: self.changes(subject, config.as_ref()),
            config,
            starts_from: self.starts_from(record, template),
            runs_on: record.seat.as_ref().map(|seat| RunsOn {
                worker: seat.worker.to_string(),
                pool: seat.pool.to_string(),
                config: seat.sandbox.to_string(),
                since: timestamp(record.since_ms),
            }),
            pools: places.pools,
            next: places.next,
            obstacles,
        })
    }

    /// Why a configuration is settled already: by the activation that runs, or by the snapshot it would go on from.
    fn pinned(&self, subject: &Subject, key: &ConfigKey, snapshot: Option<&Snapshot>) -> Choice {
        let record = &subject.record;
        let own = record.snapshot.is_some();
        let seat = record.seat.as_ref();
        let (why, at) = match (seat, snapshot) {
            (Some(seat), _) if seat.parent.is_none() => {
                let why = format!("it was started from its image on pool {}, which runs this", seat.pool);
                (why, Some(record.since_ms))
            }
            (None, Some(s)) if s.sandbox != *key => {
                let why = format!("a rollout brings its files to it; they were saved under {}", s.sandbox);
                (why, None)
            }
            (_, Some(s)) => {
                let what = if own { "its snapshot" } else { "the golden snapshot" };
                (
                    format!("{what} {} was made under it, and is restored under nothing else", s.manifest.short()),
                    Some(s.created_ms),
                )
            }
            (..) => ("it was restored from a snapshot that was made under it".to_owned(), None),
        };
        let rule = if seat.is_some_and(|s| s.parent.is_none()) { Rule::Pool } else { Rule::Snapshot };
        let choice = Choice::new(key.to_string(), rule, why);
        match at {
            Some(ms) => choice.at(timestamp(ms)),
            None => choice,
        }
    }

    fn starts_from(&self, record: &ActorRecord, template: &TemplateRecord) -> StartsFrom {
        let (origin, snapshot) = match (&record.snapshot, &template.golden) {
            (Some(own), _) => (Origin::Snapshot, own),
            (None, Some(golden)) => (Origin::Golden, golden),
            (None, None) => return StartsFrom { origin: Origin::Image, snapshot: None },
        };
        let platform = self.catalog.platforms.get(&snapshot.platform).map(|p| p.value);
        let facts = SnapshotFacts {
            manifest: snapshot.manifest.clone(),
            scope: format!("{:?}", snapshot.scope),
            generation: snapshot.generation,
            made: timestamp(snapshot.created_ms),
            location: match &snapshot.location {
                Location::Node(node) => format!("node:{node}"),
                Location::Url(prefix) => prefix.clone(),
            },
            os: platform.as_ref().map(|p| p.os.clone()).unwrap_or_default(),
            arch: platform.as_ref().map(|p| p.arch.clone()).unwrap_or_default(),
            cpu_features: platform.as_ref().map_or(0, |p| p.cpu_features.len()),
        };
        StartsFrom { origin, snapshot: Some(facts) }
    }

    async fn binaries(&self, revision: &Revision) -> Result<Vec<Binary>, Error> {
        let reports = self.asset_reports().await?;
        let all = self.catalog.revisions.all();
        let class = &revision.reference.class;
        let binary = |asset: &ate_sandbox::PinnedAsset| {
            let names = |r: &Revision| {
                r.reference.class == *class
                    && r.reference.assets.iter().any(|a| a.name == asset.name && a.sha256 == asset.sha256)
            };
            let report = reports.get(&asset.sha256).and_then(Option::as_ref);
            Binary {
                name: asset.name.clone(),
                sha256: asset.sha256.clone(),
                version: revision.versions.get(&asset.name).cloned().unwrap_or_default(),
                phase: format!("{:?}", report.map_or(AssetPhase::Missing, |r| r.phase)),
                admitted_by: all.iter().filter(|(_, r)| names(&r.value)).map(|(key, _)| key.to_string()).collect(),
            }
        };
        Ok(revision.reference.assets.iter().map(binary).collect())
    }

    /// What the rollout of its class is going to do with an actor that has memory to lose.
    fn change_by_rollout(&self, subject: &Subject) -> Option<Change> {
        let rollout = self.catalog.rollouts.get(&subject.template.class)?.value;
        let snapshot = subject.record.snapshot.as_ref().filter(|s| s.scope == Scope::Full)?;
        let replaced = self.catalog.revisions.get(&snapshot.sandbox).is_some_and(|r| rollout.replaces(&r.value));
        let comes = rollout.phase.is_under_way() && rollout.policy == RolloutPolicy::Reboot;
        (replaced && comes).then(|| Change {
            when: "when the rollout of its class comes to it, at rest".to_owned(),
            then: format!("it is booted under {} with its durable directories and without its memory", rollout.to),
            command: format!("ate sandbox rollout status --class {}", rollout.class),
        })
    }

    /// What would give another answer. The class of a template never changes.
    fn changes(&self, subject: &Subject, config: Option<&Choice>) -> Vec<Change> {
        let mut changes = Vec::new();
        let template = &subject.template;
        changes.extend(self.change_by_rollout(subject));
        let boot = self.start_of(&subject.name, &subject.record, template.clone(), true);
        let fresh = boot.ok().and_then(|start: Start| self.places(&start.need(&subject.name, &subject.record)).1);
        if let (Some(now), Some(fresh)) = (config, fresh)
            && now.name != fresh.name
        {
            changes.push(Change {
                when: match subject.is_actor {
                    true => "when it is started from its image, and what was only in its memory is given up",
                    false => "when its contents are applied as a new template, which gets a golden snapshot of its own",
                }
                .to_owned(),
                then: format!("it runs under {}: {}", fresh.name, fresh.why),
                command: match subject.is_actor {
                    true => format!("ate resume actor {} -a {} --boot", subject.name.name, subject.name.atespace),
                    false => String::new(),
                },
            });
        }
        if template.resource.spec.sandbox_class.is_none()
            && let Ok((now, _)) = self.class_of(&template.resource)
            && now.name != template.class
        {
            changes.push(Change {
                when: "when a template that names no class is created now".to_owned(),
                then: format!("it gets class {}: {}; this one keeps {}", now.name, now.why, template.class),
                command: String::new(),
            });
        }
        changes
    }
}

fn key_of(label: &str) -> Option<ConfigKey> {
    let (name, revision) = label.rsplit_once('@')?;
    Some(ConfigKey { name: name.to_owned(), revision: revision.parse().ok()? })
}
