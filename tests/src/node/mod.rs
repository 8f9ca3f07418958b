// SPDX-License-Identifier: Apache-2.0
//! A node of the test's own: the real daemon with its own directories, cgroup, bridge, subnet and
//! table.
//!
//! ```text
//! /var/tmp/hlt<n>/state, data   the daemon's (short: socket paths hold 107 bytes)
//! /var/tmp/hlt<n>/logs          the pods' log directories
//! /hull-test-<n>                the pods' parent cgroup; the daemon itself is in /hull-testd-<n>
//! hlt<n>, 10.213.<n>.0/24       bridge and subnet
//! ```
//!
//! Every name is worked out from the node's number, which belongs to one process at a time; so what
//! a killed test run left is cleared by the next that gets the number. When a node is dropped it
//! removes all pods by the daemon, and the test fails if anything of them is still on the host.

mod setup;

use crate::cri::Cri;
use crate::eventually::{self, eventually};
use crate::expect::ExpectExt;
use crate::host::{self, HostSnapshot, Names};
use crate::shell::{self, Ran};
use crate::{fixture, paths};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
pub use setup::Driver;
use setup::{claim, config, daemon_cgroup_dir, names};
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longest that the daemon may take to drain.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// Puts itself in the cgroup directory `$1`, logs to `$2`, runs the text `$3`, and becomes the rest, by the
/// commands that `$3` has set as `by`.
const LAUNCH: &str = r#"
mkdir -p "$1" && echo $$ > "$1/cgroup.procs" || exit 1
log=$2
by=
eval "$3" || exit 1
shift 3
exec $by "$@" >> "$log" 2>&1
"#;

/// A running daemon and all that is its own.
#[derive(Debug)]
pub struct Node {
    names: Names,
    number: u8,
    log: PathBuf,
    daemon: Option<Child>,
    cri: Cri,
    before: HostSnapshot,
    /// Whether its end was looked at already.
    finished: bool,
    /// The network namespace that the daemon runs in, when it is not the host's.
    netns: Option<PathBuf>,
    /// Text of the shell that then becomes the daemon.
    launch_text: String,
    /// The program of the daemon and of its command line.
    program: PathBuf,
    /// Holds the number as long as this lives.
    _claim: UnixListener,
}

impl Node {
    /// Starts a node with the defaults of the tests.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts a node with more in its configuration, which may replace what stands there.
    pub async fn start_with(more: &str) -> Self {
        Self::start_under(Driver::of_the_run(), more).await
    }

    /// Starts a node with this cgroup driver, and more in its configuration.
    pub async fn start_under(driver: Driver, more: &str) -> Self {
        let (number, claim) = claim();
        let network = String::new();
        Self::start_claimed((number, claim), None, driver, network, more, paths::hull()).await
    }

    /// Starts a node with the defaults of the tests, by another program than the one under test.
    pub async fn start_by(program: &Path) -> Self {
        let (number, claim) = claim();
        let (driver, program) = (Driver::of_the_run(), program.to_owned());
        Self::start_claimed((number, claim), None, driver, String::new(), "", program).await
    }

    /// Starts a node with more in the section `[network]`, and behind it, of its config file.
    pub async fn start_on_network(settings: impl FnOnce(&Names) -> String) -> Self {
        let (number, claim) = claim();
        let driver = Driver::of_the_run();
        let network = settings(&names(number, driver));
        Self::start_claimed((number, claim), None, driver, network, "", paths::hull()).await
    }

    /// Starts a node whose daemon runs in a network namespace that stands for another machine.
    pub async fn start_in(netns: PathBuf, settings: impl FnOnce(&Names) -> String) -> Self {
        let (number, claim) = claim();
        let driver = Driver::of_the_run();
        let network = settings(&names(number, driver));
        Self::start_claimed((number, claim), Some(netns), driver, network, "", paths::hull()).await
    }

    async fn start_claimed(
        (number, claim): (u8, UnixListener),
        netns: Option<PathBuf>,
        driver: Driver,
        network: String,
        more: &str,
        program: PathBuf,
    ) -> Self {
        let names = names(number, driver);
        host::clear(&names);
        for dir in ["state", "data", "logs", "seccomp", "cdi", "host", "plugins"] {
            fs::create_dir_all(names.root.join(dir)).or_fail("make the node's directories");
        }
        fs::write(names.root.join("hull.toml"), config(number, &names, driver, &network))
            .or_fail("write the node's config");
        if !more.is_empty() {
            let dir = names.root.join("hull.toml.d");
            fs::create_dir_all(&dir).or_fail("make the directory of more config");
            fs::write(dir.join("test.toml"), more).or_fail("write the test's config");
        }
        let test = std::thread::current().name().unwrap_or("main").replace("::", "-");
        let log = paths::logs().join(format!("{test}-{number}.log"));
        drop(fs::remove_file(&log));
        let cri = Cri::at(&names.root.join("hull.sock"), &names.root.join("logs"));
        let mut node = Self {
            names,
            number,
            log,
            daemon: None,
            cri,
            before: HostSnapshot::default(),
            finished: false,
            netns,
            launch_text: String::new(),
            program,
            _claim: claim,
        };
        node.start_again().await;
        node.take_baseline();
        node
    }

