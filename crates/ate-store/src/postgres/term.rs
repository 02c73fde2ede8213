//! The time in which this process leads, as all its parts see it.

use tokio::sync::watch;

pub(super) struct Term {
    /// No other term of any process has this number.
    pub(super) epoch: i64,
    over: watch::Sender<bool>,
}

impl Term {
    pub(super) fn new(epoch: i64) -> Term {
        Term { epoch, over: watch::Sender::new(false) }
    }

    /// There is no way back: who wants to lead again begins a new term.
    pub(super) fn end(&self) {
        self.over.send_replace(true);
    }

    pub(super) fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    /// Returns when the term is over.
    pub(super) async fn over(&self) {
        // The sender is ours, so this ends only when it holds.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}
