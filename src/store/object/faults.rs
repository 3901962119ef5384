//! Creates and reads against an S3 in memory that answers as a script says: each ambiguous answer has to be recognised
//! for what it is. Time is virtual.
use super::ObjectBucket;
use super::connect::s3_with;
use crate::store::contract::variable;
use crate::store::{Bucket, BucketSettings, CreateOutcome, Key, Purpose, StoreError};
use crate::telemetry::metrics::Counter;
use crate::world::World;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    ReqwestConnector,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to one request.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    /// Not done, answered with this status.
    Answer(u16),
    /// Not done: the bucket itself is not there.
    NoBucket,
    /// Done, answered with this status.
    DoneThen(u16),
    /// Done, answered without the headers that it should have.
    DoneBare,
    /// Done or not, no answer ever.
    Hang {
        done: bool,
    },
    /// Done or not, the connection breaks.
    Reset {
        done: bool,
    },
    NoConnection,
    /// The body of the answer ends too early.
    Cut,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    /// The next requests' faults; beyond them `rest`.
    script: VecDeque<Fault>,
    rest: Option<Fault>,
    requests: Vec<(Method, HeaderMap)>,
    /// Keys that the next bulk delete does not delete.
    stuck: BTreeSet<String>,
}

#[derive(Clone, Debug, Default)]
struct FakeS3(Arc<Mutex<State>>);

impl HttpConnector for FakeS3 {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for FakeS3 {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let body = HttpResponseBody::new(body).bytes().await?;
        let path = head.uri.path().to_owned();
        let fault = {
            let mut state = self.0.lock().unwrap();
            state.requests.push((head.method.clone(), head.headers.clone()));
            let rest = state.rest.unwrap_or(Fault::None);
            state.script.pop_front().unwrap_or(rest)
        };
        let broken = |kind| HttpError::new(kind, std::io::Error::other("scripted"));
        let done = !matches!(
            fault,
            Fault::Answer(_)
                | Fault::NoBucket
                | Fault::NoConnection
                | Fault::Hang { done: false }
                | Fault::Reset { done: false }
        );
        let answer =
            if done { self.0.lock().unwrap().serve(&head.method, &path, &head.headers, body) } else { status(500) };
        match fault {
            Fault::None => Ok(answer),
            Fault::Answer(code) | Fault::DoneThen(code) => Ok(status(code)),
            Fault::NoBucket => {
                let body = Bytes::from_static(b"<Error><Code>NoSuchBucket</Code></Error>");
                Ok(Response::builder().status(404).body(body.into()).unwrap())
            }
            Fault::DoneBare => Ok(status(200)),
            Fault::Hang { .. } => std::future::pending().await,
            Fault::Reset { .. } => Err(broken(HttpErrorKind::Interrupted)),
            Fault::NoConnection => Err(broken(HttpErrorKind::Connect)),
            Fault::Cut => {
                let (head, body) = answer.into_parts();
                let body = body.bytes().await?;
                Ok(Response::from_parts(head, body.slice(..body.len() / 2).into()))
            }
        }
    }
}

impl State {
    fn serve(&mut self, method: &Method, path: &str, headers: &HeaderMap, body: Bytes) -> HttpResponse {
        match *method {
            Method::PUT => {
                assert_eq!(headers["if-none-match"], "*");
                if self.objects.contains_key(path) {
                    return status(412);
                }
                self.objects.insert(path.to_owned(), body);
                Response::builder().header("etag", "\"e\"").body(Bytes::new().into()).unwrap()
            }
            Method::DELETE => {
                self.objects.remove(path);
                status(204)
            }
            Method::POST => self.delete_many(std::str::from_utf8(&body).unwrap()),
            _ => match self.objects.get(path) {
                None => status(404),
                Some(content) => Response::builder()
                    .header("etag", "\"e\"")
                    .header("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT")
                    .header("content-length", content.len())
                    .body(content.clone().into())
                    .unwrap(),
            },
        }
    }
}

