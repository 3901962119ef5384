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
            return Plan { id: self.id, epoch: 0, named: all.collect(), forgotten: Vec::new() };
        }
        let named = all.filter(|(at, asked)| before.get(at) != Some(asked)).collect();
        let gone = |at: &At, asked: &Asked| self.known.get(at).is_none_or(|now| now.topic_id != asked.topic_id);
        let forgotten =
            before.iter().filter(|(at, asked)| gone(at, asked)).map(|(at, asked)| (at.clone(), asked.topic_id));
        Plan { id: self.id, epoch: self.epoch, named, forgotten: forgotten.collect() }
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

    /// Nothing came back.
    pub(super) fn lost(&mut self) {
        self.epoch = 0;
    }
}
