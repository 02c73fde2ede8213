//! Of which templates new actors are expected: those of which there were some lately. For them a standby is worth the
//! memory it takes.

use std::{
    collections::HashMap,
    sync::PoisonError,
    time::{Duration, Instant},
};

use ate_api::id::Uid;

use crate::core::Core;

/// New actors come in sessions of a user or a test, with pauses of minutes between them. Longer, and idle machines hold
/// restored memory for nobody.
const EXPECTED_FOR: Duration = Duration::from_secs(10 * 60);
/// Templates remembered; more than one machine has workers for.
const REMEMBERED: usize = 256;

/// When a new actor of each template was last wanted: created, started from the golden snapshot, or that one made.
#[derive(Debug, Default)]
pub(crate) struct Demand(HashMap<Uid, Instant>);

impl Demand {
    /// True: it was not expected before.
    fn note(&mut self, template: &Uid, now: Instant) -> bool {
        let new = !self.expects(template, now);
        if new && self.0.len() >= REMEMBERED {
            self.0.retain(|_, at| now.saturating_duration_since(*at) < EXPECTED_FOR);
            if self.0.len() >= REMEMBERED {
                return false;
            }
        }
        self.0.insert(template.clone(), now);
        new
    }

    fn expects(&self, template: &Uid, now: Instant) -> bool {
        self.0.get(template).is_some_and(|at| now.saturating_duration_since(*at) < EXPECTED_FOR)
    }
}

impl Core {
    /// A new actor of the template was wanted, so others may be. Idle workers are looked at if that is news.
    pub(crate) fn note_demand(&self, template: &Uid) {
        let news = self.demand.lock().unwrap_or_else(PoisonError::into_inner).note(template, Instant::now());
        if news {
            self.scheduler.idle.notify_one();
        }
    }

    pub(crate) fn expects_new(&self, template: &Uid) -> bool {
        self.demand.lock().unwrap_or_else(PoisonError::into_inner).expects(template, Instant::now())
    }

    /// A standby could not be made: not tried again before the next new actor.
    pub(crate) fn forget_demand(&self, template: &Uid) {
        self.demand.lock().unwrap_or_else(PoisonError::into_inner).0.remove(template);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_actors_are_expected_for_a_while_after_the_last_one() {
        let (mut demand, template, start) = (Demand::default(), Uid::generate(), Instant::now());
        assert!(!demand.expects(&template, start));
        assert!(demand.note(&template, start));
        assert!(!demand.note(&template, start + EXPECTED_FOR / 2), "no news");
        assert!(demand.expects(&template, start + EXPECTED_FOR), "counted from the last");
        assert!(!demand.expects(&template, start + EXPECTED_FOR * 2));
        assert!(!demand.expects(&Uid::generate(), start));
    }

    #[test]
    fn the_memory_of_templates_does_not_grow_for_ever() {
        let (mut demand, start) = (Demand::default(), Instant::now());
        for _ in 0..REMEMBERED * 2 {
            demand.note(&Uid::generate(), start);
        }
        assert_eq!(demand.0.len(), REMEMBERED);
        assert!(demand.note(&Uid::generate(), start + EXPECTED_FOR), "old ones make room");
        assert_eq!(demand.0.len(), 1);
    }
}
