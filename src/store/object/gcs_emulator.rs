//! The contract suite on `fake-gcs-server`. That emulator has the XML interface's GET, LIST and DELETE, which the
//! library uses, but not its conditional PUT: here a PUT is turned into the JSON interface's upload with the same
//! condition. Everything else goes through as it is.
use super::ObjectBucket;
use super::connect::gcs_with;
use crate::store::BucketSettings;
use crate::store::contract::{on_the_bucket, variable};
use crate::telemetry::metrics::Counter;
use crate::world::World;
use async_trait::async_trait;
use http::{HeaderValue, Method};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use std::sync::Arc;

#[derive(Debug)]
struct Connector;

#[derive(Debug)]
struct PutsAsJson(HttpClient);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(PutsAsJson(ReqwestConnector::default().connect(options)?)))
    }
}

#[async_trait]
impl HttpService for PutsAsJson {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if request.method() != Method::PUT {
            return self.0.execute(request).await;
        }
        assert_eq!(request.headers()["x-goog-if-generation-match"], "0");
        let uri = request.uri();
        let (bucket, name) = uri.path()[1..].split_once('/').unwrap();
        let base = format!("http://{}", uri.authority().unwrap());
        let upload = format!("{base}/upload/storage/v1/b/{bucket}/o?uploadType=media&ifGenerationMatch=0&name={name}");
        *request.uri_mut() = upload.parse().unwrap();
        *request.method_mut() = Method::POST;
        let mut response = self.0.execute(request).await?;
        response.headers_mut().insert("etag", HeaderValue::from_static("\"any\""));
        response.headers_mut().insert("x-goog-generation", HeaderValue::from_static("1"));
        Ok(response)
    }
}

#[tokio::test]
#[ignore = "needs a server: see the head of contract.rs"]
async fn store_contract_gcs() {
    let endpoint = Some(variable("STORE_TEST_GCS_ENDPOINT"));
    let settings = BucketSettings { endpoint, anonymous: true, allow_http: true, ..BucketSettings::default() };
    let clients = gcs_with(&settings, &variable("STORE_TEST_GCS_BUCKET"), |b| b.with_http_connector(Connector));
    on_the_bucket(Arc::new(ObjectBucket::new(
        clients.unwrap(),
        "contract",
        World::real().unwrap(),
        Counter::default(),
    )))
    .await;
}
