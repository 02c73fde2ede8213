//! A release build has no failpoint in it. Compiled here as a release build is: without debug assertions.

use std::{env, ffi::OsString, fs, path::Path, process::Command};

const PROGRAM: &str = r#"
use ate_failpoint::{step, step_now};
use std::{future::Future, pin::pin, task::{Context, Waker}};

async fn work() -> Result<u32, std::io::Error> {
    let one = step!("secret.call", async { Ok::<_, std::io::Error>(1) }, repeatable)?;
    let two = step!("secret.held", async { Ok::<_, std::io::Error>(2) }, held)?;
    step!("secret.plain", async {}, plain);
    Ok(one + two + step_now!("secret.now", 3, plain))
}

fn main() {
    assert_eq!(ate_failpoint::VARIABLE, None);
    assert_eq!(ate_failpoint::period(std::time::Duration::from_secs(300)).as_secs(), 300);
    // Never pending: there is nothing to wait for in it.
    let done = pin!(work()).poll(&mut Context::from_waker(Waker::noop()));
    println!("{done:?}");
}
"#;

fn rustc(args: &[&str], dir: &Path) {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    let out = Command::new(rustc).args(["--edition", "2024", "-O"]).args(args).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn a_release_build_has_the_work_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    rustc(&["--crate-type", "rlib", "--crate-name", "ate_failpoint", &library.display().to_string()], dir.path());
    fs::write(dir.path().join("program.rs"), PROGRAM).unwrap();
    rustc(&["program.rs", "--extern", "ate_failpoint=libate_failpoint.rlib"], dir.path());

    let armed = dir.path().join("armed");
    for sub in ["armed", "fired"] {
        fs::create_dir(dir.path().join(sub)).unwrap();
    }
    for point in ["call.before", "call.after", "held.before", "plain.before", "now.before"] {
        fs::write(armed.join(format!("secret.{point}")), "abort").unwrap();
    }
    let program = dir.path().join("program");
    let out = Command::new(&program).env("ATE_FAILPOINTS", dir.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "Ready(Ok(6))\n", "{:?}", out.status);
    assert_eq!(fs::read_dir(armed).unwrap().count(), 5, "nobody looked");

    let bytes = fs::read(program).unwrap();
    for word in ["ATE_FAILPOINTS", "secret."] {
        assert!(!bytes.windows(word.len()).any(|w| w == word.as_bytes()), "{word} is in the program");
    }
}
