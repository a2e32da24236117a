//! A connection over HTTP/3 (RFC 9114): quinn runs QUIC, h3 reads and writes what streams carry, and each request is
//! a task with a watch of its own, as under HTTP/2.
//!
//! QUIC bounds what a stream may hold and how many there are at a time. What h3 would gather without end is bounded
//! by [`frames`], in front of it; requests that are begun and thrown away have an allowance.

mod answer;
mod body;
mod frames;
mod request;
mod transport;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h3::error::Code;
use h3::server;
use quinn::crypto::rustls::HandshakeData;
use tokio::task::spawn_local;
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::observe::http::Refused;

use super::super::quic::Handshake;
use super::Session;
use super::http2::{Open, Streams};
use super::timer::{Closing, Ended, Timer};
use request::Request;
use transport::{Quic, number};

pub(in crate::proxy) use body::Http3Body;

/// How long a request may have been on its way when its client hears that no more are taken.
const LAST_REQUEST_GRACE: Duration = Duration::from_millis(500);

/// How many requests a client may throw away at once, and how many more each second. A browser that leaves a page
/// resets some hundred at worst; nobody does so every second.
const CANCELLED_AT_ONCE: u32 = 250;
const CANCELLED_A_SECOND: u32 = 25;

/// Shakes hands, and serves the connection until it ends.
pub(in crate::proxy) async fn serve(
    session: Rc<Session>,
    connecting: quinn::Connecting,
    handshake: Handshake,
) {
    let first = session.watch().deadline().into();
    let mut timer = Timer { sleep: pin!(tokio::time::sleep_until(first)), is_set: false };
    let mut closing = Closing::default();
    let mut connecting = pin!(connecting);
    let watch = session.watch();
    let connected = poll_fn(|cx| {
        watch.set_waker(cx.waker());
        if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
            return Poll::Ready(connected.ok());
        }
        closing.begins(watch);
        ready!(timer.poll(cx, &**watch));
        Poll::Ready(None)
    });
    let Some(connection) = connected.await else {
        return session.worker.count_refused(session.listens_on, Refused::TlsHandshake);
    };
    drop(handshake);
    note(&session, &connection);
    watch.begins(Instant::now(), session.header_timeout());
    speak(&session, connection, &mut timer, &mut closing).await;
}

