//! A connection over HTTP/1.1: hyper runs it, one request at a time.
//!
//! hyper keeps 16 KiB of buffers a connection, and most connections of a busy host are idle. So one that has waited for a
//! while gives all of that back and only watches its socket, and hyper begins anew with the next request.

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};

use http::{Request, Response};
use hyper::body::Incoming as Http1;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};

use super::super::body::ResponseBody;
use crate::model::Listener;

use super::super::framing::Limits;
use super::super::incoming::Incoming;
use super::super::pipeline;
use super::super::stream::Stream;
use super::super::tunnel::Tunnel;
use super::super::watch::Watch;
use super::client_io::ClientIo;
use super::timer::{Closing, Ended, Timer};
use super::{MAX_BUFFER, Session};

/// Up to this many fields hyper parses on the stack.
const STACK_FIELDS: usize = 100;

/// What is left of a connection when HTTP/1.1 is over.
pub(super) enum Left {
    Nothing,
    /// The client began with HTTP/2's preface; with it, what was read of the connection.
    Http2(Stream, Vec<u8>),
    /// Client and upstream have agreed on another protocol.
    Tunnel(Stream, Vec<u8>, Box<Tunnel>),
}

/// Serves the connection until it ends or turns out to be another's.
pub(super) async fn serve(
    session: &Rc<Session>,
    stream: Stream,
    timer: &mut Timer<'_>,
    closing: &mut Closing,
) -> Left {
    let watch = session.watch();
    let mut io = client_io(session, stream);
    loop {
        let (ended, spoken) = Box::pin(converse(session, io, timer, closing)).await;
        io = spoken;
        if ended == Spoken::Over || !rest(watch, &mut io, timer, closing).await {
            break;
        }
    }
    if watch.speaks_http2() {
        let (stream, read) = io.into_parts();
        return Left::Http2(stream, read);
    }
    if let Some(tunnel) = session.take_tunnel() {
        let (stream, read) = io.into_parts();
        return Left::Tunnel(stream, read, tunnel);
    }
    if watch.is_aborted() {
        io.reset();
    }
    Left::Nothing
}

/// Why hyper does not run the connection any more.
#[derive(PartialEq, Eq)]
enum Spoken {
    /// Nothing was said for a while.
    Rests,
    Over,
}

/// Lets hyper run the connection.
async fn converse(
    session: &Rc<Session>,
    io: ClientIo,
    timer: &mut Timer<'_>,
    closing: &mut Closing,
) -> (Spoken, ClientIo) {
    let watch = session.watch();
    let mut http = speak(Rc::clone(session), io);
    let mut waker_is_known = false;
    let ended = poll_fn(|cx| {
        if !std::mem::replace(&mut waker_is_known, true) {
            watch.set_waker(cx.waker());
        }
        loop {
            if Pin::new(&mut http).poll(cx).is_ready() || watch.speaks_http2() {
                return Poll::Ready(Spoken::Over);
            }
            if closing.begins(watch) {
                Pin::new(&mut http).graceful_shutdown();
                continue;
            }
            if watch.may_rest() {
                return Poll::Ready(Spoken::Rests);
            }
            if ready!(timer.poll(cx, &**watch)) == Ended::Close {
                return Poll::Ready(Spoken::Over);
            }
        }
    })
    .await;
    (ended, http.into_parts().io)
}

/// Waits until the client says something; `false` if it does not.
async fn rest(watch: &Watch, io: &mut ClientIo, timer: &mut Timer<'_>, closing: &mut Closing) -> bool {
    io.shrink();
    let goes_on = poll_fn(|cx| {
        loop {
            if let Poll::Ready(more) = io.poll_more(cx) {
                return Poll::Ready(more);
            }
            if closing.begins(watch) || ready!(timer.poll(cx, watch)) == Ended::Close {
                return Poll::Ready(false);
            }
        }
    })
    .await;
    if !goes_on {
        io.end();
    }
    goes_on
}

fn client_io(session: &Session, stream: Stream) -> ClientIo {
    let local = session.local();
    let listener = &local.listeners()[session.listener_index()];
    ClientIo::new(stream, limits(listener), listener, Rc::clone(session.watch()), session.worker.scratch())
}

fn limits(listener: &Listener) -> Limits {
    Limits { bytes: listener.max_header_bytes, fields: listener.max_header_count }
}

fn speak(
    session: Rc<Session>,
    io: ClientIo,
) -> http1::Connection<
    ClientIo,
    impl Service<Request<Http1>, Response = Response<ResponseBody>, Error = Infallible>,
> {
    let limits = limits(&session.local().listeners()[session.listener_index()]);
    let mut http = http1::Builder::new();
    http.max_buf_size(MAX_BUFFER.max(limits.bytes.saturating_add(1)));
    if limits.fields > STACK_FIELDS {
        http.max_headers(limits.fields);
    }
    let serve = move |request: Request<Http1>| {
        pipeline::serve(Rc::clone(&session), Rc::clone(session.watch()), request.map(Incoming::Http1))
    };
    http.serve_connection(io, service_fn(serve))
}
