//! From settings to a bucket: which store a URL names, and what it needs.
use super::modelled::{Model, Modelled};
use super::object::{self, Clients, ConnectError, ObjectBucket};
use super::{Bucket, LocalBucket, MemoryBucket, Observed};
use crate::config::Config;
use crate::config::value::Secret;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Counter;
use crate::world::World;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the bucket is and how to get in. `None` means: as the store's own environment variables and metadata services
/// say. Secrets are not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct BucketSettings {
    /// `file:///path` or a path, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, `memory:`. With
    /// `?model=s3` or `?model=s3-express` after it, for benchmarks, the bucket answers as slowly as those do.
    pub url: String,
    /// The store's address, for what is not at the provider's own: MinIO, Ceph, an emulator, a private endpoint.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<String>,
    pub session_token: Option<String>,
    /// Allows an `http://` endpoint, for a network that is trusted.
    pub allow_http: bool,
    /// `bucket.host/key` instead of `host/bucket/key`.
    pub virtual_host_style: bool,
    /// Sends a CRC-64/NVME with each S3 object, which the store verifies. Off only for stores that refuse the header.
    pub s3_checksum: bool,
    pub azure_account: Option<String>,
    pub azure_key: Option<String>,
    pub gcs_service_account_path: Option<String>,
    /// Requests without credentials, for emulators (GCS, Azure).
    pub anonymous: bool,
}

impl Default for BucketSettings {
    fn default() -> Self {
        Self {
            url: "memory:".into(),
            endpoint: None,
            region: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            allow_http: false,
            virtual_host_style: false,
            s3_checksum: true,
            azure_account: None,
            azure_key: None,
            gcs_service_account_path: None,
            anonymous: false,
        }
    }
}

impl From<&Config> for BucketSettings {
    fn from(config: &Config) -> Self {
        let bucket = &config.bucket;
        let secret = |s: &Option<Secret>| s.as_ref().map(|s| s.expose().to_owned());
        Self {
            url: config.bucket_url(),
            endpoint: bucket.endpoint.clone(),
            region: bucket.region.clone(),
            access_key_id: bucket.access_key_id.clone(),
            secret_access_key: secret(&bucket.secret_access_key),
            session_token: secret(&bucket.session_token),
            allow_http: bucket.allow_http,
            virtual_host_style: bucket.virtual_host_style,
            s3_checksum: bucket.s3_checksum,
            azure_account: bucket.azure_account.clone(),
            azure_key: secret(&bucket.azure_key),
            gcs_service_account_path: bucket.gcs_service_account_path.as_ref().map(|p| p.display().to_string()),
            anonymous: bucket.anonymous,
        }
    }
}

impl fmt::Debug for BucketSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketSettings")
            .field("url", &self.url)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .field("allow_http", &self.allow_http)
            .field("virtual_host_style", &self.virtual_host_style)
            .field("s3_checksum", &self.s3_checksum)
            .field("azure_account", &self.azure_account)
            .field("gcs_service_account_path", &self.gcs_service_account_path)
            .field("anonymous", &self.anonymous)
            .finish_non_exhaustive()
    }
}

/// Why a bucket could not be opened. Whether the store answers is the probe's question, see `probe.rs`.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("bucket URL {url}: {reason}")]
    Url { url: String, reason: String },
    #[error("bucket {url}: {source}")]
    Connect { url: String, source: ConnectError },
    #[error("bucket directory {}: {source}", dir.display())]
    Directory { dir: PathBuf, source: std::io::Error },
}

/// What a URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Memory,
    Directory(PathBuf),
    S3 { bucket: String, prefix: String },
    Gcs { bucket: String, prefix: String },
    Azure { container: String, prefix: String },
}

impl Place {
    /// Reads a bucket's URL; a text without a scheme is a directory.
    ///
    /// # Errors
    /// If the scheme is unknown, the bucket's name is missing, or the prefix could not be part of a key.
    pub fn parse(url: &str) -> Result<Self, OpenError> {
        let refuse = |reason: &str| OpenError::Url { url: url.to_owned(), reason: reason.to_owned() };
        if url.is_empty() {
            return Err(refuse("it is empty"));
        }
        let Some((scheme, rest)) = url.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
            return Ok(Self::Directory(url.into()));
        };
        match scheme {
            "memory" if rest.is_empty() => return Ok(Self::Memory),
            "memory" => return Err(refuse("memory: takes nothing after it")),
            "file" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                let absolute = path.starts_with('/') && path.len() > 1;
                return if absolute { Ok(Self::Directory(path.into())) } else { Err(refuse("write file:///path")) };
            }
            _ => {}
        }
        let rest = rest.strip_prefix("//").ok_or_else(|| refuse("write scheme://bucket/prefix"))?;
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let (name, prefix) = (name.to_owned(), prefix.trim_end_matches('/').to_owned());
        if name.is_empty() {
            return Err(refuse("the bucket's name is missing"));
        }
        if !prefix.is_empty() && !prefix.split('/').all(|s| !s.is_empty() && super::key::is_segment(s)) {
            return Err(refuse("a prefix is segments of letters, digits, '.', '-', '_' with '/' between"));
        }
        match scheme {
            "s3" => Ok(Self::S3 { bucket: name, prefix }),
            "gs" => Ok(Self::Gcs { bucket: name, prefix }),
            "az" => Ok(Self::Azure { container: name, prefix }),
            _ => Err(refuse("the scheme is none of file, s3, gs, az, memory")),
        }
    }
}

