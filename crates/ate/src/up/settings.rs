//! The settings of `ate up`: from flags, environment and a TOML file, in this order of weight, then defaults.

use std::{net::SocketAddr, path::PathBuf};

use ate_api::{Error, Reason};
use ate_node::network::Cidr;
use clap::Args;
use serde::Deserialize;

use crate::{
    connection::{DATA_DIR_ENV, DEFAULT_DATA_DIR},
    failure::{Outcome, Trying as _},
};

const DEFAULT_LISTEN: &str = "127.0.0.1:7600";
const DEFAULT_ROUTER_LISTEN: &str = "127.0.0.1:8000";

/// What may be set, in flags and in the file alike. Absent means: ask the next source.
#[derive(Args, Deserialize, Debug, Default, Clone, PartialEq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Given {
    /// Where everything is kept [default: /var/lib/ate].
    #[arg(long, env = DATA_DIR_ENV, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the API for callers with a token: HOST:PORT or unix:/PATH [default: 127.0.0.1:7600].
    #[arg(long, env = "ATE_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<Listen>,
    /// Certificate of the API (PEM, with what leads to its root); needed beyond this machine.
    #[arg(long, env = "ATE_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, env = "ATE_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Make a certificate in the data directory instead.
    #[arg(long, env = "ATE_TLS_SELF_SIGNED", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub tls_self_signed: Option<bool>,
    /// Further names and addresses it is made for. May be repeated.
    #[arg(long, env = "ATE_TLS_NAME", value_delimiter = ',', value_name = "NAME")]
    pub tls_name: Vec<String>,
    /// Address of the router, where actors are reached over HTTP [default: 127.0.0.1:8000].
    #[arg(long, env = "ATE_ROUTER_LISTEN", value_name = "ADDRESS")]
    pub router_listen: Option<SocketAddr>,
    /// Where templates whose snapshot location is "default" keep suspended actors [default: in the data directory].
    #[arg(long, env = "ATE_OBJECTS_DIR", value_name = "DIR")]
    pub objects_dir: Option<PathBuf>,
    /// Where the herders (programs ateom-CLASS) are [default: beside this program].
    #[arg(long, env = "ATE_HERDER_DIR", value_name = "DIR")]
    pub herder_dir: Option<PathBuf>,
    /// Addresses of workers [default: 100.64.0.0/10].
    #[arg(long, env = "ATE_WORKER_CIDR", value_name = "CIDR")]
    pub worker_cidr: Option<String>,
    /// Whether actors may reach what this machine reaches [default: true].
    #[arg(long, env = "ATE_EGRESS", value_name = "BOOL")]
    pub egress: Option<bool>,
    /// Make nothing on a first start.
    #[arg(long)]
    #[serde(skip)]
    pub empty: bool,
    /// Workers of the pool that a first start makes [default: one for each core, at least 2].
    #[arg(long, env = "ATE_WORKERS", value_name = "N")]
    pub workers: Option<u32>,
    /// What to log, for example info or ate_control=debug [default: warn].
    #[arg(long, env = "ATE_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// File that is created, with the addresses in it, as soon as requests are served.
    #[arg(long, env = "ATE_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// Where the API listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl std::str::FromStr for Listen {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s.strip_prefix("unix:") {
            Some(path) => Ok(Listen::Unix(path.trim_start_matches("//").into())),
            None => s.parse().map(Listen::Tcp).map_err(|_| "write HOST:PORT with a numeric host, or unix:/PATH".into()),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = String;
    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

impl Listen {
    /// Whether others than this machine can reach it.
    fn is_wide(&self) -> bool {
        matches!(self, Listen::Tcp(address) if !address.ip().is_loopback())
    }
}

/// How the API's address is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tls {
    Off,
    Files {
        cert: PathBuf,
        key: PathBuf,
    },
    /// Made here, also for these names.
    SelfSigned(Vec<String>),
}

impl Tls {
    fn of(
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
        self_signed: bool,
        names: Vec<String>,
        listen: &Listen,
    ) -> Result<Tls, Error> {
        let invalid = |message: String| Err(Error::new(Reason::Invalid, message));
        match (cert, key, self_signed) {
            (Some(cert), Some(key), false) => Ok(Tls::Files { cert, key }),
            (None, None, true) => Ok(Tls::SelfSigned(names)),
            (None, None, false) => match listen {
                Listen::Tcp(address) if listen.is_wide() => Err(Error::new(
                    Reason::Invalid,
                    format!("{address} can be reached from other machines, unencrypted"),
                )
                .hint("give --tls-cert and --tls-key, or --tls-self-signed, or listen on 127.0.0.1")),
                _ => Ok(Tls::Off),
            },
            (_, _, true) => {
                invalid("--tls-self-signed makes a certificate, so --tls-cert and --tls-key go without it".into())
            }
            _ => invalid("--tls-cert and --tls-key need each other".into()),
        }
    }
}

/// What holds after all sources were asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub data_dir: PathBuf,
    pub listen: Listen,
    pub tls: Tls,
    pub router_listen: SocketAddr,
    pub objects_dir: PathBuf,
    pub herder_dir: PathBuf,
    pub worker_cidr: Cidr,
    pub egress: bool,
    pub empty: bool,
    pub workers: u32,
    pub log: String,
    pub ready_file: Option<PathBuf>,
}

