//! What a kubelet and a network plugin do for a worker's pod: a network namespace with an address, and in it the real
//! herder, started as a pod's container is.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::ip;

/// The network of a pod: a namespace with an address. Dropped: nothing is left of it.
pub struct Network {
    pub address: Ipv4Addr,
    /// Its name, as `ip netns` has it.
    pub namespace: String,
    link: String,
}

/// A pod with its herder. Dropped: killed, and nothing is left of it.
pub struct Pod {
    pub uid: String,
    /// What it shares with the node, below the node's data directory.
    pub dir: PathBuf,
    program: PathBuf,
    herder: Option<Child>,
    pub network: Network,
}

impl Network {
    /// With names and a /30 that no other process on this machine can have.
    pub fn start() -> Network {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Relaxed);
        let subnet = std::process::id().wrapping_mul(64).wrapping_add(count) % (1 << 18);
        let base = u32::from(Ipv4Addr::new(10, 112, 0, 0)) + subnet * 4;
        let (host, address) = (Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 2));
        let (namespace, link) = (format!("atepod{subnet}"), format!("pd{subnet}"));
        ip(&["netns", "add", &namespace]);
        ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &namespace]);
        ip(&["address", "add", &format!("{host}/30"), "dev", &link]);
        ip(&["link", "set", &link, "up"]);
        ip(&["-n", &namespace, "address", "add", &format!("{address}/30"), "dev", "eth0"]);
        ip(&["-n", &namespace, "link", "set", "eth0", "up"]);
        ip(&["-n", &namespace, "route", "add", "default", "via", &host.to_string()]);
        Network { address, namespace, link }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The one end takes the other along.
        let _ = Command::new("ip").args(["link", "delete", &self.link]).stderr(Stdio::null()).status();
        let _ = Command::new("ip").args(["netns", "delete", &self.namespace]).stderr(Stdio::null()).status();
    }
}

impl Pod {
    /// `data_dir` is the node's, `uid` the pod's.
    pub fn start(program: &Path, data_dir: &Path, uid: &str) -> Pod {
        let dir = data_dir.join("workers").join(uid);
        let network = Network::start();
        let mut pod = Pod { uid: uid.to_owned(), dir, program: program.to_owned(), herder: None, network };
        pod.start_herder();
        pod
    }

    /// As the kubelet does with a container that ended.
    pub fn start_herder(&mut self) {
        self.kill_herder();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.network.namespace]).arg(&self.program).args(["serve", "--pod"]);
        command.arg("--socket").arg(self.dir.join("driver.sock")).arg("--work-dir").arg(self.dir.join("work"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.herder = Some(command.spawn().unwrap());
    }

    /// SIGTERM: the container is asked to end.
    pub fn ask_to_end(&self) {
        crate::kill("-TERM", self.herder.as_ref().unwrap().id());
    }

    /// How the herder ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.herder.as_mut().and_then(|herder| herder.try_wait().unwrap())
    }

    /// Waits for that.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < end, "the herder did not end within {limit:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn kill_herder(&mut self) {
        if let Some(mut herder) = self.herder.take() {
            let _ = herder.kill();
            let _ = herder.wait();
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.kill_herder();
    }
}