/// A scheme has two letters or more (`C:` is no scheme).
fn is_scheme(text: &str) -> bool {
    text.len() >= 2 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// Opens the bucket that `settings` name. A local directory is made if it is not there; a remote store is not asked
/// anything yet.
///
/// # Errors
/// See [`OpenError`]; none of them passes by itself.
pub async fn open(settings: &BucketSettings, world: World) -> Result<Arc<dyn Bucket>, OpenError> {
    open_counting(settings, world, Counter::default()).await
}

/// As [`open`], with every request counted in `metrics`, and changes between answering and not answering in the log.
///
/// # Errors
/// See [`OpenError`].
pub async fn open_observed(
    settings: &BucketSettings,
    world: World,
    metrics: Arc<Metrics>,
) -> Result<Arc<Observed>, OpenError> {
    let bucket = open_counting(settings, world.clone(), metrics.bucket.retries.clone()).await?;
    Ok(Arc::new(Observed::new(bucket, world, metrics)))
}

async fn open_counting(
    settings: &BucketSettings,
    world: World,
    repeated: Counter,
) -> Result<Arc<dyn Bucket>, OpenError> {
    let refuse = |reason: &str| OpenError::Url { url: settings.url.clone(), reason: reason.to_owned() };
    let (url, model) = match settings.url.split_once("?model=") {
        None => (settings.url.as_str(), None),
        Some((url, name)) => (url, Some(Model::named(name).ok_or_else(|| refuse("no such model"))?)),
    };
    let connected = |clients: Result<Clients, ConnectError>, prefix: &str| match clients {
        Ok(clients) => Ok(Arc::new(ObjectBucket::new(clients, prefix, world.clone(), repeated)) as Arc<dyn Bucket>),
        Err(source) => Err(OpenError::Connect { url: settings.url.clone(), source }),
    };
    let bucket: Arc<dyn Bucket> = match Place::parse(url)? {
        Place::Memory => Arc::new(MemoryBucket::new()),
        Place::Directory(dir) => Arc::new(open_directory(dir, world.clone()).await?),
        Place::S3 { bucket, prefix } => connected(object::s3(settings, &bucket), &prefix)?,
        Place::Gcs { bucket, prefix } => connected(object::gcs(settings, &bucket), &prefix)?,
        Place::Azure { container, prefix } => connected(object::azure(settings, &container), &prefix)?,
    };
    Ok(match model {
        None => bucket,
        Some(model) => Arc::new(Modelled::new(bucket, world, model)),
    })
}

async fn open_directory(dir: PathBuf, world: World) -> Result<LocalBucket, OpenError> {
    let opened = |dir: &Path| LocalBucket::open(dir, world);
    let failed = |dir: PathBuf, source| OpenError::Directory { dir, source };
    let path = dir.clone();
    match tokio::task::spawn_blocking(move || opened(&path)).await {
        Ok(Ok(bucket)) => Ok(bucket),
        Ok(Err(source)) => Err(failed(dir, source)),
        Err(e) => Err(failed(dir, std::io::Error::other(e))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_one_place() {
        let s3 = |bucket: &str, prefix: &str| Place::S3 { bucket: bucket.into(), prefix: prefix.into() };
        for (url, place) in [
            ("memory:", Place::Memory),
            ("data/bucket", Place::Directory("data/bucket".into())),
            ("/data", Place::Directory("/data".into())),
            ("file:///data/x", Place::Directory("/data/x".into())),
            ("s3://b", s3("b", "")),
            ("s3://b/p/q/", s3("b", "p/q")),
            ("gs://b/p", Place::Gcs { bucket: "b".into(), prefix: "p".into() }),
            ("az://c", Place::Azure { container: "c".into(), prefix: String::new() }),
        ] {
            assert_eq!(Place::parse(url).unwrap(), place, "{url}");
        }
        for bad in ["", "s3:b", "s3://", "s3://b//p", "s3://b/../x", "ftp://x", "file://host", "memory:x"] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn an_unencrypted_endpoint_has_to_be_allowed() {
        let endpoint = Some("http://127.0.0.1:9000".to_owned());
        let mut settings = BucketSettings { url: "s3://b".into(), endpoint, ..BucketSettings::default() };
        let world = World::seeded(1);
        assert!(matches!(open(&settings, world.clone()).await, Err(OpenError::Connect { .. })));
        settings.allow_http = true;
        assert!(open(&settings, world).await.is_ok());
    }

    #[test]
    fn secrets_are_not_shown() {
        let secret = || Some("hush".to_owned());
        let settings = BucketSettings {
            secret_access_key: secret(),
            session_token: secret(),
            azure_key: secret(),
            ..BucketSettings::default()
        };
        assert!(!format!("{settings:?}").contains("hush"));
    }
}
