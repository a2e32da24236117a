//! `cargo xtask ebpf`: builds the programs that run in the kernel, and proves that the committed object is theirs.
//!
//! The object is committed so that plain stable Rust builds the whole gateway. That is worth something only if
//! everybody can check it: the build embeds no path and no time of the machine, and the lock beside the object
//! records what it was made from and with.

mod lock;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{process, workspace};
use lock::Lock;
use toolchain::Toolchain;
pub(crate) use toolchain::{LLVM_PREFIX, Lint};

const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "gateway-ebpf";

/// The profile is stated here and not taken from the workspace, whose release profile may change for the agent's
/// sake. It is part of the source hash.
const PROFILE: [(&str, &str); 5] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "2"),
    ("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "false"),
];

/// `--btf` makes the linker turn debug info into BTF, which maps and line numbers in verifier logs need.
///
/// A header in a frame stands at no multiple of its words, and without the feature each word would be put together
/// byte by byte: reading the headers took three times as long. Every kernel that runs these programs on a machine
/// which can read such words lets them, and puts them together itself on others.
///
/// The architecture matters only to programs that read raw registers. Ours do not, and without it aya takes the
/// machine's own, which would give another object on each.
const RUSTFLAGS: [&str; 4] = [
    "-Clink-arg=--btf",
    "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
    "-Cdebuginfo=2",
    "--cfg=bpf_target_arch=\"x86_64\"",
];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Build with logging into target/ebpf-debug/gateway.bpf.o; never committed
    #[arg(long, conflicts_with = "check")]
    debug: bool,
    /// Build nothing into the tree; fail if the committed object is not the one that the sources give
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.check {
        return check();
    }
    let toolchain = Toolchain::ensure(recorded().as_ref())?;
    if options.debug {
        let object = workspace::target_dir().join("ebpf-debug/gateway.bpf.o");
        build(&toolchain, &["--features", "log"], &object)?;
        println!("{} ({} bytes), with logging", object.display(), fs::metadata(&object)?.len());
        return Ok(());
    }
    let built = scratch();
    build(&toolchain, &[], &built)?;
    let bytes = read(&built)?;
    let lock = Lock {
        sources: lock::source_hash(&workspace::root())?,
        object: lock::sha256(&bytes),
        compiler: toolchain.compiler.clone(),
        cargo: toolchain.cargo_version.clone(),
        linker: toolchain.linker_version.clone(),
    };
    replace(&object_path(), &bytes)?;
    replace(&lock_path(), lock.render().as_bytes())?;
    println!("{} ({} bytes)", object_path().display(), bytes.len());
    Ok(())
}

/// Hashes always; the bytes as well where the recorded compiler is at hand.
fn check() -> Result<()> {
    const REMEDY: &str = "run `cargo xtask ebpf` and commit gateway/kernel/ebpf";
    let lock = Lock::parse(
        &fs::read_to_string(lock_path())
            .with_context(|| format!("{} cannot be read: {REMEDY}", lock_path().display()))?,
    )
    .with_context(|| format!("{} is damaged: {REMEDY}", lock_path().display()))?;
    let committed = read(&object_path()).with_context(|| REMEDY.to_owned())?;
    if lock.object != lock::sha256(&committed) {
        bail!("{} is not the object that its lock describes: {REMEDY}", object_path().display());
    }
    if lock.sources != lock::source_hash(&workspace::root())? {
        bail!("the sources of the kernel programs changed after the object was built: {REMEDY}");
    }
    println!("ebpf: the object is built from these sources (by hash)");

    let Some(toolchain) = Toolchain::find(Some(&lock)) else {
        if workspace::is_ci() {
            bail!(
                "no compiler for {TARGET} to rebuild the object with: run `cargo xtask ebpf`, which installs one"
            );
        }
        println!("ebpf: not rebuilt, no compiler for {TARGET} here; `cargo xtask ebpf` installs one");
        return Ok(());
    };
    let built = scratch();
    build(&toolchain, &[], &built)?;
    if read(&built)? == committed {
        println!("ebpf: rebuilt, the same bytes ({})", toolchain.compiler);
    } else if toolchain.is_recorded(&lock) {
        bail!(
            "rebuilt with the recorded compiler, the object differs: {} is not {}. Compare them with \
             {LLVM_PREFIX}/bin/llvm-objdump -d; then {REMEDY}",
            built.display(),
            object_path().display()
        );
    } else {
        println!("ebpf: rebuilt, but bytes CANNOT BE COMPARED: the compiler is not the recorded one");
        println!("  recorded: {} · {} · {}", lock.compiler, lock.cargo, lock.linker);
        println!(
            "  here:     {} · {} · {}",
            toolchain.compiler, toolchain.cargo_version, toolchain.linker_version
        );
    }
    Ok(())
}

