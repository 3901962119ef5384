//! The journal in the bucket. Two appenders, a trimmer and a reader, each of which may stand still between any two of its
//! requests; creates that take effect late, or whose answer is lost. What is left out: the chain of boundary objects is one
//! number that only grows (a create-if-absent of the next one makes it so), and who learns that it was trimmed stops,
//! instead of beginning anew from a snapshot.
use stateright::{Model, Property};

/// Positions 1 to this are modelled.
const POSITIONS: usize = 3;
/// Creates that one proposal sends, at most.
const SENDS_MAX: u8 = 2;

/// A proposal's token; 0 is nobody's.
pub type Token = u8;
pub type Position = u8;
/// Whoever it is, as one reads who does not compare.
const SOMEBODY: Token = Token::MAX;

/// The rules of `docs/formats/journal-bucket.md`, each of which can be taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    Nothing,
    /// Rule 3: the boundary is looked at before the request instead of after its answer.
    LookAfterCreate,
    LookAfterRead,
    /// Rule 2: who has no answer goes on to the next position.
    StayWhileUnknown,
    /// Rule 4: the boundary is raised before anything is deleted.
    BoundaryBeforeDelete,
    /// What is found at the position is compared with what was sent.
    Comparison,
    /// A create is conditional on there being nothing.
    CreateIfAbsent,
}

#[derive(Clone, Debug)]
pub struct Journal {
    pub without: Without,
    pub with: With,
}

/// What happens beside appends and trims: one of the two, so that the states stay few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    /// The first appender's answers get lost, and it tries again.
    LostAnswers,
    Reader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Put {
    pub position: Position,
    pub token: Token,
}

