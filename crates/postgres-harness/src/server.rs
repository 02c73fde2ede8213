//! The server: made, started, restarted in the middle of its work, and gone in the end.

use std::{
    fs::Permissions,
    io::Write,
    net::{Ipv4Addr, TcpListener},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// Where Debian puts each version of the server.
const VERSIONS: &str = "/usr/lib/postgresql";
/// `nobody` and `nogroup`, on every Debian.
const UNPRIVILEGED: (u32, u32) = (65534, 65534);
const SUPERUSER: &str = "postgres";
/// Longest the server may take to start, also after it was killed in the middle of writing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the server until stdin ends, which is when whoever started this is gone, and removes everything. Each line kills
/// the server as in a power cut; `restart` starts it again with what is on disk, `leave` leaves that there.
const GUARDIAN: &str = r#"
exec 1>&-
word=restart
while [ "$word" = restart ]; do
  "$1" -D "$2/data" >>"$2/log" 2>&1 &
  server=$!
  word=
  read -r word
  kill -QUIT "$server" 2>/dev/null
  wait "$server"
done
[ "$word" = leave ] || rm -rf "$2"
"#;

/// What a server is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tuning {
    /// As small as it can be. Syncs what it commits all the same.
    Test,
    /// As somebody would run it for very many actors on a small machine.
    Bench,
}

impl Tuning {
    fn settings(self) -> &'static str {
        match self {
            Tuning::Test => "shared_buffers = 32MB\nmax_connections = 100\n",
            Tuning::Bench => {
                "shared_buffers = 2GB\nmax_connections = 50\nwal_compression = lz4\nmax_wal_size = 8GB\n\
                 checkpoint_timeout = 15min\nwal_buffers = 64MB\n"
            }
        }
    }
}

/// A running server. Dropping it ends it and removes its directory.
pub struct Server {
    directory: PathBuf,
    programs: PathBuf,
    port: u16,
    guardian: Mutex<Option<Child>>,
    databases: AtomicU32,
}

impl Server {
    /// Makes a new, empty server in the system's directory for temporary files and starts it.
    ///
    /// # Panics
    /// When there is no PostgreSQL on this machine, or it does not start.
    pub fn start(tuning: Tuning) -> Server {
        let programs = programs();
        let directory =
            tempfile::Builder::new().prefix("ate-postgres-").tempdir().expect("a temporary directory").keep();
        if is_root() {
            chown(&directory, Some(UNPRIVILEGED.0), Some(UNPRIVILEGED.1)).expect("chown");
        }
        let mut server =
            Server { directory, programs, port: 0, guardian: Mutex::default(), databases: AtomicU32::new(0) };
        let data = server.data();
        let mut initdb = Command::new(server.programs.join("initdb"));
        initdb.args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        initdb.args(["--username", SUPERUSER, "-D", &data]).stdin(Stdio::null());
        output("initdb", server.unprivileged(&mut initdb));
        // Another process may take the port before the server does.
        for attempt in 1.. {
            server.port = free_port();
            let settings = format!(
                "{}port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n",
                tuning.settings(),
                server.port
            );
            let conf = Path::new(&data).join("postgresql.auto.conf");
            std::fs::write(&conf, settings).expect("the server's settings are written");
            let guardian = server.launch();
            *server.guardian() = Some(guardian);
            if server.started().is_some() {
                break;
            }
            assert!(attempt < 5, "the server does not start: {}", server.log());
            server.end("leave");
        }
        server
    }

    /// URL of a new, empty database.
    pub fn database(&self) -> String {
        let name = format!("d{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(self.port, &name)
    }

    /// From now on new connections may be encrypted, with this certificate and key (PEM).
    ///
    /// # Panics
    /// When the server does not take them.
    pub fn use_certificate(&self, certificate: &str, key: &str) {
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = Path::new(&self.data()).join(name);
            std::fs::write(&path, text).expect("the certificate is written");
            // The server refuses a key that others may read.
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("chmod");
            if is_root() {
                chown(&path, Some(UNPRIVILEGED.0), Some(UNPRIVILEGED.1)).expect("chown");
            }
        }
        self.sql("postgres", "ALTER SYSTEM SET ssl = on");
        let before = self.sql("postgres", "SELECT pg_conf_load_time()");
        self.sql("postgres", "SELECT pg_reload_conf()");
        let until = Instant::now() + PATIENCE;
        while self.sql("postgres", "SELECT pg_conf_load_time()") == before {
            assert!(Instant::now() < until, "the certificate was not taken: {}", self.log());
        }
    }

