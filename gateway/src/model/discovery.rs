//! Where the endpoints of an upstream come from beside those that the configuration names.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A source of endpoints. Upstreams with the same one share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// Answers of name servers.
    Dns(DnsDiscovery),
    /// A list of endpoints, read anew when it has changed.
    File {
        /// The list.
        path: PathBuf,
        /// What sockets' paths in it are relative to.
        base_dir: PathBuf,
    },
}

/// What name servers are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsDiscovery {
    /// For this name.
    pub name: String,
    /// For records of this kind.
    pub records: Records,
    /// Whether the endpoints are spoken to under TLS, by the name that has the address.
    pub is_secure: bool,
    /// Which of their addresses are taken.
    pub family: Family,
    /// The name servers; `None`: those of the system.
    pub resolvers: Option<Vec<SocketAddr>>,
    /// An answer is good for so long, whatever it says.
    pub min_ttl: Duration,
    /// And for no longer.
    pub max_ttl: Duration,
}

/// The records that name endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Records {
    /// A and AAAA: each address is an endpoint.
    Addresses {
        /// With this port.
        port: u16,
    },
    /// SRV (RFC 2782): each target has a port, a priority and a weight.
    Services,
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Both,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

impl Discovery {
    /// Whether another source would bring the same endpoints, at whatever pace and from whichever server.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dns(one), Self::Dns(other)) => {
                let question =
                    |dns: &DnsDiscovery| (dns.name.clone(), dns.records, dns.is_secure, dns.family);
                question(one) == question(other)
            }
            (Self::File { path: one, .. }, Self::File { path: other, .. }) => one == other,
            _ => false,
        }
    }
}

impl fmt::Display for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(DnsDiscovery { name, records: Records::Services, .. }) => write!(f, "SRV {name}"),
            Self::Dns(DnsDiscovery { name, records: Records::Addresses { port }, .. }) => {
                write!(f, "DNS {name}:{port}")
            }
            Self::File { path, .. } => write!(f, "{}", path.display()),
        }
    }
}
