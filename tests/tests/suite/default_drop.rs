//! `kernel.default: drop`: a host that only known sources reach, and that itself reaches everybody.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use gateway_tests::{
    Agent, CLIENT_V4, CLIENT_V6, DENIED_V4, DENIED_V6, GATEWAY_V4, GATEWAY_V6, Namespace, Net, Setup,
    Upstream, eventually, require_root,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config;

/// The client's second addresses may come in, its first ones not.
const DROP: &str = "default: drop\nallow: [198.18.1.66/32, \"2001:db8:1::66/128\"]";
const PASS: &str = "default: pass\nallow: [198.18.1.66/32, \"2001:db8:1::66/128\"]";
const ALLOWED_V4: IpAddr = DENIED_V4;
const ALLOWED_V6: IpAddr = DENIED_V6;
/// For what must work: an exchange between two namespaces takes microseconds, on a machine that has the time.
const PATIENCE: Duration = Duration::from_secs(5);
/// For what must not.
const IMPATIENCE: Duration = Duration::from_millis(150);
const PORT: u16 = 7100;

/// One end of an exchange.
#[derive(Clone, Copy)]
struct End<'n>(&'n Namespace, IpAddr);

/// How long the exchange may take.
type Exchange = fn(End<'_>, End<'_>, Duration) -> Result<()>;
const EXCHANGES: [(&str, Exchange); 3] = [("TCP", tcp), ("UDP", udp), ("ping", ping)];

/// A connection, with a byte each way.
fn tcp(from: End<'_>, to: End<'_>, patience: Duration) -> Result<()> {
    let (mut asking, mut asked) = connection(from, to, patience)?;
    asking.write_all(b"?")?;
    asked.read_exact(&mut [0])?;
    asked.write_all(b"!")?;
    asking.read_exact(&mut [0])
}

fn connection(
    End(asking, from): End<'_>,
    End(asked, to): End<'_>,
    patience: Duration,
) -> Result<(TcpStream, TcpStream)> {
    let to = SocketAddr::new(to, PORT);
    let listener = asked.run(|| TcpListener::bind(to))?;
    let socket = asking.run(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&to.into(), patience)?;
        socket.set_nonblocking(false)?;
        Ok::<_, Error>(socket)
    })?;
    let (asking, (asked, _)) = (TcpStream::from(socket), listener.accept()?);
    for stream in [&asking, &asked] {
        stream.set_read_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
    }
    Ok((asking, asked))
}

/// A query and its answer.
fn udp(End(asking, from): End<'_>, End(asked, to): End<'_>, patience: Duration) -> Result<()> {
    let bind = |namespace: &Namespace, address| {
        let socket = namespace.run(|| UdpSocket::bind(address))?;
        socket.set_read_timeout(Some(patience))?;
        Ok::<_, Error>(socket)
    };
    let (asking, asked) = (bind(asking, SocketAddr::new(from, 0))?, bind(asked, SocketAddr::new(to, PORT))?);
    asking.send_to(b"?", asked.local_addr()?)?;
    let (_, sender) = asked.recv_from(&mut [0])?;
    asked.send_to(b"!", sender)?;
    asking.recv_from(&mut [0]).map(|_| ())
}

/// An echo request and its reply, which the other kernel gives.
fn ping(End(asking, from): End<'_>, End(_, to): End<'_>, patience: Duration) -> Result<()> {
    let socket = asking.run(|| {
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0")?;
        let protocol = if to.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
        let socket = Socket::new(Domain::for_address(SocketAddr::new(to, 0)), Type::DGRAM, Some(protocol))?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        Ok::<_, Error>(socket)
    })?;
    socket.set_read_timeout(Some(patience))?;
    let request = if to.is_ipv4() { 8 } else { 128 };
    socket.send_to(&[request, 0, 0, 0, 0, 0, 0, 1], &SocketAddr::new(to, 0).into())?;
    (&socket).read(&mut [0; 64]).map(|_| ())
}

/// What the host asks for and what allowed sources ask of it works; what others ask does not.
fn check(net: &Net, when: &str) {
    for (name, exchange) in EXCHANGES {
        for (host, client, allowed) in
            [(GATEWAY_V4, CLIENT_V4, ALLOWED_V4), (GATEWAY_V6, CLIENT_V6, ALLOWED_V6)]
        {
            let (host, client, allowed) =
                (End(&net.gateway, host), End(&net.client, client), End(&net.client, allowed));
            let asked = exchange(host, client, PATIENCE);
            assert!(asked.is_ok(), "{when}: {name} from the host to {}: {asked:?}", client.1);
            let unasked = exchange(client, host, IMPATIENCE);
            assert!(unasked.is_err(), "{when}: {name} from {} to the host works", client.1);
            let allows = exchange(allowed, host, PATIENCE);
            assert!(allows.is_ok(), "{when}: {name} from {} to the host: {allows:?}", allowed.1);
        }
    }
}

