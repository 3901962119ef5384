//! Writes answers: buffers of a frame in one system call where they fit, and parts of files by the kernel itself where
//! the connection is a plain socket.
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt, DuplexStream, Interest, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use crate::types::{FileRange, Piece};
use crate::world::World;

/// Buffers per call; the kernel takes 1,024.
const SLICES_MAX: usize = 256;

/// Bytes of a file that are in memory at a time where the kernel can't send them.
const FILE_BUFFER_BYTES: usize = 256 << 10;

/// Why an answer was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteEnded {
    Closed,
    /// The client read nothing for too long.
    Stalled,
}

/// While others wait for memory (`pressed`), a client that reads nothing has only this long.
const PRESSED_STALL: Duration = Duration::from_secs(3);

/// Where a connection's answers go.
pub trait Sink: AsyncWrite + Unpin + Send {
    /// The socket, if what is written goes into it as it is.
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

impl Sink for OwnedWriteHalf {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.as_ref())
    }
}

impl Sink for WriteHalf<DuplexStream> {}

/// Writes answers to one connection.
pub(super) struct Writer<'a, W, P> {
    pub(super) sink: &'a mut W,
    pub(super) world: &'a World,
    /// The longest time without progress.
    pub(super) stall: Duration,
    pub(super) pressed: P,
}

impl<W: Sink, P: Fn() -> bool> Writer<'_, W, P> {
    /// Writes all of `pieces`.
    pub(super) async fn write_all(&mut self, pieces: Vec<Piece>) -> Result<(), WriteEnded> {
        let mut buffers = VecDeque::new();
        for piece in pieces {
            match piece {
                Piece::Memory(bytes) => buffers.push_back(bytes),
                Piece::File(range) => {
                    self.write_buffers(&mut buffers).await?;
                    self.write_file(range).await?;
                }
            }
        }
        self.write_buffers(&mut buffers).await
    }

    async fn write_buffers(&mut self, left: &mut VecDeque<Bytes>) -> Result<(), WriteEnded> {
        left.retain(|buffer| !buffer.is_empty());
        while !left.is_empty() {
            let slices: Vec<IoSlice<'_>> = left.iter().take(SLICES_MAX).map(|c| IoSlice::new(c)).collect();
            let sink = &mut self.sink;
            let patience = Patience { world: self.world, stall: self.stall, pressed: &self.pressed };
            let mut written = patience.progress(sink.write_vectored(&slices)).await?;
            while let Some(first) = left.front_mut() {
                if written < first.len() {
                    first.advance(written);
                    break;
                }
                written -= first.len();
                left.pop_front();
            }
        }
        Ok(())
    }

    async fn write_file(&mut self, range: FileRange) -> Result<(), WriteEnded> {
        let Some(socket) = self.sink.socket() else { return self.copy_file(range).await };
        let patience = Patience { world: self.world, stall: self.stall, pressed: &self.pressed };
        let (mut at, end) = (range.at, range.at + range.bytes as u64);
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let send = || {
                let mut from = at;
                rustix::fs::sendfile(socket, range.file.as_fd(), Some(&mut from), left).map_err(io::Error::from)
            };
            at += patience.progress(socket.async_io(Interest::WRITABLE, send)).await? as u64;
        }
        Ok(())
    }

    /// Writes a part of a file through memory.
    async fn copy_file(&mut self, range: FileRange) -> Result<(), WriteEnded> {
        let (mut at, end) = (range.at, range.at + range.bytes as u64);
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX).min(FILE_BUFFER_BYTES);
            let file = range.file.clone();
            let read = move || {
                let mut buffer = vec![0; left];
                let bytes = rustix::io::pread(file.as_fd(), &mut buffer, at)?;
                buffer.truncate(bytes);
                io::Result::Ok(buffer)
            };
            let buffer = self.world.compute(read).await.map_err(|_| WriteEnded::Closed)?;
            if buffer.is_empty() {
                return Err(WriteEnded::Closed);
            }
            at += buffer.len() as u64;
            self.write_buffers(&mut VecDeque::from([buffer.into()])).await?;
        }
        Ok(())
    }
}

