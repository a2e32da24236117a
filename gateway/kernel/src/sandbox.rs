//! The programs with maps of their own, attached nowhere: for packet tables and benchmarks through
//! BPF_PROG_TEST_RUN.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aya::Ebpf;
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use gateway_common::abi::{Interface, Mode, XDP_PROGRAM};

use crate::error::Error;
use crate::interfaces::name_bytes;
use crate::object;
use crate::pin::PinDir;
use crate::rules::Rules;
use crate::store::{Pinned, kernel};

/// The most bytes a frame can have here: the kernel keeps room in the page for metadata.
pub const MAX_FRAME: usize = 3520;

/// What an XDP program answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// XDP_ABORTED: a bug of ours.
    Aborted,
    /// XDP_DROP.
    Drop,
    /// XDP_PASS.
    Pass,
    /// Anything else.
    Other(u32),
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// The last repetition's answer.
    pub action: Action,
    /// Nanoseconds a repetition, as the kernel measured: whole ones, so run many.
    pub mean: Duration,
}

/// Programs of the embedded object that can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The one that is attached to interfaces.
    Gateway,
    /// Gives the frame a random source, and passes it: the floor that the next is measured above.
    BenchFloor,
    /// Gives the frame a random source, and judges it as the gateway does.
    BenchGateway,
}

impl Program {
    const fn name(self) -> &'static str {
        match self {
            Self::Gateway => XDP_PROGRAM,
            Self::BenchFloor => "bench_floor",
            Self::BenchGateway => "bench_gateway",
        }
    }
}

/// Programs and maps of their own. Needs the privilege to use BPF.
#[derive(Debug)]
pub struct Sandbox {
    ebpf: Ebpf,
    rules: Rules,
    program: &'static str,
    pins: TemporaryPins,
}

impl Sandbox {
    /// Loads one program with empty maps.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn load(program: Program) -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        sweep();
        let base = Path::new(BPFFS).join(format!("{PREFIX}{}-{number}", std::process::id()));
        // The object wants its maps pinned, and the writers' lock is on their directory.
        let pins = TemporaryPins(PinDir::new(&base));
        pins.0.create()?;
        let mut ebpf = object::load(0, &pins.0.maps())?;
        object::xdp(&mut ebpf, program.name())?;
        let store = Pinned::open(&pins.0)?;
        let row = Interface { index: 1, mode: Mode::Generic as u32, name: name_bytes("sandbox") };
        store.set_interface(0, &row)?;
        let rules = Rules::over(Arc::new(store));
        Ok(Self { ebpf, rules, program: program.name(), pins })
    }

    /// The rules that the program looks at.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Where its maps are pinned, as `--pin-dir` takes it: for a command that is to work on them.
    pub fn pin_dir(&self) -> &Path {
        self.pins.0.base()
    }

    /// Runs the program over a frame.
    ///
    /// # Errors
    /// What the kernel refused; it takes frames of 14 to [`MAX_FRAME`] bytes.
    pub fn run(&self, frame: &[u8], repeat: u32) -> Result<Run, Error> {
        let program = self.ebpf.program(self.program).ok_or_else(|| Error::Kernel {
            what: "run a program".to_owned(),
            why: "it is not in the object".to_owned(),
        })?;
        let program: &Xdp = program.try_into().map_err(|error| kernel("run a program", error))?;
        let mut out = vec![0; frame.len().max(64)];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat,
            ..TestRunOptions::new()
        };
        let result = program.test_run(options).map_err(|error| kernel("run a program", error))?;
        let action = match result.return_value {
            0 => Action::Aborted,
            1 => Action::Drop,
            2 => Action::Pass,
            other => Action::Other(other),
        };
        Ok(Run { action, mean: result.duration })
    }
}

/// Where sandboxes pin their maps, and under which name.
const BPFFS: &str = "/sys/fs/bpf";
const PREFIX: &str = "gateway-sandbox-";

/// Removes what sandboxes of dead processes left behind.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(BPFFS) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = PinDir::new(&entry.path()).remove();
        }
    }
}

/// Pins that go with the sandbox.
#[derive(Debug)]
struct TemporaryPins(PinDir);

impl Drop for TemporaryPins {
    fn drop(&mut self) {
        // Nothing else can be done about it here, and the next sweep of /sys/fs/bpf shows it.
        let _ = self.0.remove();
    }
}
