//! Where attacks are tried: a node with an actor that runs, one that sleeps, an idle worker with a sandbox started ahead, and
//! a template whose author has the bucket in hand.

use std::{
    collections::BTreeSet,
    fs,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Stopped, forge, machines, payload, tar::Tar};
use crate::{
    Class, Node, RUNSC_A, Template, eventually,
    footprint::{running, sandboxes},
    kit, provided, runsc, until, user,
};

/// The node's view of itself settles within this.
pub(super) const SETTLED: Duration = Duration::from_secs(60);
/// Runs all the time.
const WITNESS: &str = "witness";
/// Wakes up after every attack.
const BYSTANDER: &str = "bystander";

pub struct Range {
    node: Node,
    /// Nothing but the payload writes here, and what escapes from an archive.
    marks: PathBuf,
    counts: [u64; 2],
}

impl Deref for Range {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl DerefMut for Range {
    fn deref_mut(&mut self) -> &mut Node {
        &mut self.node
    }
}

impl Range {
    pub fn start() -> Range {
        let mut range = Range::on(Node::with_pool(2));
        let admitted = payload::make(range.dir(), "admitted", &range.marks);
        range.the_alarm_works(&admitted, &["--class", "gvisor", &format!("runsc={}", admitted.display())]);
        let prey = Template::default().line("idleTimeout: \"0\"");
        range.template(&range.in_the_bucket(&prey.yaml("prey")), "prey");
        let disk = Template::default().data().env("KEEP_COUNT", "1").line("idleTimeout: \"0\"");
        range.template(&range.in_the_bucket(&disk.yaml("disk")), "disk");
        forge::all(&mut range);
        range.populated()
    }

    /// The same with machines, and without a bucket.
    pub fn of_machines() -> Range {
        let range = Range::on(Node::start());
        range.ate(&["create", "atespace", "default"]).ok();
        let class = Class::admitted(&range, &kit::MICROVM);
        class.add_pool(&range, 2);
        range.workers_ready(2);
        let admitted = payload::make(range.dir(), "admitted", &range.marks);
        let bundle = range.dir().join("admitted.tar");
        let tar = Tar::default().file(machines::LOADER, &fs::read(&admitted).expect("the payload"));
        fs::write(&bundle, tar.bytes()).expect("write the archive");
        let from = provided("microvm/7.2").display().to_string();
        let vmm = format!("vmm={}", bundle.display());
        range.the_alarm_works(&admitted, &["--class", "microvm", "--from", &from, &vmm]);
        range.template(&class.counter().line("idleTimeout: \"0\"").yaml("prey"), "prey");
        range.populated()
    }

    fn on(node: Node) -> Range {
        let marks = node.dir().join("marks");
        fs::create_dir(&marks).expect("a directory for marks");
        Range { node, marks, counts: [0; 2] }
    }

    fn populated(mut self) -> Range {
        for actor in [WITNESS, BYSTANDER] {
            self.actor(actor, "prey");
        }
        self.is_unharmed();
        self
    }

    /// The payload does leave a mark when it is let in, so that no mark means that it was not executed.
    fn the_alarm_works(&self, admitted: &Path, assets: &[&str]) {
        let import = ["sandbox", "import", "--name", "admitted", "--no-wait"];
        self.ate(&[&import, assets].concat()).ok();
        eventually("the payload to leave its mark", SETTLED, || !self.marks().is_empty());
        self.ate(&["delete", "sandboxconfig", "admitted"]).ok();
        // Its probe asks more than once.
        eventually("the payload to be gone", SETTLED, || running(admitted).is_empty());
        for mark in self.marks() {
            fs::remove_file(self.marks.join(mark)).expect("remove a mark");
        }
    }

    /// A template whose snapshots go where its author can write.
    fn in_the_bucket(&self, yaml: &str) -> String {
        yaml.replacen("location: default", &format!("location: \"file://{}\"", self.bucket().display()), 1)
    }

    /// The folder the template's author chose.
    pub(super) fn bucket(&self) -> PathBuf {
        self.data().join("objects/team")
    }

    /// The place of an actor's current snapshot in the bucket.
    pub(super) fn snapshot_dir(&self, actor: &str) -> PathBuf {
        let uid = self.uid(actor);
        let dirs = fs::read_dir(self.bucket().join("actors").join(uid)).expect("the actor's snapshots");
        let mut dirs: Vec<_> = dirs.flatten().map(|d| d.path()).collect();
        dirs.sort();
        dirs.pop().expect("a snapshot")
    }

