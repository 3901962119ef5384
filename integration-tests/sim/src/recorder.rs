//! Writes down what clients do, in the order in which they do it.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use strandline::world::{Instant, World};
use strandline_history::{End, History, Operation, What};

/// The history of one run; clones write into one.
#[derive(Clone)]
pub struct Recorder {
    history: Arc<Mutex<History>>,
    world: World,
    start: Instant,
}

/// An operation that was begun.
#[derive(Clone, Copy, Debug)]
pub struct Begun(usize);

impl Recorder {
    #[must_use]
    pub fn new(world: &World, run: u64) -> Self {
        let history = History { run, ..History::default() };
        Self { history: Arc::new(Mutex::new(history)), world: world.clone(), start: world.now() }
    }

    /// Must be called before the first byte of it is sent. Until [`Recorder::end`] it is `Info`.
    pub fn begin(&self, process: u32, what: What) -> Begun {
        let start_us = self.now_us();
        let mut history = self.history();
        let id = history.operations.len();
        let end = End::Info("it never ended".into());
        history.operations.push(Operation { id: id as u64, process, start_us, end_us: None, broker: None, end, what });
        Begun(id)
    }

    /// How it ended, as `broker` said; `what` is what was asked, with what was answered.
    pub fn end(&self, begun: Begun, broker: Option<i32>, end: End, what: What) {
        let end_us = Some(self.now_us());
        let mut history = self.history();
        let operation = &mut history.operations[begun.0];
        operation.end_us = end_us;
        operation.broker = broker;
        operation.end = end;
        operation.what = what;
    }

    /// From now on there are no faults.
    pub fn healed(&self) {
        let now = self.now_us();
        self.history().healed_us = Some(now);
    }

    /// What was written down so far.
    #[must_use]
    pub fn take(&self) -> History {
        std::mem::take(&mut *self.history())
    }

    fn now_us(&self) -> u64 {
        u64::try_from((self.world.now() - self.start).as_micros()).unwrap_or(u64::MAX)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
