//! Getting a worker: at once, or from the queue before the deadline.

use std::{sync::Arc, time::Instant};

use ate_api::{Error, Reason, id::WorkerId};

use crate::{
    core::Core,
    scheduler::{Claim, Need, Offer},
    workflow::{start::being_deleted, turns::Flight},
};

impl Core {
    pub(crate) async fn claim_worker(
        &self,
        need: &Arc<Need>,
        exclude: &[WorkerId],
        flight: &Flight,
    ) -> Result<Claim, Error> {
        let mut ticket = match self.scheduler.claim(need, exclude)? {
            Offer::Now(claim) => return Ok(claim),
            Offer::Later(ticket) => ticket,
        };
        loop {
            // Later callers of the same flight may have moved its deadline.
            let deadline = flight.deadline();
            let failure = tokio::select! {
                claim = &mut ticket.claim => match claim {
                    Ok(claim) => return Ok(claim),
                    Err(_) => no_free_worker(need),
                },
                () = flight.cancelled() => being_deleted(),
                () = self.stop.cancelled() => Error::new(Reason::Unavailable, "the server is shutting down"),
                () = tokio::time::sleep_until(deadline.into()) => {
                    if Instant::now() < flight.deadline() {
                        continue;
                    }
                    no_free_worker(need)
                }
            };
            // A worker handed over in this very moment is taken rather than lost.
            return self.scheduler.leave(ticket).ok_or(failure);
        }
    }
}

fn no_free_worker(need: &Need) -> Error {
    Error::new(Reason::NoFreeWorker, "no worker became free in time")
        .on(format!("actor/{}", need.actor))
        .hint("try again later, give the pool more replicas, or suspend an actor")
}
