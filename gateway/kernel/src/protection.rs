//! The agent's half: attach the programs (or say why not), keep them attached, read their events.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::attach;
use crate::entry::{Attach, ListKind, NewEntry, Owner};
use crate::error::Error;
use crate::events::Events;
use crate::object;
use crate::pin::PinDir;
use crate::privilege;
use crate::rules::{Entry, Rules};
use crate::store::Pinned;

/// What the configuration wants of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Interfaces to protect.
    pub interfaces: Vec<String>,
    /// How to attach to them.
    pub attach: Attach,
    /// The configuration's allow entries.
    pub allow: Vec<NewEntry>,
    /// The configuration's deny entries.
    pub deny: Vec<NewEntry>,
}

/// Where the rules are enforced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "where")]
pub enum Enforcement {
    /// In XDP.
    Kernel,
    /// At accept, for the reason given.
    Userspace {
        /// One sentence: `attach: off`, a missing privilege, a kernel without XDP.
        why: String,
    },
}

/// One protected interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceState {
    /// Its name.
    pub name: String,
    /// `native` or `generic`.
    pub mode: String,
    /// Why it is not native although that was tried first.
    pub note: Option<String>,
}

/// The whole state, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where the rules are enforced.
    pub enforcement: Enforcement,
    /// The interfaces the programs are attached to.
    pub interfaces: Vec<InterfaceState>,
}

/// Protection held by a running agent. Dropping it leaves the pinned programs in force.
#[derive(Debug)]
pub struct Protection {
    rules: Rules,
    enforcer: Enforcer,
    interfaces: Vec<InterfaceState>,
}

#[derive(Debug)]
enum Enforcer {
    Kernel { dir: PinDir, store: Arc<Pinned>, events: Option<Box<Events>>, _lock: OwnedFd },
    Userspace { why: String },
}

impl Protection {
    /// Converges on the plan: takes over what is pinned, attaches what is missing, detaches what is no
    /// longer wanted, reconciles the configuration's entries. Falls back to userspace when `attach` is
    /// `auto` (or `off`) and the kernel cannot be used.
    ///
    /// # Errors
    /// An unknown interface, a foreign program on the hook, another agent on this pin directory, a pin
    /// directory that cannot be written, or a list longer than its map. Nothing is half-applied.
    pub fn start(plan: &Plan, pin_dir: &Path) -> Result<Self, Error> {
        match privilege::why_userspace(plan)? {
            Some(why) => Self::start_in_userspace(plan, pin_dir, why),
            None => Self::start_in_kernel(plan, pin_dir),
        }
    }

    fn start_in_kernel(plan: &Plan, pin_dir: &Path) -> Result<Self, Error> {
        let dir = PinDir::new(pin_dir);
        let fresh = !dir.exists();
        dir.create()?;
        let lock = dir.lock_agent()?;
        let started = Self::take_over(plan, &dir, lock);
        if started.is_err() && fresh {
            // Nothing was here before, so nothing is to stay.
            let _ = dir.remove();
        }
        started
    }

    fn take_over(plan: &Plan, dir: &PinDir, lock: OwnedFd) -> Result<Self, Error> {
        // Loading the programs once makes and pins whatever maps are missing.
        drop(object::load(0, &dir.maps())?);
        let store = Arc::new(Pinned::open(dir)?);
        let rules = Rules::over(store.clone());
        let events = Events::open(dir, store.clone())?;
        let interfaces = converge(dir, &store, &rules, plan)?;
        let enforcer =
            Enforcer::Kernel { dir: dir.clone(), store, events: Some(Box::new(events)), _lock: lock };
        Ok(Self { rules, enforcer, interfaces })
    }

    fn start_in_userspace(plan: &Plan, pin_dir: &Path, why: String) -> Result<Self, Error> {
        let rules = Rules::in_userspace();
        // What operators added while the kernel enforced it moves along; then the kernel lets go.
        if let Ok(pinned) = Rules::open(pin_dir) {
            let dir = PinDir::new(pin_dir);
            let lock = dir.lock_agent()?;
            move_operators_entries(&pinned, &rules)?;
            dir.remove()?;
            drop(lock);
        }
        reconcile(&rules, plan)?;
        Ok(Self { rules, enforcer: Enforcer::Userspace { why }, interfaces: Vec::new() })
    }

    /// Converges on a new plan while running. Moving between kernel and userspace needs a restart.
    ///
    /// # Errors
    /// As [`Protection::start`]; the former state stays.
    pub fn apply(&mut self, plan: &Plan) -> Result<(), Error> {
        let wanted = privilege::why_userspace(plan)?;
        match (&self.enforcer, wanted) {
            (Enforcer::Kernel { dir, store, .. }, None) => {
                self.interfaces = converge(dir, store, &self.rules, plan)?;
                Ok(())
            }
            (Enforcer::Userspace { .. }, Some(_)) => reconcile(&self.rules, plan),
            (Enforcer::Kernel { .. }, Some(_)) | (Enforcer::Userspace { .. }, None) => Err(Error::Kernel {
                what: "move the rules between kernel and userspace while running".to_owned(),
                why: "kernel.attach or kernel.interfaces now ask for the other one; restart the gateway"
                    .to_owned(),
            }),
        }
    }

