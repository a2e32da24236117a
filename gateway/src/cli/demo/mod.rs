//! `gateway demo`: the whole program on one machine, in network namespaces of its own.
//!
//! Two hosts on a wire: `internet`, with an honest client and an attacker, and `host`, with the gateway and
//! an upstream behind it. Everything shown is real: XDP on the wire, HTTP through the proxy, the commands
//! that an operator types. Without privileges the same scenes run over loopback, with the rules at accept.

mod hosts;
mod scenes;
mod traffic;

use std::sync::atomic::{AtomicBool, Ordering};

use super::failure::{Failure, Outcome};
use super::output::Out;
use hosts::Hosts;

/// Set when the user has had enough; scenes look at it between steps.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

pub(super) fn run(out: &mut Out) -> Outcome {
    let lacking = privileges_lacking();
    let hosts = match &lacking {
        None => Hosts::in_namespaces(),
        Some(_) => Hosts::on_loopback(),
    }
    .map_err(Failure::System)?;
    if let Some(lacking) = lacking {
        out.line(format!(
            "{lacking}, so this shows the userspace mode: the same lists by the same code, at accept.\n\
             As root (sudo -E cargo run --release -- demo) it attaches XDP to a wire of its own.\n"
        ))?;
    }
    watch_for_interrupts()?;
    let shown = scenes::play(&hosts, out);
    // Drop ends the agent, detaches its programs and deletes the namespaces, also after a failure.
    drop(hosts);
    match shown {
        Ok(()) => Ok(out.line("\nThe demo has cleaned up after itself.")?),
        Err(_) if INTERRUPTED.load(Ordering::Relaxed) => {
            Ok(out.line("\ninterrupted; the demo has cleaned up after itself")?)
        }
        Err(failure) => Err(failure),
    }
}

/// Why XDP cannot be shown here, as the beginning of a sentence.
fn privileges_lacking() -> Option<&'static str> {
    use rustix::thread::{CapabilitySet, capabilities};
    let held = capabilities(None).map(|sets| sets.effective).unwrap_or(CapabilitySet::empty());
    if !held.contains(CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN) {
        return Some("This process may not make network namespaces");
    }
    if !hosts::has_ip() {
        return Some("The `ip` command (package iproute2) is not installed");
    }
    None
}

/// Ctrl-C must not leave namespaces behind: a thread takes the signals, and the scenes stop by themselves.
fn watch_for_interrupts() -> Outcome {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("demo-signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            INTERRUPTED.store(true, Ordering::Relaxed);
            std::future::pending::<()>().await;
        });
    })?;
    Ok(())
}
