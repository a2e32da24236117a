//! A steady stream of numbered datagrams, so that a test can say of each one whether it arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::net::{GATEWAY_V4, GATEWAY_V6, Net};
use crate::poll::eventually;

/// Where the datagrams go.
const PORT: u16 = 7007;
/// Between two datagrams of one source.
const INTERVAL: Duration = Duration::from_millis(1);

/// Datagrams on their way, 1,000 a second from each source.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    arrived: Arc<Mutex<BTreeMap<IpAddr, BTreeSet<u64>>>>,
    sender: JoinHandle<u64>,
    receivers: Vec<JoinHandle<()>>,
}

/// What was sent and what came.
#[derive(Debug)]
pub struct Receipt {
    sent: u64,
    arrived: BTreeMap<IpAddr, BTreeSet<u64>>,
}

impl Traffic {
    /// Starts sending from these addresses of the client to the gateway host.
    pub fn start(net: &Net, sources: &[IpAddr]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let arrived = Arc::new(Mutex::new(BTreeMap::new()));
        let receivers = [GATEWAY_V4, GATEWAY_V6].map(|address| {
            let socket = net.gateway.run(|| UdpSocket::bind((address, PORT))).unwrap();
            let (stop, arrived) = (Arc::clone(&stop), Arc::clone(&arrived));
            std::thread::spawn(move || receive(&socket, &stop, &arrived))
        });
        let sockets = sources.iter().map(|source| connect(net, *source)).collect::<Vec<_>>();
        let halt = Arc::clone(&stop);
        let sender = std::thread::spawn(move || send(&sockets, &halt));
        Self { stop, arrived, sender, receivers: receivers.into() }
    }

    /// How many datagrams of this source came so far.
    pub fn arrived(&self, source: IpAddr) -> usize {
        self.arrived.lock().unwrap().get(&source).map_or(0, BTreeSet::len)
    }

    /// Waits until `count` more datagrams of this source came: the traffic's own clock.
    pub fn await_more(&self, source: IpAddr, count: usize) {
        let goal = self.arrived(source) + count;
        eventually("datagrams flow", Duration::from_secs(10), || {
            let now = self.arrived(source);
            if now >= goal { Ok(()) } else { Err(now) }
        });
    }

    /// Stops sending, waits for what is on its way and says what came.
    pub fn stop(self) -> Receipt {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap();
        for receiver in self.receivers {
            receiver.join().unwrap();
        }
        let arrived = std::mem::take(&mut *self.arrived.lock().unwrap());
        Receipt { sent, arrived }
    }
}

impl Receipt {
    /// How many datagrams each source sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// How many of this source's arrived.
    pub fn arrived(&self, source: IpAddr) -> u64 {
        self.arrived.get(&source).map_or(0, BTreeSet::len) as u64
    }

    /// The numbers of this source's datagrams that did not arrive.
    pub fn lost(&self, source: IpAddr) -> Vec<u64> {
        let none = BTreeSet::new();
        let arrived = self.arrived.get(&source).unwrap_or(&none);
        (0..self.sent).filter(|number| !arrived.contains(number)).collect()
    }
}

fn connect(net: &Net, source: IpAddr) -> UdpSocket {
    let gateway = if source.is_ipv4() { GATEWAY_V4 } else { GATEWAY_V6 };
    net.client.run(|| {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        socket.connect(SocketAddr::new(gateway, PORT)).unwrap();
        socket
    })
}

fn send(sockets: &[UdpSocket], stop: &AtomicBool) -> u64 {
    let start = Instant::now();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        for socket in sockets {
            socket.send(&u64::to_be_bytes(number)).unwrap();
        }
        number += 1;
        // By the clock, not by the sleep: a late wake-up is made good, and the mean rate stays.
        let due = start + INTERVAL * u32::try_from(number).unwrap();
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    number
}

fn receive(socket: &UdpSocket, stop: &AtomicBool, arrived: &Mutex<BTreeMap<IpAddr, BTreeSet<u64>>>) {
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    loop {
        let mut number = [0; 8];
        match socket.recv_from(&mut number) {
            Ok((_, source)) => {
                let mut arrived = arrived.lock().unwrap();
                arrived.entry(source.ip()).or_default().insert(u64::from_be_bytes(number));
            }
            // Nothing for a while after the sender stopped: nothing is on its way.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
            Err(error) => panic!("receiving datagrams: {error}"),
        }
    }
}
