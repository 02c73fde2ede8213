//! A machine that boots, runs one program to its end and is gone: whether VMM, kernel and accelerator work together.

use std::{
    io::{self, Write},
    path::Path,
    process::Command,
    time::Duration,
};

use ateom::process::{OutputError, Processes};

use crate::{accelerator::Chosen, collect::cpio::Cpio, vmm};

/// The kernel's last words when the guest's program asked for the end.
const ENDED: &str = "reboot: Restarting system";
/// Of the console; a quiet kernel says little.
const MAX_CONSOLE: usize = 64 << 10;
/// Of the console, in messages: the end is what tells.
const MAX_SHOWN: usize = 300;

/// The rate of its clock is given, since a guest under load may hang guessing it. For a guest that only boots it need
/// not be right.
const KERNEL_ARGS: &str = "console=ttyS0 quiet reboot=t panic=-1 tsc_early_khz=2000000 tsc=reliable lpj=4000000 \
    mitigations=off cryptomgr.notests 8250.nr_uarts=1 no_timer_check";

/// A whole static program for x86-64: `reboot(LINUX_REBOOT_CMD_RESTART)`.
#[rustfmt::skip]
const INIT: [u8; 0x90] = [
    // ELF header: executable, x86-64, entered at 0x400078, one program header at 0x40
    0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x3e, 0, 1, 0, 0, 0,
    0x78, 0, 0x40, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0x40, 0, 0x38, 0, 1, 0, 0x40, 0, 0, 0, 0, 0,
    // program header: all of this file, readable and executable, at 0x400000
    1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0,
    0x90, 0, 0, 0, 0, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0,
    0xbf, 0xad, 0xde, 0xe1, 0xfe, // mov edi, 0xfee1dead
    0xbe, 0x69, 0x19, 0x12, 0x28, // mov esi, 672274793
    0xba, 0x67, 0x45, 0x23, 0x01, // mov edx, 0x1234567
    0xb8, 0xa9, 0x00, 0x00, 0x00, // mov eax, 169 (reboot)
    0x0f, 0x05, //                   syscall
    0xeb, 0xfe, //                   jmp to itself
];

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot write its first filesystem: {0}")]
    Write(#[from] io::Error),
    #[error(transparent)]
    Run(#[from] OutputError),
    #[error("it did not come to its end: {0}")]
    Died(String),
}

/// What is tried.
pub(crate) struct Trial<'a> {
    /// The unpacked `vmm`.
    pub(crate) vmm: &'a Path,
    pub(crate) kernel: &'a Path,
    /// CPU model, as QEMU names it.
    pub(crate) cpu: &'a str,
}

impl Trial<'_> {
    pub(crate) async fn run(&self, processes: &Processes, accelerator: Chosen, limit: Duration) -> Result<(), Failure> {
        let mut initrd = tempfile::NamedTempFile::new()?;
        initrd.write_all(&first_filesystem())?;
        let mut command = self.command(accelerator, initrd.path());
        let output = processes.output(&mut command, limit, MAX_CONSOLE).await?;
        if output.exit.success() && output.stdout.contains(ENDED) {
            return Ok(());
        }
        let said = if output.stderr.trim().is_empty() { output.stdout } else { output.stderr };
        Err(Failure::Died(format!("{}; {}", output.exit, last_words(&said))))
    }

    fn command(&self, accelerator: Chosen, initrd: &Path) -> Command {
        let [loader, rest @ ..] = vmm::program(self.vmm);
        let mut command = Command::new(loader);
        command.args(rest).arg("-L").arg(vmm::firmware(self.vmm));
        command.args(["-M", "microvm,rtc=on", "-bios", "qboot.rom"]);
        command.args(["-accel", accelerator.name(), "-cpu", self.cpu, "-m", "128M"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"]);
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(initrd).args(["-append", KERNEL_ARGS]);
        command
    }
}

fn first_filesystem() -> Vec<u8> {
    let mut cpio = Cpio::default();
    cpio.directory("dev");
    cpio.character_device("dev/console", 0o600, (5, 1));
    cpio.file("init", 0o755, &INIT);
    cpio.finish()
}

fn last_words(text: &str) -> &str {
    let text = text.trim();
    let from = text.len().saturating_sub(MAX_SHOWN);
    let from = (from..text.len()).find(|&i| text.is_char_boundary(i)).unwrap_or(text.len());
    &text[from..]
}
