//! What an answer of a store says about what happened. `object_store` maps HTTP statuses to a few error variants; this
//! file undoes that where it matters: a 409 is not a 412, a missing bucket is not a missing object, and a request that
//! never left this machine is not ambiguous.
use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

/// One failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Certainly without effect, and so will be the next try: 401, 403, a wrong bucket or request.
    Refused(String),
    /// Certainly without effect, but the next try may work: no connection, no credentials yet.
    NotSent(String),
    /// The object is not there (and the bucket is).
    Absent(String),
    /// An object has this key, or a conflicting request is under way, or our own earlier attempt was applied.
    Conflict(String),
    /// The range begins beyond the object.
    Range(String),
    /// Nothing is known: 408, 429, 5xx, a reset, an answer that makes no sense.
    Silent(String),
}

impl Failure {
    /// What was answered.
    pub(super) fn reason(self) -> String {
        match self {
            Self::Refused(reason)
            | Self::NotSent(reason)
            | Self::Absent(reason)
            | Self::Conflict(reason)
            | Self::Range(reason)
            | Self::Silent(reason) => reason,
        }
    }
}

/// How S3, Azure and GCS say in a 404 that the bucket itself is missing.
const NO_BUCKET: [&str; 3] = ["NoSuchBucket", "ContainerNotFound", "specified bucket does not exist"];

/// What `error` says.
pub(super) fn failure(error: &Error) -> Failure {
    let reason = describe(error);
    match error {
        Error::NotFound { .. } if NO_BUCKET.iter().any(|words| reason.contains(words)) => Failure::Refused(reason),
        Error::NotFound { .. } => Failure::Absent(reason),
        Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. } => {
            Failure::Conflict(reason)
        }
        Error::PermissionDenied { .. }
        | Error::Unauthenticated { .. }
        | Error::InvalidPath { .. }
        | Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::UnknownConfigurationKey { .. } => Failure::Refused(reason),
        _ if never_sent(error) => Failure::NotSent(reason),
        // Azurite answers such a range with a 206, which the library then finds wrong.
        _ if reason.contains("Wanted range starting at") => Failure::Range(reason),
        _ => match status(&reason) {
            Some(408 | 425 | 429) => Failure::Silent(reason),
            Some(416) => Failure::Range(reason),
            // A 3xx is a wrong region or endpoint; a 400 an expired token, a checksum that does not hold, a bad header.
            // 501 is how a store says that it knows no conditional PUT.
            Some(300..=499 | 501) => Failure::Refused(reason),
            _ if reason.contains("redirect without LOCATION") => Failure::Refused(reason),
            _ => Failure::Silent(reason),
        },
    }
}

/// The error with its causes, on one line and of a length for a log.
fn describe(error: &Error) -> String {
    const CHARS_MAX: usize = 600;
    let text: Vec<_> = error.to_string().split_whitespace().map(str::to_owned).collect();
    text.join(" ").chars().take(CHARS_MAX).collect()
}

/// The HTTP status, which the library gives in words only ("… status code: 503 Service Unavailable: …").
fn status(reason: &str) -> Option<u16> {
    let (_, after) = reason.split_once("status code: ")?;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Whether the request failed before a byte of it was sent: while connecting, or while asking for credentials.
fn never_sent(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = cause {
        if let Some(http) = e.downcast_ref::<HttpError>() {
            return http.kind() == HttpErrorKind::Connect;
        }
        cause = e.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_found_in_the_library_s_words() {
        assert_eq!(status("x: Server returned non-2xx status code: 503 Service Unavailable: <Error>"), Some(503));
        assert_eq!(status("Generic S3 error: nothing"), None);
    }
}
