//! Three hosts on two wires: client, gateway, upstream.
//!
//! ```text
//! client eth0 ──veth── front0 gateway back0 ──veth── eth0 upstream
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::namespace::{Namespace, ip};
use crate::sweep;

/// The client's address that no list names unless the test does.
pub const CLIENT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 1, 2));
/// The same in IPv6.
pub const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2));
/// The client's other address, for tests that deny one and not the other.
pub const DENIED_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 1, 66));
/// The same in IPv6.
pub const DENIED_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x66));
/// The gateway's address towards clients.
pub const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 1, 1));
/// The same in IPv6.
pub const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1));
/// The upstream's address.
pub const UPSTREAM_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 2, 2));
/// The same in IPv6.
pub const UPSTREAM_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2));
/// The client's end of the first wire.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
/// The gateway's end of the first wire.
pub const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];

/// Neighbours are written down, not discovered: discovery of a denied source would be dropped too, and
/// a test would see a silence it did not ask for.
const CLIENT: &str = "
link set eth0 up
addr add 198.18.1.2/24 dev eth0
addr add 198.18.1.66/24 dev eth0
addr add 2001:db8:1::2/64 dev eth0 nodad
addr add 2001:db8:1::66/64 dev eth0 nodad
neigh replace 198.18.1.1 lladdr 02:00:00:00:01:01 dev eth0 nud permanent
neigh replace 2001:db8:1::1 lladdr 02:00:00:00:01:01 dev eth0 nud permanent
";
const FRONT: &str = "
link set front0 up
addr add 198.18.1.1/24 dev front0
addr add 2001:db8:1::1/64 dev front0 nodad
neigh replace 198.18.1.2 lladdr 02:00:00:00:01:02 dev front0 nud permanent
neigh replace 198.18.1.66 lladdr 02:00:00:00:01:02 dev front0 nud permanent
neigh replace 2001:db8:1::2 lladdr 02:00:00:00:01:02 dev front0 nud permanent
neigh replace 2001:db8:1::66 lladdr 02:00:00:00:01:02 dev front0 nud permanent
";
const BEHIND: &str = "
link set back0 up
addr add 198.18.2.1/24 dev back0
addr add 2001:db8:2::1/64 dev back0 nodad
neigh replace 198.18.2.2 lladdr 02:00:00:00:02:02 dev back0 nud permanent
neigh replace 2001:db8:2::2 lladdr 02:00:00:00:02:02 dev back0 nud permanent
";
const UPSTREAM: &str = "
link set eth0 up
addr add 198.18.2.2/24 dev eth0
addr add 2001:db8:2::2/64 dev eth0 nodad
neigh replace 198.18.2.1 lladdr 02:00:00:00:02:01 dev eth0 nud permanent
neigh replace 2001:db8:2::1 lladdr 02:00:00:00:02:01 dev eth0 nud permanent
";

/// The hosts and wires of one test.
#[derive(Debug)]
pub struct Net {
    /// Where requests and packets come from.
    pub client: Namespace,
    /// Where the program under test runs; it protects `front0`.
    pub gateway: Namespace,
    /// Where requests go.
    pub upstream: Namespace,
    id: String,
}

impl Net {
    /// Makes the hosts and wires.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        sweep::once();
        let id = format!("gwt-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let client = Namespace::create(&format!("{id}-client"));
        let gateway = Namespace::create(&format!("{id}-gateway"));
        let upstream = Namespace::create(&format!("{id}-upstream"));
        let net = Self { client, gateway, upstream, id };
        net.wire();
        net
    }

    /// The name that everything belonging to this test starts with.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn wire(&self) {
        let (gateway, upstream) = (self.gateway.name(), self.upstream.name());
        for namespace in [&self.client, &self.gateway, &self.upstream] {
            // Router solicitations and multicast reports would count as packets that no test sent.
            namespace.run(|| {
                for (key, value) in [("accept_dad", "0"), ("router_solicitations", "0"), ("accept_ra", "0")] {
                    std::fs::write(format!("/proc/sys/net/ipv6/conf/default/{key}"), value).unwrap();
                }
            });
        }
        ip(
            &["-batch", "-"],
            &format!(
                "link add eth0 netns {upstream} address 02:00:00:00:02:02 type veth \
                 peer name back0 netns {gateway} address 02:00:00:00:02:01\n"
            ),
        );
        self.gateway.ip(BEHIND);
        self.upstream.ip(UPSTREAM);
        self.plug_in();
    }

    /// Takes away the wire between client and gateway, as when a card is pulled or a container restarts.
    pub fn unplug(&self) {
        self.gateway.ip("link del front0");
    }

    /// Makes it anew: the same names and addresses, another interface to the kernel.
    pub fn plug_in(&self) {
        let (client, gateway) = (self.client.name(), self.gateway.name());
        ip(
            &["-batch", "-"],
            &format!(
                "link add eth0 netns {client} address 02:00:00:00:01:02 type veth \
                 peer name front0 netns {gateway} address 02:00:00:00:01:01\n"
            ),
        );
        self.client.ip(CLIENT);
        self.gateway.ip(FRONT);
    }
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}
