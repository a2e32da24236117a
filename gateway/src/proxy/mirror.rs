//! Copies of requests for upstreams that are tried out: sent beside a request, answered to nobody, and never waited for.
//! What an upstream cannot take in time is given up, and counted.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, UPGRADE};
use http::{Request, Version};
use http_body::{Body as _, Frame, SizeHint};
use tokio::task::spawn_local;

use crate::model::{self, Action};
use crate::observe::http::Mirrored;

use super::body::{BodyError, RequestBody};
use super::exchange::Exchange;
use super::incoming::Incoming;
use super::upstream::{Delivery, Lease, Upstream};
use super::watch::{FOREVER, Watch};
use super::worker::Worker;

/// Tells an upstream that it gets a copy, and of which route's. Host stays as it is, unlike in Envoy: a server that looks
/// at it would know nobody of another name. Of clients that are not trusted this field is removed with its likes.
const X_FORWARDED_MIRROR: HeaderName = HeaderName::from_static("x-forwarded-mirror");

/// What a piece of a body counts beyond its bytes: many small ones take more memory than they hold.
const PIECE_BYTES: usize = 256;

/// Sends copies of a request, which is ready for its own upstream, to those that the route has it mirrored to.
pub(super) fn copy(exchange: &Exchange, request: &mut Request<RequestBody>) {
    let Some(route) = exchange.route() else { return };
    let Action::Forward(forward) = &route.action else { return };
    if forward.mirrors.is_empty() || request.headers().contains_key(UPGRADE) {
        return;
    }
    let mut queues = Vec::new();
    for mirror in &forward.mirrors {
        if exchange.local().random().below(1_000_000) < u64::from(mirror.share)
            && let Some(queue) = send_copy(exchange, request, mirror, &route.name)
        {
            queues.push(queue);
        }
    }
    if !queues.is_empty() && !request.body().is_end_stream() {
        request.body_mut().copy_to(Tee(queues));
    }
}

/// Begins to send one copy. Returns where its body is to go, unless there are too many copies already.
fn send_copy(
    exchange: &Exchange,
    request: &Request<RequestBody>,
    mirror: &model::Mirror,
    route: &str,
) -> Option<Rc<Queue>> {
    let (session, now) = (exchange.session(), exchange.started());
    let upstream = Rc::clone(exchange.local().serving(mirror.upstream, now)?);
    if upstream.copies().get() >= mirror.max_concurrent {
        upstream.meter().count_mirrored(Mirrored::TooMany);
        return None;
    }
    let queue = Rc::new(Queue::new(mirror.buffer));
    let mut copy = Request::new(RequestBody::empty());
    if !request.body().is_end_stream() {
        let left = request.body().size_hint().exact();
        *copy.body_mut() = RequestBody::copied(Copied { queue: Rc::clone(&queue), left });
    }
    *copy.version_mut() = Version::HTTP_11;
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    if let Ok(route) = HeaderValue::from_str(route) {
        copy.headers_mut().insert(X_FORWARDED_MIRROR, route);
    }
    let client = upstream
        .wants_client()
        .then(|| session.with_trusted(|peer, trusted| peer.client(request.headers(), trusted)));
    let under_way = UnderWay::new(upstream, Rc::clone(session.worker()));
    let errand = Errand { copy, queue: Rc::clone(&queue), client, ends: session.ends(), now };
    let (limit, now) = (mirror.timeout, Instant::now());
    spawn_local(async move {
        let ended = tokio::time::timeout_at((now + limit).into(), errand.run(&under_way.upstream)).await;
        under_way.result.set(ended.unwrap_or(Mirrored::TimedOut));
    });
    Some(queue)
}

/// A copy that is under way. Dropped, it is counted.
struct UnderWay {
    upstream: Rc<Upstream>,
    worker: Rc<Worker>,
    result: Cell<Mirrored>,
}

impl UnderWay {
    fn new(upstream: Rc<Upstream>, worker: Rc<Worker>) -> Self {
        upstream.copies().set(upstream.copies().get() + 1);
        Self { upstream, worker, result: Cell::new(Mirrored::Cancelled) }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.upstream.copies().set(self.upstream.copies().get().saturating_sub(1));
        self.upstream.meter().count_mirrored(self.result.get());
        self.worker.counted();
    }
}

/// A copy and what it is sent with.
struct Errand {
    copy: Request<RequestBody>,
    queue: Rc<Queue>,
    client: Option<IpAddr>,
    ends: (SocketAddr, SocketAddr),
    now: Instant,
}