impl State {
    /// A bulk delete, which is answered with success even where it fails for some.
    fn delete_many(&mut self, request: &str) -> HttpResponse {
        let mut answer = "<DeleteResult>".to_owned();
        for key in request.split("<Key>").skip(1).map(|rest| rest.split_once('<').unwrap().0) {
            if self.stuck.remove(key) {
                answer += &format!("<Error><Key>{key}</Key><Code>InternalError</Code><Message>m</Message></Error>");
            } else {
                self.objects.remove(&format!("/bucket/{key}"));
                answer += &format!("<Deleted><Key>{key}</Key></Deleted>");
            }
        }
        Response::builder().status(200).body(Bytes::from(answer + "</DeleteResult>").into()).unwrap()
    }
}

fn status(code: u16) -> HttpResponse {
    Response::builder().status(code).body(Bytes::from_static(b"<Error/>").into()).unwrap()
}

struct Case {
    s3: FakeS3,
    bucket: ObjectBucket,
}

const KEY: &str = "a/object";
const OURS: &[u8] = b"our bytes with a nonce";

fn case(script: &[Fault]) -> Case {
    let s3 = FakeS3::default();
    s3.0.lock().unwrap().script = script.iter().copied().collect();
    let bucket = ObjectBucket::s3_over(s3.clone(), World::seeded(1)).unwrap();
    Case { s3, bucket }
}

impl Case {
    async fn create(&self) -> Result<CreateOutcome, StoreError> {
        let (first, rest) = OURS.split_at(5);
        self.bucket.create(&KEY.into(), vec![first.into(), rest.into()], Purpose::Ingest).await
    }

    async fn read(&self) -> Result<Bytes, StoreError> {
        self.bucket.read(&KEY.into(), None, Purpose::Tail).await
    }

    fn always(self, fault: Fault) -> Self {
        self.s3.0.lock().unwrap().rest = Some(fault);
        self
    }

    /// An object with these bytes is there already.
    fn with(self, content: &'static [u8]) -> Self {
        let mut state = self.s3.0.lock().unwrap();
        let path = state.path();
        state.objects.insert(path, Bytes::from_static(content));
        drop(state);
        self
    }

    fn content(&self) -> Option<Bytes> {
        let state = self.s3.0.lock().unwrap();
        state.objects.get(&state.path()).cloned()
    }

    fn requests(&self) -> usize {
        self.s3.0.lock().unwrap().requests.len()
    }
}

impl State {
    fn path(&self) -> String {
        format!("/bucket/{KEY}")
    }
}

