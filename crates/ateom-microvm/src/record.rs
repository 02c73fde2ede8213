//! `machine.json` in a snapshot: what the machine was, that is, what one it is restored into must be.

use std::path::Path;

use ate_api::{Error, Reason};
use ate_guest::protocol;
use serde::{Deserialize, Serialize};

use crate::{
    config::Machine,
    error::{corrupt, io},
    plan::Plan,
    tsc,
    vmm::MAX_DEVICES,
};

/// File names of a snapshot, and what is in them.
pub(crate) const RECORD: &str = "machine.json";
pub(crate) const DEVICES: &str = "devices";
pub(crate) const MEMORY: &str = "memory";
pub(crate) const PAGES: &str = "pages";
pub(crate) const RECORD_TYPE: &str = "application/vnd.ate.microvm.machine.v1+json";
pub(crate) const DEVICES_TYPE: &str = "application/vnd.ate.microvm.devices.v1";
pub(crate) const MEMORY_TYPE: &str = "application/vnd.ate.microvm.memory.v1";
pub(crate) const PAGES_TYPE: &str = "application/vnd.ate.microvm.pages.v2";

const FORMAT: u32 = 1;
/// What any state of a QEMU machine begins with.
const STATE: &[u8] = b"QEVM";
/// A record has one line a container.
const MAX_RECORD: u64 = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    format: u32,
    /// Digest of the VMM's bundle, and what it calls itself.
    vmm: String,
    vmm_version: String,
    machine: Machine,
    accelerator: String,
    cpu: String,
    cpus: u32,
    memory_bytes: u64,
    /// What the guest was told the time stamp counter runs at.
    pub(crate) tsc_khz: u64,
    guest_protocol: u32,
    /// Container name and digest of its image file.
    disks: Vec<(String, String)>,
}

impl Record {
    pub(crate) fn of(plan: &Plan, tsc_khz: u64) -> Self {
        let names = plan.workload.containers.iter().map(|c| c.name.clone());
        Record {
            format: FORMAT,
            vmm: plan.kind.vmm.clone(),
            vmm_version: plan.binary.version.clone(),
            machine: plan.config.machine,
            accelerator: plan.binary.accelerator.name().to_owned(),
            cpu: plan.config.cpu.clone(),
            cpus: plan.config.cpus,
            memory_bytes: plan.memory_bytes(),
            tsc_khz,
            guest_protocol: protocol::VERSION,
            disks: names.zip(plan.images.iter().map(|i| i.sha256.clone())).collect(),
        }
    }

    pub(crate) fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(RECORD);
        let size = std::fs::metadata(&path).map_err(|e| corrupt(format!("cannot find {RECORD}: {e}")))?.len();
        if size > MAX_RECORD {
            return Err(corrupt(format!("{RECORD} is larger than {MAX_RECORD} bytes")));
        }
        let bytes = std::fs::read(&path).map_err(io(format!("read {RECORD}")))?;
        serde_json::from_slice(&bytes).map_err(|e| corrupt(format!("{RECORD} cannot be read: {e}")))
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<(), Error> {
        let bytes = serde_json::to_vec(self).map_err(|e| corrupt(format!("{RECORD} cannot be written: {e}")))?;
        std::fs::write(dir.join(RECORD), bytes).map_err(io(format!("write {RECORD}")))
    }

    /// Whether a machine of this plan can go on from here. Nothing has been started yet.
    pub(crate) fn check(&self, plan: &Plan) -> Result<(), Error> {
        let now = Record::of(plan, self.tsc_khz);
        let refuse = |reason, message: String| Err(Error::new(reason, message));
        if self.format != FORMAT {
            return refuse(
                Reason::ManifestVersionUnknown,
                format!("{RECORD} has format {}, known is {FORMAT}", self.format),
            );
        }
        if (&self.vmm, self.accelerator.as_str()) != (&now.vmm, now.accelerator.as_str()) {
            let message = format!(
                "the snapshot was made by QEMU {} ({}) with {}, this is QEMU {} ({}) with {}",
                self.vmm_version,
                short(&self.vmm),
                self.accelerator,
                now.vmm_version,
                short(&now.vmm),
                now.accelerator
            );
            return Err(Error::new(Reason::AssetDigestMismatch, message)
                .hint("a machine goes on only under the VMM that saved it"));
        }
        if !tsc::close(self.tsc_khz, tsc::khz()) {
            let message =
                format!("the guest counts on {} kHz, this host's time stamp counter has {}", self.tsc_khz, tsc::khz());
            return refuse(Reason::ArchMismatch, message);
        }
        if self.disks != now.disks {
            let message = "the image files are not those that the snapshot was made with".to_owned();
            return refuse(Reason::ImageInvalid, message);
        }
        if *self != now {
            return refuse(
                Reason::ManifestInvalid,
                format!("the snapshot is of another machine: {self:?}, not {now:?}"),
            );
        }
        Ok(())
    }
}

/// The state of the devices of a snapshot.
pub(crate) fn devices(dir: &Path) -> Result<Vec<u8>, Error> {
    let path = dir.join(DEVICES);
    let size = std::fs::metadata(&path).map_err(|e| corrupt(format!("cannot find {DEVICES}: {e}")))?.len();
    if size > MAX_DEVICES as u64 {
        return Err(corrupt(format!("{DEVICES} is larger than {MAX_DEVICES} bytes")));
    }
    let bytes = std::fs::read(&path).map_err(io(format!("read {DEVICES}")))?;
    if !bytes.starts_with(STATE) {
        return Err(corrupt(format!("{DEVICES} does not hold the state of a machine")));
    }
    Ok(bytes)
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_records_and_states_of_machines() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        ate_fuzz::Target::named("microvm.machine")
            .sample("record", || {
                let record = Record {
                    format: FORMAT,
                    vmm: "0".repeat(64),
                    vmm_version: "10.0.2".into(),
                    machine: Machine::Microvm,
                    accelerator: "tcg".into(),
                    cpu: "qemu64".into(),
                    cpus: 1,
                    memory_bytes: 256 << 20,
                    tsc_khz: 2_000_000,
                    guest_protocol: protocol::VERSION,
                    disks: vec![("main".into(), "1".repeat(64))],
                };
                serde_json::to_vec(&record).unwrap()
            })
            .sample("state", || [STATE, &[0; 60]].concat())
            .run(|bytes| {
                [RECORD, DEVICES].iter().for_each(|name| std::fs::write(dir.path().join(name), bytes).unwrap());
                let state = devices(dir.path());
                let record = Record::read(dir.path());
                if let Ok(record) = &record {
                    record.write(dir.path())?;
                    assert_eq!(Record::read(dir.path()).as_ref(), Ok(record));
                }
                state.map(drop).or(record.map(drop))
            });
    }
}