impl Errand {
    /// Sends the copy and reads its answer to the end.
    async fn run(self, upstream: &Upstream) -> Mirrored {
        let Self { copy, queue, client, ends, now } = self;
        // Nobody looks at it: the copy has one limit for everything.
        let watch = Watch::new(now, FOREVER);
        let delivery = Delivery { watch: &watch, now, ends, client, trail: None };
        let sending = async {
            match upstream.send(copy, delivery).await {
                Ok((response, lease)) => discard(response.into_body(), lease).await,
                Err(_) => false,
            }
        };
        let mut sending = pin!(sending);
        // An upstream that takes nothing more would not let the connection ask for the rest of the body.
        poll_fn(|cx| match queue.state.get() {
            State::Late => Poll::Ready(Mirrored::TooSlow),
            State::Broken => Poll::Ready(Mirrored::Incomplete),
            State::Open | State::Ended | State::Unread => {
                queue.errand.replace(Some(cx.waker().clone()));
                let is_read = ready!(sending.as_mut().poll(cx));
                Poll::Ready(if is_read { Mirrored::Answered } else { Mirrored::Failed })
            }
        })
        .await
    }
}

/// Reads a body to its end, so that its connection can serve another request. Whether it came to its end.
async fn discard(mut body: Incoming, mut lease: Lease) -> bool {
    loop {
        match poll_fn(|cx| lease.poll_frame(&mut body, cx)).await {
            None => return true,
            Some(Ok(_)) => {}
            Some(Err(_)) => return false,
        }
    }
}

/// What of a body waits for one of its copies.
#[derive(Debug)]
struct Queue {
    frames: RefCell<VecDeque<Frame<Bytes>>>,
    waiting: Cell<usize>,
    limit: usize,
    state: Cell<State>,
    /// Who waits for more of it; over HTTP/2 that is not who runs the errand.
    reader: RefCell<Option<Waker>>,
    errand: RefCell<Option<Waker>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is more to come.
    Open,
    /// All of it came.
    Ended,
    /// More waits than may.
    Late,
    /// The body itself broke off.
    Broken,
    /// The copy wants no more.
    Unread,
}

impl Queue {
    fn new(limit: usize) -> Self {
        Self {
            frames: RefCell::default(),
            waiting: Cell::new(0),
            limit,
            state: Cell::new(State::Open),
            reader: RefCell::default(),
            errand: RefCell::default(),
        }
    }

    fn push(&self, frame: &Frame<Bytes>) {
        let (frame, bytes) = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => (Frame::data(data.clone()), data.len()),
            (None, Some(trailers)) => (Frame::trailers(trailers.clone()), 0),
            (None, None) => return,
        };
        let waiting = self.waiting.get() + bytes + PIECE_BYTES;
        if waiting > self.limit + PIECE_BYTES {
            return self.becomes(State::Late);
        }
        self.waiting.set(waiting);
        self.frames.borrow_mut().push_back(frame);
        wake(&self.reader);
    }

    fn pop(&self) -> Option<Frame<Bytes>> {
        let frame = self.frames.borrow_mut().pop_front()?;
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.waiting.set(self.waiting.get() - bytes - PIECE_BYTES);
        Some(frame)
    }

    /// Nothing more comes. What was given up is not kept either.
    fn becomes(&self, state: State) {
        if self.state.get() != State::Open {
            return;
        }
        self.state.set(state);
        if state != State::Ended {
            self.frames.borrow_mut().clear();
            wake(&self.errand);
        }
        wake(&self.reader);
    }
}

fn wake(waker: &RefCell<Option<Waker>>) {
    let waiting = waker.borrow_mut().take();
    if let Some(waiting) = waiting {
        waiting.wake();
    }
}

/// Where a body is copied to on its way.
#[derive(Debug)]
pub(super) struct Tee(Vec<Rc<Queue>>);

impl Tee {
    /// This came of the body.
    pub(super) fn pass(&self, frame: &Option<Result<Frame<Bytes>, BodyError>>, is_over: bool) {
        for queue in self.0.iter().filter(|queue| queue.state.get() == State::Open) {
            match frame {
                Some(Ok(frame)) => queue.push(frame),
                Some(Err(_)) => queue.becomes(State::Broken),
                None => {}
            }
            // Nobody asks for more behind trailers.
            let is_last = matches!(frame, Some(Ok(frame)) if frame.is_trailers());
            if is_over || is_last {
                queue.becomes(State::Ended);
            }
        }
    }
}

