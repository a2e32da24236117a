//! The programs with maps of their own, attached nowhere: for packet tables and benchmarks through
//! BPF_PROG_TEST_RUN.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{HashMap, Map};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use gateway_common::abi::{EGRESS_PROGRAM, Flow, FlowKey, FlowTable, Interface, Mode, XDP_PROGRAM};

use crate::entry::DefaultVerdict;
use crate::error::Error;
use crate::interfaces::name_bytes;
use crate::object;
use crate::pin::PinDir;
use crate::rules::Rules;
use crate::store::{Pinned, kernel, open_map};

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
        Self::load_with(program, DefaultVerdict::Pass)
    }

    /// The same under a default verdict; where it drops, with the program that remembers what is sent.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn load_with(program: Program, default: DefaultVerdict) -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        sweep();
        let base = Path::new(BPFFS).join(format!("{PREFIX}{}-{number}", std::process::id()));
        // The object wants its maps pinned, and the writers' lock is on their directory.
        let pins = TemporaryPins(PinDir::new(&base));
        pins.0.create()?;
        object::make_maps(&pins.0.maps(), default)?;
        let mut ebpf = object::load(0, &pins.0.maps())?;
        object::xdp(&mut ebpf, program.name())?;
        if default == DefaultVerdict::Drop {
            object::egress(&mut ebpf)?;
        }
        let store = Pinned::open(&pins.0)?;
        let row = Interface { index: 1, mode: Mode::Generic as u32, name: name_bytes("sandbox") };
        store.set_interface(0, &row)?;
        let rules = Rules::over(Arc::new(store));
        rules.set_default(default)?;
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
        let program: &Xdp =
            self.program(self.program)?.try_into().map_err(|error| kernel("run a program", error))?;
        let mut out = vec![0; frame.len().max(64)];
        let result = program
            .test_run(over(frame, &mut out, repeat))
            .map_err(|error| kernel("run a program", error))?;
        let action = match result.return_value {
            0 => Action::Aborted,
            1 => Action::Drop,
            2 => Action::Pass,
            other => Action::Other(other),
        };
        Ok(Run { action, mean: result.duration })
    }

    /// Runs the program over a frame that the host sends, and returns its answer.
    ///
    /// # Errors
    /// What the kernel refused, also where this sandbox passes by default and has no such program.
    pub fn send(&self, frame: &[u8], repeat: u32) -> Result<(i32, Duration), Error> {
        let program: &SchedClassifier =
            self.program(EGRESS_PROGRAM)?.try_into().map_err(|error| kernel("run a program", error))?;
        let mut out = vec![0; frame.len().max(64)];
        let result = program
            .test_run(over(frame, &mut out, repeat))
            .map_err(|error| kernel("run a program", error))?;
        Ok((result.return_value.cast_signed(), result.duration))
    }

    /// The flows of a table.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn flows(&self, table: FlowTable) -> Result<Vec<(FlowKey, Flow)>, Error> {
        self.flow_map(table)?
            .iter()
            .collect::<Result<_, _>>()
            .map_err(|error| kernel("walk the flows", error))
    }

    /// Forgets all flows.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn forget_flows(&self) -> Result<(), Error> {
        for table in [FlowTable::New, FlowTable::Established] {
            let mut map = self.flow_map(table)?;
            for (key, _) in self.flows(table)? {
                map.remove(&key).map_err(|error| kernel("forget a flow", error))?;
            }
        }
        Ok(())
    }

    /// Lets time pass for every flow: as if its last packet had been so much earlier. Not beyond the moment at
    /// which the machine started.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn age_flows(&self, by: Duration) -> Result<(), Error> {
        let by_ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        for table in [FlowTable::New, FlowTable::Established] {
            let mut map = self.flow_map(table)?;
            for (key, flow) in self.flows(table)? {
                let aged = Flow { last_ns: flow.last_ns.saturating_sub(by_ns), ..flow };
                map.insert(key, aged, 0).map_err(|error| kernel("age a flow", error))?;
            }
        }
        Ok(())
    }

    /// Instructions that the verifier walked to accept each program, which is their time to load; nothing
    /// before Linux 5.16.
    pub fn verified_instructions(&self) -> Vec<(String, u32)> {
        let loaded = self.ebpf.programs().filter_map(|(name, program)| Some((name, program.info().ok()?)));
        loaded
            .filter_map(|(name, info)| Some((name.to_owned(), info.verified_instruction_count()?)))
            .collect()
    }

    fn program(&self, name: &str) -> Result<&aya::programs::Program, Error> {
        self.ebpf.program(name).ok_or_else(|| Error::Kernel {
            what: format!("run {name}"),
            why: "it is not in the object".to_owned(),
        })
    }

    fn flow_map(&self, table: FlowTable) -> Result<HashMap<aya::maps::MapData, FlowKey, Flow>, Error> {
        HashMap::try_from(Map::LruHashMap(open_map(&self.pins.0.maps(), table.name())?))
            .map_err(|error| kernel("open the flows", error))
    }
}

/// A program's run over a frame, which is copied out again.
fn over<'a>(frame: &'a [u8], out: &'a mut [u8], repeat: u32) -> TestRunOptions<'a> {
    TestRunOptions { data_in: Some(frame), data_out: Some(out), repeat, ..TestRunOptions::new() }
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
