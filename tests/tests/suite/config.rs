//! The configurations that the suite starts from.

use std::net::SocketAddr;

use gateway_tests::Upstream;

/// Everything to one upstream, on both families; `kernel` is what stands under `kernel:` besides the
/// interface.
pub(crate) fn to(upstream: &Upstream, kernel: &str) -> String {
    with(&format!("interfaces: [front0]\n{kernel}"), "", upstream.address())
}

/// The same, with every line under `kernel:` given, and more settings for the listeners (`, key: value`).
pub(crate) fn with(kernel: &str, listener: &str, upstream: SocketAddr) -> String {
    let kernel: String = kernel.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "kernel:\n{kernel}\
         listeners:\n  v4: {{address: \"198.18.1.1:8080\"{listener}}}\n  v6: {{address: \"[2001:db8:1::1]:8080\"{listener}}}\n\
         upstreams:\n  app: {{endpoints: [\"http://{upstream}\"]}}\n\
         routes:\n  all: {{match: {{path: \"/**\"}}, upstream: app}}\n"
    )
}

/// Protection alone: no listener, no route.
pub(crate) fn kernel_only(kernel: &str) -> String {
    let kernel: String = kernel.lines().map(|line| format!("  {line}\n")).collect();
    format!("kernel:\n  interfaces: [front0]\n{kernel}")
}