/// Clippy over the kernel programs, for their own target.
pub(crate) fn lint() -> Result<Lint> {
    let toolchain = Toolchain::ensure(recorded().as_ref())?;
    let Some(clippy) = toolchain.clippy() else { return Ok(Lint::Unavailable) };
    let mut command = process::command(clippy);
    prepare(&mut command, &toolchain, "clippy", "ebpf-clippy")?;
    // The macros that make a function a program expand to another one, without its documentation.
    process::run(command.args(["--", "-Dwarnings", "-Amissing_docs"]))?;
    Ok(Lint::Clean)
}

/// Makes sure that the programs can be built on this machine.
pub(crate) fn ensure_toolchain() -> Result<()> {
    let toolchain = Toolchain::ensure(recorded().as_ref())?;
    println!("{} · {}", toolchain.compiler, toolchain.linker_version);
    Ok(())
}

fn build(toolchain: &Toolchain, features: &[&str], object: &Path) -> Result<()> {
    let mut cargo = process::command(&toolchain.cargo);
    prepare(&mut cargo, toolchain, "build", "ebpf")?;
    process::run(cargo.args(features))?;

    let linked = workspace::target_dir().join("ebpf").join(TARGET).join("release").join(PACKAGE);
    if let Some(dir) = object.parent() {
        fs::create_dir_all(dir)?;
    }
    process::run(process::command(&toolchain.strip).arg("-g").arg(&linked).arg("-o").arg(object))
}

/// Everything that a build and a lint have in common.
fn prepare(cargo: &mut Command, toolchain: &Toolchain, verb: &str, target_dir: &str) -> Result<()> {
    cargo.args([verb, "--quiet", "--locked", "--release", "--package", PACKAGE, "--target", TARGET]);
    cargo.args(["-Z", "build-std=core", "--target-dir"]).arg(workspace::target_dir().join(target_dir));
    // A released compiler refuses -Z without this, and there is no other way to build `core` for this target.
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", &toolchain.rustc);
    cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rustflags(toolchain)?).envs(PROFILE);
    // The rustup proxy sets this for the compiler that runs us; here another one is meant.
    cargo.env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC_WRAPPER").env_remove("RUSTC_WORKSPACE_WRAPPER");
    Ok(())
}

/// The flags, with every path of this machine replaced: the checkout by nothing (so that the linker still finds the
/// lines of our sources for BTF), each registry by `crates`, the compiler's own sources by `rust`.
fn rustflags(toolchain: &Toolchain) -> Result<String> {
    let mut flags: Vec<String> = RUSTFLAGS.iter().map(ToString::to_string).collect();
    let mut remap =
        |from: &Path, to: &str| flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    // The last match wins, so the checkout comes before what may lie in it.
    remap(&PathBuf::from(format!("{}/", workspace::root().display())), "");
    for registry in toolchain::registries()? {
        remap(&registry, "crates");
    }
    for sources in toolchain.core_sources() {
        remap(&sources, "rust");
    }
    Ok(flags.join("\x1f"))
}

fn recorded() -> Option<Lock> {
    Lock::parse(&fs::read_to_string(lock_path()).ok()?).ok()
}

fn object_path() -> PathBuf {
    workspace::root().join("gateway/kernel/ebpf/gateway.bpf.o")
}

fn lock_path() -> PathBuf {
    workspace::root().join("gateway/kernel/ebpf/gateway.bpf.lock")
}

/// Where an object is built before it is compared or moved into the tree.
fn scratch() -> PathBuf {
    workspace::target_dir().join("ebpf/gateway.bpf.o")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// Replaces a file in one step, and not at all if it has these bytes already: the agent is not rebuilt for nothing.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let dir = path.parent().context("a file in a directory")?;
    fs::create_dir_all(dir)?;
    let new = path.with_extension("new");
    fs::write(&new, bytes).with_context(|| format!("writing {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("replacing {}", path.display()))
}