/// What an appender does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Sends a create to the position after `known`.
    Decide,
    /// Has looked at the boundary too early, as a defect has it, and is about to send.
    Looked {
        first: Position,
    },
    /// Waits for the answer of a create.
    Waiting {
        looked: Option<Position>,
    },
    /// The answer was `created`.
    Created {
        looked: Option<Position>,
    },
    /// The answer was `taken`.
    Taken,
    /// Has read what is at the position.
    Read {
        token: Token,
    },
    Acknowledged {
        position: Position,
    },
    /// Was told that the journal is trimmed, and that its proposal is not in it.
    Trimmed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Appender {
    pub step: Step,
    /// The tokens of its proposals, one after another.
    pub tokens: Vec<Token>,
    pub current: usize,
    /// The head as it knows it.
    pub known: Position,
    pub sends: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reading {
    Idle,
    /// A defect: looked at the boundary before the read.
    Looked {
        first: Position,
    },
    /// Has an answer: the token, or 0, and whether the position had been occupied when it was given.
    Answered {
        token: Token,
        occupied: bool,
        looked: Option<Position>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// What is in the bucket; 0 is nothing. Index 0 is unused.
    pub objects: [Token; POSITIONS + 1],
    /// The boundary: positions below it are trimmed.
    pub first: Position,
    /// A trim that was begun: positions below this are to go.
    pub trimming: Position,
    /// Creates that may take effect, and those whose answer is on its way.
    pub on_their_way: Vec<Put>,
    pub appenders: Vec<Appender>,
    pub reading: Reading,
    /// The position that the reader reads next, and what it has believed.
    pub next: Position,
    pub believed: [Token; POSITIONS + 1],
    /// It believed a position to be empty that had been occupied.
    pub believed_absence: bool,
    /// Whose object each position was first: the truth, which nobody sees.
    pub history: [Token; POSITIONS + 1],
    /// An object was created at a trimmed position.
    pub garbage: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// An appender's next step that needs no answer.
    Go(usize),
    /// An appender reads what is at the position where it would try.
    Peek(usize),
    /// A create takes effect; its appender is answered if it still waits for it.
    Effect(Put),
    /// A create's answer does not come; it takes effect later, or never.
    NoAnswer(usize),
    BeginTrim(Position),
    RaiseBoundary,
    Delete(Position),
    Read,
    Look,
}

impl Journal {
    fn apply(&self, state: &mut State, put: Put) -> bool {
        let conditional = self.without != Without::CreateIfAbsent;
        let compare = self.without != Without::Comparison;
        let at = usize::from(put.position);
        if conditional && state.objects[at] != 0 {
            // The same bytes are ours, by an earlier attempt.
            return compare && state.objects[at] == put.token;
        }
        state.objects[at] = put.token;
        if state.history[at] == 0 {
            state.history[at] = put.token;
        } else if put.position < state.first {
            state.garbage = true;
        } else {
            // Somebody's entry was written over, or came back where it was deleted without a trim.
            state.history[at] = put.token;
        }
        true
    }

    fn answer(state: &mut State, put: Put, created: bool) {
        for appender in &mut state.appenders {
            if let Step::Waiting { looked } = appender.step
                && appender.tokens[appender.current] == put.token
                && appender.known + 1 == put.position
            {
                appender.step = if created { Step::Created { looked } } else { Step::Taken };
                return;
            }
        }
    }

    fn head(state: &State) -> Position {
        (1..=POSITIONS).take_while(|at| state.history[*at] != 0).count() as Position
    }

    fn go(&self, state: &mut State, who: usize) -> Option<()> {
        let first = state.first;
        let appender = &mut state.appenders[who];
        let token = appender.tokens[appender.current];
        let position = appender.known + 1;
        match appender.step {
            Step::Decide if self.without == Without::LookAfterCreate => appender.step = Step::Looked { first },
            Step::Decide => Self::send(state, who, None)?,
            Step::Looked { first } => Self::send(state, who, Some(first))?,
            Step::Created { looked } => {
                if looked.unwrap_or(first) <= position {
                    appender.step = Step::Acknowledged { position };
                } else {
                    Self::told_trimmed(state, who);
                }
            }
            Step::Taken if self.without == Without::Comparison => {
                appender.step = Step::Read { token: SOMEBODY };
            }
            Step::Taken => appender.step = Step::Read { token: state.objects[usize::from(position)] },
            Step::Read { token: found } => {
                if first > position {
                    Self::told_trimmed(state, who);
                } else if found == 0 {
                    appender.step = Step::Decide;
                } else if found == token {
                    appender.step = Step::Acknowledged { position };
                } else {
                    (appender.known, appender.sends, appender.step) = (position, 0, Step::Decide);
                }
            }
            Step::Acknowledged { position } => {
                if appender.current + 1 == appender.tokens.len() {
                    return None;
                }
                appender.current += 1;
                (appender.known, appender.sends, appender.step) = (position, 0, Step::Decide);
            }
            Step::Waiting { .. } | Step::Trimmed => return None,
        }
        Some(())
    }

    fn send(state: &mut State, who: usize, looked: Option<Position>) -> Option<()> {
        let appender = &mut state.appenders[who];
        let put = Put { position: appender.known + 1, token: appender.tokens[appender.current] };
        if usize::from(put.position) > POSITIONS || appender.sends == SENDS_MAX {
            return None;
        }
        appender.sends += 1;
        appender.step = Step::Waiting { looked };
        state.on_their_way.push(put);
        state.on_their_way.sort_unstable();
        Some(())
    }

    /// The boundary says that the position is trimmed; it also names the newest entries below it.
    fn told_trimmed(state: &mut State, who: usize) {
        let appender = &mut state.appenders[who];
        let token = appender.tokens[appender.current];
        let below = 1..usize::from(state.first);
        let known = below.into_iter().find(|at| state.history[*at] == token);
        appender.step = match known {
            Some(at) => Step::Acknowledged { position: at as Position },
            None => Step::Trimmed,
        };
    }

    fn look(&self, state: &mut State) -> Option<()> {
        match state.reading {
            Reading::Idle if self.without == Without::LookAfterRead => {
                state.reading = Reading::Looked { first: state.first };
            }
            Reading::Answered { token, occupied, looked } => {
                let first = looked.unwrap_or(state.first);
                state.reading = Reading::Idle;
                if state.next < first {
                    // As after a snapshot.
                    state.next = first;
                } else if token == 0 {
                    state.believed_absence |= occupied;
                } else {
                    state.believed[usize::from(state.next)] = token;
                    state.next += 1;
                }
            }
            Reading::Idle | Reading::Looked { .. } => return None,
        }
        Some(())
    }

    fn read(&self, state: &mut State) -> Option<()> {
        let looked = match state.reading {
            Reading::Idle if self.without != Without::LookAfterRead => None,
            Reading::Looked { first } => Some(first),
            _ => return None,
        };
        let at = usize::from(state.next);
        if at > POSITIONS {
            return None;
        }
        state.reading = Reading::Answered { token: state.objects[at], occupied: state.history[at] != 0, looked };
        Some(())
    }
}

impl Model for Journal {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let appender =
            |tokens: &[Token]| Appender { step: Step::Decide, tokens: tokens.to_vec(), current: 0, known: 0, sends: 0 };
        vec![State {
            objects: [0; POSITIONS + 1],
            first: 1,
            trimming: 1,
            on_their_way: Vec::new(),
            appenders: vec![appender(&[1]), appender(&[2, 3])],
            reading: Reading::Idle,
            next: 1,
            believed: [0; POSITIONS + 1],
            believed_absence: false,
            history: [0; POSITIONS + 1],
            garbage: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (who, appender) in state.appenders.iter().enumerate() {
            actions.push(Action::Go(who));
            let loses = self.with == With::LostAnswers && who == 0;
            if loses && matches!(appender.step, Step::Waiting { .. }) {
                actions.push(Action::NoAnswer(who));
            }
            if loses && appender.step == Step::Decide {
                actions.push(Action::Peek(who));
            }
        }
        actions.extend(state.on_their_way.iter().copied().map(Action::Effect));
        let head = Self::head(state);
        if state.trimming == state.first {
            // The last entry stays.
            actions.extend((state.first + 1..=head).map(Action::BeginTrim));
        } else {
            actions.push(Action::RaiseBoundary);
        }
        let gone = if self.without == Without::BoundaryBeforeDelete { state.trimming } else { state.first };
        actions.extend((1..gone).filter(|at| state.objects[usize::from(*at)] != 0).map(Action::Delete));
        if self.with == With::Reader {
            actions.extend([Action::Read, Action::Look]);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Go(who) => self.go(&mut state, who)?,
            Action::Peek(who) => {
                let appender = &mut state.appenders[who];
                let token = *state.objects.get(usize::from(appender.known + 1))?;
                appender.step = Step::Read { token };
            }
            Action::Effect(put) => {
                let at = state.on_their_way.iter().position(|other| *other == put)?;
                state.on_their_way.remove(at);
                let created = self.apply(&mut state, put);
                Self::answer(&mut state, put, created);
            }
            Action::NoAnswer(who) => {
                let appender = &mut state.appenders[who];
                if self.without == Without::StayWhileUnknown {
                    (appender.known, appender.sends) = (appender.known + 1, 0);
                }
                appender.step = Step::Decide;
            }
            Action::BeginTrim(first) => state.trimming = first,
            Action::RaiseBoundary => state.first = state.trimming,
            Action::Delete(position) => state.objects[usize::from(position)] = 0,
            Action::Read => self.read(&mut state)?,
            Action::Look => self.look(&mut state)?,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("an acknowledged append is the entry at its position", |_, state: &State| {
                state.appenders.iter().all(|appender| match appender.step {
                    Step::Acknowledged { position } => {
                        state.history[usize::from(position)] == appender.tokens[appender.current]
                    }
                    _ => true,
                })
            }),
            Property::always("what was acknowledged before stays an entry", |_, state: &State| {
                state.appenders.iter().all(|appender| {
                    appender.tokens[..appender.current].iter().all(|token| state.history.contains(token))
                })
            }),
            Property::always("no proposal is two entries", |_, state: &State| {
                (1..=3).all(|token| state.history.iter().filter(|there| **there == token).count() <= 1)
            }),
            Property::always("a proposal that was said to be trimmed is no entry", |_, state: &State| {
                state.appenders.iter().all(|appender| {
                    appender.step != Step::Trimmed || !state.history.contains(&appender.tokens[appender.current])
                })
            }),
            Property::always("entries have no gaps", |_, state: &State| {
                let head = usize::from(Journal::head(state));
                state.history[head + 1..].iter().all(|token| *token == 0)
            }),
            Property::always("what a reader believes is the entry", |_, state: &State| {
                let believed = state.believed.iter().zip(&state.history);
                believed.into_iter().all(|(believed, entry)| *believed == 0 || believed == entry)
            }),
            Property::always("no entry is believed to be absent", |_, state: &State| !state.believed_absence),
            Property::sometimes("a trimmed position is created anew", |_, state: &State| state.garbage),
            Property::sometimes("an appender hears that it was trimmed", |_, state: &State| {
                state.appenders.iter().any(|appender| appender.step == Step::Trimmed)
            }),
            Property::sometimes("all is acknowledged, and the reader has it all", |model: &Journal, state: &State| {
                let all = |a: &Appender| a.current + 1 == a.tokens.len() && matches!(a.step, Step::Acknowledged { .. });
                state.appenders.iter().all(all) && (model.with != With::Reader || state.next == 4)
            }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stateright::Checker;

    fn broken(without: Without, with: With) -> Vec<&'static str> {
        let checker = Journal { without, with }.checker().spawn_bfs().join();
        let mut broken: Vec<_> = checker.discoveries().into_keys().collect();
        broken.retain(|name| checker.model().property(name).expectation == stateright::Expectation::Always);
        broken.sort_unstable();
        broken
    }

    #[test]
    fn with_all_rules_nothing_breaks() {
        for with in [With::LostAnswers, With::Reader] {
            let checker = Journal { without: Without::Nothing, with }.checker().spawn_bfs().join();
            println!("{with:?}: {} states", checker.unique_state_count());
            checker.assert_properties();
        }
    }

    #[test]
    fn each_rule_is_needed() {
        for (without, with, breaks) in [
            (Without::LookAfterCreate, With::LostAnswers, "an acknowledged append is the entry at its position"),
            (Without::LookAfterRead, With::Reader, "no entry is believed to be absent"),
            (Without::StayWhileUnknown, With::LostAnswers, "no proposal is two entries"),
            (Without::BoundaryBeforeDelete, With::Reader, "no entry is believed to be absent"),
            (Without::Comparison, With::LostAnswers, "no proposal is two entries"),
            (Without::CreateIfAbsent, With::Reader, "what was acknowledged before stays an entry"),
        ] {
            let broken = broken(without, with);
            assert!(broken.contains(&breaks), "without {without:?} only this breaks: {broken:?}");
        }
    }
}
