//! What a worker is doing, and for whom. A seat is free, taken, or being cleaned (I3).

use ate_agent::Captured;
use ate_api::Error;

use super::seat::{Reply, Seat, Started};

pub(super) enum State {
    Idle,
    Starting {
        seat: Box<Seat>,
        waiters: Vec<Reply<Started>>,
    },
    Running {
        seat: Box<Seat>,
        started: Started,
    },
    Capturing {
        seat: Box<Seat>,
        started: Started,
        generation: u64,
    },
    Frozen {
        seat: Box<Seat>,
        started: Started,
        generation: u64,
        captured: Box<Captured>,
    },
    /// The start failed or the actor ended. Waits for its release.
    Failed {
        seat: Box<Seat>,
        error: Error,
    },
    Cleaning {
        seat: Box<Seat>,
        waiters: Vec<Reply<()>>,
    },
}

impl State {
    pub(super) fn seat(&self) -> Option<&Seat> {
        match self {
            State::Idle => None,
            State::Starting { seat, .. }
            | State::Running { seat, .. }
            | State::Capturing { seat, .. }
            | State::Frozen { seat, .. }
            | State::Failed { seat, .. }
            | State::Cleaning { seat, .. } => Some(seat),
        }
    }

    pub(super) fn word(&self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Starting { .. } => "starting an actor",
            State::Running { .. } => "running an actor",
            State::Capturing { .. } => "taking a snapshot",
            State::Frozen { .. } => "frozen",
            State::Failed { .. } => "waiting for its release",
            State::Cleaning { .. } => "being cleaned",
        }
    }
}
