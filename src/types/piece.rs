//! What an answer is made of: bytes in memory, and bytes of open files that the kernel sends without showing them to us.
use bytes::Bytes;
use std::fmt;
use std::os::fd::AsFd;
use std::sync::Arc;

/// A part of an answer. It is never empty.
#[derive(Clone, Debug)]
pub enum Piece {
    Memory(Bytes),
    File(FileRange),
}

/// Bytes of an open file. They stay readable when the file is deleted; the file must hold all of them.
#[derive(Clone)]
pub struct FileRange {
    pub file: Arc<dyn AsFd + Send + Sync>,
    /// Where they begin.
    pub at: u64,
    pub bytes: usize,
}

impl Piece {
    /// Its size in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File(range) => range.bytes,
        }
    }

    /// Its bytes, if they are in memory.
    #[must_use]
    pub fn in_memory(&self) -> Option<&Bytes> {
        match self {
            Self::Memory(bytes) => Some(bytes),
            Self::File(_) => None,
        }
    }
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self::Memory(bytes)
    }
}

impl fmt::Debug for FileRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {}..+{} of file {:?}", self.at, self.bytes, self.file.as_fd())
    }
}
