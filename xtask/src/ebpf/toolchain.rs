//! A compiler, the sources of `core` and a linker for the kernel programs: found, or installed where that is possible.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail};

use super::lock::Lock;
use crate::{process, tools, workspace};

/// LLVM of the version that the linker is built against; Debian's place for it.
pub(crate) const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Debian 12 has a new enough compiler in its security archive, for the sake of browsers; hence the names.
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "rust-web-src", "rust-web-llvm"];
const DEBIAN_CLIPPY: &str = "rust-web-clippy";
/// `llvm-22` has llvm-strip, the other two are what the linker is built against.
const DEBIAN_LLVM: [&str; 3] = ["llvm-22", "llvm-22-dev", "libpolly-22-dev"];

/// What one build of the kernel programs needs.
pub(crate) struct Toolchain {
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
    pub(crate) linker: PathBuf,
    pub(crate) strip: PathBuf,
    pub(crate) compiler: String,
    pub(crate) cargo_version: String,
    pub(crate) linker_version: String,
}

/// What came of linting the kernel programs.
#[derive(PartialEq, Eq)]
pub(crate) enum Lint {
    Clean,
    Unavailable,
}

/// A compiler that has the sources of `core` beside it.
struct Compiler {
    rustc: PathBuf,
    version: String,
}

impl Toolchain {
    /// What is on the machine already, the recorded compiler first.
    pub(crate) fn find(lock: Option<&Lock>) -> Option<Self> {
        Self::assemble(find_compiler(lock)?, find_linker()?, find_strip()?).ok()
    }

    /// The same, with what is missing installed; fails with the commands to type where it cannot be.
    pub(crate) fn ensure(lock: Option<&Lock>) -> Result<Self> {
        let compiler = match find_compiler(lock) {
            Some(found) => found,
            None => install_compiler()?,
        };
        // The linker is built against LLVM, so LLVM comes first; a linker that is there needs only llvm-strip.
        if find_strip().is_none()
            || (find_linker().is_none() && !Path::new(LLVM_PREFIX).join("include").is_dir())
        {
            tools::apt_install(&DEBIAN_LLVM)
                .context("llvm-strip and LLVM 22, which bpf-linker is built against")?;
        }
        let linker = tools::BPF_LINKER.ensure()?;
        let strip = find_strip()
            .with_context(|| format!("llvm-strip: neither in {LLVM_PREFIX}/bin nor on the path"))?;
        Self::assemble(compiler, linker, strip)
    }

    fn assemble(compiler: Compiler, linker: PathBuf, strip: PathBuf) -> Result<Self> {
        // A nightly comes with its own cargo, Debian's package without.
        let own_cargo = compiler.rustc.with_file_name("cargo");
        let cargo = if compiler.rustc.starts_with("/usr/bin") || !own_cargo.is_file() {
            workspace::cargo()
        } else {
            own_cargo
        };
        let strip_version =
            first_line_with(&process::read(process::command(&strip).arg("--version"))?, "version");
        let linker_version = process::read(process::command(&linker).arg("--version"))?.trim().to_owned();
        Ok(Self {
            cargo_version: process::read(process::command(&cargo).arg("--version"))?.trim().to_owned(),
            compiler: compiler.version,
            rustc: compiler.rustc,
            linker_version: format!("{linker_version}, strip: {strip_version}"),
            cargo,
            linker,
            strip,
        })
    }

    /// Whether the object in the tree was made with exactly this.
    pub(crate) fn is_recorded(&self, lock: &Lock) -> bool {
        self.compiler == lock.compiler
            && self.cargo_version == lock.cargo
            && self.linker_version == lock.linker
    }

    /// The paths under which the compiler may mention the sources of `core`: as given, and with links resolved.
    pub(crate) fn core_sources(&self) -> Vec<PathBuf> {
        let Some(given) = core_sources(&self.rustc) else { return Vec::new() };
        let resolved = given.canonicalize().ok().filter(|resolved| *resolved != given);
        [Some(given), resolved].into_iter().flatten().collect()
    }

    /// `cargo-clippy` of the same compiler, installed if Debian has it; another compiler's cannot read its output.
    pub(crate) fn clippy(&self) -> Option<PathBuf> {
        let clippy = self.rustc.with_file_name("cargo-clippy");
        let installable = self.rustc.starts_with("/usr/bin") && tools::can_apt();
        if !clippy.is_file()
            && installable
            && let Err(error) = tools::apt_install(&[DEBIAN_CLIPPY])
        {
            eprintln!("warning: {error:#}");
        }
        Some(clippy).filter(|file| file.is_file())
    }
}

/// Every directory of unpacked crates that cargo has here, one a registry.
pub(crate) fn registries() -> Result<Vec<PathBuf>> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let sources = home.join("registry/src");
    // Before the first build there is none; cargo makes it then under the one name that the index gives.
    if !sources.is_dir() {
        process::run(&mut process::cargo(&["fetch", "--quiet", "--locked"]))?;
    }
    let mut registries = Vec::new();
    for entry in fs::read_dir(&sources).with_context(|| format!("{}", sources.display()))? {
        registries.push(entry?.path());
    }
    Ok(registries)
}

fn find_compiler(lock: Option<&Lock>) -> Option<Compiler> {
    let mut found: Vec<Compiler> = [nightly(), Some(PathBuf::from("/usr/bin/rustc"))]
        .into_iter()
        .flatten()
        .filter(|rustc| rustc.is_file() && core_sources(rustc).is_some())
        .filter_map(|rustc| {
            let version = process::read(process::command(&rustc).arg("--version")).ok()?.trim().to_owned();
            Some(Compiler { rustc, version })
        })
        .collect();
    let recorded =
        found.iter().position(|compiler| lock.is_some_and(|lock| lock.compiler == compiler.version));
    (!found.is_empty()).then(|| found.swap_remove(recorded.unwrap_or(0)))
}

/// The compiler of rustup's nightly, if there is one.
fn nightly() -> Option<PathBuf> {
    let mut which = process::command("rustup");
    which.args(["which", "--toolchain", "nightly", "rustc"]).env_remove("RUSTUP_TOOLCHAIN");
    Some(PathBuf::from(process::read(&mut which).ok()?.trim()))
}

fn core_sources(rustc: &Path) -> Option<PathBuf> {
    let sysroot = process::read(process::command(rustc).args(["--print", "sysroot"])).ok()?;
    Some(Path::new(sysroot.trim()).join("lib/rustlib/src/rust"))
        .filter(|dir| dir.join("library/core").is_dir())
}

fn find_linker() -> Option<PathBuf> {
    tools::BPF_LINKER.find()
}

fn find_strip() -> Option<PathBuf> {
    Some(Path::new(LLVM_PREFIX).join("bin/llvm-strip"))
        .filter(|file| file.is_file())
        .or_else(|| process::find("llvm-strip"))
}

fn install_compiler() -> Result<Compiler> {
    if tools::can_apt() {
        tools::apt_install(&DEBIAN_COMPILER)?;
    }
    match find_compiler(None) {
        Some(found) => Ok(found),
        None => bail!(
            "no compiler for the kernel programs: it must come with the sources of `core`. Either\n  \
             rustup toolchain install nightly --component rust-src\nor, on Debian 12 as root,\n  \
             apt-get install --no-install-recommends {}",
            DEBIAN_COMPILER.join(" ")
        ),
    }
}

fn first_line_with(text: &str, word: &str) -> String {
    text.lines().find(|line| line.contains(word)).unwrap_or_default().trim().to_owned()
}
