//! A provider of language models that is none: it speaks the wire of OpenAI (Chat Completions and Responses),
//! Anthropic (Messages) and Gemini as their servers do, refuses what they refuse, and says what a request tells it to.
//!
//! The demo asks it, and so do tests, which is why it is part of the program: `gateway mock-provider` runs it. What it
//! answers follows from the request alone (see `script.rs` for the language), so that tests run side by side. What
//! it was asked can be read by [`MockProvider::requests`] and at `/mock/requests`.

mod answer;
mod anthropic;
mod anthropic_reply;
mod chat;
mod chat_reply;
mod checks;
mod delivery;
mod gemini;
mod gemini_reply;
mod record;
mod responses;
mod routes;
mod schema;
mod script;
mod server;
mod side;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use tokio_rustls::rustls::ServerConfig;

pub use record::{Ended, Request};
use routes::State;

/// Whose errors and shapes an endpoint has. Both of OpenAI's dialects share these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    OpenAi,
    Anthropic,
    Gemini,
}

/// A running mock, in a thread of its own; dropping it ends it and its connections.
#[derive(Debug)]
pub struct MockProvider {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MockProvider {
    /// Starts one on any free port of loopback.
    ///
    /// # Errors
    /// No port or no thread can be had.
    pub fn start() -> io::Result<Self> {
        Self::on(TcpListener::bind("127.0.0.1:0")?, None)
    }

    /// Starts one on a listener, which may be in another network namespace; with TLS where it is told how.
    ///
    /// # Errors
    /// The listener cannot be used, or no thread can be had.
    pub fn on(listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serving = Arc::clone(&state);
        let thread = std::thread::Builder::new().name("mock-provider".to_owned()).spawn(move || {
            // What is under way ends with the runtime.
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    _ = server::serve(listener, tls, serving) => {}
                }
            });
        })?;
        Ok(Self { address, state, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The last requests, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.state.record.all()
    }

    /// Forgets them.
    pub fn forget(&self) {
        self.state.record.clear();
    }

    /// Serves until the process ends.
    pub fn join(mut self) {
        let stop = self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        drop(stop);
    }
}

impl Drop for MockProvider {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
