//! One actor and what it may answer next.
//!
//! The example actor counts its requests and keeps a file. Whoever asks knows what was acknowledged; a request without an
//! answer may have been counted or not, and a loss that the system tells leads back to what was committed, so what is
//! known is a range. An answer outside of it is a byte lost (I6), a generation lost (I2) or two copies alive (I1).

use std::time::{Duration, Instant};

use super::world::{RECOVERY, World};
use crate::{
    http,
    user::{counted, host},
};

/// One try of a request.
const TRY: Duration = Duration::from_secs(20);

pub struct Actor {
    pub name: String,
    /// The count it may have now.
    low: u64,
    high: u64,
    /// The least that is committed.
    committed: u64,
    /// The highest count that was ever acknowledged.
    peak: u64,
    /// The number of the activation that answered last.
    pub activation: u64,
    lost: u64,
    /// Of the process, where memory is kept.
    nonce: Option<String>,
}

impl Actor {
    /// One that was never asked.
    pub fn new(name: String) -> Actor {
        Actor { name, low: 0, high: 0, committed: 0, peak: 0, activation: 0, lost: 0, nonce: None }
    }

    /// One more request, as often as it takes to be answered.
    #[track_caller]
    pub fn count(&mut self, world: &mut World) {
        let began = Instant::now();
        let body = loop {
            let limit = TRY.min(RECOVERY);
            match http::get(world.router(), &host(&self.name), "/", limit) {
                Ok(answer) if answer.status == 200 => break answer.body,
                answer => {
                    self.high += 1;
                    world.heal();
                    assert!(began.elapsed() < RECOVERY, "{} does not serve after {RECOVERY:?}: {answer:?}", self.name);
                    std::thread::park_timeout(Duration::from_millis(20));
                }
            }
        };
        assert!(body.contains(&format!(" name={} ", self.name)), "{} was answered by another: {body}", self.name);
        // Before the answer or after it: nobody can tell.
        let newly_lost = self.note_losses(world);
        let count = counted(&body).unwrap_or_else(|| panic!("no count in {body}"));
        assert!(
            self.low < count && count <= self.high + 1,
            "{} answered {count}, its last count was {}..={}, {} losses were told",
            self.name,
            self.low,
            self.high,
            self.lost
        );
        self.high = count;
        self.peak = self.peak.max(count);
        let activation = body.split_whitespace().find_map(|w| w.strip_prefix("activation=")?.parse().ok());
        let activation = activation.expect("the number of the activation");
        assert!(activation >= self.activation, "{}: an older copy answered: {body}", self.name);
        self.activation = activation;
        if !newly_lost {
            self.low = count;
        }
        if world.can("snapshot.full") {
            let nonce = body.split_whitespace().find_map(|w| w.strip_prefix("boot=")).expect("a nonce").to_owned();
            let kept = self.nonce.get_or_insert_with(|| nonce.clone());
            assert_eq!(*kept, nonce, "{} is another process than it was", self.name);
        }
        self.file(world, count);
    }

    /// The file says a count that was acknowledged, and none before what is committed. (It is written after the count was
    /// answered, so by a later activation if the former one dies in between.)
    #[track_caller]
    fn file(&mut self, world: &mut World, count: u64) {
        let began = Instant::now();
        let text = count.to_string();
        let host = host(&self.name);
        loop {
            let read = http::get(world.router(), &host, "/file", TRY);
            if let Ok(read) = &read
                && (read.status == 200 || read.status == 404)
            {
                let kept = if read.status == 200 { read.body.trim().parse::<u64>().expect("a number") } else { 0 };
                assert!(
                    kept <= self.peak && kept >= self.committed.min(count),
                    "{}: {kept} in the file, {count} in memory, {} committed",
                    self.name,
                    self.committed
                );
                if let Ok(written) = http::put(world.router(), &host, "/file", &text, TRY)
                    && written.status == 200
                {
                    return;
                }
            }
            world.heal();
            assert!(began.elapsed() < RECOVERY, "{}: no answer about its file: {read:?}", self.name);
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Suspends (or pauses) it, as often as it takes.
    #[track_caller]
    pub fn suspend(&mut self, world: &mut World, verb: &str) {
        let name = self.name.clone();
        // What is suspended already cannot be paused, and is more.
        world.insist_or(&[verb, "actor", &name], &["which is more than paused"]);
        self.note_losses(world);
        self.committed = self.low;
    }

    /// What was lost is told (an event and a number), and leads back to what was committed.
    #[track_caller]
    pub fn note_losses(&mut self, world: &mut World) -> bool {
        let name = self.name.clone();
        let status = world.until("the actor's status", RECOVERY, |w| w.look("actor", &name))["status"].clone();
        let lost = status["lostActivations"].as_u64().expect("a number of losses");
        let newly = lost > self.lost;
        if newly {
            let events = status["events"].to_string();
            assert!(events.contains("lost"), "a loss without a word: {status:#}");
            self.lost = lost;
            self.low = self.committed;
        }
        newly
    }
}