#[tokio::test(start_paused = true)]
async fn an_ambiguous_create_that_was_applied_is_ours() {
    for fault in [
        Fault::None,
        Fault::DoneThen(503),
        Fault::DoneThen(500),
        Fault::DoneThen(409),
        Fault::DoneBare,
        Fault::Hang { done: true },
        Fault::Reset { done: true },
    ] {
        let case = case(&[fault]);
        assert_eq!(case.create().await, Ok(CreateOutcome::Created), "{fault:?}");
        assert_eq!(case.content().unwrap(), OURS);
        assert!(case.requests() <= 2, "{fault:?}: looked at it once, sent nothing again");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ambiguous_create_that_was_not_applied_is_tried_again() {
    for fault in [
        Fault::Answer(503),
        Fault::Answer(500),
        Fault::Answer(429),
        Fault::Answer(408),
        Fault::Answer(409),
        Fault::Answer(412),
        Fault::Hang { done: false },
        Fault::Reset { done: false },
        Fault::NoConnection,
    ] {
        for again in 1..3 {
            let mut script = Vec::new();
            for _ in 0..again {
                // Each failed PUT is followed by a look that finds nothing.
                script.push(fault);
                if !matches!(fault, Fault::NoConnection) {
                    script.push(Fault::None);
                }
            }
            let case = case(&script);
            assert_eq!(case.create().await, Ok(CreateOutcome::Created), "{fault:?}");
            assert_eq!(case.content().unwrap(), OURS);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_s_object_is_not_ours_whatever_the_answer_was() {
    for fault in [Fault::None, Fault::Answer(409), Fault::Answer(503), Fault::Hang { done: false }] {
        for theirs in [&b"their bytes, same size"[..], b"", b"longer than ours by some bytes"] {
            let case = case(&[fault]).with(theirs);
            assert_eq!(case.create().await, Ok(CreateOutcome::Taken), "{fault:?}");
            assert_eq!(case.content().unwrap(), theirs);
        }
    }
    let case = case(&[]).with(OURS);
    assert_eq!(case.create().await, Ok(CreateOutcome::Created), "our own, from an earlier call");
}

#[tokio::test(start_paused = true)]
async fn a_look_that_is_cut_decides_nothing() {
    let case = case(&[Fault::DoneThen(503), Fault::Cut]);
    assert_eq!(case.create().await, Ok(CreateOutcome::Created));
}

#[tokio::test(start_paused = true)]
async fn what_stays_ambiguous_is_unknown_before_kafka_gives_up() {
    for fault in [Fault::Answer(503), Fault::Answer(409), Fault::Hang { done: false }, Fault::Reset { done: false }] {
        let case = case(&[]).always(fault);
        let start = tokio::time::Instant::now();
        let got = case.create().await;
        assert!(matches!(got, Err(StoreError::Unknown { .. })), "{fault:?}: {got:?}");
        assert!(start.elapsed() <= Duration::from_secs(20), "{fault:?}: {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_one_only_if_nothing_was_sent_before() {
    for fault in [Fault::Answer(403), Fault::Answer(401), Fault::Answer(400), Fault::NoBucket] {
        let refused = case(&[fault]);
        assert!(matches!(refused.create().await, Err(StoreError::Refused { .. })), "{fault:?}");
        assert_eq!(refused.requests(), 1);
        let unknown = case(&[Fault::Hang { done: false }, Fault::Answer(500)]).always(fault);
        assert!(matches!(unknown.create().await, Err(StoreError::Unknown { .. })), "{fault:?}");
    }
    let unreachable = case(&[]).always(Fault::NoConnection);
    assert!(matches!(unreachable.create().await, Err(StoreError::Refused { .. })));
    assert!(unreachable.requests() > 5, "it was tried again until the deadline");
}

#[tokio::test(start_paused = true)]
async fn a_read_is_whole_or_an_error() {
    for fault in [Fault::Cut, Fault::Answer(500), Fault::Answer(503), Fault::Hang { done: false }, Fault::NoConnection]
    {
        assert_eq!(case(&[fault]).with(OURS).read().await.unwrap(), OURS, "{fault:?}");
        let start = tokio::time::Instant::now();
        let got = case(&[]).with(OURS).always(fault).read().await;
        assert!(matches!(got, Err(StoreError::Unknown { .. })), "{fault:?}: {got:?}");
        assert!(start.elapsed() <= Duration::from_secs(15), "{fault:?}: {:?}", start.elapsed());
    }
    assert!(matches!(case(&[]).read().await, Err(StoreError::NotFound { .. })));
    assert!(matches!(case(&[Fault::NoBucket]).read().await, Err(StoreError::Refused { .. })));
    assert!(matches!(case(&[Fault::Answer(403)]).read().await, Err(StoreError::Refused { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_is_not_answered_is_repeated() {
    for fault in [Fault::DoneThen(503), Fault::Answer(503), Fault::Hang { done: true }, Fault::Answer(404)] {
        assert_eq!(
            case(&[fault]).with(OURS).bucket.delete(&Key::from(KEY), Purpose::Control).await,
            Ok(()),
            "{fault:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_bulk_delete_is_repeated_for_what_it_did_not_delete() {
    let keys: Vec<Key> = (0..5).map(|n| format!("a/{n}")).collect();
    let filled = |script: &[Fault], stuck: &[&str]| {
        let case = case(script);
        let mut state = case.s3.0.lock().unwrap();
        keys.iter().for_each(|key| drop(state.objects.insert(format!("/bucket/{key}"), Bytes::new())));
        state.stuck = stuck.iter().map(|key| (*key).to_owned()).collect();
        drop(state);
        case
    };
    let left = |case: &Case| case.s3.0.lock().unwrap().objects.len();
    let whole = filled(&[], &[]);
    assert!(whole.bucket.delete_all(&keys, Purpose::Upkeep).await.iter().all(Result::is_ok));
    assert_eq!((left(&whole), whole.requests()), (0, 1), "one request for all");
    for fault in
        [Fault::None, Fault::DoneThen(503), Fault::Answer(503), Fault::Hang { done: true }, Fault::NoConnection]
    {
        let some = filled(&[fault], &["a/1", "a/4"]);
        assert!(some.bucket.delete_all(&keys, Purpose::Upkeep).await.iter().all(Result::is_ok), "{fault:?}");
        assert_eq!(left(&some), 0, "{fault:?}");
    }
    let no_bulks = filled(&[Fault::Answer(501)], &[]);
    assert!(no_bulks.bucket.delete_all(&keys, Purpose::Upkeep).await.iter().all(Result::is_ok));
    assert_eq!((left(&no_bulks), no_bulks.requests()), (0, 6), "then one by one");
    let away = filled(&[], &[]).always(Fault::Answer(503));
    let results = away.bucket.delete_all(&keys, Purpose::Upkeep).await;
    assert!(results.iter().all(|result| matches!(result, Err(StoreError::Unknown { .. }))), "{results:?}");
    assert_eq!(left(&away), 5);
}

#[tokio::test(start_paused = true)]
async fn a_put_carries_a_signed_checksum_and_an_unsigned_body() {
    let case = case(&[]);
    case.create().await.unwrap();
    let headers = case.s3.0.lock().unwrap().requests[0].1.clone();
    assert!(headers.contains_key("x-amz-checksum-crc64nvme"));
    assert_eq!(headers["x-amz-content-sha256"], "UNSIGNED-PAYLOAD");
    assert_eq!(headers["content-length"], OURS.len().to_string().as_str());
    assert!(headers["authorization"].to_str().unwrap().contains("x-amz-checksum-crc64nvme"));
}

/// Changes one byte of every PUT on its way.
#[derive(Debug)]
struct Corruptor(Option<HttpClient>);

impl HttpConnector for Corruptor {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Self(Some(ReqwestConnector::default().connect(options)?))))
    }
}

#[async_trait]
impl HttpService for Corruptor {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let mut body = HttpResponseBody::new(body).bytes().await?.to_vec();
        if head.method == Method::PUT {
            body[3] ^= 1;
        }
        self.0.as_ref().unwrap().execute(http::Request::from_parts(head, body.into())).await
    }
}

#[tokio::test]
#[ignore = "needs a server: see the head of contract.rs"]
async fn store_contract_s3_refuses_a_body_that_was_changed_on_its_way() {
    let endpoint = Some(variable("STORE_TEST_S3_ENDPOINT"));
    let settings = BucketSettings { endpoint, allow_http: true, ..BucketSettings::default() };
    let bucket = variable("STORE_TEST_S3_BUCKET");
    let clients = s3_with(&settings, &bucket, |b| b.with_http_connector(Corruptor(None))).unwrap();
    let bucket = ObjectBucket::new(clients, "contract", World::real().unwrap(), Counter::default());
    let got = bucket.create(&KEY.into(), vec![Bytes::from_static(OURS)], Purpose::Ingest).await;
    assert!(matches!(got, Err(StoreError::Refused { .. })), "{got:?}");
    assert!(matches!(bucket.read(&KEY.into(), None, Purpose::Tail).await, Err(StoreError::NotFound { .. })));
}
