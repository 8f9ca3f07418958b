// SPDX-License-Identifier: Apache-2.0
//! `make demo`: a pod from nothing to nothing, with the time of every step.
//!
//! It is a node of its own, as the tests have them: its daemon, directories, cgroup, bridge and subnet collide
//! with no other Hull on this host, and what it leaves is looked for by its own names. A demo that fails says
//! why, removes its pod all the same, and keeps the daemon's log.

use hull_tests::cri::{container, own_namespaces, shell as script};
use hull_tests::shell::{Ran, run, say};
use hull_tests::{Cri, ExpectExt as _, Node, fixture, paths};
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        say("error: the demo runs real containers, which needs root\nhint: run `sudo make demo`");
        return ExitCode::FAILURE;
    }
    // A step that fails panics. A user of the demo wants its message, not the place in this file.
    panic::set_hook(Box::new(|info| say(&format!("\nerror: {}", message(info.payload())))));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.or_fail("make a runtime");
    match panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(demo()))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => {
            say(&format!(
                "hint: the demo's pod is removed. `{} check` prints what this host lacks for pods; the daemon's\n\
                 \x20     log, where one is named above, has more. Then run `make demo` again",
                paths::hull().display()
            ));
            ExitCode::FAILURE
        }
    }
}

/// The message of a step that failed.
fn message(payload: &dyn std::any::Any) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a step failed")
}

async fn demo() {
    let mut steps = Steps::default();
    say("\nHull: a pod from nothing to nothing\n");
    let (web, busybox) = steps
        .take("make images of Debian packages, push them to a registry on loopback", async {
            (fixture::nginx(), fixture::busybox())
        })
        .await;
    let mut node = steps.take("start `hull serve`", Node::start()).await;
    for image in [&web, &busybox] {
        let name = image.rsplit('/').next().unwrap_or(image).to_owned();
        steps.take(&format!("pull {name}"), async { node.hull(&["pull", image]).good() }).await;
    }
    let cri = node.cri();
    let pod = run_the_pod(&mut steps, &node, &cri, &web, &busybox).await;
    look_around(&mut steps, &node).await;
    let of_pod = node.on_host().diff(node.before()).0.len();

    steps.take("stop the pod", async { cri.stop_pod(&pod).await.or_fail("stop the pod") }).await;
    steps
        .take("remove the pod", async { cri.remove_pod(&pod).await.or_fail("remove the pod") })
        .await;
    node.nothing_is_left().await;
    steps
        .take("remove the images", async {
            for image in [&web, &busybox] {
                let _said = node.hull(&["rmi", image]).good();
            }
        })
        .await;
    steps.take("end the daemon (SIGTERM)", node.finish()).await;
    say(&format!(
        "\nNothing is left of the pod's {of_pod} links, cgroups, processes, mounts and files.\n"
    ));
    steps.table();
    say("\nTry next:\n");
    say("  sudo make install && sudo hull serve &");
    say(
        "  sudo hull run --rm -p 8080:80 docker.io/library/nginx:stable    # then: curl localhost:8080",
    );
    say(
        "  sudo hull check                                                 # is this host fit for a kubelet?\n",
    );
}

async fn run_the_pod(
    steps: &mut Steps,
    node: &Node,
    cri: &Cri,
    web: &str,
    busybox: &str,
) -> String {
    let pod = steps
        .take("RunPodSandbox: network, namespaces, pause", async {
            cri.run_pod("demo").await.or_fail("run the pod")
        })
        .await;
    let server = steps
        .take("CreateContainer: nginx", async {
            cri.create(&pod, container("nginx", web, &[])).await.or_fail("create nginx")
        })
        .await;
    steps
        .take("StartContainer: nginx", async { cri.start(&server).await.or_fail("start nginx") })
        .await;
    // nginx may not listen yet; what wget says about that is not the page.
    let loops = "until wget -q -O - http://127.0.0.1/ 2> /dev/null; do sleep 0.05; done; \
        trap 'exit 0' TERM; while true; do sleep 1000 & wait; done";
    let mut sidecar = script("sidecar", busybox, loops);
    hull_tests::cri::security(&mut sidecar).namespace_options = Some(own_namespaces());
    let sidecar = steps
        .take("a sidecar that fetches the page over localhost", async {
            let sidecar = cri.run(&pod, sidecar).await;
            cri.prints(&sidecar, fixture::INDEX_PAGE.trim_end()).await;
            sidecar
        })
        .await;
    show(&node.hull(&["logs", &sidecar]).good());
    let address = cri.pod_ip(&pod).await;
    let page =
        steps.take(&format!("the host fetches it from {address}"), async { fetch(&address) }).await;
    show(&page);
    let ran: Ran = steps
        .take("exec in nginx", async { node.hull(&["exec", &server, "/usr/sbin/nginx", "-v"]) })
        .await;
    show(&format!("{}{}", ran.stdout, ran.stderr));
    pod
}

async fn look_around(steps: &mut Steps, node: &Node) {
    for (what, args) in [
        ("hull ps", &["ps"][..]),
        ("hull logs nginx", &["logs", "nginx"]),
        ("hull stats", &["stats"]),
    ] {
        let printed = steps.take(&format!("`{what}`"), async { node.hull(args).good() }).await;
        show(&printed);
    }
    match paths::crictl() {
        Some(crictl) => {
            let endpoint = format!("unix://{}", node.socket().display());
            let args = ["--config", "/dev/null", "-r", &endpoint, "-i", &endpoint, "ps"];
            let printed =
                steps.take("the same by `crictl ps`", async { run(crictl, args).good() }).await;
            show(&printed);
        }
        None => say("    (`make tools` builds crictl; the demo then shows it too)"),
    }
}

fn fetch(address: &str) -> String {
    let mut stream = TcpStream::connect((address, 80)).or_fail(format!("connect to {address}"));
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").or_fail("request the page");
    let mut answer = String::new();
    let _bytes = stream.read_to_string(&mut answer).or_fail("read the page");
    answer.split("\r\n\r\n").nth(1).unwrap_or(&answer).to_owned()
}

/// Prints output of a step, indented.
fn show(text: &str) {
    for line in text.lines() {
        say(&format!("      {line}"));
    }
}

/// The steps so far and how long each took.
#[derive(Default)]
struct Steps(Vec<(String, Duration)>);

impl Steps {
    async fn take<T>(&mut self, name: &str, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let done = work.await;
        let took = began.elapsed();
        say(&format!("  {:<70} {:>9}", name, shown(took)));
        self.0.push((name.to_owned(), took));
        done
    }

    fn table(&self) {
        let widest = self.0.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        let line = "-".repeat(widest + 12);
        say(&format!("  {:<widest$}   {:>9}\n  {line}", "step", "time"));
        for (name, took) in &self.0 {
            say(&format!("  {name:<widest$}   {:>9}", shown(*took)));
        }
        let all: Duration = self.0.iter().map(|(_, took)| *took).sum();
        say(&format!("  {line}\n  {:<widest$}   {:>9}", "all", shown(all)));
    }
}

fn shown(took: Duration) -> String {
    let ms = took.as_secs_f64() * 1000.0;
    if ms < 1000.0 { format!("{ms:.1} ms") } else { format!("{:.2} s", ms / 1000.0) }
}
