//! What the broker says about itself: metrics, logs, health, and the admin port that serves them. It promises that
//! counting costs a handful of atomic adds on resolved handles, that label values are bounded sets
//! (those that clients choose, in `lags`, by number), and that the admin
//! port answers whatever state the broker is in. It never decides anything, and reads no clock: callers pass seconds
//! that they took from their `World`. Tests stand at the end of each file.
pub mod admin; // /metrics, /livez, /readyz
pub mod cleaning; // log compaction
pub mod health; // may this broker be sent clients, and if not, why
pub mod lags; // how far groups are behind
pub mod logging; // text or JSON lines on standard error
pub mod metrics;
mod process; // memory and files of this process, read at scrape
pub mod requests; // counting Kafka requests by API and version

pub use health::Health;
pub use metrics::Metrics;
