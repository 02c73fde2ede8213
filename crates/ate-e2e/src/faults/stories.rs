//! What happens to a node while something is armed: each story reaches some of the steps, and goes on to a good end
//! whatever fault is met.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};

use super::{
    actor::Actor,
    cases::{Case, Fault},
    check,
    world::{self, RECOVERY, World},
};
use crate::{Template, image, provided};

/// A point is reached within this, golden snapshots and rollouts included.
const REACHED: Duration = Duration::from_secs(40);
const LOOK: Duration = Duration::from_millis(5);
/// Templates and rollouts, on a machine that is busy with others.
const LONG: Duration = Duration::from_secs(90);

pub type Tell = fn(&mut World, &Trigger);

/// Which story reaches which steps. A name that ends with a dot stands for all that begin with it.
const STORIES: &[(&[&str], Tell)] = &[
    (&["create.", "resume.claim", "resume.record", "resume.activate", "resume.show", "resume.write"], life),
    (&["suspend.close", "suspend.phase", "suspend.capture", "suspend.flip", "clean.", "garbage."], life),
    (&["activate.assets", "activate.images", "activate.snapshot", "activate.worker", "worker.start"], life),
    (&["capture.", "upload.", "local.", "erase.", "delete-snapshot.", "worker.reset"], life),
    (&["driver.start", "driver.checkpoint", "driver.reset", "driver.tidy"], life),
    (&["gvisor.", "prepare.", "worker.prepare", "driver.prepare"], life),
    (&["delete."], deleted),
    (&["activate.files"], booted),
    (&["recover.", "worker.herder", "herder."], lost),
    (&["resume.fail"], refused),
    (&["suspend.thaw", "suspend.run-on", "discard.", "thaw.worker", "worker.thaw", "driver.thaw"], runs_on),
    (&["golden.end"], rolled_out),
    (&["golden."], golden),
    (&["image."], new_image),
    (&["asset."], assets),
    (&["rollout.take-back"], undone),
    (&["rollout.", "move.", "sweep."], rolled_out),
    (&["collect."], collected),
];

/// Steps that one fault on a quiet node does not lead to, and where they are tested instead.
pub const ELSEWHERE: &[(&str, &str)] = &[
    ("adopt.release", IN_A_CLUSTER),
    ("adopt.thaw", IN_A_CLUSTER),
    ("adopt.tidy", IN_A_CLUSTER),
    ("attach.connect", IN_A_CLUSTER),
    ("attach.reset", IN_A_CLUSTER),
    ("attach.thaw", IN_A_CLUSTER),
    ("recover.settle", "only where a write failed just before"),
    ("start.verify", "only where binaries went missing between two starts"),
    ("suspend.disown", "only where the store fails in two ways at once, or somebody else has the actor"),
    ("suspend.unflip", "only where the store fails in two ways at once"),
    ("update.record", "the command line has no verb for it"),
    ("worker.attach", IN_A_CLUSTER),
    ("worker.keep", IN_A_CLUSTER),
];

/// The suites of the cluster kill what does it: `tests/kubernetes.rs`, those of control plane and node.
const IN_A_CLUSTER: &str = "only where workers outlive the control plane and the node agent";

/// Steps that only a class with memory has.
pub fn needs_sandbox(step: &str) -> bool {
    ["gvisor.", "prepare.", "worker.prepare", "driver.prepare"].iter().any(|p| step.starts_with(p))
}

pub fn of(step: &str) -> Option<Tell> {
    if ELSEWHERE.iter().any(|(elsewhere, _)| *elsewhere == step) {
        return None;
    }
    let named =
        |names: &&(&[&str], Tell)| names.0.iter().any(|n| *n == step || (n.ends_with('.') && step.starts_with(n)));
    STORIES.iter().find(named).map(|(_, tell)| *tell)
}

/// Whether any life of an actor reaches what this story does.
pub fn is_life(tell: Tell) -> bool {
    std::ptr::fn_addr_eq(tell, life as Tell)
}

/// The fault that is put into a story, at the moment the story has for it.
pub struct Trigger<'a> {
    case: &'a Case,
    /// What had to be killed was.
    killed: AtomicBool,
}

impl<'a> Trigger<'a> {
    pub fn new(case: &'a Case) -> Self {
        Trigger { case, killed: AtomicBool::new(false) }
    }

    pub fn arm(&self, world: &World) {
        world.arm(&self.case.point(), self.case.word());
    }

    /// Waits until the point was reached.
    #[track_caller]
    fn reached(&self, world: &mut World) {
        let fired = world.fired(&self.case.point());
        world.until(&format!("{} to be reached", self.case.point()), REACHED, |_| {
            (self.killed.load(Ordering::SeqCst) || (!self.case.kills_from_outside() && fired.exists())).then_some(())
        });
    }

    /// Kills what the fault says when the point holds. Returns when that was done, or when `over`.
    pub fn watch(&self, fired: PathBuf, root: u32, over: &AtomicBool) {
        while !over.load(Ordering::SeqCst) {
            if fired.exists() {
                world::kill(&match self.case.fault {
                    Fault::HerderKilled => world::herders(root),
                    _ => world::sandboxes(root),
                });
                self.killed.store(true, Ordering::SeqCst);
                let _ = fs::remove_file(&fired);
                return;
            }
            thread::park_timeout(LOOK);
        }
    }
}