/// Whether a packet of an established connection arrives that the other side sends unasked.
fn hears(host: &mut TcpStream, client: &mut TcpStream) -> Result<()> {
    client.write_all(b"!")?;
    host.read_exact(&mut [0])
}

#[test]
fn the_host_reaches_everybody_and_only_known_sources_reach_it() {
    require_root!();
    for mode in ["native", "generic"] {
        let net = Net::new();
        let agent = Setup::new(&net).start(&config::kernel_only(&format!("{DROP}\nattach: {mode}")));
        check(&net, mode);
        // A SYN, a datagram and an echo request in each family, and whatever was tried again.
        let (dropped, answered) = (agent.reason("default_drop"), agent.reason("reply"));
        assert!((6..20).contains(&dropped), "{mode}: {dropped} dropped");
        assert!(answered >= 8, "{mode}: {answered} answered");
        assert_eq!(agent.status()["kernel"]["default"], "drop", "{mode}");
        let explained = agent.cli(&["explain", "packet", "198.18.1.2", "--json"]).fails_with(1).json();
        assert_eq!(explained["reason"], "default_drop", "{mode}: {explained}");
        assert_eq!(
            explained["stages"].as_array().and_then(|stages| stages.last()).unwrap()["stage"],
            "default"
        );
    }
}

