//! The smallest reverse proxy that pingora makes: `bench-pingora LISTEN UPSTREAM [PEM]`. One worker thread, the client's
//! Host, its address in X-Forwarded-For, as its neighbours in the benchmark do.

use std::env;

use async_trait::async_trait;
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::*;
use pingora::proxy::http_proxy_service;
use pingora::server::configuration::ServerConf;

/// Idle connections to the upstream; as many as the other peers keep.
const UPSTREAM_IDLE_MAX: usize = 64;

struct Origin {
    address: String,
}

#[async_trait]
impl ProxyHttp for Origin {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut Self::CTX) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.address.as_str(), false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        (): &mut Self::CTX,
    ) -> Result<()> {
        let client = session.client_addr().and_then(|address| address.as_inet());
        if let Some(client) = client {
            request.insert_header("X-Forwarded-For", client.ip().to_string())?;
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    let (Some(listen), Some(address)) = (args.next(), args.next()) else {
        eprintln!("usage: bench-pingora LISTEN UPSTREAM [PEM]");
        std::process::exit(2);
    };
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: UPSTREAM_IDLE_MAX,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Origin { address });
    match args.next() {
        None => service.add_tcp(&listen),
        Some(pem) => {
            let mut tls = TlsSettings::intermediate(&pem, &pem)?;
            tls.enable_h2();
            service.add_tls_with_settings(&listen, None, tls);
        }
    }
    server.add_service(service);
    server.run_forever();
}
