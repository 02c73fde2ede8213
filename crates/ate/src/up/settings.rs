//! The settings of `ate up`: from flags, environment and a TOML file, in this order of weight, then defaults.

use std::{net::SocketAddr, path::PathBuf};

use ate_api::{Error, Reason};
use ate_node::network::Cidr;
use clap::Args;
use serde::Deserialize;

use crate::failure::{Outcome, Trying as _};

pub(crate) const DEFAULT_DATA_DIR: &str = "/var/lib/ate";
const DEFAULT_LISTEN: &str = "127.0.0.1:7600";
const DEFAULT_ROUTER_LISTEN: &str = "127.0.0.1:8000";

/// What may be set, in flags and in the file alike. Absent means: ask the next source.
#[derive(Args, Deserialize, Debug, Default, Clone, PartialEq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Given {
    /// Where everything is kept [default: /var/lib/ate].
    #[arg(long, env = "ATE_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the API: HOST:PORT or unix:/PATH [default: 127.0.0.1:7600].
    #[arg(long, env = "ATE_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<Listen>,
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

/// What holds after all sources were asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub data_dir: PathBuf,
    pub listen: Listen,
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
        Ok(Settings {
            listen: match flags.listen.or(file.listen) {
                Some(listen) => listen,
                None => Listen::Tcp(address(DEFAULT_LISTEN).trying(String::new)?),
            },
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
    fn a_mistyped_key_or_address_in_the_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["data_dri = \"/x\"", "listen = \"everywhere\"", "workers = -1"] {
            let file = dir.path().join("ate.toml");
            std::fs::write(&file, text).unwrap();
            assert_eq!(Settings::resolve(Given::default(), Some(&file)).unwrap_err().code(), 2, "{text}");
        }
    }
}
