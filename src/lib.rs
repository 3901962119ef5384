//! Strandline: a Kafka broker without disks. The floor plan, in the order of a record's way; `docs/architecture.md`
//! has the import table that `tests/tidy.rs` checks.
pub mod api; // one file per Kafka API: resolve, ask a room, answer
pub mod cache; // objects in memory, loaded once
pub mod cli; // serve, config, version
pub mod cluster; // who the brokers are, and which one a client is sent to (pure)
pub mod compaction; // many flushes → few large objects
pub mod config; // YAML, environment and flags → checked sections
pub mod disk; // directories whose names survive a power cut
pub mod fetch; // offsets → ranges → bytes
pub mod group; // consumer groups: a machine and an owner task each
pub mod journal; // the ordered log of opaque entries
pub mod memory; // buffers that are used again
pub mod metadata; // the running replica of State: append queue, outcomes, barrier, snapshots
pub mod net; // listeners, connections, the request pipeline: sockets ⇄ frames
pub mod peers; // objects that other brokers of the zone have
pub mod planted; // defects on purpose, for the simulation only
pub mod produce; // batches of many partitions → one object → one commit
pub mod protocol; // frames, verifier, headers, versions, messages: bytes ⇄ requests
pub mod records; // record batches: views, validation, codecs (pure)
pub mod segment; // the bytes of an object (pure)
pub mod server; // wiring: build in order, start, drain, stop
pub mod state; // commands, State and apply (pure)
pub mod store; // the bucket: create, read, list, delete
pub mod telemetry; // metrics, logs, health
pub mod txn; // transactions: shared entries, time-outs, expiry of ids
pub mod types; // newtypes and Kafka error codes that every room shares
pub mod upkeep; // retention, and what nobody needs any more in the bucket
pub mod world; // clock, chance and tasks: the only door to them
