//! A light load: requests to many actors from several threads, each of which knows what its actors must answer next.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    http,
    user::{ANSWER, counted, host},
};

/// What came of it.
#[derive(Debug, Default)]
pub struct Tally {
    pub requests: usize,
    /// Every request that got no answer, another one than 200, or one that does not follow the one before it.
    pub failed: Vec<String>,
}

/// Requests that go on until [`Load::end`].
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tally>>,
}

impl Load {
    /// `actors` keep their count in a durable directory, each with the last number it answered. Every one is asked by one
    /// thread only, so its numbers go up by one.
    pub fn begin(router: SocketAddr, actors: &[(String, u64)], threads: usize, pause: Duration) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..threads)
            .map(|n| {
                let mine: Vec<_> = actors.iter().skip(n).step_by(threads).cloned().collect();
                let stop = stop.clone();
                std::thread::spawn(move || ask(router, mine, pause, &stop))
            })
            .collect();
        Load { stop, threads }
    }

    pub fn end(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for thread in self.threads {
            let one = thread.join().expect("a thread of the load");
            all.requests += one.requests;
            all.failed.extend(one.failed);
        }
        all
    }
}

fn ask(router: SocketAddr, mut actors: Vec<(String, u64)>, pause: Duration, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed) && !actors.is_empty() {
        for (actor, last) in &mut actors {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            tally.requests += 1;
            let answer = http::get(router, &host(actor), "/", ANSWER);
            match answer.as_ref().map(|a| (a.status, counted(&a.body))) {
                Ok((200, Some(count))) if count == *last + 1 => *last = count,
                Ok((200, Some(count))) => {
                    tally.failed.push(format!("{actor}: {count} after {last}"));
                    *last = count;
                }
                _ => tally.failed.push(format!("{actor}: {answer:?}")),
            }
            std::thread::park_timeout(pause);
        }
    }
    tally
}
