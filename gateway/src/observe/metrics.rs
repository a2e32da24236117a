//! The recorder behind the `metrics` facade: counters, gauges and histograms of the request path.
//!
//! Every registration of a counter or a histogram gets a cell of its own, and a scrape adds the cells of
//! a series up. So workers that register their own handles never write to a cache line of one another,
//! and a cell whose last handle is gone is folded into its series' total: counters never step back when
//! a reload replaces handles. The usual exporter for this facade was weighed and left out: it keeps
//! every histogram observation in memory until someone drains it, and all workers share one cell.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit,
};

use super::exposition::{Exposition, Kind};

/// Series over all families. A label that was meant to be bounded and is not must not eat the memory.
const MAX_SERIES: usize = 50_000;

/// A series folds its cells when it has this many, and again whenever their number has doubled since.
const FOLD_AT: usize = 16;

/// Bucket bounds of `…_seconds`: from loopback to a patient client.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0,
];

/// Bucket bounds of everything else, which is bytes: powers of four from 256 B to 256 MiB.
const BYTES: &[f64] = &[
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
];

/// Where every handle of the facade is registered, and where a scrape reads them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    tables: Arc<Mutex<Tables>>,
}

#[derive(Debug, Default)]
struct Tables {
    families: BTreeMap<String, Family>,
    help: BTreeMap<String, String>,
    series: usize,
    refused: u64,
}

/// Label names and values, in the order of registration.
type Labels = Vec<(String, String)>;

#[derive(Debug)]
enum Family {
    Counters(BTreeMap<Labels, Series<CounterCell>>),
    Gauges(BTreeMap<Labels, Arc<GaugeCell>>),
    Histograms(BTreeMap<Labels, Series<HistogramCell>>),
}

impl Family {
    fn counters(&mut self) -> Option<&mut BTreeMap<Labels, Series<CounterCell>>> {
        if let Self::Counters(series) = self { Some(series) } else { None }
    }

    fn gauges(&mut self) -> Option<&mut BTreeMap<Labels, Arc<GaugeCell>>> {
        if let Self::Gauges(series) = self { Some(series) } else { None }
    }

    fn histograms(&mut self) -> Option<&mut BTreeMap<Labels, Series<HistogramCell>>> {
        if let Self::Histograms(series) = self { Some(series) } else { None }
    }
}

impl Recorder {
    /// Makes this the recorder of the whole process. A second call leaves the first recorder in place.
    pub fn install(&self) {
        // Only tests start more than one agent in a process; they read their own recorder directly.
        let _ = ::metrics::set_global_recorder(self.clone());
    }

    /// Writes every family that has a series.
    pub fn render(&self, page: &mut Exposition) {
        let tables = self.lock();
        for (name, family) in &tables.families {
            let help = tables.help.get(name).map_or("", String::as_str);
            match family {
                Family::Counters(series) => {
                    page.family(name, Kind::Counter, help);
                    for (labels, cells) in series {
                        page.sample(name, &borrow(labels), cells.total());
                    }
                }
                Family::Gauges(series) => {
                    page.family(name, Kind::Gauge, help);
                    for (labels, cell) in series {
                        page.sample(name, &borrow(labels), f64::from_bits(cell.0.load(Ordering::Relaxed)));
                    }
                }
                Family::Histograms(series) => {
                    page.family(name, Kind::Histogram, help);
                    for (labels, cells) in series {
                        cells.render(page, name, labels);
                    }
                }
            }
        }
        page.family(
            "gateway_metrics_series_refused_total",
            Kind::Counter,
            "Registrations of metrics refused because there are too many series already.",
        );
        page.sample("gateway_metrics_series_refused_total", &[], tables.refused);
    }

    fn describe(&self, name: &KeyName, text: &SharedString) {
        self.lock().help.insert(name.as_str().to_owned(), text.to_string());
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // A panic while the lock is held cannot leave a half-written series: every step is one insertion.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    /// The series of a key in a family of the wanted kind, or `None` when the kind is another one or there
    /// are too many series: the caller then gets a handle that does nothing.
    fn enter<S>(
        &mut self,
        key: &Key,
        new_family: fn() -> Family,
        pick: fn(&mut Family) -> Option<&mut BTreeMap<Labels, S>>,
        new_series: impl FnOnce() -> S,
    ) -> Option<&mut S> {
        let labels: Labels =
            key.labels().map(|label| (label.key().to_owned(), label.value().to_owned())).collect();
        let family = self.families.entry(key.name().to_owned()).or_insert_with(new_family);
        let Some(series) = pick(family) else {
            self.refused += 1;
            return None;
        };
        if !series.contains_key(&labels) {
            if self.series >= MAX_SERIES {
                self.refused += 1;
                return None;
            }
            self.series += 1;
        }
        Some(series.entry(labels).or_insert_with(new_series))
    }
}

impl ::metrics::Recorder for Recorder {
    fn describe_counter(&self, name: KeyName, _unit: Option<Unit>, text: SharedString) {
        self.describe(&name, &text);
    }

