//! How an authority is spoken to: by the connections that lists are fetched over.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response};
use http_body_util::Full;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::model;
use crate::sources::call;

/// Bytes of an answer; a chain of certificates has a few thousand.
const MAX_ANSWER: u64 = 1024 * 1024;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Client {
    ca: Option<PathBuf>,
}

impl Client {
    pub(super) fn new(acme: &model::Acme) -> Self {
        Self { ca: acme.ca.clone() }
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        mut request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (url, ca) = (request.uri().to_string(), self.ca.clone());
        let agent = HeaderValue::from_static(concat!("gateway/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        Box::pin(async move {
            let asking = tokio::time::timeout(TIMEOUT, call(&url, ca, request, MAX_ANSWER));
            let answer = asking.await.map_err(|elapsed| Error::Other(elapsed.into()))?;
            let answer: Response<Bytes> = answer.map_err(|error| Error::Other(error.into()))?;
            Ok(BytesResponse::from(answer.map(Full::new)))
        })
    }
}