    pub(super) fn uid(&self, actor: &str) -> String {
        self.get("actor", actor)["metadata"]["uid"].as_str().expect("a uid").to_owned()
    }

    /// Digest of the manifest of an actor's current snapshot.
    pub(super) fn snapshot_of(&self, actor: &str) -> String {
        self.get("actor", actor)["status"]["snapshot"].as_str().expect("a snapshot").to_owned()
    }

    /// The node's own copy of a snapshot is no longer there: it was collected, or it is another node.
    pub(super) fn forget(&self, manifest: &str) {
        fs::remove_dir_all(self.data().join("node/snapshots").join(manifest)).expect("the node's copy");
    }

    pub(super) fn marks_dir(&self) -> &Path {
        &self.marks
    }

    fn marks(&self) -> BTreeSet<String> {
        let marks = fs::read_dir(&self.marks).expect("the marks").flatten();
        marks.map(|m| m.file_name().to_string_lossy().into_owned()).collect()
    }

    /// The attacker's program, never admitted.
    pub(super) fn evil(&self) -> PathBuf {
        let path = self.dir().join("evil");
        if path.exists() { path } else { payload::make(self.dir(), "evil", &self.marks) }
    }

    /// Where the node has the binary everybody runs under.
    pub(super) fn runsc(&self) -> PathBuf {
        self.data().join(format!("node/assets/files/sha256-{}", payload::digest(&runsc(RUNSC_A))))
    }

    /// An actor of the attacked template that was used once and sleeps.
    pub(super) fn sleeper(&self, name: &str) {
        self.asleep(name, "prey");
    }

    pub(super) fn asleep(&self, name: &str, template: &str) {
        self.actor(name, template);
        assert_eq!(self.count(name), 1);
        self.ate(&["suspend", "actor", name]).ok();
    }

    /// The actor does not wake up, for this reason and with this exit code; no sandbox was started or given anything
    /// for it.
    #[track_caller]
    pub(super) fn refuses(&self, actor: &str, reason: &'static str, code: i32) -> Stopped {
        let before = self.warm();
        let stopped = self.refuses_late(actor, reason, code);
        assert_eq!(sandboxes(&self.node), before, "a sandbox was started or used for {actor}");
        stopped
    }

    /// The same where the herder is asked, because it is the one who refuses.
    #[track_caller]
    pub(super) fn refuses_late(&self, actor: &str, reason: &'static str, code: i32) -> Stopped {
        let out = self.ate(&["resume", "actor", actor]);
        let said = format!("{}{}", out.stdout, out.stderr);
        assert!(
            out.code == code && said.contains(&format!("reason: {reason}\n")),
            "{} is not {code}: {said}",
            out.code
        );
        assert_ne!(self.get("actor", actor)["status"]["phase"], "Running");
        Stopped::Refused(reason)
    }

    /// Waits until every idle worker has a sandbox started ahead, and says which ones there are.
    pub(super) fn warm(&self) -> BTreeSet<(u32, u64)> {
        until("the idle workers to be warm", SETTLED, || {
            let workers = self.list("workers");
            let mut free = workers.iter().filter(|w| w["status"]["phase"] == "Free");
            free.all(|w| w["status"]["prepared"].is_string()).then(|| sandboxes(&self.node))
        })
    }

    /// Nothing of the attacker's was executed or written, the actor that runs goes on and another one wakes up.
    #[track_caller]
    pub(super) fn is_unharmed(&mut self) {
        assert_eq!(self.marks(), BTreeSet::new(), "the attacker left marks");
        self.workers_ready(1);
        for (i, actor) in [WITNESS, BYSTANDER].into_iter().enumerate() {
            self.counts[i] += 1;
            assert_eq!(self.count(actor), self.counts[i], "{actor}");
        }
        self.ate(&["suspend", "actor", BYSTANDER]).ok();
        self.phase(WITNESS, "Running");
    }

    /// Waits for a word in the status of an object that was applied.
    #[track_caller]
    pub(super) fn told(&self, kind: &str, name: &str, reason: &'static str) -> Stopped {
        eventually(&format!("{kind}/{name} to say {reason}"), user::ANSWER, || {
            self.get(kind, name).to_string().contains(reason)
        });
        Stopped::Refused(reason)
    }

    /// A command that must fail for this reason and with this exit code.
    #[track_caller]
    pub(super) fn refused(&self, out: crate::Output, reason: &'static str, code: i32) -> Stopped {
        let said = format!("{}{}", out.stdout, out.stderr);
        assert!(out.code == code && said.contains(reason), "{} is not {code}, or not {reason}: {said}", out.code);
        Stopped::Refused(reason)
    }
}
