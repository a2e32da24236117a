//! The proxy alone, from everything on one address to one upstream: what the request benchmark and a
//! profiler look at. `cargo run --release --example proxy -- 127.0.0.1:8080 127.0.0.1:9000 [workers]`

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway::model;
use gateway::proxy::Proxy;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut address = || -> Result<SocketAddr, Box<dyn Error>> {
        Ok(arguments.next().ok_or("usage: proxy LISTEN UPSTREAM [WORKERS]")?.parse()?)
    };
    let (listen, upstream) = (address()?, address()?);
    let workers = arguments.next().map_or(Ok(1), |count| count.parse())?;
    let _proxy = Proxy::start(&configuration(listen, upstream, workers), Arc::new(|_| true))?;
    loop {
        std::thread::park();
    }
}

fn configuration(listen: SocketAddr, upstream: SocketAddr, workers: usize) -> model::Proxy {
    let minute = Duration::from_secs(60);
    model::Proxy {
        workers,
        drain_timeout: minute,
        access_log: None,
        llm: Arc::default(),
        listeners: vec![model::Listener {
            name: "web".to_owned(),
            address: listen,
            tls: None,
            http2: true,
            http3: false,
            passthrough: Vec::new(),
            max_concurrent_streams: 100,
            proxy_protocol: Vec::new(),
            trusted_proxies: Vec::new(),
            header_timeout: minute,
            idle_timeout: minute,
            max_header_bytes: 32 * 1024,
            max_header_count: 100,
            request_ids: false,
            begin_traces: None,
            max_connections: 10_000,
        }],
        upstreams: vec![model::Upstream {
            connect_timeout: minute,
            response_timeout: minute,
            idle_timeout: minute,
            max_idle_connections: 64,
            keepalive_timeout: minute,
            ..model::Upstream::new("upstream", vec![model::Endpoint::tcp(upstream)])
        }],
        routes: vec![model::Route {
            name: "all".to_owned(),
            matches: model::RouteMatch {
                hosts: Vec::new(),
                path: model::PathPattern::Prefix(String::new()),
                methods: Vec::new(),
                conditions: model::Conditions::default(),
            },
            action: model::Action::Forward(model::Forward {
                shares: vec![model::Share { upstream: 0, weight: 1 }],
                sticky: None,
                host: None,
                path: None,
                mirrors: Vec::new(),
            }),
            upgrades: vec!["websocket".to_owned()],
            request_headers: None,
            response_headers: None,
            cors: None,
            deprecated: None,
        }],
    }
}