/// An actor that was asked, suspended and asked again.
fn begun(world: &mut World) -> Actor {
    let mut actor = Actor::new(world.name("a"));
    let name = actor.name.clone();
    world.insist_or(&["create", "actor", &name, "--template", "counter"], &["ALREADY_EXISTS"]);
    actor.count(world);
    actor.suspend(world, "suspend");
    actor
}

/// Everything is as it should be, and the actor goes.
fn ended(world: &mut World, mut actor: Actor) {
    actor.count(world);
    assert!(world.copies().is_none_or(|n| n == 1), "{:?} copies of {} are alive", world.copies(), actor.name);
    actor.suspend(world, "suspend");
    check::at_rest(world, &actor.name);
    world.insist_or(&["delete", "actor", &actor.name], &["NOT_FOUND"]);
}

/// Created, woken, suspended, woken again; what it leaves behind is collected.
fn life(world: &mut World, trigger: &Trigger) {
    let mut actor = if trigger.case.step.name.starts_with("create.") {
        trigger.arm(world);
        begun(world)
    } else {
        let actor = begun(world);
        trigger.arm(world);
        actor
    };
    actor.count(world);
    actor.suspend(world, "suspend");
    trigger.reached(world);
    ended(world, actor);
}

fn deleted(world: &mut World, trigger: &Trigger) {
    let mut actor = begun(world);
    actor.count(world);
    trigger.arm(world);
    world.insist_or(&["delete", "actor", &actor.name], &["NOT_FOUND"]);
    trigger.reached(world);
    world.insist_or(&["delete", "actor", &actor.name], &["NOT_FOUND"]);
    world.until("the actor to be gone", RECOVERY, |w| w.copies().is_none_or(|n| n == 0).then_some(()));
    let fresh = begun(world);
    ended(world, fresh);
}

/// Started from its image, with its durable directories.
fn booted(world: &mut World, trigger: &Trigger) {
    let mut actor = begun(world);
    trigger.arm(world);
    world.insist_or(&["resume", "actor", &actor.name, "--boot"], &["WRONG_STATE"]);
    trigger.reached(world);
    actor.note_losses(world);
    ended(world, actor);
}

/// Its herder dies under it and is replaced.
fn lost(world: &mut World, trigger: &Trigger) {
    let mut actor = begun(world);
    actor.count(world);
    trigger.arm(world);
    world::kill(&world::herders(world.machine().pid()));
    trigger.reached(world);
    ended(world, actor);
}

/// A worker refuses the start, and another takes it.
fn refused(world: &mut World, trigger: &Trigger) {
    let actor = begun(world);
    trigger.arm(world);
    world.arm("activate.worker.before", "error");
    world.insist(&["resume", "actor", &actor.name]);
    trigger.reached(world);
    ended(world, actor);
}

/// Its snapshot fails when it is nearly done, and the actor goes on.
fn runs_on(world: &mut World, trigger: &Trigger) {
    let mut actor = begun(world);
    actor.count(world);
    trigger.arm(world);
    // Both the node's own way back and the control plane's.
    let by_control = ["suspend.", "thaw."].iter().any(|p| trigger.case.step.name.starts_with(p));
    let failing = if by_control { "suspend.capture" } else { "capture.upload" };
    world.arm(&format!("{failing}.after"), "error");
    world.ate(&["suspend", "actor", &actor.name]);
    trigger.reached(world);
    actor.count(world);
    ended(world, actor);
}

fn golden(world: &mut World, trigger: &Trigger) {
    let name = world.name("t");
    let yaml = world.counter().line("idleTimeout: \"0\"").yaml(&name);
    trigger.arm(world);
    template(world, &name, &yaml, trigger);
}

/// A golden snapshot of an image whose layer was never here.
fn new_image(world: &mut World, trigger: &Trigger) {
    let name = world.name("t");
    let mark = world.machine().dir().join(&name);
    let mut layer = tar::Builder::new(Vec::new());
    let program = fs::File::open(crate::counter_program()).expect("the example actor");
    layer.append_file("counter", &mut { program }).expect("a layer");
    fs::write(&mark, &name).expect("a mark");
    layer.append_path_with_name(&mark, "mark").expect("a layer");
    let image =
        image::of_layer(&world.machine().dir().join(format!("image-{name}")), &layer.into_inner().expect("a layer"));
    let yaml = world.counter().image(image).line("idleTimeout: \"0\"").yaml(&name);
    trigger.arm(world);
    template(world, &name, &yaml, trigger);
}

/// A new template comes to be ready, and an actor of it lives.
fn template(world: &mut World, name: &str, yaml: &str, trigger: &Trigger) {
    world.insist_on(yaml);
    world.until(&format!("template {name} to be ready"), LONG, |w| {
        (w.look("template", name)?["status"]["phase"] == "Ready").then_some(())
    });
    trigger.reached(world);
    let mut actor = Actor::new(world.name("a"));
    world.insist_or(&["create", "actor", &actor.name, "--template", name], &["ALREADY_EXISTS"]);
    actor.count(world);
    ended(world, actor);
    world.insist_or(&["delete", "template", name], &["NOT_FOUND"]);
}

