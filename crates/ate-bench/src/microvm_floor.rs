//! The floor of class microvm: the same machine restored by hand with bare QEMU from the same snapshot files.
//!
//! The clock runs from the start of the process to the first HTTP 200. Everything that is not QEMU (network namespace,
//! TAP device, the files) is there before. The snapshot was taken with the actor frozen, so the agent is told to wake
//! by hand, too. It runs in a helper process of its own, in a network namespace of its own: one line on stdin asks for
//! one sample, one line on stdout answers in milliseconds.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail, ensure};
use ate_guest::{
    frame::{self, Kind},
    protocol::{self, CONTROL, ENTROPY, LOG, Request, Wake},
};
use serde_json::{Value, json};

use crate::floor::{INSIDE, MAC_INSIDE, OUTSIDE, wait_for_200};

const MAC_OUTSIDE: &str = "02:00:00:00:00:01";
/// A channel of QEMU's that does not open within this never will.
const PATIENCE: Duration = Duration::from_secs(20);

/// The network is there and nothing gets lost: asking again would only make the machine slower.
const CONNECT: Duration = Duration::from_millis(250);

/// What a machine is restored from.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// The unpacked bundle.
    pub(crate) vmm: PathBuf,
    /// Directory with `memory` and `devices`.
    pub(crate) snapshot: PathBuf,
    pub(crate) image: PathBuf,
    pub(crate) memory_mib: u32,
}

/// What the helper process runs.
pub(crate) fn helper(files: &Files, dir: &Path) -> anyhow::Result<()> {
    network()?;
    println!("ready");
    for line in std::io::stdin().lines() {
        line?;
        println!("{:.3}", sample(files, dir)?);
    }
    Ok(())
}

fn network() -> anyhow::Result<()> {
    let script = format!(
        "ip link set lo up; ip tuntap add dev floor0 mode tap vnet_hdr
         ip link set floor0 address {MAC_OUTSIDE}; ip addr add {OUTSIDE}/30 dev floor0; ip link set floor0 up
         ip neigh replace {INSIDE} lladdr {MAC_INSIDE} nud permanent dev floor0"
    );
    let status = Command::new("sh").args(["-ec", &script]).status()?;
    ensure!(status.success(), "cannot make the network of the floor");
    Ok(())
}

fn sample(files: &Files, dir: &Path) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut child = qemu(files, dir)?;
    let outcome = restore(files, dir).and_then(|channels| {
        wait_for_200(CONNECT)?;
        drop(channels);
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    });
    let _ = child.kill();
    let _ = child.wait();
    for socket in ["qmp", "control", "log"] {
        let _ = std::fs::remove_file(dir.join(socket));
    }
    outcome.with_context(|| std::fs::read_to_string(dir.join("qemu.log")).unwrap_or_default())
}

/// The same devices as the herder's machines have, in the same order.
fn qemu(files: &Files, dir: &Path) -> anyhow::Result<Child> {
    let at = |path: &str| files.vmm.join(path);
    let socket = |id: &str| format!("socket,id={id},path={},server=on,wait=off", dir.join(id).display());
    let memory = files.snapshot.join("memory");
    let size = files.memory_mib;
    let backend =
        format!("memory-backend-file,id=ram,size={size}M,mem-path={},share=off,readonly=on,rom=off", memory.display());
    let disk = format!("if=none,id=d0,file={},format=raw,read-only=on,file.locking=off", files.image.display());
    let mut command = Command::new(at("lib/ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(at("lib")).arg(at("bin/qemu-system-x86_64")).arg("-L").arg(at("share/qemu"));
    command.args(["-M", "microvm,rtc=on,memory-backend=ram", "-bios", "qboot.rom", "-accel", "tcg", "-cpu", "qemu64"]);
    command.args(["-m", &format!("{size}M"), "-object", &backend]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-S"]);
    command.args(["-chardev", &socket("qmp"), "-mon", "chardev=qmp,mode=control"]);
    command.args(["-chardev", "null,id=console", "-serial", "chardev:console"]);
    command.args(["-drive", &disk, "-device", "virtio-blk-device,drive=d0,serial=disk0"]);
    command.args(["-netdev", "tap,id=net,ifname=floor0,script=no,downscript=no,vhost=off"]);
    command.args(["-device", &format!("virtio-net-device,netdev=net,mac={MAC_INSIDE},guest_announce=off")]);
    command.args(["-device", "virtio-serial-device"]);
    for (id, name) in [("control", CONTROL), ("log", LOG)] {
        command.args(["-chardev", &socket(id), "-device", &format!("virtserialport,chardev={id},name={name}")]);
    }
    command.args(["-device", "virtio-rng-device"]);
    command.args(["-incoming", "defer", "-global", "migration.send-configuration=off"]);
    let log = std::fs::File::create(dir.join("qemu.log"))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().context("cannot start QEMU")
}

/// Loads, wakes, lets run. The channels must stay open.
fn restore(files: &Files, dir: &Path) -> anyhow::Result<[UnixStream; 2]> {
    let qmp = connect(&dir.join("qmp"))?;
    let mut answers = BufReader::new(qmp.try_clone()?);
    let mut line = String::new();
    answers.read_line(&mut line)?;
    let events = json!({ "capabilities": [{ "capability": "events", "state": true }] });
    let uri = format!("file:{}", files.snapshot.join("devices").display());
    call(&qmp, &mut answers, "qmp_capabilities", Value::Null)?;
    call(&qmp, &mut answers, "migrate-set-capabilities", events)?;
    call(&qmp, &mut answers, "migrate-incoming", json!({ "uri": uri }))?;
    loop {
        line.clear();
        ensure!(answers.read_line(&mut line)? > 0, "QEMU has ended");
        let event: Value = serde_json::from_str(&line)?;
        match event["data"]["status"].as_str() {
            Some("completed") => break,
            Some("failed") => bail!("QEMU refused the devices' state"),
            _ => {}
        }
    }
    let mut control = connect(&dir.join("control"))?;
    let log = connect(&dir.join("log"))?;
    let now_ns = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?;
    let wake = Request::Wake(Wake { now_ns, entropy: [7; ENTROPY], identity: Vec::new() });
    control.write_all(&frame::encode(Kind::Message, &protocol::encode(&wake)?))?;
    call(&qmp, &mut answers, "cont", Value::Null)?;
    Ok([control, log])
}

fn call(mut qmp: &UnixStream, answers: &mut impl BufRead, command: &str, arguments: Value) -> anyhow::Result<()> {
    let mut request = json!({ "execute": command });
    if !arguments.is_null() {
        request["arguments"] = arguments;
    }
    qmp.write_all(format!("{request}\n").as_bytes())?;
    loop {
        let mut line = String::new();
        ensure!(answers.read_line(&mut line)? > 0, "QEMU has ended");
        let answer: Value = serde_json::from_str(&line)?;
        if answer.get("return").is_some() {
            return Ok(());
        }
        if let Some(error) = answer.get("error") {
            bail!("{command}: {error}");
        }
    }
}

fn connect(path: &Path) -> anyhow::Result<UnixStream> {
    let began = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(e) if began.elapsed() > PATIENCE => return Err(e).with_context(|| path.display().to_string()),
            Err(_) => std::thread::park_timeout(Duration::from_micros(500)),
        }
    }
}
