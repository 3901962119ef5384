//! An S3 in memory behind a network that fails: what the broker's real S3 client talks to. Requests that were sent go
//! on when their sender dies.
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use strandline::world::{Instant, World};
use tokio::sync::oneshot;

use crate::faults::{Fault, Faults};
use crate::network::{Link, Network};

/// The objects; clones share them.
#[derive(Clone, Default)]
pub struct Objects(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    /// By their path `/bucket/key`.
    contents: BTreeMap<String, Bytes>,
    /// When each came.
    since: BTreeMap<String, Instant>,
}

impl Objects {
    /// Every key with its content.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<String, Bytes> {
        self.lock().contents.iter().map(|(path, content)| (path[PREFIX.len()..].to_owned(), content.clone())).collect()
    }

    /// The keys of those that came after `instant`.
    #[must_use]
    pub fn after(&self, instant: Instant) -> BTreeSet<String> {
        let held = self.lock();
        let young = held.since.iter().filter(|(_, since)| **since > instant);
        young.map(|(path, _)| path[PREFIX.len()..].to_owned()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const PREFIX: &str = "/bucket/";

/// One broker's way to the store.
#[derive(Clone)]
pub struct Access {
    pub objects: Objects,
    pub world: World,
    pub faults: Faults,
    pub network: Network,
    pub broker: i32,
    /// How long a request takes at most when nothing is wrong, in ms.
    pub delay_ms: u64,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broker {}'s way to the bucket", self.broker)
    }
}

impl HttpConnector for Access {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Access {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let body = HttpResponseBody::new(body).bytes().await?;
        let (answer, answered) = oneshot::channel();
        let access = self.clone();
        self.world.spawn("request to the bucket", async move {
            if let Some(response) = access.serve(head, body).await {
                // A sender that died or gave up needs no answer.
                let _ = answer.send(response);
            }
        });
        match answered.await {
            Ok(response) => response,
            Err(_) => std::future::pending().await,
        }
    }
}

/// What may happen to a request, beside being slow; what is done then, and what is answered.
const REQUEST_FAULTS: [Fault; 11] = [
    Fault::BucketNoConnection,
    Fault::BucketReset,
    Fault::BucketBusy,
    Fault::BucketError,
    Fault::BucketConflict,
    Fault::BucketPrecondition,
    Fault::BucketDoneThenBusy,
    Fault::BucketDoneThenConflict,
    Fault::BucketReplyLost,
    Fault::BucketDoneLater,
    Fault::BucketHangs,
];

impl Access {
    /// The answer; none if there is never one.
    async fn serve(&self, head: http::request::Parts, body: Bytes) -> Option<Result<HttpResponse, HttpError>> {
        let world = &self.world;
        let mut delay = 1 + world.random_below(self.delay_ms.max(1));
        if self.faults.happens(Fault::BucketSlow) {
            delay += 500 + world.random_below(8_000);
        }
        world.sleep(Duration::from_millis(delay)).await;
        self.network.passable(Link::Bucket(self.broker)).await;
        let is_put = head.method == Method::PUT;
        if is_put && self.faults.happens(Fault::BucketFull) {
            return Some(Ok(status(507)));
        }
        let fault = self.faults.first_of(&REQUEST_FAULTS);
        let answer = match fault {
            None => self.done(&head, body),
            Some(Fault::BucketNoConnection) => return Some(Err(broken(HttpErrorKind::Connect))),
            Some(Fault::BucketReset) => return Some(Err(broken(HttpErrorKind::Interrupted))),
            Some(Fault::BucketBusy) => return Some(Ok(status(503))),
            Some(Fault::BucketError) => return Some(Ok(status(500))),
            Some(Fault::BucketConflict) => return Some(Ok(status(409))),
            Some(Fault::BucketPrecondition) => return Some(Ok(status(if is_put { 412 } else { 500 }))),
            Some(Fault::BucketDoneThenBusy) => {
                self.done(&head, body);
                return Some(Ok(status(503)));
            }
            Some(Fault::BucketDoneThenConflict) => {
                self.done(&head, body);
                return Some(Ok(status(409)));
            }
            Some(Fault::BucketReplyLost) => {
                self.done(&head, body);
                return Some(Err(broken(HttpErrorKind::Interrupted)));
            }
            Some(Fault::BucketDoneLater) => {
                world.sleep(Duration::from_millis(1_000 + world.random_below(45_000))).await;
                self.done(&head, body);
                return None;
            }
            Some(_) => {
                if world.random_below(2) == 0 {
                    self.done(&head, body);
                }
                return None;
            }
        };
        Some(Ok(self.damaged(&head.method, answer).await))
    }

    /// What a body that is read may suffer.
    async fn damaged(&self, method: &Method, answer: HttpResponse) -> HttpResponse {
        if *method != Method::GET || answer.status() != 200 && answer.status() != 206 {
            return answer;
        }
        let Some(fault) = self.faults.first_of(&[Fault::BucketCut, Fault::BucketCorrupt]) else { return answer };
        let (head, body) = answer.into_parts();
        let Ok(body) = body.bytes().await else { return status(500) };
        if body.is_empty() {
            return Response::from_parts(head, body.into());
        }
        let at = usize::try_from(self.world.random_below(body.len() as u64)).unwrap_or(0);
        let body = match fault {
            Fault::BucketCut => body.slice(..at),
            _ => {
                let mut body = body.to_vec();
                body[at] ^= 1 << self.world.random_below(8);
                body.into()
            }
        };
        Response::from_parts(head, body.into())
    }

    fn done(&self, head: &http::request::Parts, body: Bytes) -> HttpResponse {
        let path = head.uri.path();
        let mut held = self.objects.lock();
        let Held { contents: objects, since } = &mut *held;
        match head.method {
            Method::PUT if objects.contains_key(path) && head.headers.contains_key("if-none-match") => status(412),
            Method::PUT => {
                self.network.note("put", path, &body);
                objects.insert(path.to_owned(), body);
                since.insert(path.to_owned(), self.world.now());
                answer(Response::builder().header("etag", "\"e\""), Bytes::new())
            }
            Method::DELETE => {
                self.network.note("delete", path, &[]);
                objects.remove(path);
                since.remove(path);
                status(204)
            }
            Method::POST => {
                let keys = keys_of(&body);
                for path in keys.iter().map(|key| format!("{PREFIX}{key}")) {
                    self.network.note("delete", &path, &[]);
                    objects.remove(&path);
                    since.remove(&path);
                }
                let deleted = keys.iter().map(|key| format!("<Deleted><Key>{key}</Key></Deleted>")).collect::<String>();
                answer(Response::builder(), Bytes::from(format!("<DeleteResult>{deleted}</DeleteResult>")))
            }
            _ if path.trim_end_matches('/') == PREFIX.trim_end_matches('/') => {
                list(objects, head.uri.query().unwrap_or_default())
            }
            _ => match objects.get(path) {
                None => status(404),
                Some(content) => ranged(content, &head.headers),
            },
        }
    }
}

/// The keys that a request names to be deleted.
fn keys_of(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(body);
    let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split_once('<'));
    keys.map(|(key, _)| key.to_owned()).collect()
}

