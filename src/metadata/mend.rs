//! What there is to go on from after a fork, and the operator's choice among it (H2). A history that goes on from another
//! State than the journal's last is a new generation (H11): it begins behind everything that was ever seen of the old
//! ones, with a snapshot of the chosen State and a journal whose one entry is that moment. So nothing of the lost entries
//! in the bucket can be taken for a part of it, and whoever held on to them is refused.
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use tracing::info;

use super::fork::{self, FORK_PREFIX, FOUND_PREFIX, NEXT_PREFIX, STATE_PREFIX};
use super::life::new_incarnation;
use super::load::replay;
use super::owner::{Fatal, OutcomeHashes};
use super::salvage::{Salvaged, salvage};
use super::snapshots::SNAPSHOT_PREFIX;
use super::witness::{few_since, key, list_since, moment, objects_since};
use crate::journal::{Journal, JournalError, Proposal, Stored};
use crate::state::State;
use crate::store::marker::{MarkerError, peek};
use crate::store::{Bucket, Purpose, StoreError};
use crate::types::{Head, Incarnation, Position, Token};
use crate::world::World;

/// Entries before the journal's last that are held against what the bucket has.
const COMPARED: u64 = 1000;

/// What to go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The journal as it is. What brokers had seen beyond it is given up.
    Journal,
    /// The furthest State in the bucket: a snapshot, or what a broker left when it stopped.
    Bucket,
}

