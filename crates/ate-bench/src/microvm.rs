//! Waking, suspending and cloning actors in machines, beside the floor: the same machine restored by hand.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use ate_e2e::{
    Kit, Node, Template,
    disk::files_below,
    eventually,
    footprint::{below, command_line},
    kit, node, user,
};

use crate::{
    client::{Api, Http},
    floor::Floor,
    microvm_floor::Files,
    report::{Figure, Goal, Samples},
};

const CLASS: &str = "microvm";
/// Of each machine, in MiB.
const MEMORY_MIB: u32 = 128;
/// Machines at once.
const CLONES: usize = 10;
const ACTOR: &str = "bench";
/// Cold boots take seconds each.
const BOOTS: usize = 3;

pub(crate) async fn run(samples: usize) -> anyhow::Result<Vec<Figure>> {
    let mut figures = one_at_a_time(samples).await?;
    figures.extend(many().await?);
    Ok(figures)
}

/// A node with a pool of machines and the template `bench`.
fn site(workers: u32) -> Node {
    let node = Node::start();
    node.ate(&["create", "atespace", "default"]).ok();
    let Kit { versions, .. } = kit::MICROVM;
    let newest = versions.last().and_then(kit::Binaries::arguments).unwrap_or_default();
    let memory = format!("memoryMiB={MEMORY_MIB}");
    let mut import = vec!["sandbox", "import", "--class", CLASS, "--name", CLASS, "--config", memory.as_str()];
    import.extend(newest.iter().map(String::as_str));
    node.ate(&import).ok();
    let lines = format!("  sandboxClass: {CLASS}\n  sandboxConfigName: {CLASS}\n");
    node.apply(&node::pool(CLASS, workers, &lines)).ok();
    node.workers_ready(workers as usize);
    // The probe asks what requests ask, as it should where a standby is to be warm for them.
    let template = Template::default().class(CLASS).readyz("/").line("idleTimeout: \"0\"");
    node.template(&template.yaml("bench"), "bench");
    node
}

/// Wakes and suspends one actor on one worker, with one sample of the floor between any two wakes; then new actors.
async fn one_at_a_time(samples: usize) -> anyhow::Result<Vec<Figure>> {
    let node = site(1);
    node.actor(ACTOR, "bench");
    node.count(ACTOR);
    let mut api = Api::connect(node.api()).await?;

    let files = files(&node)?;
    let dir = tempfile::tempdir()?;
    let memory = files.memory_mib.to_string();
    let mut floor = Floor::start([
        OsStr::new("machine-floor-helper"),
        files.vmm.as_os_str(),
        files.snapshot.as_os_str(),
        files.image.as_os_str(),
        memory.as_ref(),
        dir.path().as_os_str(),
    ])?;

    let (mut floors, mut wakes, mut suspends) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..samples {
        suspends.push(api.suspend(ACTOR).await.context("suspend")?);
        floors.push(floor.sample()?);
        node.worker_warm(false);
        wakes.push(first_byte(&node, ACTOR).await.context("wake")?);
    }

    // One mebibyte, of a kind that no compression makes smaller.
    ensure!(node.request(ACTOR, "/grow/1").status < 300, "the actor could not write its file");
    api.suspend(ACTOR).await?;
    let stored = stored_bytes(&node, ACTOR)?;
    let full = f64::from(MEMORY_MIB) * f64::from(1 << 20);

    let mut firsts = Samples::default();
    for i in 0..samples {
        let name = format!("new{i}");
        node.actor(&name, "bench");
        node.worker_warm(true);
        firsts.push(first_byte(&node, &name).await.context("first wake")?);
        api.suspend(&name).await?;
    }

    let mut boots = Samples::default();
    for _ in 0..BOOTS {
        boots.push(api.boot(ACTOR).await.context("boot")?);
        api.suspend(ACTOR).await?;
    }

    let over_floor = wakes.p50() / floors.p50();
    let over_boot = wakes.p50() / boots.p50();
    let figure = |name: &str, value, unit: &str, goal, of: &Samples| {
        Figure::new(&format!("microvm.{name}"), value, unit, goal, of.len())
    };
    Ok(vec![
        figure("floor.p50_ms", floors.p50(), "ms", Goal::None, &floors)
            .spread(&floors)
            .note("bare QEMU on the golden snapshot's files, exec to HTTP 200, software emulation"),
        figure("wakeup.p50_ms", wakes.p50(), "ms", Goal::None, &wakes).spread(&wakes),
        figure("wakeup.p50_over_floor", over_floor, "", Goal::AtMost(0.8), &wakes),
        figure("cold_boot.p50_ms", boots.p50(), "ms", Goal::None, &boots).spread(&boots),
        figure("wakeup.p50_over_cold_boot", over_boot, "", Goal::AtMost(0.08), &wakes),
        figure("first_wakeup.p50_ms", firsts.p50(), "ms", Goal::AtMost(40.0), &firsts).spread(&firsts),
        figure("suspend_bytes_ratio", stored / full, "", Goal::AtMost(0.03), &suspends)
            .note(format!("{:.2} MiB for a change of 1 MiB that does not compress", stored / f64::from(1 << 20))),
        figure("suspend.p50_ms", suspends.p50(), "ms", Goal::AtMost(120.0), &suspends).spread(&suspends),
    ])
}