impl Drop for Tee {
    /// Nobody read it to its end.
    fn drop(&mut self) {
        self.0.iter().for_each(|queue| queue.becomes(State::Broken));
    }
}

/// The body of a copy.
#[derive(Debug)]
pub(super) struct Copied {
    queue: Rc<Queue>,
    /// Bytes that are still to come, if that is known.
    left: Option<u64>,
}

/// The copy was given up.
pub(super) struct GivenUp;

impl Copied {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, GivenUp>>> {
        if let Some(frame) = self.queue.pop() {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            self.left = self.left.map(|left| left.saturating_sub(bytes as u64));
            return Poll::Ready(Some(Ok(frame)));
        }
        match self.queue.state.get() {
            State::Open => {
                self.queue.reader.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
            State::Ended => Poll::Ready(None),
            State::Late | State::Broken | State::Unread => Poll::Ready(Some(Err(GivenUp))),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.queue.state.get() == State::Ended && self.queue.frames.borrow().is_empty()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.queue.becomes(State::Unread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(bytes: &'static [u8]) -> Option<Result<Frame<Bytes>, BodyError>> {
        Some(Ok(Frame::data(Bytes::from_static(bytes))))
    }

    /// What a copy reads now: its bytes, and how it goes on.
    fn read(copy: &mut Copied) -> (Vec<u8>, &'static str) {
        let (mut bytes, mut cx) = (Vec::new(), Context::from_waker(Waker::noop()));
        loop {
            match copy.poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    bytes.extend_from_slice(frame.data_ref().map_or(b"trailers", |data| data));
                }
                Poll::Ready(Some(Err(GivenUp))) => return (bytes, "given up"),
                Poll::Ready(None) => return (bytes, "over"),
                Poll::Pending => return (bytes, "more"),
            }
        }
    }

    #[test]
    fn a_copy_gets_what_the_body_has_or_is_given_up() {
        let broken = || Some(Err(BodyError::NotBase64));
        let trailers = || Some(Ok(Frame::trailers(http::HeaderMap::new())));
        type Frames = Vec<(Option<Result<Frame<Bytes>, BodyError>>, bool)>;
        let cases: Vec<(&str, Frames, bool, &[u8], &str)> = vec![
            ("begun", vec![(data(b"ab"), false)], false, b"ab", "more"),
            ("whole", vec![(data(b"ab"), false), (data(b"c"), true)], true, b"abc", "over"),
            ("whole, seen late", vec![(data(b"ab"), false), (None, true)], true, b"ab", "over"),
            ("trailers", vec![(data(b"ab"), false), (trailers(), false)], true, b"abtrailers", "over"),
            ("broken", vec![(data(b"ab"), false), (broken(), true)], true, b"", "given up"),
            ("left unread", vec![(data(b"ab"), false)], true, b"", "given up"),
            ("as much as may wait", vec![(data(&[b'x'; 1000]), false)], false, &[b'x'; 1000], "more"),
            ("more than may wait", vec![(data(&[b'x'; 1001]), false)], false, b"", "given up"),
            ("many small pieces", (0..5).map(|_| (data(b"a"), false)).collect(), false, b"", "given up"),
        ];
        for (name, frames, ends, bytes, state) in cases {
            let queue = Rc::new(Queue::new(1000));
            let tee = Tee(vec![Rc::clone(&queue)]);
            for (frame, is_over) in frames {
                tee.pass(&frame, is_over);
            }
            let tee = (!ends).then_some(tee);
            let mut copy = Copied { queue, left: None };
            assert_eq!(read(&mut copy), (bytes.to_vec(), state), "{name}");
            drop(tee);
        }
    }

    #[test]
    fn what_was_read_makes_room() {
        let queue = Rc::new(Queue::new(1000));
        let tee = Tee(vec![Rc::clone(&queue)]);
        let mut copy = Copied { queue, left: Some(8000) };
        for _ in 0..10 {
            tee.pass(&data(&[b'x'; 800]), false);
            assert_eq!(read(&mut copy).1, "more");
        }
        assert_eq!(copy.size_hint().exact(), Some(0));
        // Whoever wants no more keeps nothing.
        let queue = Rc::clone(&copy.queue);
        drop(copy);
        tee.pass(&data(b"a"), false);
        assert!(queue.frames.borrow().is_empty());
    }
}
