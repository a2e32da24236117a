//! Recently seen sources: who passed is noted, who was dropped is not, and as densely as the mask says.

use std::net::IpAddr;
use std::time::Duration;

use gateway_kernel::sandbox::Sandbox;
use gateway_kernel::{ListKind, NewEntry};

use crate::frame::*;

const MINUTE: Duration = Duration::from_secs(60);

fn v4(source: &str) -> Vec<u8> {
    ethernet(&[], 0x0800, &ipv4(source, TCP, &[], 0, &tcp()))
}

fn seen(sandbox: &Sandbox) -> Vec<String> {
    sandbox.rules().recent_sources(MINUTE).unwrap().iter().map(IpAddr::to_string).collect()
}

fn entry(prefix: &str, shadow: bool) -> NewEntry {
    NewEntry { prefix: prefix.parse().unwrap(), rule: "x".to_owned(), ttl: None, shadow }
}

#[test]
fn sources_that_pass_are_noted() {
    let Some(sandbox) = crate::sandbox() else { return };
    let rules = sandbox.rules();
    assert_eq!(seen(&sandbox), Vec::<String>::new(), "an empty table holds nobody");
    let denied = [entry("192.0.2.66/32", false), entry("192.0.2.67/32", true)];
    rules.add(ListKind::Deny, &denied, &mut |_| {}).unwrap();
    rules.add(ListKind::Allow, &[entry("192.0.2.7/32", false)], &mut |_| {}).unwrap();
    let later = ethernet(&[], 0x0800, &ipv4("192.0.2.8", UDP, &[], 185, &[0; 8]));
    let table = [
        ("plain", v4("192.0.2.1"), Some("192.0.2.1")),
        ("again", v4("192.0.2.1"), None),
        ("v6", ethernet(&[], 0x86dd, &ipv6("2001:db8::9", TCP, &tcp())), Some("2001:db8::9")),
        ("tagged", ethernet(&[0x8100], 0x0800, &ipv4("192.0.2.2", TCP, &[], 0, &tcp())), Some("192.0.2.2")),
        ("allowed", v4("192.0.2.7"), Some("192.0.2.7")),
        ("a later fragment", later, Some("192.0.2.8")),
        ("denied", v4("192.0.2.66"), None),
        ("denied in shadow", v4("192.0.2.67"), Some("192.0.2.67")),
        ("ARP", ethernet(&[], 0x0806, &[0; 28]), None),
        ("broken", v4("192.0.2.99")[..40].to_vec(), None),
    ];
    let mut expected: Vec<IpAddr> = Vec::new();
    for (name, frame, noted) in table {
        sandbox.run(&frame, 1).unwrap();
        expected.extend(noted.map(|address| address.parse::<IpAddr>().unwrap()));
        expected.sort_unstable();
        assert_eq!(rules.recent_sources(MINUTE).unwrap(), expected, "{name}");
    }
}

#[test]
fn the_mask_says_how_densely() {
    let Some(sandbox) = crate::sandbox() else { return };
    // On whichever processor a run takes place, its counter begins at 0 and counts up by one.
    sandbox.rules().sample_sources(7).unwrap();
    sandbox.run(&v4("192.0.2.1"), 7).unwrap();
    assert_eq!(seen(&sandbox), Vec::<String>::new(), "seven of eight are not noted");
    sandbox.run(&v4("192.0.2.2"), 64).unwrap();
    assert_eq!(seen(&sandbox), ["192.0.2.2"], "one of eight is");
    sandbox.rules().sample_sources(0).unwrap();
    sandbox.run(&v4("192.0.2.3"), 1).unwrap();
    assert_eq!(seen(&sandbox), ["192.0.2.2", "192.0.2.3"], "every one is");
}

#[test]
fn who_has_gone_is_forgotten() {
    let Some(sandbox) = crate::sandbox() else { return };
    sandbox.run(&v4("192.0.2.1"), 1).unwrap();
    std::thread::sleep(Duration::from_millis(2100));
    sandbox.run(&v4("192.0.2.2"), 1).unwrap();
    let within = |seconds| sandbox.rules().recent_sources(Duration::from_secs(seconds)).unwrap().len();
    assert_eq!((within(1), within(60)), (1, 2));
}
