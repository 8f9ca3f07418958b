// SPDX-License-Identifier: Apache-2.0
//! A kubelet with one pod at a time: runs it, has its container print and end, checks code, log and events, takes it
//! away. A call that fails because something was killed is made again, or the pod is given up and taken away.

use super::{Kind, Shared};
use hull_proto::cri as api;
use hull_tests::cri::{read_log, shell};
use hull_tests::random::Random;
use hull_tests::{Cri, ExpectExt as _, eventually};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tonic::{Code, Status};

/// Lines that each container prints.
const LINES: usize = 200;
/// With which a container ends that is asked to.
const ASKED: i32 = 7;
/// With which one ends by itself.
const BY_ITSELF: i32 = 23;
const KILLED: i32 = 137;

/// Results of the pods' lives.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Pods that came and went.
    pods: u32,
    /// Containers whose code, log and events were checked.
    checked: u32,
    /// Those whose events all came on one stream.
    heard: u32,
    /// Pods given up.
    given_up: u32,
    pub(super) wrong: Vec<String>,
}

impl Tally {
    pub(super) fn merge(&mut self, other: Self) {
        self.pods += other.pods;
        self.checked += other.checked;
        self.heard += other.heard;
        self.given_up += other.given_up;
        self.wrong.extend(other.wrong);
    }

    pub(super) fn shown(&self) -> String {
        format!(
            "{} pods, {} containers checked, {} with all events, {} pods given up",
            self.pods, self.checked, self.heard, self.given_up
        )
    }
}

pub(super) struct Worker {
    number: u32,
    cri: Cri,
    random: Random,
    shared: Arc<Shared>,
    tally: Tally,
}

/// Whether the client itself says so: the daemon was away, or is.
fn is_away(status: &Status) -> bool {
    std::error::Error::source(status).is_some() || status.code() == Code::Unavailable
}

impl Worker {
    pub(super) fn new(number: u32, cri: Cri, random: Random, shared: Arc<Shared>) -> Self {
        Self { number, cri, random, shared, tally: Tally::default() }
    }

    /// Has so many pods come and go.
    pub(super) async fn run(&mut self, pods: u32) -> Tally {
        for number in 0..pods {
            let name = format!("soak-{}-{number}", self.number);
            let faults = self.shared.faults.load(Ordering::SeqCst);
            if let Err(status) = self.pod(&name).await {
                self.tally.given_up += 1;
                let calm = faults == self.shared.faults.load(Ordering::SeqCst);
                // Plugins of the network die at any time.
                let is_plugin = status.message().contains("network");
                let is_bug = status.code() == Code::Internal && !is_away(&status);
                if is_bug || (calm && !is_away(&status) && !is_plugin) {
                    self.tally.wrong.push(format!("{name}: {status}"));
                }
            }
            self.take_away(&name).await;
            self.tally.pods += 1;
            self.shared.done.fetch_add(1, Ordering::SeqCst);
        }
        std::mem::take(&mut self.tally)
    }

    async fn pod(&mut self, name: &str) -> Result<(), Status> {
        let image = self.shared.reference.lock().or_fail("name the image").clone();
        let is_there = self.cri.image_status(&image).await?.is_some();
        if !is_there || self.random.once_in(8) {
            self.cri.pull(&image).await?;
        }
        let config = self.cri.pod_config(name);
        let logs = PathBuf::from(&config.log_directory);
        let pod = self.cri.run_pod_with(config).await?;
        let by_itself = self.random.once_in(2);
        let end = if by_itself {
            format!("exit {BY_ITSELF}")
        } else {
            "while true; do sleep 1000 & wait; done".into()
        };
        let script = format!(
            "trap 'exit {ASKED}' TERM; i=0; while [ $i -lt {LINES} ]; do echo line-$i; i=$((i+1)); done; {end}"
        );
        let container = self.cri.create(&pod, shell("main", &image, &script)).await?;
        let there = (pod.clone(), container.clone());
        self.shared.there.lock().or_fail("say what is there").insert(self.number, there);
        let began_on = self.shared.stream.load(Ordering::SeqCst);
        self.cri.start(&container).await?;
        let log = logs.join("main.log");
        self.printed(&pod, &log).await;
        if !by_itself {
            drop(self.cri.exec(&container, &["echo", "on"]).await);
            self.again("stop", || self.cri.stop(&container, 20)).await?;
        }
        let status = self.ended(&container).await?;
        self.check(&pod, &status, if by_itself { BY_ITSELF } else { ASKED }, &log);
        self.again("remove", || self.cri.remove(&container)).await?;
        self.events_came(&pod, &container, began_on).await;
        Ok(())
    }

