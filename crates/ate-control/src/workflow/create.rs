//! Create and update: an actor begins suspended, without a snapshot of its own.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use ate_api::{
    Error, Reason,
    id::{ActorName, GOLDEN_ATESPACE, ObjectName},
};
use ate_failpoint::step;
use ate_store::{Expect, Transaction};

use crate::{
    core::Core,
    db::Stored,
    records::{ActorRecord, keys, pack},
    workflow::turns::{Kind, Outcome},
};

/// Tries while the template's status or the atespace is being written by somebody else.
const ATTEMPTS: usize = 16;

impl Core {
    pub(crate) async fn create_actor(
        self: &Arc<Self>,
        name: &ActorName,
        template: &ObjectName,
        selector: BTreeMap<String, String>,
    ) -> Outcome {
        // Whoever finds one need not wait for what is going on with it.
        if self.turns.is_busy(name) && self.db.find_actor(name).await?.is_some() {
            return Err(exists(name));
        }
        let (core, actor, template) = (self.clone(), name.clone(), template.clone());
        let work = move |_| async move { core.run_create(&actor, &template, selector).await };
        self.turns.take(name, Kind::Create, self.default_deadline(), work).await
    }

    async fn run_create(
        self: &Arc<Self>,
        name: &ActorName,
        template: &ObjectName,
        selector: BTreeMap<String, String>,
    ) -> Result<Stored<ActorRecord>, Error> {
        if name.atespace == GOLDEN_ATESPACE {
            return Err(Error::new(Reason::PermissionDenied, "golden actors are made by the system only")
                .on(format!("actor/{name}"))
                .hint("use another atespace"));
        }
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match self.try_create(name, template, &selector).await {
                Err(e) if e.reason == Reason::Conflict => {
                    self.reload_template(template).await?;
                    self.reload_atespace(&name.atespace).await?;
                    last = Some(e);
                }
                done => return done,
            }
        }
        Err(last
            .unwrap_or_else(|| Error::new(Reason::Conflict, "the template changes too often"))
            .on(format!("actor/{name}")))
    }

    async fn try_create(
        self: &Arc<Self>,
        name: &ActorName,
        template_name: &ObjectName,
        selector: &BTreeMap<String, String>,
    ) -> Result<Stored<ActorRecord>, Error> {
        let atespace = self.catalog.atespaces.get(&name.atespace).ok_or_else(|| {
            Error::new(Reason::NotFound, "there is no such atespace")
                .on(format!("atespace/{}", name.atespace))
                .hint(format!("ate create atespace {}", name.atespace))
        })?;
        let template = self.catalog.templates.get(template_name).ok_or_else(|| {
            Error::new(Reason::NotFound, "there is no such template")
                .on(format!("actortemplate/{template_name}"))
                .hint("ate get actortemplates -A")
        })?;
        for (deleting, object) in [
            (atespace.value.deleting, format!("atespace/{}", name.atespace)),
            (template.value.deleting, format!("actortemplate/{template_name}")),
        ] {
            if deleting {
                return Err(Error::new(Reason::WrongState, "it is being deleted").on(object));
            }
        }
        let record = ActorRecord::new(template_name.clone(), template.value.uid().clone(), selector.clone());
        let key = keys::actor(name);
        if self.db.find_actor(name).await?.is_some() {
            return Err(exists(name));
        }
        // An earlier one may still be on a worker, whose deletion nobody heard of: requests are not to reach it.
        self.vacate(name).await;
        // Unchanged template and atespace: neither is being deleted at this moment.
        let tx = Transaction::new()
            .check(keys::template(template_name), Expect::Version(template.version))
            .check(keys::atespace(&name.atespace), Expect::Version(atespace.version))
            .check(key.clone(), Expect::Absent)
            .put(key, pack(&record)?)
            .put(keys::by_template(template.value.uid(), name), &b""[..]);
        let version = step!("create.record", self.db.commit(tx))?;
        self.note_demand(template.value.uid());
        Ok(Stored { version, value: record })
    }

    /// Changes where the actor may run from its next resume on.
    pub(crate) async fn update_actor(
        self: &Arc<Self>,
        name: &ActorName,
        selector: BTreeMap<String, String>,
        deadline: Instant,
    ) -> Outcome {
        let (core, actor) = (self.clone(), name.clone());
        let work = move |_| async move {
            let found = core.load(&actor).await?;
            let mut record = found.value;
            record.selector = selector;
            step!("update.record", core.write(&actor, found.version, record, Transaction::new()))
        };
        self.turns.take(name, Kind::Update, deadline, work).await
    }
}

fn exists(name: &ActorName) -> Error {
    Error::new(Reason::AlreadyExists, "there is an actor of this name").on(format!("actor/{name}"))
}
