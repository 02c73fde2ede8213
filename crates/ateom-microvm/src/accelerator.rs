//! Who executes the guest's instructions.
//!
//! That `/dev/kvm` can be opened proves nothing: below some hypervisors it is there and a guest of an ordinary kernel
//! dies in it, or crawls. So KVM counts as usable only after a guest has run under it to its end.

use std::{
    fs::OpenOptions,
    io,
    path::Path,
    time::{Duration, Instant},
};

use ate_api::{Error, Reason};
use ateom::process::Processes;

use crate::{
    config::Accelerator,
    trial::{self, Trial},
};

/// Natively such a guest takes less than a second. A KVM that takes longer is no better than emulation.
const KVM_LIMIT: Duration = Duration::from_secs(10);
/// KVM by the CPU's own means; other modules are for kernels that know of them.
const KVM_MODULES: [&str; 2] = ["/sys/module/kvm_intel", "/sys/module/kvm_amd"];
const KVM_DEVICE: &str = "/dev/kvm";

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

/// What KVM lacks to be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoKvm {
    #[error("this machine has no hardware virtualisation (neither kvm_intel nor kvm_amd)")]
    Hardware,
    #[error("/dev/kvm cannot be opened: {0}")]
    Device(io::Error),
    #[error("a guest did not run under it: {0}")]
    Guest(trial::Failure),
}

/// KVM was asked for by name, and does not work.
#[derive(Debug, thiserror::Error)]
#[error("accelerator kvm cannot be used: {0}")]
pub(crate) struct Refused(NoKvm);

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        let hint = "use the setting accelerator: tcg (software, slower), or a machine with working KVM";
        Error::new(Reason::SandboxFailed, refused.to_string()).hint(hint)
    }
}

/// What the configuration asks for, as far as it works. A wish for KVM is granted or refused, never replaced.
///
/// May start a guest and wait for it, up to [`KVM_LIMIT`]: ask once for a set of binaries.
pub(crate) async fn choose(wanted: Accelerator, processes: &Processes, trial: &Trial<'_>) -> Result<Chosen, Refused> {
    let kvm = match wanted {
        Accelerator::Tcg => return Ok(Chosen::Tcg),
        Accelerator::Auto | Accelerator::Kvm => try_kvm(processes, trial).await,
    };
    decide(wanted, kvm)
}

fn decide(wanted: Accelerator, kvm: Result<Duration, NoKvm>) -> Result<Chosen, Refused> {
    match (wanted, kvm) {
        (Accelerator::Tcg, _) => Ok(Chosen::Tcg),
        (_, Ok(_)) => Ok(Chosen::Kvm),
        (Accelerator::Kvm, Err(why)) => Err(Refused(why)),
        (Accelerator::Auto, Err(why)) => {
            tracing::info!(%why, "not using KVM");
            Ok(Chosen::Tcg)
        }
    }
}

/// Answers how long a guest took under KVM.
pub(crate) async fn try_kvm(processes: &Processes, trial: &Trial<'_>) -> Result<Duration, NoKvm> {
    kvm_there()?;
    let since = Instant::now();
    trial.run(processes, Chosen::Kvm, KVM_LIMIT).await.map_err(NoKvm::Guest)?;
    Ok(since.elapsed())
}

/// What can be known without a guest; that it is there does not say that it works.
pub(crate) fn kvm_there() -> Result<(), NoKvm> {
    if !KVM_MODULES.iter().any(|module| Path::new(module).exists()) {
        return Err(NoKvm::Hardware);
    }
    OpenOptions::new().read(true).write(true).open(KVM_DEVICE).map(drop).map_err(NoKvm::Device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_asked_for_by_name_is_refused_rather_than_replaced() {
        let refused = decide(Accelerator::Kvm, Err(NoKvm::Hardware)).unwrap_err();
        let error = Error::from(refused);
        assert_eq!(error.reason, Reason::SandboxFailed);
        assert!(error.message.contains("no hardware virtualisation") && error.hint.contains("tcg"));
        assert_eq!(decide(Accelerator::Kvm, Ok(Duration::ZERO)).unwrap(), Chosen::Kvm);
    }

    #[test]
    fn left_to_itself_it_takes_kvm_only_where_a_guest_ran() {
        assert_eq!(decide(Accelerator::Auto, Ok(Duration::ZERO)).unwrap(), Chosen::Kvm);
        assert_eq!(decide(Accelerator::Auto, Err(NoKvm::Hardware)).unwrap(), Chosen::Tcg);
    }

    #[test]
    fn emulation_asked_for_by_name_is_taken_though_kvm_works() {
        assert_eq!(decide(Accelerator::Tcg, Ok(Duration::ZERO)).unwrap(), Chosen::Tcg);
    }
}
