//! One simulated worker: the same states, and the same refusals, as the node's.

use std::net::IpAddr;

use ate_agent::{Captured, Held, HeldStage, WorkerPhase, WorkerReport};
use ate_api::{
    Error, Reason,
    id::{Activation, ActorName, Digest, Uid},
};

use super::storage::Content;

/// One activation.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub(crate) actor: ActorName,
    pub(crate) uid: Uid,
    pub(crate) activation: Activation,
    pub(crate) content: Content,
    /// What its snapshots may rest on.
    pub(crate) base: Option<Digest>,
}

impl Life {
    fn is(&self, uid: &Uid, activation: Activation) -> bool {
        self.uid == *uid && self.activation == activation
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Seat {
    Idle,
    Starting(Life),
    Running(Life),
    Capturing(Life, u64),
    Frozen(Life, u64, Box<Captured>),
    /// The start failed or the actor ended. Waits for its release.
    Failed(Life, Error),
    Cleaning(Life),
}

/// What a repeated or a late call finds.
pub(crate) enum Found<T> {
    /// It is for the caller to do it.
    New,
    UnderWay,
    Done(T),
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) report: WorkerReport,
    pub(crate) seat: Seat,
    /// A late start of an activation that was released must not take the seat again (I1).
    pub(crate) released: Option<(Uid, Activation)>,
    /// Leaves when it is idle.
    pub(crate) retires: bool,
}

impl Worker {
    pub(crate) fn life(&self) -> Option<&Life> {
        match &self.seat {
            Seat::Idle => None,
            Seat::Starting(l)
            | Seat::Running(l)
            | Seat::Capturing(l, _)
            | Seat::Frozen(l, ..)
            | Seat::Failed(l, _)
            | Seat::Cleaning(l) => Some(l),
        }
    }

    pub(crate) fn holds(&self) -> Option<Held> {
        let stage = match &self.seat {
            Seat::Idle | Seat::Cleaning(_) => return None,
            Seat::Starting(_) => HeldStage::Starting,
            Seat::Running(_) => HeldStage::Running,
            Seat::Capturing(_, generation) | Seat::Frozen(_, generation, _) => {
                HeldStage::Captured { generation: *generation }
            }
            Seat::Failed(..) => HeldStage::Over,
        };
        self.life().map(|l| Held { actor: l.uid.clone(), activation: l.activation, stage })
    }

    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.seat, Seat::Idle)
    }

    pub(crate) fn phase(&self) -> WorkerPhase {
        match self.report.phase {
            WorkerPhase::Starting => WorkerPhase::Starting,
            _ if self.is_idle() => WorkerPhase::Ready,
            _ => WorkerPhase::Busy,
        }
    }

    pub(crate) fn start(&mut self, life: Life) -> Result<Found<IpAddr>, Error> {
        if self.released.as_ref().is_some_and(|(uid, n)| *uid == life.uid && life.activation <= *n) {
            return Err(fenced("this activation was released already"));
        }
        let same = self.life().is_some_and(|l| l.is(&life.uid, life.activation));
        match &self.seat {
            Seat::Idle => {
                self.seat = Seat::Starting(life);
                Ok(Found::New)
            }
            Seat::Starting(_) if same => Ok(Found::UnderWay),
            Seat::Running(_) if same => Ok(Found::Done(self.report.address)),
            Seat::Failed(_, e) if same => Err(e.clone()),
            Seat::Cleaning(_) => Err(wrong_state()),
            _ if same => Err(wrong_state()),
            _ => Err(fenced("the worker holds another activation")),
        }
    }

    /// The start that was begun has come to its end. False: the worker was released meanwhile.
    pub(crate) fn started(&mut self, uid: &Uid, activation: Activation, outcome: Result<(), Error>) -> bool {
        match &self.seat {
            Seat::Starting(l) if l.is(uid, activation) => {
                self.seat = match outcome {
                    Ok(()) => Seat::Running(l.clone()),
                    Err(e) => Seat::Failed(l.clone(), e),
                };
                true
            }
            _ => false,
        }
    }

    fn must_hold(&self, uid: &Uid, activation: Activation) -> Result<(), Error> {
        let held = self.life().is_some_and(|l| l.activation == activation && l.uid == *uid);
        if held { Ok(()) } else { Err(fenced("the worker does not hold this activation")) }
    }

    pub(crate) fn begin_capture(
        &mut self,
        uid: &Uid,
        activation: Activation,
        generation: u64,
    ) -> Result<Found<Captured>, Error> {
        self.must_hold(uid, activation)?;
        match &self.seat {
            Seat::Running(l) => {
                self.seat = Seat::Capturing(l.clone(), generation);
                Ok(Found::New)
            }
            Seat::Capturing(_, g) if *g == generation => Ok(Found::UnderWay),
            Seat::Frozen(_, g, captured) if *g == generation => Ok(Found::Done((**captured).clone())),
            _ => Err(wrong_state()),
        }
    }

    /// False: the capture was called off meanwhile.
    pub(crate) fn end_capture(
        &mut self,
        uid: &Uid,
        activation: Activation,
        n: u64,
        captured: Option<Captured>,
    ) -> bool {
        match &self.seat {
            Seat::Capturing(l, g) if *g == n && l.is(uid, activation) => {
                self.seat = match captured {
                    Some(captured) => Seat::Frozen(l.clone(), n, Box::new(captured)),
                    None => Seat::Running(l.clone()),
                };
                true
            }
            _ => false,
        }
    }

    /// Returns a finished capture that is now void.
    pub(crate) fn thaw(
        &mut self,
        actor: &Uid,
        activation: Activation,
        generation: u64,
    ) -> Result<Option<Captured>, Error> {
        self.must_hold(actor, activation)?;
        match &self.seat {
            Seat::Running(_) => Ok(None),
            Seat::Capturing(_, g) | Seat::Frozen(_, g, _) if *g != generation => Err(fenced("another capture")),
            Seat::Capturing(l, _) => {
                self.seat = Seat::Running(l.clone());
                Ok(None)
            }
            Seat::Frozen(l, _, captured) => {
                let void = (**captured).clone();
                self.seat = Seat::Running(l.clone());
                Ok(Some(void))
            }
            _ => Err(wrong_state()),
        }
    }

    pub(crate) fn release(&mut self, uid: &Uid, activation: Activation) -> Result<Found<()>, Error> {
        if self.life().is_some_and(|l| l.uid != *uid || activation < l.activation) {
            return Err(fenced("the worker holds another activation"));
        }
        if self.released.as_ref().is_none_or(|(held, n)| held != uid || *n < activation) {
            self.released = Some((uid.clone(), activation));
        }
        match &self.seat {
            Seat::Idle => Ok(Found::Done(())),
            Seat::Cleaning(_) => Ok(Found::UnderWay),
            Seat::Starting(l) | Seat::Running(l) | Seat::Capturing(l, _) | Seat::Frozen(l, ..) | Seat::Failed(l, _) => {
                self.seat = Seat::Cleaning(l.clone());
                Ok(Found::New)
            }
        }
    }
}

pub(crate) fn fenced(message: &str) -> Error {
    Error::new(Reason::Fenced, message)
}

fn wrong_state() -> Error {
    Error::new(Reason::WrongState, "not in this state of the worker")
}
