//! Reads frames off a socket. Memory is taken from the budget as bytes arrive, not as a length claims: a frame's buffer
//! starts small and quadruples.
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::OwnedSemaphorePermit;

use super::{Budget, Limits};
use crate::memory::Buffers;
use crate::world::World;

/// How long a frame that has begun waits for more memory. Several that wait for each other's would wait for ever.
const MEMORY_PATIENCE: Duration = Duration::from_secs(5);

/// A connection's own buffer: small requests are read into it, many at a time, and copied out of it.
const OWN_BYTES: usize = 4 << 10;

/// The first allocation for a larger frame. Most produce requests are at most four times this, so they are copied once.
const FIRST_BYTES: usize = 256 << 10;

/// The API key of Produce, as a frame begins with it.
const PRODUCE_KEY: [u8; 2] = [0, 0];

/// A frame without its size, and its share of the budget.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Why no frame came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The client hung up, or the connection broke.
    Closed,
    /// Nothing was asked for too long.
    Idle,
    /// The client stopped in the middle of a frame.
    Stalled,
    /// Other requests hold the memory that the rest of the frame needs, and perhaps wait for ours.
    NoMemory,
    /// The frame's length is negative, or over the limit.
    Size(i32),
}

/// The reading half of a connection.
pub(super) struct FrameReader<R> {
    socket: R,
    buffer: BytesMut,
    limits: Limits,
    world: World,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(socket: R, limits: Limits, world: World) -> Self {
        Self { socket, buffer: BytesMut::new(), limits, world }
    }

    /// The next frame, when its last byte has come.
    pub(super) async fn next(&mut self) -> Result<Frame, Ended> {
        let size = self.size().await?;
        let length = usize::try_from(size).ok().filter(|n| *n <= self.limits.frame_bytes_max);
        let length = length.ok_or(Ended::Size(size))?;
        while self.buffer.len() < length.min(2) {
            self.fill(Some(self.limits.frame_stall), Ended::Stalled).await?;
        }
        let produce = self.buffer.first_chunk::<2>().is_none_or(|key| *key == PRODUCE_KEY);
        if length <= OWN_BYTES - 4 {
            return self.small(length, produce).await;
        }
        self.large(length, produce).await
    }

    async fn size(&mut self) -> Result<i32, Ended> {
        while self.buffer.len() < 4 {
            let idle = if self.buffer.is_empty() { self.limits.idle } else { Some(self.limits.frame_stall) };
            let ended = if self.buffer.is_empty() { Ended::Idle } else { Ended::Stalled };
            self.fill(idle, ended).await?;
        }
        let size = self.buffer.first_chunk::<4>().map_or(0, |b| i32::from_be_bytes(*b));
        let _ = self.buffer.split_to(4);
        Ok(size)
    }

    /// Reads what there is into the own buffer.
    async fn fill(&mut self, patience: Option<Duration>, ended: Ended) -> Result<(), Ended> {
        if self.buffer.capacity() < OWN_BYTES {
            self.buffer.reserve(OWN_BYTES - self.buffer.len());
        }
        let room = OWN_BYTES - self.buffer.len();
        let mut limited = (&mut self.buffer).limit(room);
        let read = self.socket.read_buf(&mut limited);
        let read = match patience {
            Some(patience) => self.world.timeout(patience, read).await.ok_or(ended)?,
            None => read.await,
        };
        match read {
            Ok(0) | Err(_) => Err(Ended::Closed),
            Ok(_) => Ok(()),
        }
    }

    async fn small(&mut self, length: usize, produce: bool) -> Result<Frame, Ended> {
        let permit = self.reserve(length, produce).await?;
        while self.buffer.len() < length {
            self.fill(Some(self.limits.frame_stall), Ended::Stalled).await?;
        }
        // An exact copy, so that what a record keeps allocated is its request and no neighbour's.
        let bytes = Bytes::copy_from_slice(&self.buffer[..length]);
        let _ = self.buffer.split_to(length);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Ok(Frame { bytes, permit })
    }

    async fn large(&mut self, length: usize, produce: bool) -> Result<Frame, Ended> {
        let mut capacity = Buffers::size_for(length.min(FIRST_BYTES));
        let mut permit = self.reserve(capacity, produce || length > FIRST_BYTES).await?;
        let mut large = None;
        let mut frame = self.limits.buffers.take(capacity);
        let mut filled = self.buffer.len().min(length);
        frame.bytes_mut()[..filled].copy_from_slice(&self.buffer.split_to(filled));
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        while filled < length {
            if filled == capacity {
                let next = Buffers::size_for(length.min(capacity.saturating_mul(4)));
                permit.merge(self.grow(next, next - capacity, &mut large).await?);
                let mut larger = self.limits.buffers.take(next);
                larger.bytes_mut()[..filled].copy_from_slice(frame.as_ref());
                frame = larger;
                capacity = next;
            }
            let room = &mut frame.bytes_mut()[filled..length.min(capacity)];
            let read = self.world.timeout(self.limits.frame_stall, self.socket.read(room)).await;
            match read.ok_or(Ended::Stalled)? {
                Ok(0) | Err(_) => return Err(Ended::Closed),
                Ok(read) => filled += read,
            }
        }
        Ok(Frame { bytes: Bytes::from_owner(frame).slice(..length), permit })
    }

