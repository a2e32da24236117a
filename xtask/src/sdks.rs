//! The SDKs of language model providers that the end-to-end tests run: installed under the target directory, at the
//! versions that `tests/sdk` fixes, once; from then on no network is needed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{process, workspace};

/// An interpreter's packages.
struct Packages {
    /// The directory below `tools/sdk`.
    name: &'static str,
    interpreter: &'static str,
    /// Files of `tests/sdk` that say which packages; they are installed anew when one of these changes.
    listed_in: &'static [&'static str],
    install: fn(&Path) -> Result<()>,
    /// What to type instead, in the directory.
    by_hand: &'static str,
}

const PACKAGES: [Packages; 2] = [
    Packages {
        name: "python",
        interpreter: "python3",
        listed_in: &["requirements.txt"],
        install: install_python,
        by_hand: "python3 -m venv venv && venv/bin/pip install -r requirements.txt",
    },
    Packages {
        name: "node",
        interpreter: "npm",
        listed_in: &["package.json", "package-lock.json"],
        install: install_node,
        by_hand: "npm ci --ignore-scripts",
    },
];

/// Installs what is missing; returns what could not be, and the command that would.
pub(crate) fn ensure() -> Vec<String> {
    PACKAGES.iter().filter_map(|packages| packages.ensure().err()).map(|error| format!("{error:#}")).collect()
}

impl Packages {
    fn ensure(&self) -> Result<()> {
        let directory = workspace::target_dir().join("tools/sdk").join(self.name);
        let listed = self.listed()?;
        let mark = directory.join("installed");
        if fs::read_to_string(&mark).is_ok_and(|installed| installed == listed) {
            return Ok(());
        }
        println!("installing the SDKs of providers for {} (once)", self.interpreter);
        self.install(&directory).with_context(|| {
            let (name, at, by_hand) = (self.name, directory.display(), self.by_hand);
            format!("the SDKs for {name} are missing; by hand: (cd {at} && {by_hand})")
        })?;
        fs::write(mark, listed).context("noting what is installed")
    }

    fn install(&self, directory: &Path) -> Result<()> {
        // What an earlier run left half-way must not be found by the tests.
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory)?;
        for file in self.listed_in {
            fs::copy(sources().join(file), directory.join(file)).with_context(|| (*file).to_owned())?;
        }
        process::find(self.interpreter).with_context(|| format!("{} is not installed", self.interpreter))?;
        (self.install)(directory)
    }

    fn listed(&self) -> Result<String> {
        let read = |file: &&str| fs::read_to_string(sources().join(file)).with_context(|| (*file).to_owned());
        self.listed_in.iter().map(read).collect()
    }
}

fn sources() -> PathBuf {
    workspace::root().join("tests/sdk")
}

fn install_python(directory: &Path) -> Result<()> {
    let venv = directory.join("venv");
    process::read(process::command("python3").args(["-m", "venv"]).arg(&venv))?;
    let mut pip = process::command(venv.join("bin/pip"));
    pip.args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
        "--requirement",
    ]);
    process::read(pip.arg(directory.join("requirements.txt")))?;
    Ok(())
}

fn install_node(directory: &Path) -> Result<()> {
    // No package of these needs a script at its installation, and a script may do anything.
    let mut npm = process::command("npm");
    npm.args(["ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]);
    process::read(npm.current_dir(directory))?;
    Ok(())
}
