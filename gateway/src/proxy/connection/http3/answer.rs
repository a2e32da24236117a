//! An answer over HTTP/3: what hyper does for the other versions is done here.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::Bytes;
use h3::error::{Code, StreamError};
use h3::server::RequestStream;
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, Response, StatusCode};
use http_body::Body as _;

use super::super::super::body::ResponseBody;
use super::super::date;
use super::transport::Send;

/// Sends it; a body that breaks off is reset, so that nobody takes it for complete.
pub(super) async fn send(
    stream: &mut RequestStream<Send, Bytes>,
    response: Response<ResponseBody>,
    is_head: bool,
) -> Result<(), StreamError> {
    let (mut head, mut body) = response.into_parts();
    let may_have_body = !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    complete(&mut head.headers, body.size_hint().exact().filter(|_| may_have_body && !is_head));
    let has_body = may_have_body && !is_head && !body.is_end_stream();
    stream.send_response(Response::from_parts(head, ())).await?;
    if has_body && !send_body(stream, &mut body).await? {
        stream.stop_stream(Code::H3_INTERNAL_ERROR);
        return Ok(());
    }
    stream.finish().await
}

/// Whether all of it came.
async fn send_body(
    stream: &mut RequestStream<Send, Bytes>,
    body: &mut ResponseBody,
) -> Result<bool, StreamError> {
    loop {
        let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await else { return Ok(true) };
        // Whatever it was is counted and logged.
        let Ok(frame) = frame else { return Ok(false) };
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => stream.send_data(data).await?,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    stream.send_trailers(trailers).await?;
                }
            }
        }
    }
}

fn complete(headers: &mut HeaderMap, length: Option<u64>) {
    headers.entry(DATE).or_insert_with(date::now);
    if let Some(length) = length {
        headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
}
