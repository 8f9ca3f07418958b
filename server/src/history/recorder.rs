// SPDX-License-Identifier: Apache-2.0
//! Takes down what happens to pods, containers and pulls, and writes it to disk behind their backs.

use super::ended::Ended;
use super::present::{Entry, Origin, Present};
use super::timeline::{End, FailedExec, Kind, OpenStage, Timeline};
use crate::error::Chain;
use crate::metrics::Metrics;
use crate::records::{Error, Store};
use crate::storage::blocking;
use crate::tracer::{self, Tracer};
use hull_sys::time::now_ns;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tracing::{debug, warn};

/// How long changes are collected before they are written: a pod with its container starts in less.
const COLLECT: Duration = Duration::from_millis(250);

/// The reason for which something has no end of its own.
const INTERRUPTED: &str = "the daemon ended meanwhile";

/// The timelines of this node. Between [`open`](Self::open) and [`resume`](Self::resume) the daemon recovers what
/// there is.
#[derive(Debug)]
pub(crate) struct History {
    present: Mutex<Present>,
    changed: Notify,
    /// Held while files are written.
    writing: Mutex<()>,
    /// How many pulls this daemon has begun.
    pulls: AtomicU64,
    metrics: Arc<Metrics>,
    tracer: Arc<Tracer>,
    /// `None` where the directory cannot be used: then nothing is written, and what is gone is forgotten.
    disk: Option<Disk>,
}

/// The directories of timelines: of what is there, and of what is gone.
#[derive(Debug)]
struct Disk {
    store: Store,
    ended: Mutex<Ended>,
}

impl Disk {
    /// Opens the directory `dir`, and reads the timelines of what was there when the last daemon ended.
    fn open(dir: PathBuf) -> Result<(Self, Vec<Timeline>), Error> {
        let store = Store::open(dir.clone())?;
        let (timelines, aside) = store.load(|name, of: &Timeline| {
            if of.id == name { Ok(()) } else { Err(format!("`{name}` holds {}", of.id)) }
        })?;
        for bad in aside {
            warn!(path = %bad.path.display(), why = %bad.why, "a timeline was set aside");
        }
        let ended = Mutex::new(Ended::open(dir.join("ended"))?);
        Ok((Self { store, ended }, timelines))
    }

    fn ended(&self) -> MutexGuard<'_, Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    /// The timelines in the directory `dir`. One that cannot be used is logged, and keeps no daemon from starting.
    /// Stages that end are counted in `metrics`, and are spans of `tracer`.
    pub(crate) fn open(dir: PathBuf, metrics: Arc<Metrics>, tracer: Arc<Tracer>) -> Self {
        let (disk, timelines) = match Disk::open(dir) {
            Ok((disk, timelines)) => (Some(disk), timelines),
            Err(err) => {
                warn!(error = %Chain(&err), hint = err.hint(), "timelines are not kept on disk");
                (None, Vec::new())
            }
        };
        let entry = |mut timeline: Timeline| {
            timeline.end_all_stages(now_ns(), INTERRUPTED);
            if timeline.kind == Kind::Image {
                timeline.set_end(End::interrupted(now_ns(), INTERRUPTED));
            }
            // A daemon that was killed may have moved the file of something that is gone only halfway.
            let is_changed = timeline.gone_ns.is_some();
            (timeline.id.clone(), Entry { timeline, is_changed, origin: Origin::Read })
        };
        let entries = timelines.into_iter().map(entry).collect();
        Self {
            present: Mutex::new(Present::of(entries)),
            changed: Notify::new(),
            writing: Mutex::new(()),
            pulls: AtomicU64::new(0),
            metrics,
            tracer,
            disk,
        }
    }

    /// Begins a timeline.
    pub(crate) fn begin(&self, timeline: Timeline) {
        let timeline = timeline.bounded();
        let entry = Entry { timeline, is_changed: true, origin: Origin::Known };
        self.present().entries.insert(entry.timeline.id.clone(), entry);
    }

    /// Begins the timeline of a pull, and returns its id.
    pub(crate) fn begin_pull(&self, image: &str, namespace: &str, pod_name: &str) -> String {
        let (began_ns, number) = (now_ns(), self.pulls.fetch_add(1, Ordering::Relaxed));
        let id = format!("pull-{began_ns:016x}-{number}");
        self.begin(Timeline {
            kind: Kind::Image,
            id: id.clone(),
            namespace: namespace.to_owned(),
            pod_name: pod_name.to_owned(),
            image: image.to_owned(),
            began_ns,
            ..Timeline::default()
        });
        self.begin_stage(&id, "", "pull");
        id
    }

