//! Who executes the guest's instructions.

use ate_api::{Error, Reason};

use crate::config::Accelerator;

/// What was chosen for this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chosen {
    Kvm,
    Tcg,
}

impl Chosen {
    /// As QEMU names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Chosen::Kvm => "kvm",
            Chosen::Tcg => "tcg",
        }
    }
}

/// For this configuration on this machine: always the same, so that a snapshot meets it again.
pub(crate) fn choose(wanted: Accelerator) -> Result<Chosen, Error> {
    match wanted {
        Accelerator::Auto | Accelerator::Tcg => Ok(Chosen::Tcg),
        Accelerator::Kvm => Err(Error::new(Reason::MissingCapability, "KVM has not been seen to work here")),
    }
}