    /// The rules in force.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Where and how the rules are enforced.
    pub fn state(&self) -> State {
        match &self.enforcer {
            Enforcer::Userspace { why } => {
                State { enforcement: Enforcement::Userspace { why: why.clone() }, interfaces: Vec::new() }
            }
            Enforcer::Kernel { dir, store, .. } => {
                let rows = store.interfaces().unwrap_or_default();
                let mut interfaces = attach::attached(dir, &rows);
                for interface in &mut interfaces {
                    let known = self.interfaces.iter().find(|known| known.name == interface.name);
                    interface.note = known.and_then(|known| known.note.clone());
                }
                State { enforcement: Enforcement::Kernel, interfaces }
            }
        }
    }

    /// The ring buffer's reading end; `None` in userspace or when already taken.
    pub fn take_events(&mut self) -> Option<Events> {
        match &mut self.enforcer {
            Enforcer::Kernel { events, .. } => events.take().map(|events| *events),
            Enforcer::Userspace { .. } => None,
        }
    }
}

/// Makes kernel and lists what the plan says: look first, then attach, then reconcile the lists; if
/// anything fails, what was newly attached is released again.
fn converge(
    dir: &PinDir,
    store: &Arc<Pinned>,
    rules: &Rules,
    plan: &Plan,
) -> Result<Vec<InterfaceState>, Error> {
    let before = store.interfaces()?;
    let targets = attach::survey(dir, &before, &plan.interfaces)?;
    let mut states = Vec::with_capacity(targets.len());
    let mut newly = Vec::new();
    let mut done = Ok(());
    for target in &targets {
        match attach::attach(dir, store, target, plan.attach) {
            Ok((state, new)) => {
                if new {
                    newly.push(state.name.clone());
                }
                states.push(state);
            }
            Err(error) => {
                done = Err(error);
                break;
            }
        }
    }
    let done = done.and_then(|()| reconcile(rules, plan));
    let after = store.interfaces()?;
    let leave: Vec<String> = match &done {
        Ok(()) => after
            .iter()
            .map(crate::interfaces::name_of)
            .filter(|name| !plan.interfaces.contains(name))
            .collect(),
        Err(_) => newly,
    };
    for slot in leave.iter().filter(|name| !name.is_empty()).filter_map(|name| attach::slot_of(&after, name))
    {
        attach::release(dir, store, slot)?;
    }
    done.map(|()| states)
}

/// Both lists, or neither.
fn reconcile(rules: &Rules, plan: &Plan) -> Result<(), Error> {
    let former_allow: Vec<NewEntry> = configured(rules, ListKind::Allow)?;
    rules.reconcile(ListKind::Allow, &plan.allow)?;
    if let Err(error) = rules.reconcile(ListKind::Deny, &plan.deny) {
        rules.reconcile(ListKind::Allow, &former_allow)?;
        return Err(error);
    }
    Ok(())
}

/// The configuration's entries of a list, as they are now.
fn configured(rules: &Rules, list: ListKind) -> Result<Vec<NewEntry>, Error> {
    let entries = rules.entries(list)?.into_iter();
    Ok(entries.filter(|entry| entry.owners.contains(&Owner::Config)).map(as_new).collect())
}

fn move_operators_entries(from: &Rules, to: &Rules) -> Result<(), Error> {
    for list in [ListKind::Allow, ListKind::Ban, ListKind::Deny] {
        let entries = from.entries(list)?.into_iter();
        let moved: Vec<NewEntry> =
            entries.filter(|entry| entry.owners.contains(&Owner::Operator)).map(as_new).collect();
        to.add(list, Owner::Operator, &moved, &mut |_| {})?;
    }
    Ok(())
}

fn as_new(entry: Entry) -> NewEntry {
    NewEntry {
        prefix: entry.prefix,
        rule: entry.rule,
        ttl: entry.ttl_seconds.map(std::time::Duration::from_secs),
        shadow: entry.shadow,
    }
}

/// The attachments pinned under `pin_dir`, for `status` while no agent runs.
///
/// # Errors
/// [`Error::NotPinned`] when there are none, [`Error::Privilege`] when they may not be opened.
pub fn attachments(pin_dir: &Path) -> Result<Vec<InterfaceState>, Error> {
    let dir = PinDir::new(pin_dir);
    if !dir.exists() {
        return Err(Error::NotPinned(pin_dir.to_owned()));
    }
    let store = Pinned::open(&dir)?;
    Ok(attach::attached(&dir, &store.interfaces()?))
}

/// Detaches the programs and removes the maps under `pin_dir`; refused while an agent runs. Returns the
/// interfaces that were released.
///
/// # Errors
/// [`Error::NotPinned`], [`Error::Locked`], or why the directory could not be removed.
pub fn detach(pin_dir: &Path) -> Result<Vec<String>, Error> {
    let dir = PinDir::new(pin_dir);
    if !dir.exists() {
        return Err(Error::NotPinned(pin_dir.to_owned()));
    }
    let _lock = dir.lock_agent()?;
    // Maps of a half-made directory may be missing; it must be possible to remove it all the same.
    let released = attachments(pin_dir).unwrap_or_default();
    dir.remove()?;
    attach::wait_until_free(&released);
    Ok(released.into_iter().map(|interface| interface.name).collect())
}
