//! The agent's half: attach the programs (or say why not), keep them attached, read their events.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::attach;
use crate::attach_egress;
use crate::entry::{Attach, BanBounds, DefaultVerdict, ListEntry, ListKind, NewEntry, NewList, Note, Owner};
use crate::error::Error;
use crate::events::Events;
use crate::flows;
use crate::interfaces::{index_of, name_of};
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
    /// What happens to packets that no entry names.
    pub default: DefaultVerdict,
    /// What a ban may be at most.
    pub bans: BanBounds,
    /// The configuration's lists.
    pub lists: Arc<Vec<NewList>>,
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
    /// `native`, `generic` or [`DETACHED`].
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
    /// What happens to packets that no entry names.
    #[serde(default)]
    pub default: DefaultVerdict,
}

/// Protection held by a running agent. Dropping it leaves the pinned programs in force.
#[derive(Debug)]
pub struct Protection {
    rules: Rules,
    enforcer: Enforcer,
    plan: Plan,
    notes: Vec<InterfaceState>,
}

#[derive(Debug)]
enum Enforcer {
    Kernel {
        dir: PinDir,
        store: Arc<Pinned>,
        events: Option<Box<Events>>,
        /// What was in force before this agent started; `None` if nothing was.
        former: Option<Plan>,
        _lock: OwnedFd,
    },
    Userspace {
        why: String,
        /// What an agent before this one pinned, until [`Protection::settle`] ends it.
        leftover: Option<(PinDir, OwnedFd)>,
    },
}

impl Protection {
    /// Converges on the plan: takes over what is pinned, attaches what is missing, detaches what is no
    /// longer wanted, reconciles the configuration's entries. Falls back to userspace when `attach` is
    /// `auto` (or `off`) and the kernel cannot be used.
    ///
    /// Whoever starts goes on with [`Protection::settle`] when all the rest has started, or with
    /// [`Protection::abandon`] when it has not.
    ///
    /// # Errors
    /// An unknown interface, a foreign program on the hook, another agent on this pin directory, a pin
    /// directory that cannot be written, or a list longer than its map. Nothing is half-applied.
    pub fn start(plan: &Plan, pin_dir: &Path) -> Result<Self, Error> {
        if let Some(why) = privilege::why_userspace(plan)? {
            return Self::start_in_userspace(plan, pin_dir, why);
        }
        match Self::start_in_kernel(plan, pin_dir) {
            // The capabilities are there, and the kernel refuses all the same: inside a user namespace, say.
            Err(error @ Error::Privilege { .. }) if plan.attach == Attach::Auto => {
                Self::start_in_userspace(plan, pin_dir, error.to_string())
            }
            started => started,
        }
    }

    fn start_in_kernel(plan: &Plan, pin_dir: &Path) -> Result<Self, Error> {
        let dir = PinDir::new(pin_dir);
        let fresh = !dir.exists();
        dir.create()?;
        let lock = dir.lock_agent()?;
        let started = Self::take_over(plan, &dir, fresh, lock);
        if started.is_err() && fresh {
            // Nothing was here before, so nothing is to stay.
            let _ = dir.remove();
        }
        started
    }

    fn take_over(plan: &Plan, dir: &PinDir, fresh: bool, lock: OwnedFd) -> Result<Self, Error> {
        object::make_maps(&dir.maps(), plan.default)?;
        let store = Arc::new(Pinned::open(dir)?);
        let rules = Rules::over(store.clone());
        let events = Some(Box::new(Events::open(dir, store.clone())?));
        let former = if fresh { None } else { Some(in_force(dir, &store, &rules)?) };
        let notes = converge(dir, &store, &rules, plan)?;
        let enforcer = Enforcer::Kernel { dir: dir.clone(), store, events, former, _lock: lock };
        Ok(Self { rules, enforcer, plan: plan.clone(), notes })
    }