/// What was agreed on in the handshake.
fn note(session: &Session, connection: &quinn::Connection) {
    let chain = connection.peer_identity().and_then(|shown| shown.downcast::<Vec<CertificateDer<'_>>>().ok());
    session.peer.borrow().shows(&chain.unwrap_or_default());
    let agreed = connection.handshake_data().and_then(|agreed| agreed.downcast::<HandshakeData>().ok());
    let name = agreed.and_then(|agreed| agreed.server_name).map(|name| name.to_ascii_lowercase().into());
    session.server_name.replace(name);
    // There is no other under QUIC (RFC 9001, section 4.2).
    session.tls_version.set(Some("TLSv1.3"));
}

/// Takes requests until the client goes, has nothing to ask for too long, or the worker closes the connection.
async fn speak(
    session: &Rc<Session>,
    connection: quinn::Connection,
    timer: &mut Timer<'_>,
    closing: &mut Closing,
) {
    let watch = session.watch();
    let (max_header_bytes, at_a_time) = {
        let local = session.local();
        let listener = &local.listeners()[session.listener_index()];
        (listener.max_header_bytes as u64, listener.max_concurrent_streams as usize)
    };
    let streams = Rc::new(Streams::new(Rc::clone(session)));
    let cancelled = Rc::new(Cancelled::new(connection.clone()));
    // Encoded, a header may be longer than what it says, but not by so much.
    let (quic, accepted) = Quic::new(connection, max_header_bytes.saturating_mul(2));
    let mut builder = server::builder();
    builder.max_field_section_size(max_header_bytes).send_grease(false);
    let mut http: server::Connection<Quic, Bytes> = tokio::select! {
        built = builder.build(quic) => match built {
            Ok(http) => http,
            Err(_gone) => return,
        },
        _ = poll_fn(|cx| timer.poll(cx, &**watch)) => return,
    };
    let (mut is_last_call, mut is_quiet) = (false, false);
    poll_fn(|cx| {
        watch.set_waker(cx.waker());
        Poll::Ready(())
    })
    .await;
    loop {
        let step = tokio::select! {
            biased;
            accepted = http.accept() => match accepted {
                Ok(Some(resolver)) => Step::Request(Box::new(resolver)),
                Ok(None) | Err(_) => break,
            },
            () = once(|| closing.begins(watch)) => Step::Close,
            () = once(|| is_last_call && !is_quiet && streams.are_none()) => Step::Quiet,
            ended = poll_fn(|cx| timer.poll(cx, &*streams)) => Step::Ended(ended),
        };
        match step {
            Step::Request(resolver) => {
                let Some((stopped, known)) = accepted.borrow_mut().take() else { continue };
                is_quiet = false;
                let open = streams.begin();
                let watch = Rc::clone(&open.watch);
                watch.begins(Instant::now(), session.header_timeout());
                let request = Request {
                    session: Rc::clone(session),
                    watch,
                    stopped,
                    known,
                    cancelled: Rc::clone(&cancelled),
                };
                spawn_local(Box::pin(run(request.serve(*resolver), open)));
            }
            // GOAWAY: requests that are open, or on their way, are still served.
            Step::Close => {
                is_last_call = true;
                tokio::select! {
                    said = http.shutdown(at_a_time) => if said.is_err() { break },
                    _ = poll_fn(|cx| timer.poll(cx, &*streams)) => break,
                }
            }
            Step::Quiet => {
                is_quiet = true;
                watch.idles(Instant::now(), LAST_REQUEST_GRACE);
            }
            Step::Ended(Ended::Run) => {}
            Step::Ended(Ended::Close) if is_last_call || !watch.has_requests() => break,
            // Nothing was asked for too long. What is on its way now is still answered.
            Step::Ended(Ended::Close) => watch.close(),
        }
    }
    if cancelled.are_too_many() {
        session.worker.count_refused(session.listens_on, Refused::Http3Flood);
    }
}

/// Runs a request until it ends, or until its time is over: dropped, it is reset.
async fn run(request: impl Future<Output = ()>, open: Open) {
    let Open { streams, watch } = &open;
    let mut request = pin!(request);
    let mut waker_is_known = false;
    poll_fn(|cx| {
        if !std::mem::replace(&mut waker_is_known, true) {
            watch.set_waker(cx.waker());
        }
        if request.as_mut().poll(cx).is_ready() || watch.is_aborted() || watch.is_overdue() {
            return Poll::Ready(());
        }
        streams.see(watch);
        Poll::Pending
    })
    .await;
    let streams = Rc::clone(streams);
    drop(open);
    if streams.are_none() {
        // The connection waits for something else now, and perhaps not for so long.
        streams.wake();
    }
}

/// Ends when the condition holds. Whoever may change it wakes the connection.
fn once(mut condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    poll_fn(move |_| if condition() { Poll::Ready(()) } else { Poll::Pending })
}

/// What a connection does next.
enum Step {
    Request(Box<server::RequestResolver<Quic, Bytes>>),
    Close,
    Quiet,
    Ended(Ended),
}

/// The requests that a client threw away.
pub(super) struct Cancelled {
    connection: quinn::Connection,
    left: Cell<u32>,
    refilled: Cell<Instant>,
    are_too_many: Cell<bool>,
}

impl Cancelled {
    fn new(connection: quinn::Connection) -> Self {
        let (left, refilled) = (Cell::new(CANCELLED_AT_ONCE), Cell::new(Instant::now()));
        Self { connection, left, refilled, are_too_many: Cell::new(false) }
    }

    /// One more. Too many end the connection.
    fn count(&self, now: Instant) {
        let seconds = now.saturating_duration_since(self.refilled.get()).as_secs().min(60);
        if seconds > 0 {
            let more = u32::try_from(seconds).unwrap_or(1) * CANCELLED_A_SECOND;
            self.left.set(self.left.get().saturating_add(more).min(CANCELLED_AT_ONCE));
            self.refilled.set(now);
        }
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => {
                self.are_too_many.set(true);
                self.connection.close(number(Code::H3_EXCESSIVE_LOAD.value()), b"");
            }
        }
    }

    fn are_too_many(&self) -> bool {
        self.are_too_many.get()
    }
}