/// All of `content`, or the part that the request asks for.
fn ranged(content: &Bytes, headers: &HeaderMap) -> HttpResponse {
    let builder = Response::builder().header("etag", "\"e\"").header("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT");
    let range = headers.get("range").and_then(|range| range.to_str().ok()).and_then(|r| r.strip_prefix("bytes="));
    let Some((start, end)) = range.and_then(|range| range.split_once('-')) else {
        let builder = builder.header("content-length", content.len());
        return answer(builder, content.clone());
    };
    let number = |text: &str| text.parse::<usize>().ok();
    let (start, end) = match (number(start), number(end)) {
        (Some(start), Some(end)) => (start, end.saturating_add(1).min(content.len())),
        (Some(start), None) => (start, content.len()),
        (None, Some(last)) => (content.len().saturating_sub(last), content.len()),
        (None, None) => return status(400),
    };
    if start >= content.len() || start > end {
        return status(416);
    }
    let part = content.slice(start..end);
    let builder = builder
        .status(206)
        .header("content-length", part.len())
        .header("content-range", format!("bytes {start}-{}/{}", end - 1, content.len()));
    answer(builder, part)
}

/// A page of a listing (ListObjectsV2), at most 1,000 keys.
fn list(objects: &BTreeMap<String, Bytes>, query: &str) -> HttpResponse {
    let parameter = |name: &str| {
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        Some(pair.replace("%2F", "/").replace("%2f", "/"))
    };
    let prefix = format!("{PREFIX}{}", parameter("prefix").unwrap_or_default());
    let after = parameter("continuation-token").or_else(|| parameter("start-after"));
    let from = match after.map(|after| format!("{PREFIX}{after}")) {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix.clone()),
    };
    let mut rows =
        objects.range::<String, _>((from, Bound::Unbounded)).take_while(|(path, _)| path.starts_with(&prefix));
    let page: Vec<_> = rows.by_ref().take(1000).collect();
    let more = rows.next().is_some();
    let mut xml = format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>");
    if let (true, Some((last, _))) = (more, page.last()) {
        xml.push_str(&format!("<NextContinuationToken>{}</NextContinuationToken>", &last[PREFIX.len()..]));
    }
    for (path, content) in page {
        xml.push_str(&format!(
            "<Contents><Key>{}</Key><LastModified>2015-10-21T07:28:00.000Z</LastModified><ETag>e</ETag><Size>{}</Size>\
             </Contents>",
            &path[PREFIX.len()..],
            content.len()
        ));
    }
    xml.push_str("</ListBucketResult>");
    answer(Response::builder(), Bytes::from(xml))
}

fn answer(head: http::response::Builder, body: Bytes) -> HttpResponse {
    head.body(body.into()).expect("its headers are well-formed")
}

fn status(code: u16) -> HttpResponse {
    answer(Response::builder().status(code), Bytes::from_static(b"<Error/>"))
}

fn broken(kind: HttpErrorKind) -> HttpError {
    HttpError::new(kind, std::io::Error::other("a fault of the simulation"))
}
