//! What is asked of a proxy: how requests come, what they bring and fetch, and what is looked at.

use std::net::SocketAddr;

/// How requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scene {
    /// In the clear, over connections that are kept
    Plain,
    /// The same under TLS
    Tls,
    /// A new connection under TLS for each request
    Handshakes,
    /// HTTP/2 under TLS, four streams a connection
    H2,
    /// In the clear, beside 10 routes by path
    #[value(name = "routes-10")]
    Routes10,
    /// In the clear, beside 5,000 routes by path
    #[value(name = "routes-5000")]
    Routes5000,
    /// 5,000 routes by path, held against 10
    Routes,
    /// 5,000 routes by path, reloaded every second, held against the same in peace
    Reloads,
    /// Replies of a mebibyte
    Downloads,
    /// Requests of a mebibyte
    Uploads,
    /// Messages over WebSocket, each answered by an echo
    Websocket,
    /// In the clear, at half of what the slowest can do
    Latency,
    /// 10,000 connections that ask once and then wait
    Idle,
}

/// What a body weighs in the scenes about bodies.
pub(crate) const LARGE_BYTES: usize = 1024 * 1024;

/// Under this path the origin gives a large body.
pub(crate) const LARGE_PATH: &str = "/large";

impl Scene {
    pub(crate) const ALL: [Self; 13] = [
        Self::Plain,
        Self::Tls,
        Self::Handshakes,
        Self::H2,
        Self::Routes10,
        Self::Routes5000,
        Self::Routes,
        Self::Reloads,
        Self::Downloads,
        Self::Uploads,
        Self::Websocket,
        Self::Latency,
        Self::Idle,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Plain => "in the clear, kept-alive connections",
            Self::Tls => "TLS, kept-alive connections",
            Self::Handshakes => "TLS, a connection and a full handshake for each request",
            Self::H2 => "HTTP/2 under TLS, four streams a connection",
            Self::Routes10 => "in the clear, one of 10 routes",
            Self::Routes5000 => "in the clear, one of 5,000 routes",
            Self::Routes => "in the clear, 5,000 routes held against 10",
            Self::Reloads => {
                "in the clear, 5,000 routes, reloaded every second and not, the same rate for all"
            }
            Self::Downloads => "in the clear, replies of 1 MiB",
            Self::Uploads => "in the clear, requests of 1 MiB",
            Self::Websocket => "WebSocket in the clear, messages of 64 B and their echo",
            Self::Latency => "in the clear, the same rate for all",
            Self::Idle => "10,000 idle connections in the clear",
        }
    }

    pub(crate) fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Handshakes | Self::H2)
    }

    /// Routes by path of which each leads to the origin; without any, everything does.
    pub(crate) fn routes(self) -> usize {
        match self {
            Self::Routes10 => 10,
            Self::Routes5000 | Self::Routes | Self::Reloads => 5000,
            _ => 0,
        }
    }

    /// What a plain request of this scene asks for.
    pub(crate) fn path(self) -> String {
        match self {
            Self::Downloads => LARGE_PATH.to_owned(),
            _ if self.routes() > 0 => route_path(self.routes() / 2),
            _ => "/".to_owned(),
        }
    }

    pub(crate) fn url(self, address: SocketAddr) -> String {
        format!("http{}://{address}{}", if self.is_secure() { "s" } else { "" }, self.path())
    }
}

/// What the route of this number matches, in front of anything.
pub(crate) fn route_prefix(number: usize) -> String {
    format!("/service-{number}/")
}

fn route_path(number: usize) -> String {
    route_prefix(number) + "users/1"
}