    /// Asks again as long as the daemon is away.
    async fn again<T, F>(&self, verb: &str, call: impl Fn() -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        eventually(format!("the daemon answers {verb}"), || async {
            match call().await {
                Err(status) if is_away(&status) => Err(status.to_string()),
                answer => Ok(answer),
            }
        })
        .await
    }

    /// Waits until a container has printed all, or something of its pod was killed.
    async fn printed(&self, pod: &str, log: &Path) {
        eventually("the container has printed all of its lines", || async {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let is_all = text.contains(&format!("line-{}\n", LINES - 1));
            if is_all || self.was_hit(pod) { Ok(()) } else { Err(format!("{} bytes", text.len())) }
        })
        .await;
    }

    fn was_hit(&self, pod: &str) -> bool {
        self.shared.hit.lock().or_fail("read which pods were hit").iter().any(|of| of == pod)
    }

    async fn ended(&self, container: &str) -> Result<api::ContainerStatus, Status> {
        eventually("the container has ended", || async {
            let request =
                api::ContainerStatusRequest { container_id: container.into(), verbose: false };
            match self.cri.runtime.clone().container_status(request).await {
                Err(status) if is_away(&status) => Err(status.to_string()),
                Err(status) => Ok(Err(status)),
                Ok(answer) => {
                    let status = answer.into_inner().status.or_fail("read a container's status");
                    let is_over = status.state() == api::ContainerState::ContainerExited;
                    if is_over { Ok(Ok(status)) } else { Err(format!("{status:?}")) }
                }
            }
        })
        .await
    }

    fn check(&mut self, pod: &str, status: &api::ContainerStatus, code: i32, log: &Path) {
        let hit = self.was_hit(pod);
        self.tally.checked += 1;
        if status.exit_code != code && !(hit && [KILLED, 255].contains(&status.exit_code)) {
            let text =
                format!("{} ended with {}, not {code}: {status:?}", status.id, status.exit_code);
            self.tally.wrong.push(text);
        }
        if hit {
            return;
        }
        let lines: Vec<String> = read_log(log).into_iter().map(|line| line.text).collect();
        let all: Vec<String> = (0..LINES).map(|number| format!("line-{number}")).collect();
        if lines != all {
            self.tally.wrong.push(format!(
                "{}: {} of {LINES} lines: {lines:?}",
                status.id,
                lines.len()
            ));
        }
    }

    /// Each kind once and in order, if the container lived while one stream of events was open.
    async fn events_came(&mut self, pod: &str, container: &str, began_on: u32) {
        let is_open = began_on % 2 == 1;
        if !is_open || self.was_hit(pod) {
            return;
        }
        let all = [
            Kind::ContainerCreatedEvent,
            Kind::ContainerStartedEvent,
            Kind::ContainerStoppedEvent,
            Kind::ContainerDeletedEvent,
        ];
        let heard = eventually("its events come, or the stream ends", || async {
            let events = self.shared.events.lock().or_fail("read the events");
            let of = events.get(container).cloned().unwrap_or_default();
            let kinds: Vec<Kind> = of.iter().map(|(_, kind)| *kind).collect();
            if self.shared.stream.load(Ordering::SeqCst) != began_on {
                return Ok(None);
            }
            if kinds.len() >= all.len() { Ok(Some(kinds)) } else { Err(format!("{kinds:?}")) }
        })
        .await;
        let Some(kinds) = heard else { return };
        self.tally.heard += 1;
        if kinds != all {
            self.tally.wrong.push(format!("{container}: events {kinds:?}"));
        }
    }

    /// Takes away every pod of this name, as often as it takes.
    async fn take_away(&self, name: &str) {
        self.shared.there.lock().or_fail("say what is there").remove(&self.number);
        eventually(format!("{name} is taken away"), || async {
            let mut runtime = self.cri.runtime.clone();
            let listed = runtime.list_pod_sandbox(api::ListPodSandboxRequest::default());
            let pods = listed.await.map_err(|status| status.to_string())?.into_inner().items;
            let of_name = |pod: &&api::PodSandbox| {
                pod.metadata.as_ref().is_some_and(|metadata| metadata.name == name)
            };
            for pod in pods.iter().filter(of_name) {
                self.cri.stop_pod(&pod.id).await.map_err(|status| status.to_string())?;
                self.cri.remove_pod(&pod.id).await.map_err(|status| status.to_string())?;
            }
            Ok(())
        })
        .await;
    }
}