    fn describe_gauge(&self, name: KeyName, _unit: Option<Unit>, text: SharedString) {
        self.describe(&name, &text);
    }

    fn describe_histogram(&self, name: KeyName, _unit: Option<Unit>, text: SharedString) {
        self.describe(&name, &text);
    }

    fn register_counter(&self, key: &Key, _metadata: &Metadata<'_>) -> Counter {
        let mut tables = self.lock();
        match tables.enter(key, || Family::Counters(BTreeMap::new()), Family::counters, || Series::new(0)) {
            Some(series) => Counter::from_arc(series.cell(CounterCell::default())),
            None => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _metadata: &Metadata<'_>) -> Gauge {
        let mut tables = self.lock();
        match tables.enter(key, || Family::Gauges(BTreeMap::new()), Family::gauges, Arc::default) {
            // A gauge may be set by one holder and read as a whole, so all holders share its cell.
            Some(cell) => Gauge::from_arc(Arc::clone(cell)),
            None => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _metadata: &Metadata<'_>) -> Histogram {
        let bounds = if key.name().ends_with("_seconds") { SECONDS } else { BYTES };
        let mut tables = self.lock();
        let new_series = || Series::new(Observations::none(bounds));
        match tables.enter(key, || Family::Histograms(BTreeMap::new()), Family::histograms, new_series) {
            Some(series) => Histogram::from_arc(series.cell(HistogramCell::new(bounds))),
            None => Histogram::noop(),
        }
    }
}

/// What a cell can be added up to.
trait Cell {
    type Total: Clone;
    fn add_to(&self, total: &mut Self::Total);
}

/// The cells of one series, and the total of those whose handles are gone.
#[derive(Debug)]
struct Series<C: Cell> {
    retired: C::Total,
    cells: Vec<Arc<C>>,
    fold_at: usize,
}

impl<C: Cell> Series<C> {
    fn new(nothing: C::Total) -> Self {
        Self { retired: nothing, cells: Vec::new(), fold_at: FOLD_AT }
    }

    fn cell(&mut self, cell: C) -> Arc<C> {
        if self.cells.len() >= self.fold_at {
            self.fold();
            self.fold_at = FOLD_AT.max(2 * self.cells.len());
        }
        let cell = Arc::new(cell);
        self.cells.push(Arc::clone(&cell));
        cell
    }

    fn fold(&mut self) {
        let retired = &mut self.retired;
        self.cells.retain_mut(|cell| match Arc::get_mut(cell) {
            // Nobody else holds it, so nobody can write to it any more.
            Some(alone) => {
                alone.add_to(retired);
                false
            }
            None => true,
        });
    }

    fn total(&self) -> C::Total {
        let mut total = self.retired.clone();
        for cell in &self.cells {
            cell.add_to(&mut total);
        }
        total
    }
}

impl Series<HistogramCell> {
    fn render(&self, page: &mut Exposition, name: &str, labels: &Labels) {
        let total = self.total();
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for (index, count) in total.counts.iter().enumerate() {
            below += count;
            let bound = total.bounds.get(index).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let mut with_bound = borrow(labels);
            with_bound.push(("le", &bound));
            page.sample(&bucket, &with_bound, below);
        }
        page.sample(&format!("{name}_sum"), &borrow(labels), total.sum);
        page.sample(&format!("{name}_count"), &borrow(labels), below);
    }
}

/// One handle's count, alone on its cache lines (two, because processors fetch them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
struct CounterCell(AtomicU64);

impl Cell for CounterCell {
    type Total = u64;
    fn add_to(&self, total: &mut u64) {
        *total = total.wrapping_add(self.0.load(Ordering::Relaxed));
    }
}

impl CounterFn for CounterCell {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }
}

/// A number as the bits of an `f64`.
#[derive(Debug, Default)]
struct GaugeCell(AtomicU64);

impl GaugeFn for GaugeCell {
    fn increment(&self, value: f64) {
        add_f64(&self.0, value);
    }