/// Why a fork can't be looked at or resolved. Nothing was changed, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    #[error("the bucket does not answer: {0}")]
    Bucket(#[from] StoreError),
    #[error(transparent)]
    Marker(#[from] MarkerError),
    #[error("the journal can't be read: {0}")]
    Journal(#[from] JournalError),
    #[error("the journal can't be read: {0}")]
    Entry(#[from] Fatal),
    #[error("the bucket belongs to no cluster yet: there is nothing to go on from")]
    Unclaimed,
    #[error("the journal is of cluster {journal}, and the bucket of cluster {bucket}: it is the wrong one")]
    OtherCluster { journal: String, bucket: String },
    #[error("no State can be had from the {0}")]
    NoState(&'static str),
    #[error("snapshot {key} does not read back as it was written; the journal is as before")]
    Unwritten { key: String },
    #[error("the journal was not begun anew, it may be as before ({0}): run the same command again when it answers")]
    NotBegun(JournalError),
}

/// A State that the bucket has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub at: Head,
    pub key: String,
    pub in_journal: Presence,
}

/// Whether the journal's history has an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Has,
    Lacks,
    /// It was trimmed, so it can't be told from one of another history.
    Trimmed,
}

/// What is known of a history.
#[derive(Clone, Debug)]
pub struct Survey {
    pub cluster_id: String,
    /// The journal's last entry.
    pub journal: Head,
    /// What brokers found, in their words.
    pub marks: Vec<String>,
    /// What the bucket has seen and the journal lacks, by key.
    pub lost: Vec<(Head, String)>,
    /// The States in the bucket, oldest first.
    pub kept: Vec<Kept>,
    /// The last entry that anybody has seen.
    last: Head,
    /// Where the journal went on in another way: the last entry before it that was seen and is there.
    diverged: Option<Position>,
}

/// What was done.
#[derive(Debug, PartialEq, Eq)]
pub enum Mended {
    /// The journal has everything that was ever seen: only the marks were removed.
    NothingLost { marks: usize },
    /// The new generation of the history that an earlier call had begun.
    Finished { generation: u16, at: Head },
    /// A new generation of the history.
    Begun {
        generation: u16,
        at: Head,
        /// The last entry whose effects are in the State that it began with.
        from: Head,
        /// Entries that were seen beyond it, at most. Of what was acknowledged in them the records are in `salvaged`; the
        /// rest is gone.
        lost_entries: u64,
        salvaged: Salvaged,
    },
}

/// Looks at everything, changes nothing.
///
/// # Errors
/// See [`MendError`].
pub async fn survey(journal: &dyn Journal, bucket: &dyn Bucket) -> Result<Survey, MendError> {
    let cluster_id = peek(bucket).await?.ok_or(MendError::Unclaimed)?;
    let mut seen = few_since(bucket, Position(0)).await?;
    // Of objects there may be millions: those from a while before the journal's end and before whatever stopped a broker.
    let stopped = seen.iter().filter(|(at, key)| key.starts_with(FORK_PREFIX) && at.position > Position(0));
    let stopped = stopped.map(|(at, _)| at.position).min().unwrap_or(Position(u64::MAX));
    let around = journal.head().await?.position.min(stopped);
    seen.extend(objects_since(bucket, Position(around.0.saturating_sub(COMPARED))).await?);
    // After what was listed: brokers that run write keys of later entries all the time.
    let head = journal.head().await?;
    let mut tokens = Tokens { journal, known: BTreeMap::from([(head.position, Some(head.token))]), head };
    let last = seen.iter().map(|(seen, _)| *seen).fold(head, Head::max);
    let (mut lost, mut kept, mut common) = (Vec::new(), Vec::new(), Head::default());
    for (at, key) in seen {
        let in_journal = tokens.presence(at).await?;
        // A mark of somebody who had nothing names no entry.
        match in_journal {
            Presence::Lacks if at.position > Position(0) => lost.push((at, key.clone())),
            Presence::Has => common = common.max(at),
            _ => {}
        }
        if key.starts_with(SNAPSHOT_PREFIX) || key.starts_with(STATE_PREFIX) {
            kept.push(Kept { at, key, in_journal });
        }
    }
    kept.sort_by_key(|kept| kept.at);
    // Entries that stand in the place of lost ones were never seen before the loss.
    let first_lost = lost.iter().map(|(at, _)| at.position).min().unwrap_or(Position(u64::MAX));
    let diverged = (first_lost <= head.position).then_some(common.position);
    let mut marks = Vec::new();
    for mark in list_since(bucket, FOUND_PREFIX, Position(0)).await? {
        let words = bucket.read(&mark.key, None, Purpose::Control).await?;
        marks.push(String::from_utf8_lossy(&words).trim().to_owned());
    }
    Ok(Survey { cluster_id, journal: head, marks, lost, kept, last, diverged })
}

/// Resolves a fork: no broker may run, and one that does stops by the mark that this leaves first. May be repeated after any
/// error, also with the other choice.
///
/// # Errors
/// See [`MendError`].
pub async fn mend(
    journal: &dyn Journal,
    bucket: &dyn Bucket,
    world: &World,
    choice: Choice,
) -> Result<Mended, MendError> {
    if let Some((generation, at)) = finish_earlier(journal, bucket).await? {
        return Ok(Mended::Finished { generation, at });
    }
    let survey = survey(journal, bucket).await?;
    if survey.lost.is_empty() {
        return Ok(Mended::NothingLost { marks: fork::resolve(bucket, None).await? });
    }
    fork::mark(bucket, world, survey.last, "an operator has begun to resolve a fork").await?;
    let furthest_is_in_journal = survey.kept.last().is_none_or(|kept| kept.in_journal != Presence::Lacks);
    let base = match choice {
        Choice::Journal => of_journal(journal, bucket, &survey, Position(u64::MAX)).await?,
        // The journal has that one, and what came after it.
        Choice::Bucket if furthest_is_in_journal && survey.journal.position > Position(0) => {
            of_journal(journal, bucket, &survey, Position(u64::MAX)).await?
        }
        Choice::Bucket => of_bucket(bucket, &survey).await?,
    };
    let base = base.ok_or(MendError::NoState(if choice == Choice::Journal { "journal" } else { "bucket" }))?;
    if let Some(other) = base.cluster_id().filter(|id| ***id != *survey.cluster_id) {
        return Err(MendError::OtherCluster { journal: other.to_string(), bucket: survey.cluster_id });
    }
    // Where both histories went on, what either gave out after they parted is told from what comes now.
    let parted = match survey.diverged {
        Some(common) => of_journal(journal, bucket, &survey, common).await?,
        None => None,
    };
    let generation = newest_generation(bucket, &survey).await?.max(base.generation());
    let at = Head { position: survey.last.position.next(), token: Token(world.random_u64()) };
    let mut begun = base.begin_generation(at, generation, parted.as_ref().unwrap_or(&base));
    let salvaged = salvage(bucket, world, &mut begun, base.head().position).await?;
    let at = begun.head();
    write(bucket, &key(NEXT_PREFIX, at, world.random_u64()), &begun).await?;
    let (incarnation, token) = (Incarnation(new_incarnation(world)), at.token);
    let proposal = Proposal { incarnation, counter: 1, token, payload: Bytes::new() };
    let only = Stored { position: at.position, proposal };
    journal.restart(only, survey.journal).await.map_err(MendError::NotBegun)?;
    info!(position = at.position.0, generation = begun.generation(), "the journal begins anew");
    finish_earlier(journal, bucket).await?;
    let beyond = survey.last.position.0.saturating_sub(base.head().position.0);
    let other_branch = survey.diverged.map_or(0, |common| survey.last.position.0.saturating_sub(common.0));
    Ok(Mended::Begun {
        generation: begun.generation(),
        at,
        from: base.head(),
        lost_entries: beyond.max(other_branch),
        salvaged,
    })
}

/// Ends what an earlier call has begun, if the journal begins with it already; else nothing of it counts.
async fn finish_earlier(journal: &dyn Journal, bucket: &dyn Bucket) -> Result<Option<(u16, Head)>, MendError> {
    let head = journal.head().await?;
    for begun in list_since(bucket, NEXT_PREFIX, Position(0)).await? {
        if moment(NEXT_PREFIX, &begun.key) != Some(head) {
            bucket.delete(&begun.key, Purpose::Control).await?;
            continue;
        }
        let bytes = bucket.read(&begun.key, None, Purpose::Snapshot).await?;
        let (_, state) = State::decode_snapshot(&bytes).map_err(|_| MendError::Unwritten { key: begun.key.clone() })?;
        write(bucket, &begun.key.replacen(NEXT_PREFIX, SNAPSHOT_PREFIX, 1), &state).await?;
        fork::resolve(bucket, Some(head)).await?;
        return Ok(Some((state.generation(), head)));
    }
    Ok(None)
}

/// The cluster that a journal is of, as far as it or a snapshot of its history says.
pub(super) async fn cluster_of(journal: &dyn Journal, bucket: &dyn Bucket) -> Option<String> {
    let survey = survey(journal, bucket).await.ok()?;
    let state = of_journal(journal, bucket, &survey, Position(u64::MAX)).await.ok()??;
    state.cluster_id().map(ToString::to_string)
}

/// Tokens of the journal's entries, read once each.
struct Tokens<'a> {
    journal: &'a dyn Journal,
    head: Head,
    known: BTreeMap<Position, Option<Token>>,
}

impl Tokens<'_> {
    async fn presence(&mut self, entry: Head) -> Result<Presence, JournalError> {
        if entry.position > self.head.position {
            return Ok(Presence::Lacks);
        }
        let token = match self.known.get(&entry.position) {
            Some(token) => *token,
            None => match self.journal.read(entry.position).await {
                Ok(page) => {
                    self.known.extend(page.iter().map(|stored| (stored.position, Some(stored.proposal.token))));
                    page.first().map(|stored| stored.proposal.token)
                }
                Err(JournalError::Trimmed { .. }) => None,
                Err(error) => return Err(error),
            },
        };
        self.known.insert(entry.position, token);
        Ok(match token {
            None => Presence::Trimmed,
            Some(token) if token == entry.token => Presence::Has,
            Some(_) => Presence::Lacks,
        })
    }
}

