//! Callers that resume and suspend, and how long they waited.

use std::time::{Duration, Instant};

use ate_api::{
    Error,
    ateapi::{ActorRef, ResumeActorRequest, SuspendActorRequest, control_client::ControlClient},
};

use super::{Figures, Load, connect, preload};

/// Callers that share one connection, as a router's would.
const PER_CONNECTION: usize = 8;

pub(super) async fn run(load: &Load, url: &str, preload_s: f64) -> Result<Figures, Error> {
    let begin = Instant::now() + load.warm_up;
    let end = begin + load.duration;
    let mut callers = Vec::new();
    let mut channel = connect(url).await?;
    for caller in 0..load.concurrency {
        if caller > 0 && caller % PER_CONNECTION == 0 {
            channel = connect(url).await?;
        }
        let client = ControlClient::new(channel.clone());
        callers.push(tokio::spawn(cycle(client, caller, load.concurrency, load.actors, begin, end)));
    }
    let (mut resumes, mut suspends) = (Vec::new(), Vec::new());
    for caller in callers {
        let (r, s) = caller.await.map_err(|e| super::broken(&e))??;
        resumes.extend(r);
        suspends.extend(s);
    }
    resumes.sort_unstable();
    suspends.sort_unstable();
    Ok(Figures {
        actors: load.actors,
        concurrency: load.concurrency,
        cycles: suspends.len(),
        cycles_per_s: suspends.len() as f64 / load.duration.as_secs_f64(),
        resume_p50_ms: percentile(&resumes, 50),
        resume_p95_ms: percentile(&resumes, 95),
        suspend_p50_ms: percentile(&suspends, 50),
        suspend_p95_ms: percentile(&suspends, 95),
        preload_s,
    })
}

type Times = (Vec<Duration>, Vec<Duration>);

/// One caller goes over its share of the actors in a scattered order, so that nothing is read twice in a row.
async fn cycle(
    mut client: ControlClient<tonic::transport::Channel>,
    caller: usize,
    callers: usize,
    actors: usize,
    begin: Instant,
    end: Instant,
) -> Result<Times, Error> {
    let share = (actors / callers).max(1);
    let (mut resumes, mut suspends) = (Vec::new(), Vec::new());
    // A stride that is prime to any share size that is not a multiple of it visits every actor once a round.
    let mut at = caller * 7919;
    while Instant::now() < end {
        at += 7919;
        let name = preload::name((at % share) * callers + caller);
        let reference = Some(ActorRef { atespace: name.atespace, name: name.name });
        let t0 = Instant::now();
        client
            .resume_actor(ResumeActorRequest { actor_ref: reference.clone(), boot: false })
            .await
            .map_err(|s| Error::from(&s))?;
        let t1 = Instant::now();
        client.suspend_actor(SuspendActorRequest { actor_ref: reference }).await.map_err(|s| Error::from(&s))?;
        let t2 = Instant::now();
        if t0 >= begin && t2 <= end {
            resumes.push(t1 - t0);
            suspends.push(t2 - t1);
        }
    }
    Ok((resumes, suspends))
}

/// In milliseconds.
fn percentile(sorted: &[Duration], p: usize) -> f64 {
    let i = (sorted.len() * p / 100).min(sorted.len().saturating_sub(1));
    sorted.get(i).map_or(f64::NAN, |d| d.as_secs_f64() * 1000.0)
}