    fn start_in_userspace(plan: &Plan, pin_dir: &Path, why: String) -> Result<Self, Error> {
        let rules = Rules::in_userspace()?;
        reconcile(&rules, plan)?;
        let leftover = match Rules::open(pin_dir) {
            Err(Error::NotPinned(_)) => None,
            Ok(pinned) => {
                let dir = PinDir::new(pin_dir);
                let lock = dir.lock_agent()?;
                // What operators added while the kernel enforced it moves along.
                copy_operators_entries(&pinned, &rules)?;
                Some((dir, lock))
            }
            // It stays in force where this process cannot reach it, beside what this process enforces.
            Err(error) => {
                tracing::warn!("what is pinned under {} stays as it is: {error}", pin_dir.display());
                None
            }
        };
        let enforcer = Enforcer::Userspace { why, leftover };
        Ok(Self { rules, enforcer, plan: plan.clone(), notes: Vec::new() })
    }

    /// All the rest has started: what an agent before this one left and this one does not want ends now.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn settle(&mut self) -> Result<(), Error> {
        match &mut self.enforcer {
            Enforcer::Kernel { former, .. } => {
                *former = None;
                Ok(())
            }
            Enforcer::Userspace { leftover, .. } => {
                let Some((dir, _lock)) = leftover.take() else { return Ok(()) };
                let pinned = Rules::over(Arc::new(Pinned::open(&dir)?));
                // Once more, for whoever wrote since; from here on commands find this agent first.
                copy_operators_entries(&pinned, &self.rules)?;
                tracing::warn!(
                    "the programs that an earlier agent had attached are detached: rules are enforced at accept now"
                );
                dir.remove()
            }
        }
    }

    /// The rest could not start: what was in force before comes back, or nothing stays if nothing was.
    ///
    /// # Errors
    /// What could not be restored.
    pub fn abandon(self) -> Result<(), Error> {
        match self.enforcer {
            Enforcer::Kernel { dir, store, former: Some(former), .. } => {
                converge(&dir, &store, &self.rules, &former).map(|_| ())
            }
            Enforcer::Kernel { dir, former: None, .. } => dir.remove(),
            Enforcer::Userspace { .. } => Ok(()),
        }
    }

    /// Converges on a new plan while running. Moving between kernel and userspace needs a restart.
    ///
    /// # Errors
    /// As [`Protection::start`]; the former state stays.
    pub fn apply(&mut self, plan: &Plan) -> Result<(), Error> {
        let wanted = privilege::why_userspace(plan)?;
        match (&self.enforcer, wanted) {
            (Enforcer::Kernel { dir, store, .. }, None) => {
                self.notes = converge(dir, store, &self.rules, plan)?;
            }
            // The reason may be that the kernel refused what the capabilities promise.
            (Enforcer::Userspace { .. }, Some(_)) => reconcile(&self.rules, plan)?,
            (Enforcer::Userspace { .. }, None)
                if self.plan.attach == plan.attach && self.plan.interfaces == plan.interfaces =>
            {
                reconcile(&self.rules, plan)?;
            }
            (Enforcer::Kernel { .. }, Some(_)) | (Enforcer::Userspace { .. }, None) => {
                return Err(Error::Kernel {
                    what: "move the rules between kernel and userspace while running".to_owned(),
                    why: "kernel.attach or kernel.interfaces now ask for the other one; restart the gateway"
                        .to_owned(),
                });
            }
        }
        self.plan = plan.clone();
        Ok(())
    }

    /// Attaches again to interfaces that went away and came back (a VLAN made anew, a veth plugged in).
    /// Cheap when nothing is missing; made to be called every second. Returns what was attached.
    ///
    /// # Errors
    /// As [`Protection::start`].
    pub fn heal(&mut self) -> Result<Vec<String>, Error> {
        let Enforcer::Kernel { dir, store, .. } = &self.enforcer else { return Ok(Vec::new()) };
        let rows = store.interfaces()?;
        let attached = attach::attached(dir, &rows);
        let remembers = |name: &String| {
            self.plan.default == DefaultVerdict::Pass
                || attach::slot_of(&rows, name)
                    .is_some_and(|slot| attach_egress::is_attached(dir, slot, name))
        };
        let is_attached = |name: &String| attached.iter().any(|state| state.name == *name) && remembers(name);
        let missing = self.plan.interfaces.iter().filter(|name| !is_attached(name));
        let back: Vec<String> = missing.filter(|name| index_of(name).is_ok()).cloned().collect();
        for target in attach::survey(dir, &rows, &back)? {
            if self.plan.default == DefaultVerdict::Drop {
                attach_egress::attach(dir, target.slot, &target.name)?;
            }
            let done = attach::attach(dir, store, &target, self.plan.attach)?;
            self.notes.retain(|note| note.name != done.state.name);
            self.notes.push(done.state);
        }
        Ok(back)
    }

    /// The rules in force.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Where and how the rules are enforced.
    pub fn state(&self) -> State {
        match &self.enforcer {
            Enforcer::Userspace { why, .. } => {
                let enforcement = Enforcement::Userspace { why: why.clone() };
                State { enforcement, interfaces: Vec::new(), default: self.plan.default }
            }
            Enforcer::Kernel { dir, store, .. } => {
                let attached = attach::attached(dir, &store.interfaces().unwrap_or_default());
                let now = |name: &String| self.now(name, &attached);
                State {
                    enforcement: Enforcement::Kernel,
                    interfaces: self.plan.interfaces.iter().map(now).collect(),
                    default: self.plan.default,
                }
            }
        }
    }

    /// An interface of the plan as it is now.
    fn now(&self, name: &String, attached: &[InterfaceState]) -> InterfaceState {
        match attached.iter().find(|state| state.name == *name) {
            Some(state) => {
                let noted = self.notes.iter().find(|note| note.name == *name);
                InterfaceState { note: noted.and_then(|note| note.note.clone()), ..state.clone() }
            }
            None => InterfaceState {
                name: name.clone(),
                mode: DETACHED.to_owned(),
                note: Some("the interface is not there; it is protected again when it comes back".to_owned()),
            },
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

/// The mode of an interface of the plan that nothing is attached to.
pub const DETACHED: &str = "detached";

/// Makes kernel and lists what the plan says: look first, then attach, then reconcile the lists, and only
/// then leave what is no longer wanted; if anything fails, what was attached is taken back.
///
/// What remembers the host's own flows is there before a packet is dropped by default, and goes after.
fn converge(
    dir: &PinDir,
    store: &Arc<Pinned>,
    rules: &Rules,
    plan: &Plan,
) -> Result<Vec<InterfaceState>, Error> {
    let targets = attach::survey(dir, &store.interfaces()?, &plan.interfaces)?;
    let mut done = Vec::with_capacity(targets.len());
    let mut remembering = Vec::new();
    let attached = attach_egress_to(dir, plan, &targets, &mut remembering).and_then(|()| {
        targets.iter().try_for_each(|target| {
            done.push(attach::attach(dir, store, target, plan.attach)?);
            Ok(())
        })
    });
    if let Err(error) = attached.and_then(|()| reconcile(rules, plan)) {
        for (target, done) in targets.iter().zip(&done).rev() {
            if let Err(second) = attach::undo(dir, store, target, done) {
                tracing::error!("{} could not be put back: {second}", done.state.name);
            }
        }
        for slot in remembering {
            if let Err(second) = attach_egress::release(dir, slot) {
                tracing::error!("an egress program could not be taken back: {second}");
            }
        }
        return Err(error);
    }
    for (slot, row) in store.interfaces()?.iter().enumerate() {
        let slot = slot as u32;
        let is_wanted = row.name[0] != 0 && plan.interfaces.contains(&name_of(row));
        if row.name[0] != 0 && !is_wanted {
            attach::release(dir, store, slot)?;
        }
        if !is_wanted || plan.default == DefaultVerdict::Pass {
            attach_egress::release(dir, slot)?;
        }
    }
    if plan.default == DefaultVerdict::Pass {
        give_back_flows(dir, store, plan);
    }
    Ok(done.into_iter().map(|done| done.state).collect())
}

/// Where the plan drops by default: tables for the flows, and a program on each interface that fills them.
/// `made` are the rows that had none.
fn attach_egress_to(
    dir: &PinDir,
    plan: &Plan,
    targets: &[attach::Target],
    made: &mut Vec<u32>,
) -> Result<(), Error> {
    if plan.default == DefaultVerdict::Pass {
        return Ok(());
    }
    flows::fit(&dir.maps(), plan.default)?;
    for target in targets {
        if attach_egress::attach(dir, target.slot, &target.name)? {
            made.push(target.slot);
        }
    }
    Ok(())
}

/// Where the plan passes by default: gives back the memory of the flow tables, which goes when no program
/// holds them any more. What fails costs memory until the next reload, and nothing else.
fn give_back_flows(dir: &PinDir, store: &Arc<Pinned>, plan: &Plan) {
    let replaced = flows::fit(&dir.maps(), plan.default).and_then(|made_anew| {
        if !made_anew {
            return Ok(());
        }
        let targets = attach::survey(dir, &store.interfaces()?, &plan.interfaces)?;
        targets.iter().try_for_each(|target| attach::attach(dir, store, target, plan.attach).map(drop))
    });
    if let Err(error) = replaced {
        tracing::warn!("the memory of the flow tables is not given back yet: {error}");
    }
}

/// All lists, or none; and then the default, so that nobody is dropped whom the lists allow.
fn reconcile(rules: &Rules, plan: &Plan) -> Result<(), Error> {
    rules.reconcile(&plan.lists)?;
    rules.set_default(plan.default)
}

/// The plan that the pinned state amounts to.
fn in_force(dir: &PinDir, store: &Pinned, rules: &Rules) -> Result<Plan, Error> {
    let attached = attach::attached(dir, &store.interfaces()?);
    Ok(Plan {
        interfaces: attached.into_iter().map(|state| state.name).collect(),
        // Whatever mode each is in, it keeps.
        attach: Attach::Auto,
        default: rules.default_verdict()?,
        bans: rules.ban_bounds()?,
        lists: Arc::new(lists_of(rules, Owner::Config)?),
    })
}

/// An owner's lists as they are, to be made again.
fn lists_of(rules: &Rules, owner: Owner) -> Result<Vec<NewList>, Error> {
    let infos: Vec<_> = rules.lists()?.into_iter().filter(|info| info.owner == owner).collect();
    let mut entries: HashMap<(ListKind, String), Vec<Entry>> = HashMap::new();
    for kind in [ListKind::Allow, ListKind::Deny] {
        for entry in rules.entries(kind)?.into_iter().filter(|entry| entry.generation.is_some()) {
            entries.entry((kind, entry.from.clone())).or_default().push(entry);
        }
    }
    let again = infos.into_iter().map(|info| {
        let mut labels: Vec<String> = Vec::new();
        let found = entries.remove(&(info.kind, info.name.clone())).unwrap_or_default();
        let entries = found.into_iter().map(|entry| {
            let label = labels.iter().position(|label| *label == entry.rule).unwrap_or_else(|| {
                labels.push(entry.rule.clone());
                labels.len() - 1
            });
            ListEntry { prefix: entry.prefix, label: label as u32, shadow: entry.shadow && !info.shadow }
        });
        let entries = entries.collect();
        NewList {
            kind: info.kind,
            name: info.name,
            source: info.source,
            shadow: info.shadow,
            labels,
            entries,
        }
    });
    Ok(again.collect())
}

fn copy_operators_entries(from: &Rules, to: &Rules) -> Result<(), Error> {
    for list in lists_of(from, Owner::Operator)? {
        to.replace(Owner::Operator, &list, &mut |_| {})?;
    }
    let batch = |list| -> Result<_, Error> {
        let entries = from.entries(list)?.into_iter();
        Ok((list, entries.filter(|entry| entry.generation.is_none()).map(as_new).collect()))
    };
    let batches = [batch(ListKind::Allow)?, batch(ListKind::Ban)?, batch(ListKind::Deny)?];
    to.add_batches(&Note::CLI, &batches, &mut |_| {}).map(|_| ())
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

/// What happens to packets that no entry names, by what is pinned under `pin_dir`.
///
/// # Errors
/// As [`attachments`].
pub fn default_verdict(pin_dir: &Path) -> Result<DefaultVerdict, Error> {
    Rules::open(pin_dir)?.default_verdict()
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
    for interface in &released {
        if let Ok(index) = index_of(&interface.name) {
            attach::wait_until_free(index);
        }
    }
    Ok(released.into_iter().map(|interface| interface.name).collect())
}
