//! Machines that wait for somebody: launched, launched with memory, or running up to the last step.
//!
//! ```text
//! empty    any snapshot of this kind of machine can be loaded
//! bound    memory and disks of one golden snapshot are mapped: what was saved against it only has to be loaded
//! standby  the golden snapshot itself, restored, warmed up, stopped: a new actor only has to go on
//! ```
//!
//! None has seen anything of an actor.

use ateom::{Snapshot, driver::ImageFile, network::NetworkError};

use crate::{
    machine::Machine,
    plan::{Kind, Plan},
    vmm::Vmm,
};

#[derive(Default)]
pub(crate) struct Idle {
    kind: Option<Kind>,
    pub(crate) empty: Option<Vmm>,
    pub(crate) bound: Option<(Golden, Vmm)>,
    pub(crate) standby: Option<(Golden, Machine)>,
}

/// Which memory and disks a machine has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Golden {
    pub(crate) snapshot: Snapshot,
    pub(crate) images: Vec<ImageFile>,
}

impl Golden {
    pub(crate) fn of(snapshot: &Snapshot, plan: &Plan) -> Self {
        Golden { snapshot: snapshot.clone(), images: plan.images.clone() }
    }
}

/// Where a machine came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    Bound,
    Empty,
}

impl Idle {
    pub(crate) fn is_empty(&self) -> bool {
        self.empty.is_none() && self.bound.is_none() && self.standby.is_none()
    }

    /// Ends what is of no use to this kind of machine or to this golden; what has ended already makes room.
    pub(crate) async fn keep(&mut self, kind: &Kind, golden: Option<&Golden>) -> Result<(), ate_api::Error> {
        if self.kind.as_ref() != Some(kind) {
            self.end().await?;
            self.kind = Some(kind.clone());
        }
        let of = |other: &Golden| Some(other) == golden;
        if let Some(vmm) = self.empty.take_if(|vmm| !vmm.is_alive()) {
            vmm.kill().await?;
        }
        if let Some((_, vmm)) = self.bound.take_if(|(g, vmm)| !of(g) || !vmm.is_alive()) {
            vmm.kill().await?;
        }
        if let Some((_, machine)) = self.standby.take_if(|(g, machine)| !of(g) || !machine.vmm.is_alive()) {
            machine.end().await?;
        }
        Ok(())
    }

    /// The machine that waits for exactly this snapshot.
    pub(crate) fn take_standby(&mut self, kind: &Kind, golden: &Golden) -> Option<Machine> {
        if self.kind.as_ref() != Some(kind) {
            return None;
        }
        let (_, machine) = self.standby.take_if(|(g, _)| g == golden)?;
        machine.vmm.is_alive().then_some(machine)
    }

    /// The machine that is furthest on the way to a snapshot saved against this one.
    pub(crate) fn take(&mut self, kind: &Kind, golden: &Golden) -> Option<(Vmm, Taken)> {
        if self.kind.as_ref() != Some(kind) {
            return None;
        }
        if let Some((_, vmm)) = self.bound.take_if(|(g, _)| g == golden)
            && vmm.is_alive()
        {
            return Some((vmm, Taken::Bound));
        }
        let vmm = self.empty.take()?;
        vmm.is_alive().then_some((vmm, Taken::Empty))
    }

    /// Ends all of them.
    pub(crate) async fn end(&mut self) -> Result<(), ate_api::Error> {
        let Idle { kind: _, empty, bound, standby } = std::mem::take(self);
        for vmm in empty.into_iter().chain(bound.map(|(_, vmm)| vmm)) {
            vmm.kill().await?;
        }
        if let Some((_, machine)) = standby {
            machine.end().await?;
        }
        Ok(())
    }
}

pub(crate) fn network(e: NetworkError) -> ate_api::Error {
    crate::error::failed(e)
}
