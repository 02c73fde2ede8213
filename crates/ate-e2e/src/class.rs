//! A sandbox class on a node: its configuration admitted, and what it says that it can do.

use std::{io::Write as _, ops::Deref, time::Duration};

use crate::{Kit, Node, Template, User, given::Room, kit::Binaries, node, until};

/// Binaries are fetched, verified and asked, on a machine that is busy with others.
const PROBED: Duration = Duration::from_secs(120);

pub struct Class {
    kit: &'static Kit,
    /// Name of its configuration.
    config: String,
    capabilities: Vec<String>,
    template: Template,
}

impl Class {
    /// Brings the binaries in and waits until they have been tried.
    pub fn admitted(node: &Node, kit: &'static Kit) -> Class {
        import(node, kit, &kit.versions[0]);
        let capabilities = until("the configuration to be tried", PROBED, || {
            let status = node.get("sandboxconfig", kit.class)["status"].clone();
            let ready = status["conditions"].as_array()?.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
            let words = status["capabilities"].as_array()?.iter();
            ready.then(|| words.filter_map(|w| w.as_str().map(str::to_owned)).collect())
        });
        Class { kit, config: kit.class.to_owned(), capabilities, template: Template::default() }
    }

    /// A pool with the name of the class, that names its configuration: a class need not have a default one.
    pub fn add_pool(&self, node: &Node, workers: u32) {
        let class = self.kit.class;
        let lines = format!("  sandboxClass: {class}\n  sandboxConfigName: {class}\n");
        node.apply(&node::pool(class, workers, &lines)).ok();
    }

    /// Whether the class says that it can do this.
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|c| c == capability)
    }

    /// The same for a promise that is about nothing else: says that it is skipped if not.
    pub fn has(&self, capability: &str) -> bool {
        let can = self.can(capability);
        if !can {
            skipped(&format!("class {} does not report {capability}", self.kit.class));
        }
        can
    }

    /// The example actor, keeping its count in memory whatever the class can keep.
    pub fn plain(&self) -> Template {
        self.template.clone().class(self.kit.class)
    }

    /// The same, keeping its count in what the class can keep: memory, or else its directory.
    pub fn counter(&self) -> Template {
        if self.can("snapshot.full") { self.plain() } else { self.plain().data().env("KEEP_COUNT", "1") }
    }
}

/// Binaries as the configuration with the name of the class; a further version makes a further revision.
fn import(node: &Node, kit: &Kit, binaries: &Binaries) {
    let class = kit.class;
    match binaries.arguments() {
        Some(arguments) => {
            let mut all = vec!["sandbox", "import", "--class", class, "--name", class];
            all.extend(arguments.iter().map(String::as_str));
            node.ate(&all).ok();
        }
        None => {
            let head = format!("apiVersion: ate.dev/v1alpha1\nkind: SandboxConfig\nmetadata: {{name: {class}}}\n");
            node.apply(&format!("{head}spec: {{sandboxClass: {class}}}\n")).ok();
        }
    }
}

/// One class, a pool of it, and a space to use it in: on a node of the test's own, or in a cluster that is given.
pub struct Site {
    place: Place,
    class: Class,
}

enum Place {
    Machine(Box<Node>),
    Cluster(Room),
}

impl Deref for Site {
    type Target = User;

    fn deref(&self) -> &User {
        match &self.place {
            Place::Machine(node) => node,
            Place::Cluster(room) => room.user(),
        }
    }
}

impl Site {
    pub fn start(kit: &'static Kit, workers: u32) -> Site {
        let Some(cluster) = kit.cluster else { return Site::on(Node::start(), kit, workers) };
        let room = Room::new(cluster);
        let (config, capabilities) = room.default_config();
        let class = Class { kit, config, capabilities, template: room.template() };
        room.add_pool(workers);
        room.user().workers_ready(workers as usize);
        Site { place: Place::Cluster(room), class }
    }

    /// On a node with nothing configured.
    pub fn on(node: Node, kit: &'static Kit, workers: u32) -> Site {
        node.ate(&["create", "atespace", "default"]).ok();
        let class = Class::admitted(&node, kit);
        class.add_pool(&node, workers);
        node.workers_ready(workers as usize);
        Site { place: Place::Machine(Box::new(node)), class }
    }

    /// With a template `counter` of [`Class::counter`] whose actors are not suspended for being idle.
    #[track_caller]
    pub fn with_counter(self) -> Self {
        self.ready("counter", &self.counter().line("idleTimeout: \"0\""));
        self
    }

    /// The node, for what only a test with a machine of its own may do.
    pub fn machine(&self) -> &Node {
        match &self.place {
            Place::Machine(node) => node,
            Place::Cluster(_) => panic!("a cluster that is given has others in it"),
        }
    }

    /// The same, to end it or start it again.
    pub fn node(&mut self) -> &mut Node {
        match &mut self.place {
            Place::Machine(node) => node,
            Place::Cluster(_) => panic!("a cluster that is given has others in it"),
        }
    }

    /// The namespace, in a cluster.
    pub fn room(&self) -> &Room {
        match &self.place {
            Place::Cluster(room) => room,
            Place::Machine(_) => panic!("this is a promise about clusters"),
        }
    }

    /// Applies a template and waits for its golden snapshot.
    #[track_caller]
    pub fn ready(&self, name: &str, template: &Template) {
        self.template(&template.yaml(name), name);
    }

    /// Makes another version of the binaries the one in force.
    pub fn import(&self, binaries: &Binaries) {
        import(self.machine(), self.class.kit, binaries);
    }

    pub fn can(&self, capability: &str) -> bool {
        self.class.can(capability)
    }

    pub fn has(&self, capability: &str) -> bool {
        self.class.has(capability)
    }

    /// Name of the configuration of the class.
    pub fn config(&self) -> &str {
        &self.class.config
    }

    pub fn plain(&self) -> Template {
        self.class.plain()
    }

    pub fn counter(&self) -> Template {
        self.class.counter()
    }
}

/// Tells whoever runs the tests: what is printed, the test harness keeps.
pub fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
