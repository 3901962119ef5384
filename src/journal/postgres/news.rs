//! What is known of the journal's end, from whoever hears of it first, and which of the server's histories that is of.
use tokio::sync::watch;

use crate::types::Position;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    end: Position,
    /// Counts the times that another server, or another timeline, was found.
    generation: u64,
}

pub(super) struct News(watch::Sender<Seen>);

impl News {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Seen::default()))
    }

    /// The journal goes up to `end`, or farther.
    pub(super) fn saw(&self, end: Position) {
        self.0.send_if_modified(|seen| {
            let is_news = end > seen.end;
            seen.end = seen.end.max(end);
            is_news
        });
    }

    /// Another server answers, or this one has another history: what was known may not hold. Wakes everybody, so that
    /// they look.
    pub(super) fn renew(&self) {
        self.0.send_modify(|seen| *seen = Seen { end: Position(0), generation: seen.generation + 1 });
    }

    pub(super) fn generation(&self) -> u64 {
        self.0.borrow().generation
    }

    pub(super) async fn beyond(&self, position: Position) {
        let mut seen = self.0.subscribe();
        let generation = seen.borrow_and_update().generation;
        // An error would mean that the sender is gone, but `self` holds it.
        let _ = seen.wait_for(|seen| seen.end > position || seen.generation != generation).await;
    }
}