    /// Takes what is on the host now as what a test may leave there: for what the test itself has added.
    pub fn take_baseline(&mut self) {
        self.before = self.on_host();
    }

    /// Starts the daemon (again) and waits until it answers.
    pub async fn start_again(&mut self) {
        assert!(self.daemon.is_none(), "the daemon runs already");
        let mut child = self.launch();
        eventually("the daemon answers", || {
            let ended = child.try_wait().or_fail("look after the daemon");
            let mut runtime = self.cri.runtime.clone();
            async move {
                assert!(ended.is_none(), "the daemon ended by itself: {ended:?}; see its log");
                let asked = runtime.version(hull_proto::cri::VersionRequest::default()).await;
                asked.map(drop).map_err(|status| status.to_string())
            }
        })
        .await;
        self.daemon = Some(child);
    }

    fn launch(&self) -> Child {
        let mut command = match &self.netns {
            None => Command::new("sh"),
            Some(netns) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", netns.display())).args(["--", "sh"]);
                command
            }
        };
        // The registries of tests are on loopback, which no proxy of this machine reaches.
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command
            .args(["-c", LAUNCH, "launch"])
            .arg(daemon_cgroup_dir(&self.names))
            .arg(&self.log)
            .arg(&self.launch_text)
            .arg(&self.program)
            .args(["serve", "--config"])
            .arg(self.names.root.join("hull.toml"))
            .stdin(Stdio::null())
            .spawn()
            .or_fail("start the daemon")
    }

    /// Ends the daemon with SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.daemon.take().or_fail("find the daemon");
        child.kill().or_fail("kill the daemon");
        let _status = child.wait().or_fail("wait for the killed daemon");
    }

    /// Asks the daemon to end (SIGTERM) and waits; it must end by itself and in order.
    pub fn terminate(&mut self) {
        let mut child = self.daemon.take().or_fail("find the daemon");
        kill(pid_of(&child), Signal::SIGTERM).or_fail("send SIGTERM to the daemon");
        let ended = eventually::blocking(eventually::with_long_timeout(DRAIN_MAX), || match child
            .try_wait()
        {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it still runs".to_owned()),
            Err(err) => Err(err.to_string()),
        });
        match ended {
            Ok(status) => assert!(status.success(), "after SIGTERM the daemon ended with {status}"),
            Err(last) => {
                drop(child.kill());
                panic!("{DRAIN_MAX:?} after SIGTERM: {last}");
            }
        }
    }

    /// Ends the daemon in order, and starts it again from a shell that has run `text`, which may name commands that
    /// start the daemon in their turn: `by="nice taskset -c 0"`.
    pub async fn restart_from_shell(&mut self, text: &str) {
        self.terminate();
        text.clone_into(&mut self.launch_text);
        self.start_again().await;
    }

    /// Ends the daemon in order and starts it again.
    pub async fn restart(&mut self) {
        self.terminate();
        self.start_again().await;
    }

    /// Ends the daemon in order, and starts another program on the same directories.
    pub async fn restart_by(&mut self, program: &Path) {
        self.terminate();
        program.clone_into(&mut self.program);
        self.start_again().await;
    }

    /// A client of the daemon.
    #[must_use]
    pub fn cri(&self) -> Cri {
        self.cri.clone()
    }

    /// Process id of the daemon.
    #[must_use]
    pub fn daemon_pid(&self) -> i32 {
        pid_of(self.daemon.as_ref().or_fail("find the daemon")).as_raw()
    }

    /// A snapshot of this node on the host.
    #[must_use]
    pub fn on_host(&self) -> HostSnapshot {
        host::look(&self.names, self.daemon.as_ref().map(Child::id))
    }

    /// The snapshot from before the first pod.
    #[must_use]
    pub fn before(&self) -> &HostSnapshot {
        &self.before
    }

    /// Fails unless everything is as before the first pod.
    pub async fn nothing_is_left(&self) {
        eventually("nothing of the node's pods is left on the host", || async {
            let more = self.on_host().diff(&self.before);
            if more.0.is_empty() { Ok(()) } else { Err(format!("left over:\n{more}")) }
        })
        .await;
    }

    /// Ends the daemon in order, after its last pod was removed, and fails if anything of them is left. When
    /// the node is dropped, the daemon is not started again to see to that.
    pub async fn finish(&mut self) {
        self.terminate();
        self.nothing_is_left().await;
        self.finished = true;
    }

    /// The daemon's state directory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.names.root.join("state")
    }

    /// The daemon's data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.names.root.join("data")
    }

    /// The daemon's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.names.root.join("hull.sock")
    }

    /// Where NRI plugins connect.
    #[must_use]
    pub fn nri_socket(&self) -> PathBuf {
        self.names.root.join("nri.sock")
    }

    /// Where pre-installed NRI plugins and their configuration are looked for when the daemon starts.
    #[must_use]
    pub fn plugin_dir(&self) -> PathBuf {
        self.names.root.join("plugins")
    }

    /// A directory on the host for the test's own files; goes with the node.
    #[must_use]
    pub fn host_dir(&self) -> PathBuf {
        self.names.root.join("host")
    }

    /// Where seccomp profiles are looked for.
    #[must_use]
    pub fn seccomp_dir(&self) -> PathBuf {
        self.names.root.join("seccomp")
    }

    /// Where device files lie.
    #[must_use]
    pub fn cdi_dir(&self) -> PathBuf {
        self.names.root.join("cdi")
    }

    /// The names it goes by.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The pods' parent cgroup in the v2 hierarchy; on a machine without one it says so.
    #[must_use]
    pub fn v2_cgroup(&self, test: &str) -> Option<PathBuf> {
        let hierarchies = host::hierarchies();
        let v2 = hierarchies.iter().find(|dir| dir.join("cgroup.controllers").is_file());
        let dir = v2.map(|dir| dir.join(self.names.cgroup.trim_start_matches('/')));
        if dir.is_none() {
            paths::cannot_run(test, "a cgroup2 mount");
        }
        dir
    }

    /// The host's address on the node's bridge.
    #[must_use]
    pub fn gateway(&self) -> String {
        format!("10.213.{}.1", self.number)
    }

    /// The subnet of its pods.
    #[must_use]
    pub fn subnet(&self) -> String {
        format!("10.213.{}.0/24", self.number)
    }

    /// A port of the host that no other node's tests use, nor the one after it.
    #[must_use]
    pub fn host_port(&self) -> u16 {
        20_000 + 2 * u16::from(self.number)
    }

    /// The daemon's log so far.
    #[must_use]
    pub fn daemon_log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs the command line against this daemon.
    pub fn hull(&self, args: &[&str]) -> Ran {
        shell::finish(&mut self.hull_command(args))
    }

    /// The command line against this daemon, not started yet.
    #[must_use]
    pub fn hull_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--socket").arg(self.socket()).args(args);
        command
    }

    /// A pod and the pulled busybox image: what most tests begin with.
    pub async fn pod(&self, name: &str) -> (Cri, String, String) {
        let cri = self.cri();
        let image = fixture::busybox();
        let _id = cri.pull(&image).await.or_fail("pull busybox");
        let pod = cri.run_pod(name).await.or_fail("run a pod");
        (cri, pod, image)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let failed_already = std::thread::panicking();
        let left = if failed_already || self.finished { None } else { self.settle() };
        if let Some(mut child) = self.daemon.take() {
            let _ = kill(pid_of(&child), Signal::SIGTERM);
            let ended =
                eventually::blocking(eventually::with_long_timeout(Duration::from_secs(5)), || {
                    if matches!(child.try_wait(), Ok(Some(_))) {
                        Ok(())
                    } else {
                        Err(String::new())
                    }
                });
            if ended.is_err() {
                drop(child.kill());
                drop(child.wait());
            }
        }
        if failed_already || left.is_some() {
            shell::say(&format!("the daemon's log: {}", self.log.display()));
        } else {
            drop(fs::remove_file(&self.log));
        }
        // A second panic while one is under way would end the process and hide the first.
        let cleared =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| host::clear(&self.names)));
        if let Some(left) = left {
            panic!("{left}");
        }
        if cleared.is_err() && !failed_already {
            panic!("the node {} could not be cleared away", self.names.root.display());
        }
    }
}

