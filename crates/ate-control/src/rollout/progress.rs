//! How far a rollout is: counted from the index of what runs where, so there is nothing to keep up to date.

use ate_api::Error;

use crate::{
    core::Core,
    records::{ConfigKey, Rollout},
    usage::Usage,
};

/// Actors that still run or resume under something the rollout replaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) running: u64,
    pub(crate) at_rest: u64,
}

impl Left {
    pub(crate) fn all(self) -> u64 {
        self.running + self.at_rest
    }
}

impl Core {
    /// Revisions a rollout replaces, in order.
    pub(super) fn replaced(&self, rollout: &Rollout) -> Vec<ConfigKey> {
        let all = self.catalog.revisions.all().into_iter();
        all.filter(|(_, revision)| rollout.replaces(&revision.value)).map(|(key, _)| key).collect()
    }

    pub(crate) async fn left(&self, rollout: &Rollout) -> Result<Left, Error> {
        let all: Usage = self.usage(&self.replaced(rollout)).await?.into_values().sum();
        Ok(Left { running: all.running, at_rest: all.suspended })
    }
}
