//! Lists of the configuration that refresh by themselves: what their sources bring becomes a generation, unless it is no
//! list, or so different from the one in force that somebody should look at it first.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gateway_common::verdict::Reason;
use gateway_kernel::{Error, ListKind, NewList, Owner, Prepared, Replaced, Rules};
use ipnet::IpNet;

use crate::model::{ListSource, ListSources};
use crate::sources::{Offered, Origin, Sink, Source, SourceStatus, Sources, last_good};

/// The sources of lists, running.
pub struct Feeds {
    sources: Sources,
    lists: Arc<Lists>,
}

/// The lists that sources bring, by name.
struct Lists {
    rules: Rules,
    /// Where the copies of the start are; another directory takes a restart.
    cache: PathBuf,
    known: Mutex<HashMap<String, ListSource>>,
    /// How often a list has changed by itself.
    changes: AtomicU64,
}

impl std::fmt::Debug for Feeds {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Feeds").finish_non_exhaustive()
    }
}

impl Feeds {
    /// Follows the sources; within a runtime.
    pub fn start(rules: Rules, wanted: &ListSources) -> Self {
        let lists = Arc::new(Lists::new(rules, wanted));
        let sink: Arc<dyn Sink> = Arc::clone(&lists) as Arc<dyn Sink>;
        let sources = Sources::start(sources_of(wanted), wanted.cache.clone(), sink);
        Self { sources, lists }
    }

    /// Follows these from now on.
    pub fn replace(&self, wanted: &ListSources) {
        *self.lists.known() = by_name(wanted);
        self.sources.replace(sources_of(wanted));
    }

    /// How often a list has changed by itself so far.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.lists.changes.load(Ordering::Acquire)
    }

    /// Lists of the configuration as they are by now: of those that are fetched, what was fetched since it was
    /// loaded. It reads files.
    #[must_use]
    pub fn as_of_now(&self, lists: &[NewList]) -> Vec<NewList> {
        lists.iter().map(|list| self.lists.fetched(&list.name).unwrap_or_else(|| list.clone())).collect()
    }

    /// Asks every source anew, after lists were written that may be older than what the sources brought.
    pub fn start_over(&self) {
        self.sources.start_over();
    }

    /// The state of every source.
    #[must_use]
    pub fn status(&self) -> Vec<SourceStatus> {
        self.sources.status()
    }

    /// Applies what a source brought and was held. It reads and writes files.
    ///
    /// # Errors
    /// [`Error::Refused`] if nothing is held under this name, if it denies the address that this is asked from, or what
    /// the rules refuse.
    pub fn confirm(&self, name: &str, asked_from: Option<IpAddr>) -> Result<Replaced, Error> {
        let shown = gateway_kernel::feed::shown(name);
        let refused = |why: &str| Error::Refused(format!("{shown}: {why}"));
        let Some(source) = self.lists.known().get(name).cloned() else {
            return Err(refused("no list of this name refreshes by itself; see `gateway status`"));
        };
        let Some(bytes) = self.sources.held(name) else { return Err(refused("nothing of it is held")) };
        let prepared = prepare(&source, bytes.clone()).map_err(|why| refused(&why))?;
        if let Some(address) = asked_from
            && let Some(prefix) = self.lists.locks_out(&prepared.list, address)?
        {
            return Err(refused(&format!(
                "{prefix} covers {address}, from where you are connected, and would lock you out; nothing was \
                 changed. `gateway allow add {address}` first, if that is what you want"
            )));
        }
        let replaced = self.lists.rules.replace(Owner::Config, &prepared.list, &mut |_| {})?;
        self.lists.changes.fetch_add(1, Ordering::AcqRel);
        if !self.sources.confirm(name, &bytes) {
            tracing::warn!("the list {shown} was confirmed while its source brought something else");
            // Which of the two is in force now, nobody knows.
            self.sources.start_over();
        }
        Ok(replaced)
    }
}

impl Lists {
    fn new(rules: Rules, wanted: &ListSources) -> Self {
        let cache = wanted.cache.clone();
        Self { rules, cache, known: Mutex::new(by_name(wanted)), changes: AtomicU64::new(0) }
    }

