//! Who may write: a lease in the database, for one process at a time, with a number that grows with each holder.
//!
//! The lease runs by the database's clock, so clocks of machines need not agree. Its holder counts from before it asked
//! for a renewal, so it gives up before anybody else may begin. That alone would not be safe (a process can stand still
//! between looking at the clock and writing), so every commit also checks the number, in the statement that writes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, task::JoinHandle};
use tokio_postgres::{Row, types::ToSql};

use super::{
    link::{Backoff, Connection, Link},
    schema,
    term::Term,
    trouble::Trouble,
};
use crate::StoreError;

/// How long nobody else may lead after the last renewal.
const LEASE: Duration = Duration::from_secs(10);
/// The holder gives up so much earlier, to be gone when the next one begins.
const MARGIN: Duration = Duration::from_secs(1);
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// Longest one question may take before it is asked again on another connection.
const ANSWER: Duration = Duration::from_secs(2);
/// How often a process that waits looks whether it may lead.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Longest a step down may hold up the end of a process; without it the lease just runs out.
const STEP_DOWN: Duration = Duration::from_secs(2);

const IS_FREE: &str = "SELECT expires < clock_timestamp() FROM ate_state";
const ACQUIRE: &str = "
    UPDATE ate_state SET epoch = epoch + 1, turn = 0, holder = $1, expires = clock_timestamp() + $2 * interval '1 millisecond'
    WHERE expires < clock_timestamp() RETURNING epoch";
const RENEW: &str = "
    UPDATE ate_state SET expires = clock_timestamp() + $2 * interval '1 millisecond' WHERE epoch = $1 RETURNING epoch";
/// The number is used up too: what was sent and is under way must not be written after this.
const STEP_DOWN_NOW: &str = "
    UPDATE ate_state SET epoch = epoch + 1, holder = '', expires = clock_timestamp() - interval '1 second'
    WHERE epoch = $1 RETURNING epoch";

/// Leadership of this process. Dropping it steps down in the background.
pub struct Lease {
    term: Arc<Term>,
    /// Asks the keeper to step down; also when dropped.
    stop: oneshot::Sender<()>,
    keeper: JoinHandle<()>,
}

impl Lease {
    /// Returns when this process does not lead any more. The store it came with writes nothing from then on, and what the
    /// process knows of the world grows old: it should end.
    pub async fn lost(&self) {
        self.term.over().await;
    }

    /// Ends the leadership; the next process takes over at once.
    pub async fn step_down(self) {
        drop(self.stop);
        // It logs what goes wrong, and the lease runs out by itself.
        let _ = tokio::time::timeout(STEP_DOWN, self.keeper).await;
    }
}

/// Waits until this process leads, however long the database is away meanwhile.
pub(super) async fn acquire(link: Link, holder: &str) -> Result<(Arc<Term>, Lease), StoreError> {
    let mut backoff = Backoff::new();
    let (term, good_until) = loop {
        match try_acquire(&link, holder).await {
            Ok(Some(acquired)) => break acquired,
            Ok(None) => {
                backoff = Backoff::new();
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(Trouble::Refused(e)) => return Err(e),
            Err(trouble) => {
                tracing::warn!("cannot ask who leads: {trouble}");
                backoff.pause().await;
            }
        }
    };
    tracing::info!(holder, epoch = term.epoch, "leads from now on");
    let (stop, stopped) = oneshot::channel();
    let keeper = tokio::spawn(keep(link, term.clone(), good_until, stopped));
    Ok((term.clone(), Lease { term, stop, keeper }))
}

async fn try_acquire(link: &Link, holder: &str) -> Result<Option<(Arc<Term>, Instant)>, Trouble> {
    let connection = link.get().await?;
    // Looked at without a lock first: those who wait must not be in the way of the one who writes.
    if !ask(link, &connection, IS_FREE, &[]).await?.is_some_and(|row| row.get(0)) {
        return Ok(None);
    }
    let found: i32 = ask(link, &connection, schema::VERSION, &[]).await?.map_or(0, |row| row.get(0));
    if found > schema::known() {
        let why = format!("the database has schema {found}, which is newer than this program");
        return Err(Trouble::Refused(StoreError::Unavailable(why)));
    }
    let asked = Instant::now();
    let row = ask(link, &connection, ACQUIRE, &[&holder, &millis(LEASE)]).await?;
    Ok(row.map(|row| (Arc::new(Term::new(row.get(0))), asked + LEASE - MARGIN)))
}

/// Renews until it is asked to step down, or until the lease is lost.
async fn keep(link: Link, term: Arc<Term>, mut good_until: Instant, mut stopped: oneshot::Receiver<()>) {
    let mut next = Instant::now() + RENEW_EVERY;
    loop {
        tokio::select! {
            biased;
            // The store is gone, or its writer found that another process leads; then stepping down changes nothing.
            () = term.over() => return step_down(&link, &term, good_until).await,
            _ = &mut stopped => return step_down(&link, &term, good_until).await,
            () = tokio::time::sleep_until(good_until.into()) => {
                tracing::error!(epoch = term.epoch, "the lease could not be renewed in time");
                break;
            }
            () = tokio::time::sleep_until(next.into()) => {
                let asked = Instant::now();
                match renewal(&link, good_until, RENEW, &[&term.epoch, &millis(LEASE)]).await {
                    Ok(true) => {
                        good_until = asked + LEASE - MARGIN;
                        next = asked + RENEW_EVERY;
                    }
                    Ok(false) => {
                        tracing::error!(epoch = term.epoch, "another process leads");
                        break;
                    }
                    Err(trouble) => {
                        tracing::warn!("cannot renew the lease: {trouble}");
                        next = Instant::now() + LOOK_EVERY;
                    }
                }
            }
        }
    }
    term.end();
}

async fn step_down(link: &Link, term: &Term, good_until: Instant) {
    term.end();
    match renewal(link, good_until, STEP_DOWN_NOW, &[&term.epoch]).await {
        Ok(_) => tracing::info!(epoch = term.epoch, "leads no more"),
        Err(trouble) => tracing::warn!("could not step down, the lease will run out: {trouble}"),
    }
}

/// Whether the lease was still ours.
async fn renewal(
    link: &Link,
    good_until: Instant,
    statement: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<bool, Trouble> {
    let renew = async {
        let connection = link.get().await?;
        Ok(ask(link, &connection, statement, parameters).await?.is_some())
    };
    match tokio::time::timeout_at(good_until.into(), renew).await {
        Ok(renewed) => renewed,
        Err(_) => Err(Trouble::Broken("no connection in time".to_owned())),
    }
}

async fn ask(
    link: &Link,
    connection: &Arc<Connection>,
    statement: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Option<Row>, Trouble> {
    // If it takes too long and a lease was acquired by it after all, nobody leads until that has run out.
    link.answer(connection, ANSWER, connection.query_opt(statement, parameters)).await
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
