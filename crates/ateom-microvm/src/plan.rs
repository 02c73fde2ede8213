//! A workload under a configuration, checked: everything that is the same for each machine made from it.

use std::{path::PathBuf, sync::Arc};

use ate_api::{Error, Reason};
use ate_guest::protocol::{Boot, Container, MAX_CONTAINERS, Mount, Network, Volume, Wake};
use ateom::{
    config,
    driver::{ImageFile, Sandbox, Workload},
    network::{ACTOR_ADDRESS, ACTOR_GATEWAY, ACTOR_PREFIX, GATEWAY_MAC},
    workload,
};

use crate::{
    binary::Binary,
    config::Config,
    describe::{INITRD, KERNEL, VMM},
    seen::Seen,
    vmm::{Kernel, Launch, disk_serial},
};

/// One binary with one configuration. Machines of equal ones differ in their contents only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) config_digest: String,
    pub(crate) vmm: String,
    pub(crate) kernel: String,
    pub(crate) initrd: String,
    pub(crate) disks: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) config: Config,
    pub(crate) binary: Arc<Binary>,
    pub(crate) workload: Workload,
    /// One a container.
    pub(crate) images: Vec<ImageFile>,
    kernel: PathBuf,
    initrd: PathBuf,
    seen: Seen,
}

impl Plan {
    pub(crate) fn new(sandbox: &Sandbox, workload: &Workload, binary: Arc<Binary>, seen: Seen) -> Result<Self, Error> {
        workload::check(workload)?;
        if workload.containers.len() > MAX_CONTAINERS {
            let message = format!("{} containers; a machine takes {MAX_CONTAINERS}", workload.containers.len());
            return Err(Error::new(Reason::Invalid, message));
        }
        let image = |c: &ateom::driver::Container| {
            let missing = || Error::new(Reason::Invalid, format!("container `{}` has no image file", c.name));
            c.image.clone().filter(|i| PathBuf::from(&i.path).is_absolute()).ok_or_else(missing)
        };
        let images = workload.containers.iter().map(image).collect::<Result<Vec<_>, _>>()?;
        let (kernel, kernel_digest) = config::asset(sandbox, KERNEL)?;
        let (initrd, initrd_digest) = config::asset(sandbox, INITRD)?;
        Ok(Plan {
            kind: Kind {
                config_digest: sandbox.config_digest.clone(),
                vmm: config::asset(sandbox, VMM)?.1.to_owned(),
                kernel: kernel_digest.to_owned(),
                initrd: initrd_digest.to_owned(),
                disks: images.len(),
            },
            config: config::of(sandbox)?,
            binary,
            workload: workload.clone(),
            images,
            kernel,
            initrd,
            seen,
        })
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        u64::from(self.config.memory_mib) << 20
    }

    pub(crate) fn disks(&self) -> Vec<PathBuf> {
        self.images.iter().map(|i| PathBuf::from(&i.path)).collect()
    }

    /// How to launch a machine: to boot the kernel, or to wait for a state. Only from the files that the call came with.
    pub(crate) fn launch(&self, tsc_khz_to_boot: Option<u64>) -> Result<Launch<'_>, Error> {
        self.seen.check()?;
        Ok(Launch {
            files: &self.binary.files,
            config: &self.config,
            accelerator: self.binary.accelerator,
            disks: self.images.len(),
            kernel: tsc_khz_to_boot.map(|tsc_khz| Kernel { kernel: &self.kernel, initrd: &self.initrd, tsc_khz }),
        })
    }

    /// What the agent is told after a boot.
    pub(crate) fn boot(&self, resolv_conf: &[u8], wake: Wake) -> Boot {
        let container = |(i, c): (usize, &ateom::driver::Container)| Container {
            name: c.name.clone(),
            disk: disk_serial(i),
            args: c.args.clone(),
            env: workload::environment(c),
            cwd: c.cwd.clone(),
            uid: c.uid,
            gid: c.gid,
            additional_gids: c.additional_gids.clone(),
            mounts: c.mounts.iter().map(|m| Mount { volume: m.volume.clone(), path: m.path.clone() }).collect(),
        };
        let volume = |v: &ateom::driver::Volume| {
            let (uid, gid) = workload::volume_owner(&self.workload, &v.name);
            Volume { name: v.name.clone(), uid, gid }
        };
        Boot {
            hostname: workload::HOSTNAME.to_owned(),
            network: Network {
                address: ACTOR_ADDRESS,
                prefix: ACTOR_PREFIX,
                gateway: ACTOR_GATEWAY,
                gateway_mac: GATEWAY_MAC,
            },
            resolv_conf: String::from_utf8_lossy(resolv_conf).into_owned(),
            hosts: workload::hosts(),
            volumes: self.workload.volumes.iter().map(volume).collect(),
            containers: self.workload.containers.iter().enumerate().map(container).collect(),
            wake,
        }
    }
}