    /// The prefix by which a list would deny an address that no allow entry lets in.
    fn locks_out(&self, list: &NewList, address: IpAddr) -> Result<Option<IpNet>, Error> {
        if list.kind != ListKind::Deny || list.shadow {
            return Ok(None);
        }
        let mut enforced = list.entries.iter().filter(|entry| !entry.shadow).map(|entry| entry.prefix);
        let Some(prefix) = enforced.find(|prefix| prefix.contains(&address)) else { return Ok(None) };
        let is_allowed = self.rules.explain(address, None)?.reason == Reason::AllowList.name();
        Ok(Some(prefix).filter(|_| !is_allowed))
    }

    /// What was fetched last for a list and accepted.
    fn fetched(&self, name: &str) -> Option<NewList> {
        let source = self.known().get(name).cloned()?;
        let Origin::Url(url) = &source.origin else { return None };
        let bytes = last_good(&self.cache, &url.url)?;
        source.recipe.prepare(bytes).ok().map(|prepared| prepared.list)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, ListSource>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many entries a list has now.
    fn length(&self, kind: ListKind, name: &str) -> Result<u64, Error> {
        let lists = self.rules.lists()?;
        let found = lists.iter().find(|list| list.kind == kind && list.name == name);
        Ok(found.map_or(0, gateway_kernel::ListInfo::entries))
    }

    fn take(&self, name: &str, bytes: Vec<u8>) -> Result<Offered, String> {
        let Some(source) = self.known().get(name).cloned() else {
            return Err("the configuration does not name it any more".to_owned());
        };
        let list = prepare(&source, bytes)?.list;
        let before = self.length(list.kind, name).map_err(|error| error.to_string())?;
        if let Some(why) = too_different(before, list.entries.len() as u64, source.max_change) {
            return Ok(Offered::Held {
                why: format!("{why}; look at it, then `gateway {} confirm {name}`", list.kind.name()),
            });
        }
        let replaced =
            self.rules.replace(Owner::Config, &list, &mut |_| {}).map_err(|error| error.to_string())?;
        if replaced.changed {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
        Ok(if replaced.changed { Offered::Applied } else { Offered::Unchanged })
    }
}

impl Sink for Lists {
    fn offer(&self, name: &str, bytes: Vec<u8>) -> Offered {
        self.take(name, bytes).unwrap_or_else(|why| Offered::Refused { why })
    }
}

/// A source's list, all of it or none.
fn prepare(source: &ListSource, bytes: Vec<u8>) -> Result<Prepared, String> {
    let prepared = source.recipe.prepare(bytes).map_err(|error| error.to_string())?;
    if let Some(first) = prepared.mistakes.errors.first() {
        let count = prepared.mistakes.error_count;
        return Err(format!("{count} bad lines, the first is line {}: {}", first.line, first.why));
    }
    if let Some(timed) = prepared.timed.first() {
        return Err(format!(
            "{} has a ttl, which would begin anew with every refresh; import such a list instead",
            timed.prefix
        ));
    }
    Ok(prepared)
}

/// Why a list of another length is held; a list that was empty may become whatever it becomes.
fn too_different(before: u64, after: u64, max_change: Option<u32>) -> Option<String> {
    let percent = u64::from(max_change?);
    let change = before.abs_diff(after);
    let too_much = before > 0 && u128::from(change) * 100 > u128::from(before) * u128::from(percent);
    too_much.then(|| {
        let verb = if after < before { "shrank" } else { "grew" };
        format!("it {verb} from {before} to {after} entries, which is more than {percent} %")
    })
}

fn by_name(wanted: &ListSources) -> HashMap<String, ListSource> {
    wanted.sources.iter().map(|source| (source.recipe.name.clone(), source.clone())).collect()
}

fn sources_of(wanted: &ListSources) -> Vec<Source> {
    let source =
        |source: &ListSource| Source { name: source.recipe.name.clone(), origin: source.origin.clone() };
    wanted.sources.iter().map(source).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use gateway_kernel::feed::{Format, Options};
    use gateway_kernel::{Form, NewEntry, Recipe};

    use super::*;
    use crate::sources::Origin;

    #[test]
    fn a_list_may_change_by_its_share() {
        let table = [
            ("was empty", 0, 1_000_000, Some(1), false),
            ("the same", 100, 100, Some(1), false),
            ("half is gone", 100, 50, Some(50), false),
            ("more than half is gone", 100, 49, Some(50), true),
            ("all is gone", 100, 0, Some(50), true),
            ("half as much again", 100, 150, Some(50), false),
            ("more than that", 100, 151, Some(50), true),
            ("whatever", 100, 0, None, false),
            ("no overflow", u64::MAX, 0, Some(1000), false),
        ];
        for (name, before, after, max_change, held) in table {
            assert_eq!(too_different(before, after, max_change).is_some(), held, "{name}");
        }
    }

    fn lists(max_change: Option<u32>) -> Lists {
        let source = ListSource {
            recipe: Recipe {
                kind: ListKind::Deny,
                name: "feed".into(),
                source: "feed.txt".into(),
                reason: None,
                label: "feed".into(),
                shadow: false,
                form: Form::Feed { format: Format::Auto, options: Options::default() },
            },
            origin: Origin::File { path: "/nonexistent".into() },
            max_change,
        };
        let wanted = ListSources { cache: PathBuf::from("/nonexistent"), sources: vec![source] };
        Lists::new(Rules::in_userspace().expect("rules"), &wanted)
    }

    #[test]
    fn what_a_source_brings_is_in_force_held_or_refused() {
        let lists = lists(Some(50));
        let four = "192.0.2.1\n192.0.2.2\n192.0.2.3\n192.0.2.4\n";
        let table: [(&str, &str, &str); 6] = [
            ("first", four, "Applied"),
            ("again", four, "Unchanged"),
            ("rubbish", "\u{0}\u{1}\u{2}", "Refused"),
            ("a bad line", "192.0.2.1\nx\n", "line 2"),
            ("a ttl", "192.0.2.1 ttl=1m\n", "has a ttl"),
            ("shrunk", "192.0.2.1\n", "gateway deny confirm feed"),
        ];
        for (name, text, expected) in table {
            let offered = format!("{:?}", lists.offer("feed", text.as_bytes().to_vec()));
            assert!(offered.contains(expected), "{name}: {offered}");
            assert_eq!(
                lists.length(ListKind::Deny, "feed").expect("read"),
                4,
                "{name}: the former list stays"
            );
        }
        assert!(matches!(lists.offer("other", Vec::new()), Offered::Refused { .. }));
    }

    #[test]
    fn a_held_list_locks_nobody_out_who_confirms_it() {
        let lists = lists(None);
        let source = lists.known().get("feed").cloned().expect("the source");
        let of = |text: &str| prepare(&source, text.into()).expect("a list").list;
        let own: IpAddr = [192, 0, 2, 7].into();
        let table = [
            ("covered", of("192.0.2.0/24\n"), true),
            ("the address itself", of("192.0.2.7\n"), true),
            ("not covered", of("192.0.3.0/24\n2001:db8::/32\n"), false),
            ("in shadow", of("192.0.2.0/24 shadow\n"), false),
            ("a list in shadow", NewList { shadow: true, ..of("192.0.2.0/24\n") }, false),
            ("an allow list", NewList { kind: ListKind::Allow, ..of("192.0.2.0/24\n") }, false),
        ];
        for (name, list, locked_out) in table {
            assert_eq!(lists.locks_out(&list, own).expect("read").is_some(), locked_out, "{name}");
        }
        let allowed = NewEntry { prefix: own.into(), rule: "me".into(), ttl: None, shadow: false };
        lists.rules.add(ListKind::Allow, &[allowed], &mut |_| {}).expect("added");
        assert_eq!(
            lists.locks_out(&of("192.0.2.0/24\n"), own).expect("read"),
            None,
            "an allow entry lets it in"
        );
    }
}
