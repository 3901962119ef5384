//! The clients of S3, GCS and Azure from the settings: two per bucket, with the library's retries off.
use super::Clients;
use crate::store::open::BucketSettings;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use std::sync::Arc;
use std::time::Duration;

/// Why a client could not be made; nothing has been asked of the store yet.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the endpoint {0} is not encrypted: set allow_http if the network between is trusted")]
    NotEncrypted(String),
    #[error("{0}")]
    Settings(#[from] object_store::Error),
}

/// Which of the clients.
#[derive(Clone, Copy)]
enum Client {
    Data,
    Control,
    /// Deletes many objects at once.
    Bulk,
}

/// S3 and what speaks its language. What the settings leave out comes from `AWS_*` variables; credentials, if neither
/// has them, from web identity, the container's or the instance's metadata service.
///
/// Bodies are not part of the signature: they carry a CRC-64 that the store verifies, and that is signed. Over TLS a
/// signature of the body adds nothing; over `http` it would cost a SHA-256 (about 1 GB/s a core) and protect writes but
/// not reads on a network that has to be trusted anyway.
///
/// # Errors
/// If the settings contradict each other.
pub fn s3(settings: &BucketSettings, bucket: &str) -> Result<Clients, ConnectError> {
    s3_with(settings, bucket, |builder| builder)
}

/// `adjust` is where a test puts a network of its own.
pub(super) fn s3_with(
    settings: &BucketSettings,
    bucket: &str,
    adjust: impl Fn(AmazonS3Builder) -> AmazonS3Builder,
) -> Result<Clients, ConnectError> {
    let allow_http = allow_http(settings)?;
    // Directory buckets ("S3 Express") have sessions, and lists without an order.
    let express = bucket.ends_with("--x-s3");
    let make = |client| -> Result<Arc<dyn ObjectStore>, ConnectError> {
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_unsigned_payload(true)
            // Else the delete of one object is a bulk too, of which a success says nothing.
            .with_disable_bulk_delete(!matches!(client, Client::Bulk))
            .with_s3_express(express)
            .with_virtual_hosted_style_request(settings.virtual_host_style)
            .with_retry(no_retries())
            .with_client_options(options(client).with_allow_http(allow_http));
        if settings.s3_checksum {
            builder = builder.with_checksum_algorithm(Checksum::CRC64NVME);
        }
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &settings.region {
            builder = builder.with_region(region);
        }
        if let Some(id) = &settings.access_key_id {
            builder = builder.with_access_key_id(id);
        }
        if let Some(secret) = &settings.secret_access_key {
            builder = builder.with_secret_access_key(secret);
        }
        if let Some(token) = &settings.session_token {
            builder = builder.with_token(token);
        }
        if matches!(client, Client::Data) {
            tracing::info!(bucket, credentials = credentials(&builder), "opening the S3 bucket");
        }
        Ok(Arc::new(adjust(builder).build()?))
    };
    let (data, control, bulk) = (make(Client::Data)?, make(Client::Control)?, make(Client::Bulk)?);
    Ok(Clients { data, control, bulk, sorted: !express })
}

/// Which credentials the builder will use. Profiles (`AWS_PROFILE`) are none of them: with only such, the library
/// silently asks the instance's metadata service, so that people want to see which it was.
fn credentials(builder: &AmazonS3Builder) -> &'static str {
    let given = |key| builder.get_config_value(&key).is_some();
    if given(AmazonS3ConfigKey::AccessKeyId) {
        "access key"
    } else if given(AmazonS3ConfigKey::WebIdentityTokenFile) && given(AmazonS3ConfigKey::RoleArn) {
        "web identity"
    } else if given(AmazonS3ConfigKey::ContainerCredentialsRelativeUri)
        || given(AmazonS3ConfigKey::ContainerCredentialsFullUri)
            && given(AmazonS3ConfigKey::ContainerAuthorizationTokenFile)
    {
        "container metadata service"
    } else {
        "instance metadata service"
    }
}

/// Google Cloud Storage. What the settings leave out comes from `GOOGLE_*` variables and the default credentials.
///
/// # Errors
/// If the settings contradict each other, or the service account's file can't be read.
pub fn gcs(settings: &BucketSettings, bucket: &str) -> Result<Clients, ConnectError> {
    gcs_with(settings, bucket, |builder| builder)
}

/// `adjust` is where a test puts a network of its own.
pub(super) fn gcs_with(
    settings: &BucketSettings,
    bucket: &str,
    adjust: impl Fn(GoogleCloudStorageBuilder) -> GoogleCloudStorageBuilder,
) -> Result<Clients, ConnectError> {
    let allow_http = allow_http(settings)?;
    let make = |client| -> Result<Arc<dyn ObjectStore>, ConnectError> {
        let mut builder = GoogleCloudStorageBuilder::from_env()
            .with_bucket_name(bucket)
            .with_retry(no_retries())
            .with_client_options(options(client).with_allow_http(allow_http));
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_base_url(endpoint);
        }
        if settings.anonymous {
            // `with_skip_signature` is not obeyed by its PUT (0.14.2), which asks the metadata service for a token.
            builder = builder.with_bearer_token("anonymous");
        }
        if let Some(path) = &settings.gcs_service_account_path {
            builder = builder.with_service_account_path(path);
        }
        Ok(Arc::new(adjust(builder).build()?))
    };
    let (data, control) = (make(Client::Data)?, make(Client::Control)?);
    Ok(Clients { data, bulk: control.clone(), control, sorted: true })
}

/// Azure Blob Storage. What the settings leave out comes from `AZURE_*` variables and the managed identity.
///
/// # Errors
/// If the settings contradict each other, or no account is named.
pub fn azure(settings: &BucketSettings, container: &str) -> Result<Clients, ConnectError> {
    let allow_http = allow_http(settings)?;
    let make = |client| -> Result<Arc<dyn ObjectStore>, ConnectError> {
        let mut builder = MicrosoftAzureBuilder::from_env()
            .with_container_name(container)
            .with_skip_signature(settings.anonymous)
            .with_retry(no_retries())
            .with_client_options(options(client).with_allow_http(allow_http));
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        if let Some(account) = &settings.azure_account {
            builder = builder.with_account(account);
        }
        if let Some(key) = &settings.azure_key {
            builder = builder.with_access_key(key);
        }
        Ok(Arc::new(builder.build()?))
    };
    let (data, control) = (make(Client::Data)?, make(Client::Control)?);
    Ok(Clients { data, bulk: control.clone(), control, sorted: true })
}

fn allow_http(settings: &BucketSettings) -> Result<bool, ConnectError> {
    match &settings.endpoint {
        Some(endpoint) if endpoint.starts_with("http://") && !settings.allow_http => {
            Err(ConnectError::NotEncrypted(endpoint.clone()))
        }
        _ => Ok(settings.allow_http),
    }
}

/// Retrying is ours: only we know which answers are ambiguous, and how long the caller waits.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..RetryConfig::default() }
}

fn options(client: Client) -> ClientOptions {
    let idle_connections = match client {
        // As many as PUTs and GETs are in flight at full load, so that none pays for a handshake.
        Client::Data => 64,
        Client::Control => 8,
        Client::Bulk => 1,
    };
    ClientOptions::new()
        .with_connect_timeout(Duration::from_secs(3))
        // Only a net below our own deadlines, see `deadline.rs`.
        .with_timeout(Duration::from_secs(28))
        .with_pool_max_idle_per_host(idle_connections)
        // Less than the 60 s after which load balancers silently drop idle connections.
        .with_pool_idle_timeout(Duration::from_secs(45))
}