    /// Begins a stage, a part of the stage `part_of`, which is empty for a verb.
    pub(crate) fn begin_stage(&self, id: &str, part_of: &'static str, name: &'static str) {
        self.change(id, |of| {
            of.begin_stage(part_of, name, now_ns());
            of.trace_newest((part_of, name), tracer::current());
        });
    }

    /// Ends a stage. `error` is empty if it succeeded.
    pub(crate) fn end_stage(&self, id: &str, name: &str, error: String) {
        let mut ended = None;
        self.change(id, |of| {
            let stage = of.end_stage(name, now_ns(), error);
            ended = stage.map(|stage| (stage, of.traced(&stage)));
        });
        if let Some((of, traced)) = ended {
            self.metrics.ended(&of.work());
            traced.into_iter().for_each(|span| self.tracer.ended(span));
        }
    }

    /// Sets how it ended.
    pub(crate) fn end(&self, id: &str, end: End) {
        self.change(id, |of| of.set_end(end));
        self.changed.notify_one();
    }

    /// A container that has ended is started again, as this attempt.
    pub(crate) fn again(&self, id: &str, attempt: u32) {
        self.change(id, |of| of.begin_again(attempt, now_ns()));
        self.changed.notify_one();
    }

    /// Whether it is known how it ended.
    pub(crate) fn has_end(&self, id: &str) -> bool {
        let present = self.present();
        present.entries.get(id).is_some_and(|entry| entry.timeline.end.is_some())
    }

    /// Counts a command in a container.
    pub(crate) fn count_exec(&self, id: &str) {
        if let Some(entry) = self.present().entry_mut(id) {
            entry.timeline.execs = entry.timeline.execs.saturating_add(1);
        }
    }

    /// Sets the last command that failed in a container.
    pub(crate) fn failed_exec(&self, id: &str, exec: FailedExec) {
        self.change(id, |of| of.set_failed_exec(exec));
        self.changed.notify_one();
    }

    /// Has the changes of a timeline written soon.
    pub(crate) fn settle(&self) {
        self.changed.notify_one();
    }

    /// The object was removed, or the pull has ended.
    pub(crate) fn gone(&self, id: &str) {
        self.change(id, |of| of.gone_ns = Some(now_ns()));
        self.changed.notify_one();
    }

    /// The recovery has ended, and has found these objects, as their records are. One without a timeline gets it now: a
    /// daemon that was killed may not have written it. Other objects of the daemon before have gone.
    pub(crate) fn resume(&self, found: Vec<Timeline>) {
        self.present().resume(found, now_ns());
        self.changed.notify_one();
    }

    /// The timeline of something that is there.
    pub(crate) fn of(&self, id: &str) -> Option<Timeline> {
        self.present().get(id).map(|entry| entry.timeline.clone())
    }

    /// The timelines of what is there.
    pub(crate) fn all_present(&self) -> Vec<Timeline> {
        self.present().named().map(|entry| entry.timeline.clone()).collect()
    }

    /// The stages that go on.
    pub(crate) fn open_stages(&self) -> Vec<OpenStage> {
        let mut present = self.present();
        let open = present.named().filter(|entry| entry.timeline.gone_ns.is_none());
        open.flat_map(|entry| entry.timeline.open_stages()).collect()
    }

    /// All timelines, also of what is gone. Reads the disk.
    pub(crate) fn all(&self) -> Result<Vec<Timeline>, Error> {
        // First what is there: what goes meanwhile is added on the disk before it leaves memory.
        let present = self.all_present();
        let mut all = match &self.disk {
            Some(disk) => disk.ended().read()?,
            None => Vec::new(),
        };
        // A pull that goes on is newer than the last one of that image.
        all.retain(|gone| !present.iter().any(|of| of.id == gone.id));
        all.extend(present);
        Ok(all)
    }

    /// Writes changes, for as long as the daemon runs.
    pub(crate) async fn write_changes(self: Arc<Self>) {
        loop {
            self.changed.notified().await;
            tokio::time::sleep(COLLECT).await;
            let this = Arc::clone(&self);
            blocking(move || this.write()).await;
        }
    }

    /// Writes what has changed. What is gone leaves memory.
    pub(crate) fn write(&self) {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let changed: Vec<Timeline> = {
            let mut present = self.present();
            let changed = present.named().filter(|entry| entry.is_changed);
            changed
                .map(|entry| {
                    entry.is_changed = false;
                    entry.timeline.clone()
                })
                .collect()
        };
        for timeline in changed {
            if let Err(err) = self.write_one(&timeline) {
                // Only answers about the past lack something.
                debug!(id = timeline.id, error = %Chain(&err), "timeline not written");
                if let Some(entry) = self.present().entries.get_mut(&timeline.id) {
                    entry.is_changed = true;
                }
            }
        }
    }

