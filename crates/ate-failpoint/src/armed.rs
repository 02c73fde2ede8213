//! What happens at a point, in debug builds.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use crate::Injected;

pub(crate) const VARIABLE: &str = "ATE_FAILPOINTS";
pub(crate) const PERIOD: Duration = Duration::from_secs(1);
pub(crate) const AGE: Duration = Duration::from_secs(5);
/// How often a point that holds looks whether it may go on.
const LOOK: Duration = Duration::from_millis(2);

fn dir() -> Option<&'static Path> {
    static DIR: OnceLock<Option<PathBuf>> = OnceLock::new();
    DIR.get_or_init(|| std::env::var_os(VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from)).as_deref()
}

pub fn in_use() -> bool {
    dir().is_some()
}

/// What a point that was armed is to do, besides ending the process, which is done here.
enum Fault {
    Error,
    /// Until this file is gone.
    Hold(PathBuf),
}

/// Takes the fault of a point, if there is one.
fn fault(name: &str, side: &str) -> Option<Fault> {
    let dir = dir()?;
    let point = format!("{name}.{side}");
    let fired = dir.join("fired").join(&point);
    fs::rename(dir.join("armed").join(&point), &fired).ok()?;
    let word = fs::read_to_string(&fired).unwrap_or_default();
    eprintln!("failpoint {point}: {}", word.trim());
    match word.trim() {
        "abort" => std::process::abort(),
        "hold" => Some(Fault::Hold(fired)),
        _ => Some(Fault::Error),
    }
}

/// True: an error is to be returned.
async fn reach(name: &str, side: &str) -> bool {
    match fault(name, side) {
        None => false,
        Some(Fault::Error) => true,
        Some(Fault::Hold(fired)) => {
            while fired.exists() {
                tokio::time::sleep(LOOK).await;
            }
            false
        }
    }
}

fn reach_now(name: &str, side: &str) -> bool {
    match fault(name, side) {
        None => false,
        Some(Fault::Error) => true,
        Some(Fault::Hold(fired)) => {
            while fired.exists() {
                std::thread::sleep(LOOK);
            }
            false
        }
    }
}

fn injected<T, E: Injected>(name: &str, side: &str) -> Result<T, E> {
    Err(E::injected(&format!("{name}.{side}")))
}

pub async fn before<T, E: Injected>(name: &str) -> Option<Result<T, E>> {
    reach(name, "before").await.then(|| injected(name, "before"))
}

/// Reached by steps that succeeded.
pub async fn after<T, E: Injected>(name: &str, done: Result<T, E>) -> Result<T, E> {
    if done.is_ok() && reach(name, "after").await { injected(name, "after") } else { done }
}

pub async fn pass(name: &str, side: &str) {
    reach(name, side).await;
}

pub fn before_now<T, E: Injected>(name: &str) -> Option<Result<T, E>> {
    reach_now(name, "before").then(|| injected(name, "before"))
}

pub fn after_now<T, E: Injected>(name: &str, done: Result<T, E>) -> Result<T, E> {
    if done.is_ok() && reach_now(name, "after") { injected(name, "after") } else { done }
}

pub fn pass_now(name: &str, side: &str) {
    reach_now(name, side);
}

pub fn again(name: &str) -> bool {
    fault(name, "twice").is_some()
}
