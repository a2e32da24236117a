//! A connection over HTTP/1.1: hyper runs it, one request at a time.

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
use super::super::framing::Limits;
use super::super::incoming::Incoming;
use super::super::pipeline;
use super::super::stream::Stream;
use super::super::tunnel::Tunnel;
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
    let mut http = speak(Rc::clone(session), stream);
    let mut waker_is_known = false;
    poll_fn(|cx| {
        if !std::mem::replace(&mut waker_is_known, true) {
            watch.set_waker(cx.waker());
        }
        loop {
            if Pin::new(&mut http).poll(cx).is_ready() || watch.speaks_http2() {
                return Poll::Ready(());
            }
            if closing.begins(watch) {
                Pin::new(&mut http).graceful_shutdown();
                continue;
            }
            if ready!(timer.poll(cx, &**watch)) == Ended::Close {
                return Poll::Ready(());
            }
        }
    })
    .await;
    let io = http.into_parts().io;
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

fn speak(
    session: Rc<Session>,
    stream: Stream,
) -> http1::Connection<
    ClientIo,
    impl Service<Request<Http1>, Response = Response<ResponseBody>, Error = Infallible>,
> {
    let local = session.local();
    let listener = &local.listeners()[session.listener_index()];
    let limits = Limits { bytes: listener.max_header_bytes, fields: listener.max_header_count };
    let (watch, scratch) = (Rc::clone(session.watch()), session.worker.scratch());
    let io = ClientIo::new(stream, limits, listener, watch, scratch);
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