    /// More memory for a frame that will have `next` bytes then.
    async fn grow(
        &self,
        next: usize,
        more: usize,
        large: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<OwnedSemaphorePermit, Ended> {
        let budget = &self.limits.budget;
        let grown = self.world.timeout(MEMORY_PATIENCE, async {
            if large.is_none() && next > budget.total / 8 {
                *large = budget.large.clone().acquire_owned().await.ok();
            }
            self.reserve(more, true).await
        });
        grown.await.unwrap_or(Err(Ended::NoMemory))
    }

    /// Waits for room in the budget: meanwhile the socket is not read, and the client feels it. What is not `ordinary` may
    /// use the reserve.
    async fn reserve(&self, bytes: usize, ordinary: bool) -> Result<OwnedSemaphorePermit, Ended> {
        let budget: &Arc<Budget> = &self.limits.budget;
        let bytes = u32::try_from(bytes.min(budget.total)).unwrap_or(u32::MAX);
        if !ordinary && bytes as usize <= budget.reserve_total {
            if let Ok(permit) = budget.bytes.clone().try_acquire_many_owned(bytes) {
                return Ok(permit);
            }
            return budget.reserve.clone().acquire_many_owned(bytes).await.map_err(|_| Ended::Closed);
        }
        budget.bytes.clone().acquire_many_owned(bytes).await.map_err(|_| Ended::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    fn limits(budget: usize) -> Limits {
        Limits {
            connections_max: 1,
            connections_per_address_max: 1,
            frame_bytes_max: 10 << 20,
            pipeline_depth_max: 1,
            idle: Some(Duration::from_secs(60)),
            frame_stall: Duration::from_secs(5),
            write_stall: Duration::from_secs(5),
            budget: Arc::new(Budget::new(budget)),
            buffers: Arc::default(),
        }
    }

    fn framed(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as i32).to_be_bytes(), bytes].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn frames_of_every_size_come_back_to_back() {
        let sizes = [0, 1, 100, OWN_BYTES - 4, OWN_BYTES - 3, OWN_BYTES, FIRST_BYTES, FIRST_BYTES + 1, 3 << 20];
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let sent = World::seeded(2).spawn("client", async move {
            for (i, size) in sizes.iter().enumerate() {
                client.write_all(&framed(&vec![i as u8; *size])).await.unwrap();
            }
            client
        });
        let limits = limits(8 << 20);
        let mut reader = FrameReader::new(server, limits.clone(), World::seeded(1));
        for (i, size) in sizes.iter().enumerate() {
            let frame = reader.next().await.unwrap();
            assert!(frame.bytes == vec![i as u8; *size], "frame {i}");
            assert_eq!(limits.budget.used(), Buffers::size_for(*size));
        }
        drop(sent.await.unwrap());
        assert_eq!(reader.next().await.unwrap_err(), Ended::Closed);
        assert_eq!(limits.budget.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_wait_for_each_others_memory_give_up() {
        let limits = limits(1 << 20);
        let mut clients = Vec::new();
        let mut reads = Vec::new();
        for _ in 0..2 {
            let (mut client, server) = tokio::io::duplex(1 << 20);
            client.write_all(&framed(&vec![0; 600 << 10])).await.unwrap();
            clients.push(client);
            let mut reader = FrameReader::new(server, limits.clone(), World::seeded(1));
            reads.push(async move { reader.next().await });
        }
        let ended = futures::future::join_all(reads).await;
        assert!(ended.iter().any(|e| matches!(e, Err(Ended::NoMemory))));
        drop(ended);
        assert_eq!(limits.budget.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn while_producers_fill_the_budget_others_are_read() {
        let limits = limits(8000);
        let (mut producer, server) = tokio::io::duplex(1 << 16);
        let mut produces = FrameReader::new(server, limits.clone(), World::seeded(1));
        for _ in 0..3 {
            producer.write_all(&framed(&[0; 3500])).await.unwrap();
        }
        let held = [produces.next().await.unwrap(), produces.next().await.unwrap()];
        let world = produces.world.clone();
        let third = world.timeout(Duration::from_secs(1), produces.next());
        assert!(third.await.is_none(), "there is no room for a third");
        let (mut other, server) = tokio::io::duplex(1 << 16);
        other.write_all(&framed(&[0, 3, 0, 0])).await.unwrap();
        let mut others = FrameReader::new(server, limits.clone(), World::seeded(1));
        assert_eq!(others.next().await.unwrap().bytes, [0, 3, 0, 0][..]);
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn a_claimed_length_takes_no_memory() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let limits = limits(1 << 20);
        let mut reader = FrameReader::new(server, limits.clone(), World::seeded(1));
        client.write_all(&(9_i32 << 20).to_be_bytes()).await.unwrap();
        assert_eq!(reader.next().await.unwrap_err(), Ended::Stalled);
        assert_eq!(limits.budget.used(), 0);
        client.write_all(&(-1_i32).to_be_bytes()).await.unwrap();
        assert_eq!(reader.next().await.unwrap_err(), Ended::Size(-1));
        client.write_all(&(11_i32 << 20).to_be_bytes()).await.unwrap();
        assert_eq!(reader.next().await.unwrap_err(), Ended::Size(11 << 20));
        assert_eq!(reader.next().await.unwrap_err(), Ended::Idle);
    }
}
