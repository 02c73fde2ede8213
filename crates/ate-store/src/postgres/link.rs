//! A connection for one purpose that is made anew when it broke.

use std::{ops::Deref, sync::Arc, time::Duration};

use tokio::sync::Mutex;
use tokio_postgres::{Client, Statement};

use super::{
    address::{Address, CONNECT},
    trouble::Trouble,
};

/// Pauses between attempts: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// Hints for the planner. A plan is made when a table is young and must still be right with a million records, and
/// every statement finds its rows by key. A server that does not know one of them goes on without.
const HINTS: [&str; 4] = [
    "SET enable_seqscan = off",
    "SET enable_bitmapscan = off",
    "SET plan_cache_mode = force_generic_plan",
    "SET jit = off",
];

pub(super) struct Connection {
    client: Client,
    pub(super) get: Statement,
    pub(super) list: Statement,
    pub(super) versions: Statement,
    pub(super) write: Statement,
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Connection {
    pub(super) async fn open(address: &Address) -> Result<Connection, Trouble> {
        let open = async {
            let client = address.connect().await?;
            for hint in HINTS {
                if let Err(Trouble::Broken(why)) = client.batch_execute(hint).await.map_err(Trouble::from) {
                    return Err(Trouble::Broken(why));
                }
            }
            let (get, list, versions, write) = tokio::try_join!(
                client.prepare(super::reads::GET),
                client.prepare(super::reads::LIST),
                client.prepare(super::writer::VERSIONS),
                client.prepare(super::writer::WRITE),
            )?;
            Ok(Connection { client, get, list, versions, write })
        };
        let late = || Trouble::Broken(format!("no connection within {} s", CONNECT.as_secs()));
        tokio::time::timeout(CONNECT, open).await.unwrap_or_else(|_| Err(late()))
    }
}

pub(super) struct Link {
    address: Arc<Address>,
    current: Mutex<Option<Arc<Connection>>>,
}

impl Link {
    pub(super) fn new(address: Arc<Address>) -> Link {
        Link { address, current: Mutex::new(None) }
    }

    /// The connection there is, or a new one.
    pub(super) async fn get(&self) -> Result<Arc<Connection>, Trouble> {
        let mut current = self.current.lock().await;
        match &*current {
            Some(connection) if !connection.is_closed() => Ok(connection.clone()),
            _ => {
                *current = None;
                let made = Arc::new(Connection::open(&self.address).await?);
                *current = Some(made.clone());
                Ok(made)
            }
        }
    }

    /// This one is of no use any more.
    pub(super) async fn discard(&self, broken: &Arc<Connection>) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|c| Arc::ptr_eq(c, broken)) {
            *current = None;
        }
    }

    /// The answer to what is asked on a connection. One that broke, or says nothing for so long, is of no use any more.
    pub(super) async fn answer<T>(
        &self,
        connection: &Arc<Connection>,
        limit: Duration,
        asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Trouble> {
        let answer = match tokio::time::timeout(limit, asked).await {
            Ok(answer) => answer.map_err(Trouble::from),
            Err(_) => Err(Trouble::Broken("no answer in time".to_owned())),
        };
        if let Err(Trouble::Broken(_)) = answer {
            self.discard(connection).await;
        }
        answer
    }
}

/// How long to wait before the next attempt.
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Backoff {
        Backoff(FIRST_PAUSE)
    }

    pub(super) async fn pause(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LAST_PAUSE);
    }
}