impl Node {
    /// Removes all pods by the daemon. What then is wrong, if anything.
    fn settle(&mut self) -> Option<String> {
        // A runtime of its own, on a thread of its own: this may be called inside one.
        let settled = std::thread::scope(|scope| scope.spawn(|| self.remove_pods()).join());
        match settled {
            Ok(Ok(())) => {}
            Ok(Err(text)) => return Some(text),
            Err(_) => return Some("removing the pods at the end of the test failed".into()),
        }
        let before = &self.before;
        let gone =
            eventually::blocking(eventually::with_long_timeout(Duration::from_secs(5)), || {
                let more = self.on_host().diff(before);
                if more.0.is_empty() { Ok(()) } else { Err(more.to_string()) }
            });
        gone.err().map(|more| format!("left on the host after all pods were removed:\n{more}"))
    }

    fn remove_pods(&mut self) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.or_fail("make a runtime").block_on(async {
            // The old channel belongs to the test's runtime.
            self.cri = Cri::at(&self.socket(), &self.names.root.join("logs"));
            if self.daemon.is_none() {
                self.start_again().await;
            }
            let removed = self.cri.remove_all_pods().await;
            removed.map_err(|status| {
                format!("cannot remove all pods at the end of the test: {status}")
            })
        })
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).or_fail("name the daemon's process"))
}

/// Writes a file of the test's own on the host and gives its path.
#[must_use]
pub fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).or_fail(format!("write {}", path.display()));
    path
}