    fn decrement(&self, value: f64) {
        add_f64(&self.0, -value);
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// One handle's observations by bucket; the last bucket has no bound.
#[derive(Debug)]
#[repr(align(128))]
struct HistogramCell {
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl HistogramCell {
    fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }
}

impl HistogramFn for HistogramCell {
    fn record(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        add_f64(&self.sum, value);
    }
}

impl Cell for HistogramCell {
    type Total = Observations;
    fn add_to(&self, total: &mut Observations) {
        for (sum, count) in total.counts.iter_mut().zip(&self.counts) {
            *sum = sum.wrapping_add(count.load(Ordering::Relaxed));
        }
        total.sum += f64::from_bits(self.sum.load(Ordering::Relaxed));
    }
}

/// A histogram's observations, added up.
#[derive(Debug, Clone)]
struct Observations {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
}

impl Observations {
    fn none(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }
}

fn add_f64(cell: &AtomicU64, value: f64) {
    // The closure always answers, so the update cannot fail.
    let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
        Some((f64::from_bits(bits) + value).to_bits())
    });
}

fn borrow(labels: &Labels) -> Vec<(&str, &str)> {
    labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use ::metrics::{counter, describe_counter, gauge, histogram, with_local_recorder};

    use super::*;

    fn page(recorder: &Recorder) -> String {
        let mut page = Exposition::default();
        recorder.render(&mut page);
        page.finish()
    }

    fn check(name: &str, record: impl FnOnce(), expected: &[&str]) {
        let recorder = Recorder::default();
        with_local_recorder(&recorder, record);
        let page = page(&recorder);
        for line in expected {
            assert!(page.lines().any(|found| found == *line), "{name}: no line {line} in\n{page}");
        }
    }

    #[test]
    fn series_add_up() {
        check(
            "handles of one series",
            || {
                let (one, two) = (counter!("c_total", "a" => "1"), counter!("c_total", "a" => "1"));
                one.increment(2);
                two.increment(3);
            },
            &["# TYPE c_total counter", "c_total{a=\"1\"} 5"],
        );
        check(
            "handles that are gone",
            || (0..1000).for_each(|_| counter!("c_total").increment(1)),
            &["c_total 1000"],
        );
        check(
            "gauges are shared",
            || {
                gauge!("g").increment(3);
                gauge!("g").decrement(1);
            },
            &["# TYPE g gauge", "g 2"],
        );
        check(
            "help",
            || {
                describe_counter!("c_total", "Things.");
                counter!("c_total").increment(1);
            },
            &["# HELP c_total Things."],
        );
        check(
            "a name keeps its first kind",
            || {
                counter!("c_total").increment(1);
                gauge!("c_total").set(7);
            },
            &["c_total 1", "gateway_metrics_series_refused_total 1"],
        );
    }

    #[test]
    fn histograms_are_cumulative() {
        check(
            "seconds",
            || {
                let seconds = histogram!("d_seconds", "route" => "r");
                [0.0001, 0.0002, 45.0, 90.0].into_iter().for_each(|value| seconds.record(value));
            },
            &[
                "# TYPE d_seconds histogram",
                "d_seconds_bucket{route=\"r\",le=\"0.0001\"} 1",
                "d_seconds_bucket{route=\"r\",le=\"0.00025\"} 2",
                "d_seconds_bucket{route=\"r\",le=\"30\"} 2",
                "d_seconds_bucket{route=\"r\",le=\"60\"} 3",
                "d_seconds_bucket{route=\"r\",le=\"+Inf\"} 4",
                "d_seconds_count{route=\"r\"} 4",
                "d_seconds_sum{route=\"r\"} 135.0003",
            ],
        );
    }

    #[test]
    fn dropped_handles_free_their_cells() {
        let recorder = Recorder::default();
        with_local_recorder(&recorder, || (0..1000).for_each(|_| counter!("c_total").increment(1)));
        let tables = recorder.lock();
        let Some(Family::Counters(series)) = tables.families.get("c_total") else { panic!("no family") };
        assert!(series.values().all(|series| series.cells.len() <= FOLD_AT));
    }

    #[test]
    fn series_are_bounded() {
        let recorder = Recorder::default();
        with_local_recorder(&recorder, || {
            (0..MAX_SERIES + 10).for_each(|index| gauge!("g", "n" => index.to_string()).set(1));
        });
        assert_eq!(recorder.lock().series, MAX_SERIES);
        assert!(page(&recorder).contains("gateway_metrics_series_refused_total 10"));
    }
}
