//! What each of many actors may answer next, while nobody waits for one before the next is asked.
//!
//! Actors are suspended when the node sees fit, so what is committed follows from the number of the activation that
//! answers: a new one, and no loss told, means that all the former one had acknowledged was committed.

use std::collections::HashMap;

use crate::user::counted;

#[derive(Debug, Clone, Default)]
pub struct Account {
    low: u64,
    high: u64,
    committed: u64,
    activation: u64,
    lost: u64,
    nonce: String,
}

/// What the node told of losses, asked after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Losses {
    pub told: u64,
    /// How many of them may be of the activation that answered, or of later ones.
    pub since: u64,
}

impl Losses {
    /// By the status of the actor, asked after `activation` had answered.
    pub fn of(status: &serde_json::Value, activation: u64) -> Option<Losses> {
        let over = u64::from(status["phase"] != "Running");
        let since = status["activation"].as_u64()?.saturating_sub(activation) + over;
        Some(Losses { told: status["lostActivations"].as_u64()?, since })
    }
}

/// What is wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// A byte or a generation is lost that nobody told of.
    Lost(String),
    /// An older copy answered.
    Double(String),
}

impl Account {
    /// A request without an answer: it may have been counted.
    pub fn unanswered(&mut self) {
        self.high += 1;
    }

    /// Whether the answer follows what was known without a loss. Otherwise it has to be asked how much was lost.
    pub fn follows(&self, body: &str) -> bool {
        counted(body).is_some_and(|count| self.low < count && count <= self.high + 1)
    }

    /// Enters an answer, with what was told of losses if it was asked.
    pub fn enter(&mut self, body: &str, lost: Option<Losses>, memory: bool) -> Result<(), Wrong> {
        let (Some(count), Some(activation)) = (counted(body), activation(body)) else {
            return Err(Wrong::Lost(format!("no count in {body}")));
        };
        let newly_lost = lost.is_some_and(|lost| lost.told > self.lost);
        let said = format!("{self:?}, answer {}", body.trim());
        if activation < self.activation {
            return Err(Wrong::Double(said));
        }
        let floor = if newly_lost { self.committed } else { self.low };
        if count <= floor || count > self.high + 1 {
            return Err(Wrong::Lost(said));
        }
        let nonce = word(body, "boot").unwrap_or_default().to_owned();
        if memory && !self.nonce.is_empty() && self.nonce != nonce {
            return Err(Wrong::Lost(said));
        }
        if activation > self.activation && !newly_lost {
            self.committed = self.low;
        }
        (self.low, self.high, self.activation, self.nonce) = (count, count, activation, nonce);
        // What may come after this answer must count as new when the next one comes.
        self.lost = lost.map_or(self.lost, |lost| lost.told.saturating_sub(lost.since).max(self.lost));
        Ok(())
    }
}

pub type Ledger = HashMap<String, Account>;

/// Which activation answered.
pub fn activation(body: &str) -> Option<u64> {
    word(body, "activation")?.parse().ok()
}

fn word<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    body.split_whitespace().find_map(|w| w.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(count: u64, activation: u64) -> String {
        format!("count={count} boot=00ff activation={activation}")
    }

    #[test]
    fn a_count_goes_up_by_one_and_by_what_was_not_answered() {
        let mut account = Account::default();
        account.enter(&answer(1, 1), None, true).unwrap();
        account.unanswered();
        account.enter(&answer(3, 1), None, true).unwrap();
        assert!(matches!(account.enter(&answer(3, 2), None, true), Err(Wrong::Lost(_))));
        assert!(matches!(account.enter(&answer(5, 2), None, true), Err(Wrong::Lost(_))));
    }

    #[test]
    fn a_loss_leads_back_to_what_was_committed_and_no_further() {
        let mut account = Account::default();
        for (count, activation) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
            account.enter(&answer(count, activation), None, true).unwrap();
        }
        let back = account.clone();
        assert!(!account.follows(&answer(3, 3)));
        let one = Some(Losses { told: 1, since: 0 });
        account.enter(&answer(3, 3), one, true).unwrap();
        let mut account = back;
        assert!(matches!(account.enter(&answer(2, 3), one, true), Err(Wrong::Lost(_))));
    }

    #[test]
    fn a_loss_that_is_told_before_the_answer_is_entered_counts_for_the_next_one() {
        let mut account = Account::default();
        account.enter(&answer(1, 1), None, true).unwrap();
        account.unanswered();
        let status = serde_json::json!({ "phase": "Suspended", "activation": 2, "lostActivations": 1 });
        let losses = Losses::of(&status, 2);
        assert_eq!(losses, Some(Losses { told: 1, since: 1 }));
        account.enter(&answer(2, 2), losses, true).unwrap();
        account.enter(&answer(2, 3), Some(Losses { told: 1, since: 0 }), true).unwrap();
        assert!(matches!(account.enter(&answer(2, 4), Some(Losses { told: 1, since: 0 }), true), Err(Wrong::Lost(_))));
    }

    #[test]
    fn an_older_copy_or_another_process_is_noticed() {
        let mut account = Account::default();
        account.enter(&answer(1, 2), None, true).unwrap();
        assert!(matches!(account.enter(&answer(2, 1), None, true), Err(Wrong::Double(_))));
        let other = "count=2 boot=0000 activation=3";
        assert!(matches!(account.clone().enter(other, None, true), Err(Wrong::Lost(_))));
        account.enter(other, None, false).unwrap();
    }
}