/// Ten machines at once: clones of one golden, then the same booted.
async fn many() -> anyhow::Result<Vec<Figure>> {
    let node = site(u32::try_from(CLONES)?);
    let mut api = Api::connect(node.api()).await?;
    let names: Vec<String> = (0..CLONES).map(|i| format!("clone{i}")).collect();
    for name in &names {
        node.actor(name, "bench");
        node.count(name);
    }
    let clones = memory_of_machines(&node)?;
    for name in &names {
        api.suspend(name).await?;
    }
    for name in &names {
        api.boot(name).await?;
        node.count(name);
    }
    let booted = memory_of_machines(&node)?;
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let note = format!("{:.0} MiB for ten clones, {:.0} for ten booted ones", mib(clones), mib(booted));
    let ratio = clones / booted;
    Ok(vec![Figure::new("microvm.clones_pss_ratio", ratio, "", Goal::AtMost(0.25), CLONES).note(note)])
}

/// Milliseconds to the first byte, over a connection that is there already.
async fn first_byte(node: &Node, actor: &str) -> anyhow::Result<f64> {
    Http::connect(node.router(), &user::host(actor)).await?.get("/").await
}

/// Where the node has what the golden snapshot is restored from.
fn files(node: &Node) -> anyhow::Result<Files> {
    let template = node.get("template", "bench");
    let manifest = template["status"]["goldenManifest"].as_str().context("no golden snapshot")?;
    let data = node.data().join("node");
    let golden = data.join("snapshots").join(manifest);
    let file = |name: &str, below: &Path| {
        files_below(below)
            .into_iter()
            .find(|p| p.file_name() == Some(OsStr::new(name)))
            .with_context(|| format!("no {name} below {below:?}"))
    };
    let parent = |path: PathBuf, up: usize| path.ancestors().nth(up).map(Path::to_owned).context("a path too short");
    Ok(Files {
        vmm: parent(file("qemu-system-x86_64", &data.join("assets"))?, 2)?,
        snapshot: parent(file("memory", &golden)?, 1)?,
        image: file("image", &data.join("images").join("erofs"))?,
        memory_mib: MEMORY_MIB,
    })
}

/// Size of the actor's current snapshot: of its own files, without what it rests on.
fn stored_bytes(node: &Node, actor: &str) -> anyhow::Result<f64> {
    let uid = node.get("actor", actor)["metadata"]["uid"].as_str().context("an actor without a uid")?.to_owned();
    let dir = node.data().join("objects").join("actors").join(uid);
    // The last generation is the only one that is kept; one that is being removed may still be there for a moment.
    let newest = std::fs::read_dir(&dir)?.flatten().map(|e| e.path()).max().context("nothing stored")?;
    let mut bytes = 0;
    for entry in std::fs::read_dir(newest)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes as f64)
}

/// Proportional set size of the machines that run an actor, in bytes. Those that wait use next to no processor time.
fn memory_of_machines(node: &Node) -> anyhow::Result<f64> {
    let machines = || below(node.pid()).into_iter().filter(|pid| command_line(*pid).contains("-device"));
    let mut busiest: Vec<(u64, u32)> = machines().map(|pid| (cpu_ticks(pid), pid)).collect();
    eventually("all machines to run", user::ANSWER, || machines().count() >= CLONES);
    busiest.sort_unstable_by(|a, b| b.cmp(a));
    let mut pss = 0.0;
    for (_, pid) in busiest.into_iter().take(CLONES) {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = rollup.lines().find_map(|l| l.strip_prefix("Pss:")).context("no Pss in smaps_rollup")?;
        pss += line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0;
    }
    Ok(pss)
}

fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<u64> =
        stat.rsplit(')').next().unwrap_or_default().split(' ').map(|f| f.parse().unwrap_or(0)).collect();
    fields.get(12..14).map_or(0, |ticks| ticks.iter().sum())
}
