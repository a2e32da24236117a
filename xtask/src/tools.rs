//! Programs that are not part of the toolchain: where they come from, and how a missing one is installed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

/// A program from crates.io.
pub(crate) struct Tool {
    /// Package and program have the same name but where `package` says otherwise.
    program: &'static str,
    package: &'static str,
    version: &'static str,
    features: &'static [&'static str],
    /// Optimisation is worth its build time only for a program that works for longer than it builds.
    opt_level: u8,
}

pub(crate) const NEXTEST: Tool = Tool {
    program: "cargo-nextest",
    package: "cargo-nextest",
    version: "0.9.151",
    features: &["--no-default-features", "--features", "default-no-update"],
    opt_level: 0,
};

pub(crate) const DENY: Tool =
    Tool { program: "cargo-deny", package: "cargo-deny", version: "0.20.2", features: &[], opt_level: 0 };

pub(crate) const TYPOS: Tool =
    Tool { program: "typos", package: "typos-cli", version: "1.52.0", features: &[], opt_level: 0 };

pub(crate) const BPF_LINKER: Tool = Tool {
    program: "bpf-linker",
    package: "bpf-linker",
    version: "0.13.0",
    features: &["--no-default-features", "--features", "llvm-22"],
    opt_level: 1,
};

impl Tool {
    /// The program, installed if it was missing.
    pub(crate) fn ensure(&self) -> Result<PathBuf> {
        if let Some(found) = self.find() {
            return Ok(found);
        }
        self.install().with_context(|| {
            format!("{} is missing; install it: cargo install --locked {}", self.program, self.package)
        })?;
        self.find().with_context(|| format!("{} was installed and cannot be found", self.program))
    }

    /// The program on the path, or where an earlier run installed it.
    pub(crate) fn find(&self) -> Option<PathBuf> {
        process::find(self.program)
            .or_else(|| Some(home_bin()?.join(self.program)).filter(|file| file.is_file()))
            .or_else(|| Some(root().join("bin").join(self.program)).filter(|file| file.is_file()))
    }

    /// Builds the program under the target directory: nothing outside of the checkout changes.
    fn install(&self) -> Result<()> {
        println!("installing {} {} (once)", self.package, self.version);
        let mut install = process::cargo(&["install", "--quiet", "--locked", self.package]);
        install.args(["--version", self.version]).args(self.features);
        install.arg("--root").arg(root()).arg("--target-dir").arg(root().join("build"));
        let opt_level = self.opt_level.to_string();
        let profile =
            [("LTO", "off"), ("OPT_LEVEL", opt_level.as_str()), ("DEBUG", "0"), ("CODEGEN_UNITS", "16")];
        for (key, value) in profile {
            install.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
        }
        if Path::new(crate::ebpf::LLVM_PREFIX).is_dir() {
            install.env("LLVM_PREFIX", crate::ebpf::LLVM_PREFIX);
        }
        process::run(&mut install)
    }
}

/// Where the tools go that this program installs.
fn root() -> PathBuf {
    workspace::target_dir().join("tools")
}

fn home_bin() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    Some(home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?.join("bin"))
}

/// Whether packages can be installed here without asking anybody.
pub(crate) fn can_apt() -> bool {
    workspace::is_root() && process::find("apt-get").is_some()
}

/// Installs Debian packages, or says what to type.
pub(crate) fn apt_install(packages: &[&str]) -> Result<()> {
    let typed = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if !can_apt() {
        bail!("missing on this machine; on Debian, as root: {typed}");
    }
    println!("installing {} (Debian)", packages.join(", "));
    let _quiet = NoServices::new()?;
    if process::read(&mut apt("install", packages)).is_ok() {
        return Ok(());
    }
    // The lists of a fresh machine are empty or old. A broken third-party source must not stop us: what counts is
    // whether the packages are found afterwards.
    let _ = process::read(&mut apt("update", &[]));
    process::read(&mut apt("install", packages)).with_context(|| format!("by hand: {typed}"))?;
    Ok(())
}

fn apt(verb: &str, packages: &[&str]) -> Command {
    let mut command = process::command("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args([
        "-q",
        "-y",
        "-o",
        "DPkg::Lock::Timeout=120",
        verb,
    ]);
    if verb == "install" {
        command.arg("--no-install-recommends").args(packages);
    }
    command
}

/// While this lives, a package that is installed starts no service: the tests want the programs of nginx and
/// HAProxy, and nobody asked for a web server on port 80.
struct NoServices(Option<PathBuf>);

impl NoServices {
    fn new() -> Result<Self> {
        let policy = PathBuf::from("/usr/sbin/policy-rc.d");
        if policy.exists() {
            return Ok(Self(None)); // The machine has its own policy.
        }
        fs::write(&policy, "#!/bin/sh\nexit 101\n").with_context(|| format!("{}", policy.display()))?;
        let guard = Self(Some(policy.clone()));
        fs::set_permissions(&policy, fs::Permissions::from_mode(0o755))?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(policy) = &self.0 {
            let _ = fs::remove_file(policy);
        }
    }
}

/// A program from a Debian package.
pub(crate) struct SystemProgram {
    pub(crate) name: &'static str,
    package: &'static str,
}

/// What the tests and the benchmarks run beside the gateway.
pub(crate) const SYSTEM_PROGRAMS: [SystemProgram; 13] = [
    SystemProgram { name: "ip", package: "iproute2" },
    SystemProgram { name: "nginx", package: "nginx" },
    SystemProgram { name: "haproxy", package: "haproxy" },
    SystemProgram { name: "bpftool", package: "bpftool" },
    SystemProgram { name: "nft", package: "nftables" },
    SystemProgram { name: "xdp-filter", package: "xdp-tools" },
    SystemProgram { name: "curl", package: "curl" },
    SystemProgram { name: "pebble", package: "pebble" },
    SystemProgram { name: "openssl", package: "openssl" },
    SystemProgram { name: "wrk", package: "wrk" },
    SystemProgram { name: "h2load", package: "nghttp2-client" },
    SystemProgram { name: "node", package: "nodejs" },
    SystemProgram { name: "python3", package: "python3" },
];

/// Installs the missing ones of these programs where that is possible; returns those still missing.
pub(crate) fn ensure_system_programs(names: &[&str]) -> Vec<&'static SystemProgram> {
    let missing = || -> Vec<&'static SystemProgram> {
        SYSTEM_PROGRAMS
            .iter()
            .filter(|program| names.contains(&program.name) && process::find(program.name).is_none())
            .collect()
    };
    let packages: Vec<&str> = missing().iter().map(|program| program.package).collect();
    if packages.is_empty() || !can_apt() {
        return missing();
    }
    if let Err(error) = apt_install(&packages) {
        eprintln!("warning: {error:#}");
    }
    missing()
}

impl SystemProgram {
    /// What is missing, and the command that brings it.
    pub(crate) fn advice(&self) -> String {
        format!("{} is missing (apt-get install {})", self.name, self.package)
    }
}
