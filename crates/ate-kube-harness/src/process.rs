//! A program that ends with the test that started it, whatever way that ends: a shell between the two waits for the end of
//! its standard input, which the test holds open and the kernel closes with it.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
};

/// The program's own words are its last argument list; `$DIR`, if it is not empty, goes with it.
const SHELL: &str = r#"
trap '' INT TERM HUP
exec 3<&0
"$@" <&- 3<&- &
program=$!
{ read -r _ <&3; kill -9 $program 2>/dev/null; } >&- 2>&- &
reader=$!
exec 3<&-
wait $program 2>/dev/null
kill -9 $reader 2>/dev/null
[ -z "$DIR" ] || rm -rf "$DIR"
"#;

pub(crate) struct Lifeline(Child);

impl Lifeline {
    /// `gone_with_it`: a directory to remove when it has ended.
    pub(crate) fn start(
        program: &Path,
        arguments: &[String],
        log: &Path,
        gone_with_it: Option<&Path>,
    ) -> Result<Lifeline, String> {
        let broken = |e: std::io::Error| format!("cannot start {}: {e}", program.display());
        let log = File::create(log).map_err(broken)?;
        let child = Command::new("sh")
            .args(["-c", SHELL, "sh"])
            .arg(program)
            .args(arguments)
            .env("DIR", gone_with_it.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(broken)?)
            .stderr(log)
            .spawn()
            .map_err(broken)?;
        Ok(Lifeline(child))
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().map_or(true, |ended| ended.is_some())
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