/// Binaries are brought from where a configuration says they are.
fn assets(world: &mut World, trigger: &Trigger) {
    let name = world.name("c");
    let dir = world.machine().dir().join(&name);
    fs::create_dir(&dir).expect("a directory");
    let mut archive = tar::Builder::new(Vec::new());
    fs::write(dir.join("mark"), &name).expect("a mark");
    archive.append_path_with_name(dir.join("mark"), "mark").expect("an archive");
    let bytes = archive.into_inner().expect("an archive");
    let tar = dir.join("vmm.tar");
    fs::write(&tar, &bytes).expect("write");
    let digest = hex::encode(Sha256::digest(&bytes));
    let plain = ["kernel", "initrd"].map(|asset| {
        let path = dir.join(asset);
        fs::write(&path, format!("{asset} of {name}")).expect("write");
        let digest = hex::encode(Sha256::digest(format!("{asset} of {name}")));
        format!("      {asset}: {{url: \"file://{}\", sha256: {digest}}}\n", path.display())
    });
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    trigger.arm(world);
    world.insist_on(&format!(
        "apiVersion: ate.dev/v1alpha1\nkind: SandboxConfig\nmetadata: {{name: {name}}}\nspec:\n  sandboxClass: microvm\n  \
         assets:\n    {arch}:\n      vmm: {{url: \"file://{}\", sha256: {digest}, mediaType: application/x-tar}}\n{}",
        tar.display(),
        plain.concat()
    ));
    trigger.reached(world);
    world.until("the archive to be verified and unpacked", LONG, |w| {
        let tree = w.machine().data().join(format!("node/assets/trees/sha256-{digest}/mark"));
        (fs::read_to_string(tree).ok()? == name).then_some(())
    });
    world.insist_or(&["delete", "sandboxconfig", &name], &["NOT_FOUND"]);
    let actor = begun(world);
    ended(world, actor);
}

fn another_configuration(world: &mut World) -> String {
    let (name, class) = (world.name("c"), world.kit.class);
    world.insist_on(&format!(
        "apiVersion: ate.dev/v1alpha1\nkind: SandboxConfig\nmetadata: {{name: {name}}}\nspec: {{sandboxClass: {class}}}\n"
    ));
    world.until("the configuration to be tried", LONG, |w| {
        let config = w.look("sandboxconfig", &name)?;
        let conditions = config["status"]["conditions"].as_array()?.clone();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True").then_some(())
    });
    name
}

/// An actor at rest is brought to another configuration.
fn rolled_out(world: &mut World, trigger: &Trigger) {
    let actor = begun(world);
    let to = another_configuration(world);
    trigger.arm(world);
    start_rollout(world, &to);
    rollout_is(world, "done");
    trigger.reached(world);
    rollout_is(world, "done");
    ended(world, actor);
}

fn undone(world: &mut World, trigger: &Trigger) {
    let actor = begun(world);
    let to = another_configuration(world);
    // The new golden snapshot is current, and nobody has moved yet.
    world.arm("rollout.passed.before", "hold");
    start_rollout(world, &to);
    let held = world.fired("rollout.passed.before");
    world.until("the rollout to be on its way", LONG, |_| held.exists().then_some(()));
    trigger.arm(world);
    let class = world.kit.class;
    world.insist(&["sandbox", "rollout", "undo", "--class", class]);
    let _ = fs::remove_file(held);
    trigger.reached(world);
    rollout_is(world, "undone");
    ended(world, actor);
}

fn start_rollout(world: &mut World, to: &str) {
    let class = world.kit.class;
    let start = ["sandbox", "rollout", "start", "--class", class, "--to", to, "--policy", "reboot"];
    // A former one has to be over first.
    let began = Instant::now();
    loop {
        let out = world.insist_or(&start, &["ROLLOUT_UNDER_WAY", "WRONG_STATE"]);
        let status = world.ate(&["sandbox", "rollout", "status", "--class", class]).stdout;
        if out.code == 0 || status.contains(to) {
            return;
        }
        assert!(began.elapsed() < LONG, "the rollout does not start: {}", out.stderr);
        thread::park_timeout(LOOK * 20);
    }
}

fn rollout_is(world: &mut World, phase: &str) {
    let class = world.kit.class;
    world.until(&format!("the rollout to be {phase}"), LONG, |w| {
        let out = w.ate(&["sandbox", "rollout", "status", "--class", class]);
        (out.code == 0 && out.stdout.contains(phase)).then_some(())
    });
}

/// Nothing happens but what the node does by itself.
fn collected(world: &mut World, trigger: &Trigger) {
    let actor = begun(world);
    trigger.arm(world);
    trigger.reached(world);
    ended(world, actor);
}

/// So that what `script/setup` provides is known to be there before anything starts.
pub fn provisions() {
    provided("images/counter");
    let _ = Template::default();
}
