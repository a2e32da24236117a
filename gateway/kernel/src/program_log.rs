//! Log lines of a debug build of the programs (`cargo xtask ebpf --debug`, feature `ebpf-log`): a thread an
//! interface hands them to the agent's own log. The release object logs nothing, and no release agent reads.

use std::time::Duration;

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};

/// How often the ring of log lines is looked into.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Hands a loaded program's lines on until the process ends.
pub(crate) fn follow(ebpf: &mut Ebpf, interface: &str) {
    let logger = match EbpfLogger::init_with_logger(ebpf, ToTracing(interface.to_owned())) {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!("the programs on {interface} do not log: {error}");
            return;
        }
    };
    let thread = std::thread::Builder::new().name("ebpf-log".to_owned());
    let mut logger = logger;
    let spawned = thread.spawn(move || {
        loop {
            logger.flush();
            std::thread::sleep(LOOK_EVERY);
        }
    });
    if let Err(error) = spawned {
        tracing::warn!("no thread for the log of the programs on {interface}: {error}");
    }
}

/// The programs' levels as the agent's; the interface says whose line it is.
struct ToTracing(String);

impl Log for ToTracing {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let (interface, line) = (&self.0, record.args());
        match record.level() {
            Level::Error => tracing::error!("{interface}: {line}"),
            Level::Warn => tracing::warn!("{interface}: {line}"),
            Level::Info => tracing::info!("{interface}: {line}"),
            Level::Debug => tracing::debug!("{interface}: {line}"),
            Level::Trace => tracing::trace!("{interface}: {line}"),
        }
    }

    fn flush(&self) {}
}