#[test]
fn neighbours_are_found_and_errors_about_the_hosts_packets_arrive() {
    require_root!();
    let net = Net::new();
    let agent = Setup::new(&net).start(&config::kernel_only(DROP));
    // As on every other network, nobody has written the neighbours down.
    net.gateway.ip("neigh del 198.18.1.2 dev front0\nneigh del 2001:db8:1::2 dev front0\n");
    net.client.ip("neigh del 198.18.1.1 dev eth0\nneigh del 2001:db8:1::1 dev eth0\n");
    check(&net, "without neighbours");
    assert!(agent.reason("neighbour_discovery") > 0);
    for (host, client) in [(GATEWAY_V4, CLIENT_V4), (GATEWAY_V6, CLIENT_V6)] {
        let socket = net.gateway.run(|| UdpSocket::bind((host, 0))).unwrap();
        socket.connect((client, PORT)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send(b"?").unwrap();
        let refused = socket.recv(&mut [0]).map_err(|error| error.kind());
        assert_eq!(refused, Err(ErrorKind::ConnectionRefused), "nobody listens at {client}");
    }
    assert_eq!(agent.reason("reply_error"), 2);
}

#[test]
fn a_kill_and_a_start_keep_the_default_and_the_flows() {
    require_root!();
    let net = Net::new();
    let mut agent = Setup::new(&net).start(&config::kernel_only(DROP));
    let (host, client) = (End(&net.gateway, GATEWAY_V4), End(&net.client, CLIENT_V4));
    let (mut ours, mut theirs) = connection(host, client, PATIENCE).unwrap();
    hears(&mut ours, &mut theirs).unwrap();
    agent.kill();
    hears(&mut ours, &mut theirs).unwrap();
    check(&net, "without an agent");
    assert_eq!(agent.status()["kernel"]["default"], "drop", "without an agent");
    agent.start();
    hears(&mut ours, &mut theirs).unwrap();
    check(&net, "after the next start");
}

#[test]
fn a_burst_of_new_flows_leaves_the_established_alone() {
    require_root!();
    let net = Net::new();
    let _agent = Setup::new(&net).start(&config::kernel_only(DROP));
    let (host, client) = (End(&net.gateway, GATEWAY_V4), End(&net.client, CLIENT_V4));
    let (mut ours, mut theirs) = connection(host, client, PATIENCE).unwrap();
    // Three times as many datagrams, each to another port or from another, as new flows are remembered.
    for _ in 0..3 {
        let socket = net.gateway.run(|| UdpSocket::bind((GATEWAY_V4, 0))).unwrap();
        for port in 1..=u16::MAX {
            // Refused by the ports before; those errors are not what this is about.
            let _ = socket.send_to(b"?", (CLIENT_V4, port));
        }
    }
    hears(&mut ours, &mut theirs).unwrap();
    check(&net, "after the burst");
}

/// Whether the program that remembers flows is pinned for an interface, under whatever version of the maps.
fn remembers(agent: &Agent, slot: u32) -> bool {
    let versions = std::fs::read_dir(agent.pins()).unwrap();
    versions.map(|version| version.unwrap().path()).any(|dir| dir.join(format!("egress_{slot}")).exists())
}

#[test]
fn a_reload_passes_by_default_and_drops_again() {
    require_root!();
    let net = Net::new();
    let agent = Setup::new(&net).start(&config::kernel_only(PASS));
    let remembers = || remembers(&agent, 0);
    let become_ = |kernel: &str, default: &str| {
        agent.configure(&config::kernel_only(kernel));
        agent.cli(&["reload"]).ok();
        assert_eq!(agent.status()["kernel"]["default"], default);
    };
    let (host, client) = (End(&net.gateway, GATEWAY_V4), End(&net.client, CLIENT_V4));
    assert!(!remembers());
    for _ in 0..2 {
        tcp(client, host, PATIENCE).unwrap();
        become_(DROP, "drop");
        assert!(remembers());
        check(&net, "after a reload to drop");
        let (mut ours, mut theirs) = connection(host, client, PATIENCE).unwrap();
        become_(DROP, "drop");
        hears(&mut ours, &mut theirs).unwrap();
        become_(PASS, "pass");
        assert!(!remembers());
        hears(&mut ours, &mut theirs).unwrap();
        // A connection that was made while nothing was remembered goes on when the host sends.
        become_(DROP, "drop");
        ours.write_all(b"?").unwrap();
        theirs.read_exact(&mut [0]).unwrap();
        hears(&mut ours, &mut theirs).unwrap();
        become_(PASS, "pass");
    }
    // A mistake leaves in force what is.
    agent.configure(&config::kernel_only("default: drop"));
    agent.cli(&["reload"]).fails_with(1).says(&["nobody could reach this host"]);
    tcp(client, host, PATIENCE).unwrap();
}

#[test]
fn an_interface_that_comes_back_or_leaves_takes_its_memory_along() {
    require_root!();
    let net = Net::new();
    let mut agent = Setup::new(&net).start(&config::kernel_only(DROP));
    net.unplug();
    net.plug_in();
    let (host, client) = (End(&net.gateway, GATEWAY_V6), End(&net.client, CLIENT_V6));
    eventually("the host reaches others again", Duration::from_secs(10), || tcp(host, client, IMPATIENCE));
    eventually("nobody else reaches it", Duration::from_secs(10), || match tcp(client, host, IMPATIENCE) {
        Ok(()) => Err("somebody does"),
        Err(_) => Ok(()),
    });
    check(&net, "after the interface came back");
    agent.configure(&config::kernel_only(DROP).replace("[front0]", "[front0, back0]"));
    agent.cli(&["reload"]).ok();
    assert!(remembers(&agent, 0) && remembers(&agent, 1));
    agent.configure(&config::kernel_only(DROP).replace("[front0]", "[back0]"));
    agent.cli(&["reload"]).ok();
    assert!(!remembers(&agent, 0) && remembers(&agent, 1));
    tcp(client, host, PATIENCE).unwrap();
    agent.kill();
    agent.cli(&["detach"]).ok();
    assert!(!agent.pins().exists());
}

#[test]
fn a_start_that_fails_leaves_the_default_that_was() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let mut agent = Setup::new(&net).start(&config::to(&upstream, PASS));
    agent.kill();
    let squatter = net.gateway.run(|| TcpListener::bind(Agent::v4())).unwrap();
    agent.configure(&config::to(&upstream, DROP));
    assert_eq!(agent.start_in_vain().code, 3);
    tcp(End(&net.client, CLIENT_V4), End(&net.gateway, GATEWAY_V4), PATIENCE).unwrap();
    drop(squatter);
    agent.start();
    check(&net, "after a start that worked");
}

#[test]
fn at_accept_only_known_sources_are_served() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let agent = Setup::new(&net).start(&config::to(&upstream, &format!("{DROP}\nattach: off")));
    for (client, served) in [(CLIENT_V4, false), (ALLOWED_V4, true), (CLIENT_V6, false), (ALLOWED_V6, true)] {
        let answer = Agent::connect(&net, client).and_then(|mut connection| connection.get("/"));
        assert_eq!(answer.is_ok(), served, "{client}");
    }
    assert_eq!(agent.reason("default_drop"), 2);
    assert_eq!(agent.status()["kernel"]["default"], "drop");
}