/// How long a client may read nothing.
struct Patience<'a, P> {
    world: &'a World,
    stall: Duration,
    pressed: &'a P,
}

impl<P: Fn() -> bool> Patience<'_, P> {
    /// The bytes that `write` has written.
    async fn progress(&self, write: impl Future<Output = io::Result<usize>>) -> Result<usize, WriteEnded> {
        let mut write = pin!(write);
        let mut waited = Duration::ZERO;
        loop {
            let patience = PRESSED_STALL.min(self.stall);
            match self.world.timeout(patience, write.as_mut()).await {
                Some(written) => return written.ok().filter(|n| *n > 0).ok_or(WriteEnded::Closed),
                None => waited += patience,
            }
            if waited >= self.stall || (self.pressed)() {
                return Err(WriteEnded::Stalled);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    /// An answer with parts of a file of 3 MB between buffers, and what its client has to see.
    fn answer() -> (Vec<Piece>, Vec<u8>) {
        let content: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 7) as u8).collect();
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), &content).unwrap();
        let file = Arc::new(std::fs::File::open(path.path()).unwrap());
        let range = |at: usize, bytes| Piece::File(FileRange { file: file.clone(), at: at as u64, bytes });
        let memory = |text: &'static str| Piece::Memory(Bytes::from_static(text.as_bytes()));
        let pieces =
            vec![memory("a"), memory("bc"), range(5, 2_900_000), range(0, 1), memory("d"), range(2_999_999, 1)];
        let seen = [b"abc", &content[5..2_900_005], &content[..1], b"d", &content[2_999_999..]].concat();
        (pieces, seen)
    }

    async fn written(sink: impl Sink + 'static, pieces: Vec<Piece>, stall: Duration) -> Result<(), WriteEnded> {
        let (mut sink, world) = (sink, World::real().unwrap());
        let mut writer = Writer { sink: &mut sink, world: &world, stall, pressed: || false };
        writer.write_all(pieces).await
    }

    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn files_go_out_the_same_with_a_socket_and_without() {
        let (pieces, expected) = answer();
        let (mut client, server) = connected().await;
        let (_, write) = server.into_split();
        let mut seen = Vec::new();
        let stall = Duration::from_secs(10);
        let (done, read) = tokio::join!(written(write, pieces.clone(), stall), client.read_to_end(&mut seen));
        assert_eq!((done, read.unwrap()), (Ok(()), expected.len()));
        assert!(seen == expected, "over a socket");

        let (mut client, server) = tokio::io::duplex(64 << 10);
        let (_, write) = tokio::io::split(server);
        let mut seen = vec![0; expected.len()];
        let (done, read) = tokio::join!(written(write, pieces, stall), client.read_exact(&mut seen));
        assert_eq!((done, read.unwrap()), (Ok(()), expected.len()));
        assert!(seen == expected, "over a pipe");
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_files_has_stalled() {
        let (pieces, _) = answer();
        let (_client, server) = connected().await;
        let (_, write) = server.into_split();
        let pieces = std::iter::repeat_n(pieces, 10).flatten().collect();
        assert_eq!(written(write, pieces, Duration::from_millis(50)).await, Err(WriteEnded::Stalled));
    }

    #[tokio::test]
    async fn a_file_that_was_cut_ends_the_connection() {
        let (_client, server) = connected().await;
        let (_, write) = server.into_split();
        let file = Arc::new(tempfile::tempfile().unwrap());
        let pieces = vec![Piece::File(FileRange { file, at: 0, bytes: 10 })];
        assert_eq!(written(write, pieces, Duration::from_secs(10)).await, Err(WriteEnded::Closed));
    }
}
