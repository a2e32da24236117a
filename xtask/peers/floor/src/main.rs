//! The smallest pass-through that hyper makes: `bench-floor LISTEN UPSTREAM`. One thread, connections to the upstream
//! that are kept, heads and bodies passed on as they come. It reads nothing, changes nothing and bounds nothing, so what
//! a proxy on hyper costs above it is what that proxy does. Allocator and build are the gateway's.

use std::cell::RefCell;
use std::env;
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn Error + Send + Sync>;
/// Connections to the upstream that nobody uses.
type Idle = Rc<RefCell<Vec<SendRequest<Incoming>>>>;

fn main() -> Result<(), Failure> {
    let mut args = env::args().skip(1);
    let (Some(listen), Some(upstream)) = (args.next(), args.next()) else {
        eprintln!("usage: bench-floor LISTEN UPSTREAM");
        std::process::exit(2);
    };
    let (listen, upstream): (SocketAddr, SocketAddr) = (listen.parse()?, upstream.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(listen).await?;
        let idle = Idle::default();
        loop {
            let (client, _) = listener.accept().await?;
            client.set_nodelay(true)?;
            let idle = Rc::clone(&idle);
            let service = service_fn(move |request| pass_on(request, Rc::clone(&idle), upstream));
            // A client that goes away breaks its connection: that is the end of a round and no mistake.
            spawn_local(http1::Builder::new().serve_connection(TokioIo::new(client), service));
        }
    })
}

async fn pass_on(
    request: Request<Incoming>,
    idle: Idle,
    upstream: SocketAddr,
) -> Result<Response<Incoming>, Failure> {
    let kept = idle.borrow_mut().pop().filter(|sender| !sender.is_closed());
    let mut sender = match kept {
        Some(sender) => sender,
        None => connect(upstream).await?,
    };
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    // The next user waits in `ready` until this response has ended.
    let idle_again = Rc::clone(&idle);
    spawn_local(async move {
        if sender.ready().await.is_ok() {
            idle_again.borrow_mut().push(sender);
        }
    });
    Ok(response)
}

async fn connect(upstream: SocketAddr) -> Result<SendRequest<Incoming>, Failure> {
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    spawn_local(connection);
    Ok(sender)
}
