//! A fetch session as clients keep it (KIP-227): after a full fetch only what changed is named. No I/O.
use std::collections::BTreeMap;
use strandline::types::Uuid;

use super::reader::At;

/// What a fetch asks of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) topic_id: Option<Uuid>,
    pub(super) from: i64,
    pub(super) leader_epoch: i32,
    pub(super) bytes_max: i32,
}

/// The session with one broker.
#[derive(Debug, Default)]
pub(super) struct Session {
    id: i32,
    epoch: i32,
    known: BTreeMap<At, Asked>,
    /// High watermark and log start, as the broker told them last.
    told: BTreeMap<At, (i64, i64)>,
}

/// What to send.
pub(super) struct Plan {
    pub(super) id: i32,
    pub(super) epoch: i32,
    pub(super) named: Vec<(At, Asked)>,
    pub(super) forgotten: Vec<(At, Option<Uuid>)>,
}

const SESSION_ID_NOT_FOUND: i16 = 70;
/// The epoch of a fetch that wants no session.
const NO_SESSION: i32 = -1;

impl Session {
    /// The next fetch of all that is `wanted`.
    pub(super) fn next(&mut self, wanted: BTreeMap<At, Asked>, use_sessions: bool) -> Plan {
        if !use_sessions {
            return Plan { id: 0, epoch: NO_SESSION, named: wanted.into_iter().collect(), forgotten: Vec::new() };
        }
        let before = std::mem::replace(&mut self.known, wanted);
        let all = self.known.iter().map(|(at, asked)| (at.clone(), *asked));
        if self.epoch == 0 {
            self.told.clear();
            return Plan { id: self.id, epoch: 0, named: all.collect(), forgotten: Vec::new() };
        }
        let named = all.filter(|(at, asked)| before.get(at) != Some(asked)).collect();
        let gone = |at: &At, asked: &Asked| self.known.get(at).is_none_or(|now| now.topic_id != asked.topic_id);
        let forgotten: Vec<_> = before
            .iter()
            .filter(|(at, asked)| gone(at, asked))
            .map(|(at, asked)| (at.clone(), asked.topic_id))
            .collect();
        for (at, _) in &forgotten {
            self.told.remove(at);
        }
        Plan { id: self.id, epoch: self.epoch, named, forgotten }
    }

    /// An answer came, to a fetch of epoch `epoch`.
    pub(super) fn answered(&mut self, epoch: i32, error_code: i16, session_id: i32) {
        if epoch == NO_SESSION {
            return;
        }
        match error_code {
            SESSION_ID_NOT_FOUND => *self = Self::default(),
            // The old one is closed by the full fetch that opens another.
            _ if error_code != 0 => self.epoch = 0,
            _ if session_id == 0 => *self = Self::default(),
            _ => (self.id, self.epoch) = (session_id, epoch.checked_add(1).unwrap_or(1)),
        }
    }

    /// An answer had this of a partition.
    pub(super) fn tell(&mut self, at: &At, high_watermark: i64, log_start: i64) {
        self.told.insert(at.clone(), (high_watermark, log_start));
    }

    /// What still holds of a partition that an answer leaves out: its high watermark and its log start.
    pub(super) fn told(&self, at: &At) -> Option<(i64, i64)> {
        self.told.get(at).copied()
    }

    /// Nothing came back.
    pub(super) fn lost(&mut self) {
        self.epoch = 0;
    }
}
