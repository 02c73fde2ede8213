//! QEMU's command line: which devices a machine has. What a snapshot was made with and what it is restored into must
//! have the same.

use std::path::Path;

use crate::{
    accelerator::Chosen,
    config::{Config, Machine},
    vmm::{Files, fds, firmware},
};

/// Serial number of the disk of a container.
pub(crate) fn disk_serial(i: usize) -> String {
    format!("disk{i}")
}

/// Name of the block node of the disk of a container.
pub(super) fn disk_node(i: usize) -> String {
    format!("image{i}")
}

/// The kernel's part of a boot.
pub(crate) struct Kernel<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initrd: &'a Path,
    /// Of this host's time stamp counter, which is the guest's too.
    pub(crate) tsc_khz: u64,
}

/// Of a machine that has no memory and no disks yet, and waits (`-preconfig`) until it is given both.
pub(super) fn arguments(
    files: &Files,
    config: &Config,
    accelerator: Chosen,
    disks: usize,
    kernel: Option<&Kernel<'_>>,
) -> Vec<String> {
    let machine = match config.machine {
        Machine::Microvm => "microvm,rtc=on",
    };
    let mut args: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| args.extend(words.iter().map(|w| (*w).to_owned()));
    let firmware = firmware(&files.bundle);
    let firmware = firmware.to_string_lossy();
    let memory = format!("{}M", config.memory_mib);
    let cpus = config.cpus.to_string();
    // The filter also forbids threads of other priority and new programs.
    add(&["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
    add(&["-L", &firmware, "-M", machine, "-bios", "qboot.rom"]);
    add(&["-accel", accelerator.name(), "-cpu", &config.cpu, "-smp", &cpus, "-m", &memory]);
    add(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-S", "-preconfig"]);
    add(&["-chardev", &format!("socket,id=qmp,fd={}", fds::QMP), "-mon", "chardev=qmp,mode=control"]);
    add(&["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
    for i in 0..disks {
        let (node, serial) = (disk_node(i), disk_serial(i));
        add(&["-device", &format!("virtio-blk-device,drive={node},serial={serial}")]);
    }
    let mac = ateom::network::ACTOR_MAC.map(|b| format!("{b:02x}")).join(":");
    add(&["-netdev", &format!("tap,id=net,fd={}", fds::TAP)]);
    add(&["-device", &format!("virtio-net-device,netdev=net,mac={mac},guest_announce=off")]);
    add(&["-device", "virtio-serial-device"]);
    for (id, fd, name) in
        [("control", fds::CONTROL, ate_guest::protocol::CONTROL), ("log", fds::LOG, ate_guest::protocol::LOG)]
    {
        add(&["-chardev", &format!("socket,id={id},fd={fd}")]);
        add(&["-device", &format!("virtserialport,chardev={id},name={name}")]);
    }
    add(&["-device", "virtio-rng-device"]);
    match kernel {
        Some(k) => {
            let append = kernel_arguments(config, k.tsc_khz);
            add(&["-kernel", &k.kernel.to_string_lossy(), "-initrd", &k.initrd.to_string_lossy(), "-append", &append]);
        }
        // The state of the devices is saved without the section that names the machine: its place is our own record.
        None => add(&["-incoming", "defer", "-global", "migration.send-configuration=off"]),
    }
    args
}

/// Faster to boot, and no guessing: under load a guest that has to find out how fast its clock runs may hang. What
/// watches and counts in the kernel is off where nobody looks: its code, too, is run anew after each restore.
fn kernel_arguments(config: &Config, tsc_khz: u64) -> String {
    let mut words = format!(
        "console=ttyS0 quiet reboot=t panic=-1 tsc_early_khz={tsc_khz} tsc=reliable lpj={} nokaslr mitigations=off \
         cryptomgr.notests nowatchdog psi=0 audit=0 lsm=landlock 8250.nr_uarts=1 no_timer_check init_on_alloc=0 \
         ipv6.disable=1 net.ifnames=0",
        tsc_khz * 2
    );
    if !config.kernel_args.is_empty() {
        words.push(' ');
        words.push_str(&config.kernel_args);
    }
    words
}