    /// Removes a database with all that is in it, and ends the connections there are.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn drop_database(&self, url: &str) {
        let (_, name) = url.rsplit_once('/').expect("a URL of ours");
        self.sql("postgres", &format!("DROP DATABASE {name} WITH (FORCE)"));
    }

    /// URL of the same database through another port.
    pub fn through(&self, url: &str, proxy: &crate::Proxy) -> String {
        let (_, name) = url.rsplit_once('/').expect("a URL of ours");
        self.url(proxy.port(), name)
    }

    fn url(&self, port: u16, database: &str) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{port}/{database}")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server dies as in a power cut, and starts again with what is on disk.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn restart(&self) {
        let before = self.started();
        self.tell("restart");
        let until = Instant::now() + PATIENCE;
        while self.started() == before {
            assert!(Instant::now() < until, "the server does not come back: {}", self.log());
        }
    }

    /// All connections are ended, except the one that asks for it.
    pub fn end_connections(&self) {
        self.sql(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
        );
    }

    /// Runs a statement as an administrator, and returns what it prints.
    ///
    /// # Panics
    /// When the server refuses it.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        output("psql", &mut self.psql(database, statement))
    }

    fn launch(&self) -> Child {
        let mut guardian = Command::new("sh");
        guardian.args(["-c", GUARDIAN, "sh"]).arg(self.programs.join("postgres")).arg(&self.directory);
        guardian.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        self.unprivileged(&mut guardian).spawn().expect("sh runs")
    }

    /// When the server that answers started. `None`: it does not, as when its port was taken.
    fn started(&self) -> Option<String> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let mut asked = self.psql("postgres", "SHOW data_directory; SELECT pg_postmaster_start_time()");
            let said = asked.stderr(Stdio::null()).output().expect("psql runs");
            if said.status.success() {
                let said = String::from_utf8_lossy(&said.stdout).into_owned();
                // Somebody else's server may answer on a port that ours did not get.
                return said.starts_with(&format!("{}\n", self.data())).then_some(said);
            }
            if self.log().contains("could not create any TCP/IP sockets") {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    fn psql(&self, database: &str, statement: &str) -> Command {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", SUPERUSER, "-d", database]);
        psql.args(["-qtAX", "-v", "ON_ERROR_STOP=1", "-c", statement]).stdin(Stdio::null());
        psql
    }

    fn unprivileged<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if is_root() {
            command.gid(UNPRIVILEGED.1).uid(UNPRIVILEGED.0);
        }
        // Where this process is, that user may not be allowed to be.
        command.current_dir(&self.directory)
    }

    fn tell(&self, word: &str) {
        if let Some(stdin) = self.guardian().as_mut().and_then(|guardian| guardian.stdin.as_mut()) {
            let _ = writeln!(stdin, "{word}");
        }
    }

    fn end(&self, word: &str) {
        self.tell(word);
        if let Some(mut guardian) = self.guardian().take() {
            let _ = guardian.wait();
        }
    }

    fn guardian(&self) -> MutexGuard<'_, Option<Child>> {
        self.guardian.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn data(&self) -> String {
        self.file("data")
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end("remove");
        // It is gone already, unless its guardian was killed.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn output(name: &str, command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|e| panic!("{name} does not run: {e}"));
    assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// The newest version there is.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let newest = versions.filter_map(|v| v.file_name().to_str()?.parse::<u32>().ok()).max();
    let newest = newest.unwrap_or_else(|| panic!("no PostgreSQL below {VERSIONS}: script/setup installs it"));
    Path::new(VERSIONS).join(newest.to_string()).join("bin")
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("loopback").port()
}
