//! Appending: whoever creates the object of the next position first has it. Who loses reads what won, and tries the one
//! after it; who gets no answer stays where it is.
use std::time::Duration;

use super::Inner;
use super::format::{self, Entry, is_checkpoint};
use super::view::Evidence;
use crate::journal::rules::{self, Known, Verdict};
use crate::journal::{Appended, JournalError, PAYLOAD_BYTES_MAX, Proposal, Stored};
use crate::store::{CreateOutcome, StoreError};
use crate::types::{Head, Incarnation, Position};

impl Inner {
    pub(super) async fn append(&self, proposal: Proposal, after: Head) -> Result<Appended, JournalError> {
        if proposal.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(JournalError::TooLarge { bytes: proposal.payload.len() });
        }
        let _appending = self.appending.lock().await;
        self.view().turns.is_mine(proposal.incarnation);
        let mut has_lost = false;
        loop {
            if let Verdict::Known(position) = self.judge(&proposal, after).await? {
                return Ok(self.appended(position, after));
            }
            if self.wait_for_turn(proposal.incarnation, has_lost).await? {
                // Where many want to append, this is as good as a lost attempt, and costs less.
                has_lost |= self.view().turns.contended;
                continue;
            }
            let Some((onto, entry)) = self.next_entry(&proposal) else { continue };
            let position = entry.stored.position;
            match self.create(&entry).await? {
                CreateOutcome::Created => {
                    if self.confirm(entry, onto).await? {
                        self.view().turns.contended = has_lost;
                        return Ok(self.appended(position, after));
                    }
                }
                CreateOutcome::Taken => {
                    has_lost = true;
                    self.view().turns.contended = true;
                    self.meet_other(position).await?;
                }
            }
        }
    }

    /// What is to be done with `proposal`, by what is in the journal up to the known head.
    async fn judge(&self, proposal: &Proposal, after: Head) -> Result<Verdict, JournalError> {
        if after.position > self.known_head().await?.position {
            self.catch_up().await?;
        }
        let mut token = None;
        let mut older = None;
        loop {
            self.known_head().await?;
            let (needs_token, needs_older) = {
                let view = self.view();
                let Some(fold) = view.fold.as_ref() else { continue };
                let first = view.boundary.first;
                let evidence = Evidence { first, fold, token, older };
                let is_there = after.position >= first && after.position <= fold.head.position;
                let needs_token = is_there && evidence.known_token(after.position).is_none();
                let newest = fold.newest.of(proposal.incarnation);
                let needs_older = older.is_none() && newest.is_some_and(|newest| newest.counter > proposal.counter);
                if !needs_token && !needs_older {
                    return rules::judge(&evidence, proposal, after);
                }
                (needs_token, needs_older)
            };
            if needs_token {
                token = self.look_up(after.position).await?;
            }
            if needs_older {
                older = self.oldest_from(proposal.incarnation, proposal.counter).await?;
            }
        }
    }

    /// The entry at `position`, as a head, unless it was trimmed.
    async fn look_up(&self, position: Position) -> Result<Option<Head>, JournalError> {
        let found = self.objects.token(position).await?;
        if self.look_at_boundary().await? > position {
            return Ok(None);
        }
        let token = found.ok_or_else(|| super::follow::gone(position))?;
        Ok(Some(Head { position, token }))
    }

    /// The entry of `incarnation` with the lowest counter not below `counter`, searched for in all that is not trimmed. A
    /// broker retries its newest entry only, which is known without this.
    async fn oldest_from(&self, incarnation: Incarnation, counter: u64) -> Result<Option<Known>, JournalError> {
        let mut from = self.view().boundary.first;
        loop {
            let page = match self.read(from).await {
                Ok(page) => page,
                Err(JournalError::Trimmed { first }) => {
                    from = first;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(last) = page.last().map(|entry| entry.position) else { break };
            let is_it =
                |entry: &&Stored| entry.proposal.incarnation == incarnation && entry.proposal.counter >= counter;
            if let Some(Stored { position, proposal }) = page.iter().find(is_it) {
                return Ok(Some(Known { counter: proposal.counter, position: *position, token: proposal.token }));
            }
            from = last.next();
        }
        Ok(self.view().fold.as_ref().and_then(|fold| fold.newest.of(incarnation)))
    }

    /// The entry that `proposal` would be at the next position, and the head that it is written onto.
    fn next_entry(&self, proposal: &Proposal) -> Option<(Head, Entry)> {
        let view = self.view();
        let fold = view.fold.as_ref()?;
        let position = fold.head.position.next();
        let below = is_checkpoint(position).then(|| fold.newest.clone());
        let stored = Stored { position, proposal: proposal.clone() };
        Some((fold.head, Entry { stored, previous: fold.head.token, below }))
    }

    /// One attempt at a position. Without an answer it stays open whether our object is there or will be; the view does
    /// not go beyond the position before it is occupied, so the same proposal is tried there again (H3), in the same
    /// bytes. While that is so, a refusal is no certainty.
    async fn create(&self, entry: &Entry) -> Result<CreateOutcome, JournalError> {
        let proposal = &entry.stored.proposal;
        let this = Some((proposal.incarnation, proposal.counter));
        let doubtful = std::mem::replace(&mut self.view().in_doubt, this) == this;
        let asked = self.world.now();
        let outcome = self.objects.create(entry.stored.position, format::encode_entry(entry)).await;
        let mut view = self.view();
        view.turns.measured_create(self.world.now().saturating_duration_since(asked));
        if outcome.is_ok() || (matches!(outcome, Err(StoreError::Refused { .. })) && !doubtful) {
            view.in_doubt = None;
        }
        outcome.map_err(|error| match error {
            StoreError::Refused { reason, .. } if !doubtful => JournalError::NotDone(reason),
            error => JournalError::Unknown(error.to_string()),
        })
    }

    /// Whether the object that was created is an entry: it is not, if its position was trimmed before (H3). `onto` has to
    /// be in the journal still, or this is another history (H2).
    async fn confirm(&self, entry: Entry, onto: Head) -> Result<bool, JournalError> {
        let position = entry.stored.position;
        let predecessor = async {
            if onto.position == Position(0) { Ok(Some(onto.token)) } else { self.objects.token(onto.position).await }
        };
        let (first, found) = futures::join!(self.look_at_boundary(), predecessor);
        if first? > position {
            return Ok(false);
        }
        if found? != Some(onto.token) && self.look_at_boundary().await? <= onto.position {
            let reason = "it is not in the bucket any more, or another one is in its place".to_owned();
            return Err(JournalError::Forked { after: onto, reason });
        }
        self.believe(vec![entry])?;
        self.postpone_poll();
        Ok(true)
    }

    /// Somebody else's object was met at `position`: takes it in, and what came after it, or notices that it was trimmed
    /// meanwhile. Who tried the positions one by one would come too late to each.
    async fn meet_other(&self, position: Position) -> Result<(), JournalError> {
        if self.catch_up_expecting(2).await?.position >= position {
            return Ok(());
        }
        Err(JournalError::Unknown(format!("position {position} is said to be taken, and nothing is there")))
    }

    /// Waits until an attempt is fair to the others; true if somebody else's entry came meanwhile.
    async fn wait_for_turn(&self, me: Incarnation, has_lost: bool) -> Result<bool, JournalError> {
        let now = self.world.now();
        if !has_lost {
            let (courtesy, among_others) = {
                let mut view = self.view();
                (view.turns.courtesy(me, now), view.turns.among_others(me, now))
            };
            // To sleep for nothing takes up to a millisecond.
            if !courtesy.is_zero() {
                self.world.sleep(courtesy).await;
            }
            // A look costs less than an attempt at a position that is taken.
            return if among_others { self.peek().await } else { Ok(false) };
        }
        let end = now + self.patience(me);
        let mut look_every = self.view().turns.look_every();
        loop {
            let left = end.saturating_duration_since(self.world.now());
            if left.is_zero() {
                return Ok(false);
            }
            self.world.sleep(left.min(self.jittered(look_every))).await;
            if self.peek().await? {
                return Ok(true);
            }
            // Who comes later may know later.
            look_every = look_every * 3 / 2;
        }
    }

    /// How long those who come before `me` have for their turns.
    fn patience(&self, me: Incarnation) -> Duration {
        let now = self.world.now();
        let (rank, slot) = {
            let view = self.view();
            (view.turns.rank(me, now), view.turns.slot())
        };
        if rank == 0 { Duration::ZERO } else { self.jittered(slot * rank) }
    }

    /// Between three and five quarters of `duration`, so that two who measured the same do not meet again and again.
    fn jittered(&self, duration: Duration) -> Duration {
        let half = u64::try_from(duration.as_micros() / 2).unwrap_or(u64::MAX);
        duration * 3 / 4 + Duration::from_micros(self.world.random_below(half + 1))
    }

    fn appended(&self, position: Position, after: Head) -> Appended {
        let view = self.view();
        let next = after.position.next();
        let missed = if next < view.boundary.first { Vec::new() } else { view.remembered(next, position) };
        Appended { position, missed }
    }
}