/// The journal's State as of `until`, or its last.
async fn of_journal(
    journal: &dyn Journal,
    bucket: &dyn Bucket,
    survey: &Survey,
    until: Position,
) -> Result<Option<State>, MendError> {
    let mut state = None;
    let usable = |kept: &&Kept| kept.in_journal == Presence::Has && kept.at.position <= until;
    for kept in survey.kept.iter().rev().filter(usable) {
        state = read_state(bucket, kept).await?;
        if state.is_some() {
            break;
        }
    }
    let mut state = match (state, journal.read(Position(1)).await) {
        (Some(state), _) => state,
        (None, Ok(_)) => State::default(),
        (None, Err(JournalError::Trimmed { .. })) => return Ok(None),
        (None, Err(error)) => return Err(error.into()),
    };
    replay::<MendError>(journal, &mut state, &mut OutcomeHashes::default(), until).await?;
    Ok(state.cluster_id().is_some().then_some(state))
}

/// The furthest State in the bucket that is whole.
async fn of_bucket(bucket: &dyn Bucket, survey: &Survey) -> Result<Option<State>, MendError> {
    for kept in survey.kept.iter().rev() {
        if let Some(state) = read_state(bucket, kept).await? {
            return Ok(Some(state));
        }
    }
    Ok(None)
}

