//! Writes down what clients do, in the order in which they do it.
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use strandline::world::{Instant, World};
use strandline_history::{End, History, Operation, What};

/// The history of one run; clones write into one.
#[derive(Clone)]
pub struct Recorder {
    book: Arc<Mutex<Book>>,
    world: World,
    start: Instant,
}

#[derive(Default)]
struct Book {
    history: History,
    /// Operations that have begun and not ended.
    open: BTreeSet<usize>,
}

/// An operation that was begun.
#[derive(Clone, Copy, Debug)]
pub struct Begun(usize);

/// What stands in place of an operation that is left out.
const FORGOTTEN: &str = "forgotten";

impl Recorder {
    #[must_use]
    pub fn new(world: &World, run: u64) -> Self {
        let history = History { run, ..History::default() };
        let book = Book { history, open: BTreeSet::new() };
        Self { book: Arc::new(Mutex::new(book)), world: world.clone(), start: world.now() }
    }

    /// Must be called before the first byte of it is sent. Until [`Recorder::end`] it is `Info`.
    pub fn begin(&self, process: u32, what: What) -> Begun {
        let start_us = self.now_us();
        let mut book = self.book();
        let id = book.history.operations.len();
        let end = End::Info("it never ended".into());
        let operation = Operation { id: id as u64, process, start_us, end_us: None, broker: None, end, what };
        book.history.operations.push(operation);
        book.open.insert(id);
        Begun(id)
    }

    /// Another operation that began when `begun` did: a part of it that ends otherwise.
    pub fn split(&self, begun: Begun) -> Begun {
        let mut book = self.book();
        let id = book.history.operations.len();
        let part = book.history.operations[begun.0].clone();
        book.history.operations.push(part);
        book.open.insert(id);
        Begun(id)
    }

    /// How it ended, as `broker` said; `what` is what was asked, with what was answered.
    pub fn end(&self, begun: Begun, broker: Option<i32>, end: End, what: What) {
        let end_us = Some(self.now_us());
        let mut book = self.book();
        book.open.remove(&begun.0);
        let operation = &mut book.history.operations[begun.0];
        operation.end_us = end_us;
        operation.broker = broker;
        operation.end = end;
        operation.what = what;
    }

    /// Nobody waits for what is under way any more: its client is gone.
    pub fn give_up(&self) {
        let end_us = Some(self.now_us());
        let mut book = self.book();
        for id in std::mem::take(&mut book.open) {
            let operation = &mut book.history.operations[id];
            operation.end_us = end_us;
            operation.end = End::Info("the client went away".into());
        }
    }

    /// The kinds of operations that have begun and not ended.
    #[must_use]
    pub fn under_way(&self) -> BTreeSet<&'static str> {
        let book = self.book();
        book.open.iter().map(|id| book.history.operations[*id].what.name()).collect()
    }

    /// There was nothing to tell: it will not be in the history.
    pub fn forget(&self, begun: Begun) {
        let mut book = self.book();
        book.open.remove(&begun.0);
        book.history.operations[begun.0].what = What::Note(FORGOTTEN.into());
    }

    /// From now on there are no faults.
    pub fn healed(&self) {
        let now = self.now_us();
        self.book().history.healed_us = Some(now);
    }

    /// What was written down so far.
    #[must_use]
    pub fn take(&self) -> History {
        let mut history = std::mem::take(&mut *self.book()).history;
        history.operations.retain(|operation| !matches!(&operation.what, What::Note(text) if text == FORGOTTEN));
        history.operations.sort_by_key(|operation| operation.start_us);
        for (id, operation) in (0..).zip(&mut history.operations) {
            operation.id = id;
        }
        history
    }

    fn now_us(&self) -> u64 {
        u64::try_from((self.world.now() - self.start).as_micros()).unwrap_or(u64::MAX)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
