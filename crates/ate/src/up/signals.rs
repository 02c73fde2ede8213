//! SIGINT and SIGTERM: the first asks for an orderly end, the second ends at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Outcome, Trying as _};

/// Exit code of a program that a signal ended before its time, as shells give it.
pub(crate) const INTERRUPTED: u8 = 130;

pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on the signals no longer end the process by themselves.
    pub(crate) fn listen() -> Outcome<Signals> {
        let of = |kind| signal(kind).trying(|| "cannot listen to signals".to_owned());
        Ok(Signals { interrupt: of(SignalKind::interrupt())?, terminate: of(SignalKind::terminate())? })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// The next signal ends the process where it stands; herders notice that by themselves.
    pub(crate) fn end_at_next(mut self) {
        tokio::spawn(async move {
            self.next().await;
            eprintln!("ending at once");
            std::process::exit(INTERRUPTED.into());
        });
    }
}