async fn read_state(bucket: &dyn Bucket, kept: &Kept) -> Result<Option<State>, MendError> {
    let bytes = match bucket.read(&kept.key, None, Purpose::Snapshot).await {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound { .. } | StoreError::Damaged { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(State::decode_snapshot(&bytes).ok().filter(|(header, _)| header.at == kept.at).map(|(_, state)| state))
}

/// The highest generation that any State in the bucket is of: one that was restored may know less.
async fn newest_generation(bucket: &dyn Bucket, survey: &Survey) -> Result<u16, MendError> {
    let mut newest = 0;
    for kept in &survey.kept {
        newest = newest.max(read_state(bucket, kept).await?.map_or(0, |state| state.generation()));
    }
    Ok(newest)
}

async fn write(bucket: &dyn Bucket, key: &str, state: &State) -> Result<(), MendError> {
    let (header, bytes) = state.encode_snapshot();
    // Perhaps it is there by an earlier call.
    let _ = bucket.create(&key.to_owned(), vec![bytes], Purpose::Snapshot).await?;
    let read = bucket.read(&key.to_owned(), None, Purpose::Snapshot).await?;
    let same = State::decode_snapshot(&read).is_ok_and(|(read, _)| read == header);
    if same { Ok(()) } else { Err(MendError::Unwritten { key: key.to_owned() }) }
}

impl fmt::Display for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cluster            {}", self.cluster_id)?;
        writeln!(f, "journal's last     {}", self.journal.position)?;
        writeln!(f, "last that was seen {}", self.last.position)?;
        for mark in &self.marks {
            writeln!(f, "mark               {mark}")?;
        }
        for kept in &self.kept {
            let whose = match kept.in_journal {
                Presence::Has => "in the journal's history",
                Presence::Lacks => "NOT in the journal's history",
                Presence::Trimmed => "older than the journal's first entry",
            };
            writeln!(f, "State at {:<9} {whose}: {}", kept.at.position, kept.key)?;
        }
        if let Some(common) = self.diverged {
            writeln!(f, "\nThe journal went on after the loss: up to position {common} all have the same entries.")?;
        }
        if self.lost.is_empty() {
            return writeln!(f, "\nThe journal has everything that was seen of its history.");
        }
        writeln!(f, "\nThe journal lacks what was seen at these positions:")?;
        for (at, key) in self.lost.iter().take(SHOWN_MAX) {
            writeln!(f, "  {:<9} {key}", at.position)?;
        }
        match self.lost.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more"),
        }
    }
}

/// Rows of what was lost that a person is shown.
const SHOWN_MAX: usize = 20;
