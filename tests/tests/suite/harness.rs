//! The harness itself: what the other tests take for granted.

use std::net::{IpAddr, SocketAddr};

use gateway_tests::frames::{self, Tap, V4, Wire};
use gateway_tests::http::Connection;
use gateway_tests::{
    CLIENT_V4, CLIENT_V6, DENIED_V4, GATEWAY_V4, Net, Nginx, Traffic, UPSTREAM_V4, UPSTREAM_V6, Upstream,
    require_root,
};

#[test]
fn the_wires_carry_both_families_and_lose_nothing() {
    require_root!();
    let net = Net::new();
    let traffic = Traffic::start(&net, &[CLIENT_V4, DENIED_V4, CLIENT_V6]);
    traffic.await_more(CLIENT_V6, 200);
    let receipt = traffic.stop();
    for source in [CLIENT_V4, DENIED_V4, CLIENT_V6] {
        assert_eq!(receipt.lost(source), Vec::<u64>::new(), "lost from {source}");
    }
}

#[test]
fn a_tap_sees_frames_in_order_whatever_their_tags() {
    require_root!();
    let net = Net::new();
    let (IpAddr::V4(client), IpAddr::V4(gateway)) = (CLIENT_V4, GATEWAY_V4) else { unreachable!() };
    let wire = Wire::open(&net.client, "eth0");
    let mut tap = Tap::open(&net.gateway, "front0");
    let packet =
        |mark: &[u8]| frames::ipv4(client, gateway, frames::UDP, &V4::default(), &frames::udp(9, 9, mark));
    wire.send(&frames::ethernet(&[], frames::IPV4, &packet(b"plain")));
    wire.send(&frames::ethernet(&[(frames::DOT1Q, 7)], frames::IPV4, &packet(b"tagged")));
    wire.send(&frames::ethernet(&[(frames::DOT1AD, 7), (frames::DOT1Q, 8)], frames::IPV4, &packet(b"twice")));
    wire.send(&frames::ethernet(&[], frames::IPV4, &packet(b"last")));
    let seen = tap.until(b"last");
    let marks: [&[u8]; 4] = [b"plain", b"tagged", b"twice", b"last"];
    assert_eq!(seen.len(), marks.len());
    for (frame, mark) in seen.iter().zip(marks) {
        assert!(frames::holds(frame, mark), "{mark:?} is not in {frame:02x?}");
    }
}

#[test]
fn upstreams_answer_and_remember() {
    require_root!();
    let net = Net::new();
    let nginx = Nginx::start(&net);
    let v6 = Upstream::answering(&net, UPSTREAM_V6, |_| "HTTP/1.1 204 No Content\r\n\r\n".into());
    let v4 = Upstream::echo(&net);
    let mut connection = Connection::open(&net.gateway, "198.18.2.1".parse().unwrap(), v4.address()).unwrap();
    assert_eq!(connection.get("/one").unwrap().text(), "/one");
    assert_eq!(connection.get("/two").unwrap().text(), "/two");
    assert_eq!(v4.requests()[1].start, "GET /two HTTP/1.1");
    let mut connection =
        Connection::open(&net.gateway, "2001:db8:2::1".parse().unwrap(), v6.address()).unwrap();
    assert_eq!(connection.get("/").unwrap().status(), 204);
    if nginx.is_some() {
        let address = SocketAddr::new(UPSTREAM_V4, Nginx::PORT);
        let mut connection = Connection::open(&net.gateway, "198.18.2.1".parse().unwrap(), address).unwrap();
        assert_eq!(connection.get("/1k").unwrap().body.len(), 1024);
    }
}