    fn write_one(&self, timeline: &Timeline) -> Result<(), Error> {
        if timeline.gone_ns.is_none() {
            return self
                .disk
                .as_ref()
                .map_or(Ok(()), |disk| disk.store.save(&timeline.id, timeline));
        }
        let kept = self.disk.as_ref().map_or(Ok(()), |disk| disk.ended().add(timeline));
        let mut present = self.present();
        // What has changed meanwhile is written the next time.
        if present.get(&timeline.id).is_some_and(|of| !of.is_changed) {
            present.entries.remove(&timeline.id);
            drop(present);
            if let Some(disk) = &self.disk {
                disk.store.remove(&timeline.id)?;
            }
        }
        kept
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Timeline)) {
        if let Some(entry) = self.present().entry_mut(id) {
            change(&mut entry.timeline);
            entry.is_changed = true;
        }
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        // A panic leaves a timeline that lacks something, at worst.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does `work` as the stage `name` of `id`, a part of the stage `part_of`. Its time is in the log at `debug`, within the
/// span of the pod.
pub(crate) async fn timed<T, E: std::error::Error>(
    history: &History,
    id: &str,
    (part_of, name): (&'static str, &'static str),
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let began = Instant::now();
    history.begin_stage(id, part_of, name);
    let done = work.await;
    let error = done.as_ref().err().map(|err| Chain(err).to_string()).unwrap_or_default();
    debug!(part_of, part = name, took_us = began.elapsed().as_micros(), error, "part done");
    history.end_stage(id, name, error);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(dir: PathBuf) -> History {
        History::open(dir, Arc::default(), Arc::default())
    }

    fn pod(id: &str) -> Timeline {
        Timeline { id: id.into(), pod: id.into(), pod_name: "web".into(), ..Timeline::default() }
    }

    fn files(dir: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(dir).unwrap().flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|of| of == "json")).count()
    }

    #[tokio::test]
    async fn the_next_daemon_goes_on_with_a_timeline() {
        let dir = tempfile::tempdir().unwrap();
        let history = opened(dir.path().join("history"));
        history.begin(pod("a"));
        history.resume(Vec::new());
        let failed = async { Err::<(), _>(std::io::Error::other("no address")) };
        timed(&history, "a", ("start pod", "network"), failed).await.unwrap_err();
        history.write();
        let history = opened(dir.path().join("history"));
        history.resume(vec![pod("a")]);
        let known = history.of("a").unwrap();
        assert_eq!(known.stages[0].error, "no address");
        history.begin_stage("a", "", "stop pod");
        assert_eq!(history.of("a").unwrap().stages.len(), 2);
    }

    #[test]
    fn a_container_that_is_started_again_goes_on_with_its_timeline_also_if_that_was_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let end = |reason: &str| Some(End { reason: reason.into(), ..End::default() });
        let history = opened(dir.path().join("history"));
        history.begin(pod("a"));
        history.resume(Vec::new());
        history.begin_stage("a", "", "start container");
        history.end("a", End { reason: "Error".into(), ..End::default() });
        history.write();
        history.again("a", 1);
        let again = history.of("a").unwrap();
        assert_eq!((again.end, again.previous_end, again.attempt), (None, end("Error"), 1));
        assert!(again.stages.is_empty());
        // The last daemon was killed before it wrote that.
        let history = opened(dir.path().join("history"));
        let recorded = Timeline { attempt: 1, previous_end: end("Error"), ..pod("a") };
        history.resume(vec![recorded]);
        let known = history.of("a").unwrap();
        assert_eq!((known.end, known.previous_end), (None, end("Error")));
    }

    #[test]
    fn what_is_gone_is_only_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history");
        let history = opened(path.clone());
        history.begin(pod("a"));
        history.begin(pod("b"));
        history.write();
        history.gone("a");
        history.write();
        assert!(history.of("a").is_none() && history.of("b").is_some());
        assert_eq!((files(&path), files(&path.join("ended"))), (1, 1));
        assert_eq!(history.all().unwrap().len(), 2);
        let history = opened(path.clone());
        history.resume(Vec::new());
        history.write();
        assert_eq!((files(&path), files(&path.join("ended"))), (0, 2), "gone while no daemon ran");
        // What was never begun, as in a pod of an earlier release, is not an error.
        history.begin_stage("c", "", "stop pod");
        history.gone("c");
        history.write();
        assert_eq!(history.all().unwrap().len(), 2);
    }

    #[test]
    fn missing_timelines_are_rebuilt_from_records() {
        let dir = tempfile::tempdir().unwrap();
        let history = opened(dir.path().join("history"));
        let end = |reason: &str| Some(End { reason: reason.into(), ..End::default() });
        history.begin(pod("new"));
        history.begin_stage("stops", "", "stop pod");
        history.end("exits", End { reason: "Error".into(), ..End::default() });
        history.gone("goes");
        history.end("other", End::default());
        assert!(history.has_end("exits") && !history.has_end("stops"));
        history.write();
        assert_eq!(history.all().unwrap(), [history.of("new").unwrap()], "without names yet");
        let recorded = |id: &str, reason| Timeline { end: end(reason), ..pod(id) };
        let found = ["stops", "exits", "goes", "silent"].map(|id| recorded(id, "Recorded"));
        history.resume(found.to_vec());
        let reason = |id: &str| history.of(id).unwrap().end.unwrap().reason;
        assert_eq!((reason("silent"), reason("exits")), ("Recorded".into(), "Error".into()));
        assert_eq!(history.of("stops").unwrap().stages[0].name, "stop pod");
        assert!(history.of("other").is_none(), "it has no record");
        history.write();
        assert!(history.of("goes").is_none(), "it went during the recovery");
        let mut all = history.all().unwrap();
        all.sort_by(|one, other| one.id.cmp(&other.id));
        let ids: Vec<_> = all.iter().map(|of| of.id.as_str()).collect();
        assert_eq!(ids, ["exits", "goes", "new", "silent", "stops"]);
        assert!(all.iter().all(|of| of.pod_name == "web"));
        // The next one has them, and an end that was recorded last.
        let history = opened(dir.path().join("history"));
        history.resume(vec![pod("new"), recorded("stops", "x"), pod("exits"), pod("silent")]);
        assert_eq!(history.of("exits").unwrap().end, end("Error"));
        assert!(history.of("new").unwrap().end.is_none());
    }

    #[test]
    fn what_goes_is_found_at_every_moment() {
        let dir = tempfile::tempdir().unwrap();
        let history = opened(dir.path().join("history"));
        let mut looks = 0_u32;
        for round in 0..40 {
            let id = format!("pod{round}");
            history.begin(pod(&id));
            let both = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                let goes = scope.spawn(|| {
                    both.wait();
                    history.gone(&id);
                    history.write();
                });
                both.wait();
                while !goes.is_finished() {
                    let all = history.all().unwrap();
                    assert!(all.iter().any(|of| of.id == id), "{id} is neither there nor gone");
                    looks += 1;
                }
            });
        }
        assert!(looks > 0, "nobody looked while one went");
    }

    #[test]
    fn what_changes_while_it_is_written_as_gone_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let history = opened(dir.path().join("history"));
        history.begin(pod("a"));
        history.resume(Vec::new());
        history.gone("a");
        let as_it_was = history.of("a").unwrap();
        history.end("a", End { reason: "Error".into(), ..End::default() });
        history.write_one(&as_it_was).unwrap();
        history.write();
        assert!(history.of("a").is_none());
        assert_eq!(history.all().unwrap()[0].end.as_ref().unwrap().reason, "Error");
    }

    #[test]
    fn a_directory_that_cannot_be_used_keeps_no_daemon_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history");
        std::fs::write(&path, "a file").unwrap();
        let history = opened(path);
        history.begin(pod("a"));
        history.begin(pod("b"));
        history.gone("b");
        history.write();
        assert_eq!(history.all().unwrap().len(), 1, "what is gone is forgotten");
        assert!(history.of("a").is_some());
    }

    #[test]
    fn pulls_of_one_image_have_timelines_of_their_own_and_few_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let history = opened(dir.path().join("history"));
        let (one, two) = (history.begin_pull("app:1", "", ""), history.begin_pull("app:1", "", ""));
        assert_ne!(one, two);
        history.gone(&one);
        history.write();
        assert!(history.of(&two).is_some(), "the other one goes on");
        for _ in 0..40 {
            history.gone(&history.begin_pull("app:1", "ns", "web"));
            history.write();
        }
        let kept = history.all().unwrap().len();
        assert!(kept < 20, "{kept}");
        let next = opened(dir.path().join("history"));
        let end = next.of(&two).unwrap().end.unwrap();
        assert_eq!(end.diagnosis.unwrap().what, INTERRUPTED);
    }
}