impl Settings {
    /// `flags` hold flags and, where a flag is absent, the environment.
    pub(crate) fn resolve(flags: Given, file: Option<&std::path::Path>) -> Outcome<Settings> {
        let file = match file {
            None => Given::default(),
            Some(path) => {
                let what = || format!("cannot use the configuration {}", path.display());
                let text = std::fs::read_to_string(path).trying(what)?;
                let invalid = |e: toml::de::Error| Error::new(Reason::Invalid, e.to_string().trim_end().to_owned());
                toml::from_str(&text).map_err(invalid).trying(what)?
            }
        };
        let data_dir = flags.data_dir.or(file.data_dir).unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        let absolute = |dir: PathBuf| std::path::absolute(&dir).trying(|| format!("cannot use {}", dir.display()));
        let data_dir = absolute(data_dir)?;
        let address = |text: &str| text.parse().map_err(|e| Error::new(Reason::Internal, format!("{e}")));
        let listen = match flags.listen.or(file.listen) {
            Some(listen) => listen,
            None => Listen::Tcp(address(DEFAULT_LISTEN).trying(String::new)?),
        };
        let tls = Tls::of(
            flags.tls_cert.or(file.tls_cert),
            flags.tls_key.or(file.tls_key),
            flags.tls_self_signed.or(file.tls_self_signed).unwrap_or(false),
            if flags.tls_name.is_empty() { file.tls_name } else { flags.tls_name },
            &listen,
        );
        Ok(Settings {
            tls: tls.trying(|| "cannot use --listen".to_owned())?,
            listen,
            router_listen: match flags.router_listen.or(file.router_listen) {
                Some(listen) => listen,
                None => address(DEFAULT_ROUTER_LISTEN).trying(String::new)?,
            },
            objects_dir: absolute(flags.objects_dir.or(file.objects_dir).unwrap_or_else(|| data_dir.join("objects")))?,
            herder_dir: match flags.herder_dir.or(file.herder_dir) {
                Some(dir) => dir,
                None => own_dir(),
            },
            worker_cidr: match flags.worker_cidr.or(file.worker_cidr) {
                None => Cidr::DEFAULT,
                Some(text) => text
                    .parse()
                    .map_err(|e: <Cidr as std::str::FromStr>::Err| Error::new(Reason::Invalid, e.to_string()))
                    .trying(|| "cannot use --worker-cidr".to_owned())?,
            },
            egress: flags.egress.or(file.egress).unwrap_or(true),
            empty: flags.empty,
            workers: flags.workers.or(file.workers).unwrap_or_else(cores),
            log: flags.log.or(file.log).unwrap_or_else(|| "warn".to_owned()),
            ready_file: flags.ready_file.or(file.ready_file),
            data_dir,
        })
    }
}

/// Where this program is; the herders are installed beside it.
pub(crate) fn own_dir() -> PathBuf {
    ate_sandbox::registry::directories(None).pop().unwrap_or_else(|| "/usr/local/bin".into())
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(2, |n| n.get() as u32).max(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_outweighs_the_file_and_the_file_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ate.toml");
        std::fs::write(&file, "data-dir = \"/from/file\"\nlisten = \"unix:/run/ate.sock\"\nworkers = 7\n").unwrap();
        let flags = Given { data_dir: Some("/from/flag".into()), ..Default::default() };
        let settings = Settings::resolve(flags, Some(&file)).unwrap();
        assert_eq!(settings.data_dir, PathBuf::from("/from/flag"));
        assert_eq!(settings.listen, Listen::Unix("/run/ate.sock".into()));
        assert_eq!(settings.workers, 7);
        assert_eq!(settings.router_listen, DEFAULT_ROUTER_LISTEN.parse().unwrap());
        assert_eq!(settings.objects_dir, PathBuf::from("/from/flag/objects"));
    }

    #[test]
    fn beyond_this_machine_nothing_is_served_unencrypted() {
        let with = |listen: &str, change: fn(&mut Given)| {
            let mut given = Given { listen: Some(listen.parse().unwrap()), ..Default::default() };
            change(&mut given);
            Settings::resolve(given, None).map(|s| s.tls)
        };
        for wide in ["0.0.0.0:7600", "[::]:7600", "192.168.1.1:7600"] {
            let failure = with(wide, |_| ()).unwrap_err();
            assert!(failure.code() == 2 && format!("{failure:?}").contains("--tls-self-signed"), "{failure:?}");
            assert_eq!(with(wide, |g| g.tls_self_signed = Some(true)).unwrap(), Tls::SelfSigned(Vec::new()));
        }
        for near in ["127.0.0.1:7600", "[::1]:7600", "unix:/run/ate.sock"] {
            assert_eq!(with(near, |_| ()).unwrap(), Tls::Off);
        }
        assert!(with("0.0.0.0:1", |g| g.tls_cert = Some("/c".into())).is_err());
        let both = |g: &mut Given| (g.tls_cert, g.tls_key) = (Some("/c".into()), Some("/k".into()));
        assert_eq!(with("0.0.0.0:1", both).unwrap(), Tls::Files { cert: "/c".into(), key: "/k".into() });
    }

    #[test]
    fn a_mistyped_key_or_address_in_the_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["data_dri = \"/x\"", "listen = \"everywhere\"", "workers = -1"] {
            let file = dir.path().join("ate.toml");
            std::fs::write(&file, text).unwrap();
            assert_eq!(Settings::resolve(Given::default(), Some(&file)).unwrap_err().code(), 2, "{text}");
        }
    }
}
