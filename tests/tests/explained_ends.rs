// SPDX-License-Identifier: Apache-2.0
//! Why containers ended, in their status: causes that only the last output, the spec and the node together show.

use hull_proto::cri::{self as api, ContainerConfig, NamespaceMode};
use hull_tests::cri::{container, mount, pod_security, resources, security, shell};
use hull_tests::{Cri, ExpectExt as _, Node, eventually};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The message of a container that ran to its end.
async fn message(cri: &Cri, pod: &str, config: ContainerConfig) -> String {
    let made = cri.run(pod, config).await;
    cri.ended(&made).await.message
}

#[track_caller]
fn contains(text: &str, wanted: &[&str]) {
    for part in wanted {
        assert!(text.contains(part), "`{part}` in: {text}");
    }
}

fn as_user(mut config: ContainerConfig, uid: i64) -> ContainerConfig {
    security(&mut config).run_as_user = Some(api::Int64Value { value: uid });
    security(&mut config).run_as_group = Some(api::Int64Value { value: uid });
    config
}

fn without_capabilities(mut config: ContainerConfig) -> ContainerConfig {
    let capabilities =
        api::Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() };
    security(&mut config).capabilities = Some(capabilities);
    config
}

/// A Localhost profile that answers `calls` with EPERM.
fn refusing(node: &Node, name: &str, calls: &[&str], config: ContainerConfig) -> ContainerConfig {
    let profile = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": calls, "action": "SCMP_ACT_ERRNO"}],
    });
    with_profile(node, name, &profile, config)
}

/// A container with a Localhost profile.
fn with_profile(
    node: &Node,
    name: &str,
    profile: &serde_json::Value,
    mut config: ContainerConfig,
) -> ContainerConfig {
    let path = node.seccomp_dir().join(name);
    fs::create_dir_all(node.seccomp_dir()).or_fail("make the directory of profiles");
    fs::write(&path, profile.to_string()).or_fail("write a profile");
    security(&mut config).seccomp = Some(api::SecurityProfile {
        profile_type: api::security_profile::ProfileType::Localhost as i32,
        localhost_ref: path.to_string_lossy().into_owned(),
    });
    config
}

#[tokio::test]
async fn what_a_program_printed_is_joined_with_its_spec() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let volume = node.host_dir().join("volume");
    fs::create_dir_all(&volume).or_fail("make a volume");
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o755)).or_fail("close a volume");
    let mut writes = as_user(shell("writes", &image, "echo x > /data/f"), 1000);
    writes.mounts = vec![mount(&volume, "/data")];
    let chown = without_capabilities(container("chown", &image, &["chown", "1000", "/tmp"]));
    let curl = shell("curl", &image, "curl http://x; exit $?");
    let mut unshare = shell("unshare", &image, "unshare -U true");
    security(&mut unshare).seccomp = Some(api::SecurityProfile::default());
    let libc = ["arch_prctl", "brk", "set_tid_address", "getrandom", "uname"];
    let libc = refusing(&node, "libc.json", &libc, container("libc", &image, &["sleep", "1"]));
    let mut read_only = shell("ro", &image, "touch /new-file");
    security(&mut read_only).readonly_rootfs = true;
    let background = shell("bg", &image, "sleep 100 & exit 0");
    assert_eq!(message(&cri, &pod, background).await, "", "it ended as it wanted to");
    let segv = shell("segv", &image, "sh -c 'kill -SEGV $$'; exit $?");
    for (config, wanted) in [
        (
            writes,
            &["likely: uid 1000 may not write to `/data` (owner 0:0, mode 0755)", "fsGroup"][..],
        ),
        (chown, &["likely: ", "CAP_CHOWN", "capabilities.add"]),
        (curl, &["`curl` is not in the image"]),
        (unshare, &["seccomp profile (RuntimeDefault) refuses system call `unshare`"]),
        (
            libc,
            &["seccomp profile (Localhost profile `libc.json`) refuses arch_prctl, brk", "allow"],
        ),
        (read_only, &["readOnlyRootFilesystem", "emptyDir"]),
        (segv, &["exited with code 139", "killed by SIGSEGV", "core dump"]),
    ] {
        contains(&message(&cri, &pod, config).await, wanted);
    }
}

#[tokio::test]
async fn no_output_is_in_a_status_and_the_record_has_it() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    // The text is nowhere in the container's spec.
    let text = node.host_dir().join("text");
    fs::write(&text, "password=hunter2 /srv/hunter2: permission denied\n").or_fail("write a text");
    let prints = || {
        let mut config = shell("main", &image, "cat /text >&2; exit 1");
        config.mounts = vec![mount(&text, "/text")];
        config
    };
    let made = cri.run(&pod, prints()).await;
    let status = cri.ended(&made).await;
    contains(&status.message, &["exited with code 1: permission denied"]);
    let shown = status.message;
    assert!(!shown.contains("password") && !shown.contains("hunter2"), "{shown}");
    let mut open = cri.pod_config("open");
    open.annotations.insert("hull.run/exit-message-output".into(), "true".into());
    let open = cri.run_pod_with(open).await.or_fail("run a pod that shows its output");
    contains(&message(&cri, &open, prints()).await, &["last output: password="]);
    let info = cri.inspect(&made).await.or_fail("get the verbose status").info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).or_fail("read the info");
    let lines = &info["state"]["Exited"]["how"]["Code"]["seen"]["output"]["stderr"];
    assert!(lines[0].as_str().is_some_and(|line| line.contains("/srv/hunter2")), "{info}");
}

#[tokio::test]
async fn a_port_of_the_node_is_named_with_its_holder() {
    let node = Node::start().await;
    let (cri, _, image) = node.pod("web").await;
    let mut config = cri.pod_config("host");
    let options =
        api::NamespaceOption { network: NamespaceMode::Node as i32, ..Default::default() };
    pod_security(&mut config).namespace_options = Some(options.clone());
    let pod = cri.run_pod_with(config).await.or_fail("run a pod on the host's network");
    let mut holder = container("holder", &image, &["httpd", "-f", "-p", "18481"]);
    security(&mut holder).namespace_options = Some(options.clone());
    cri.run(&pod, holder).await;
    eventually("the holder listens", || async {
        let connected = tokio::net::TcpStream::connect(("127.0.0.1", 18481)).await;
        connected.map_err(|err| err.to_string())
    })
    .await;
    let mut second = container("second", &image, &["httpd", "-f", "-p", "18481"]);
    security(&mut second).namespace_options = Some(options.clone());
    let text = message(&cri, &pod, second).await;
    contains(&text, &["port 18481 is in use on the node already, by process httpd", "hostNetwork"]);
}

#[tokio::test]
async fn stops_that_a_program_takes_and_those_that_it_ignores() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let obeys = "trap 'exit 143' TERM; echo up; while :; do sleep 0.1; done";
    let obeys = cri.run(&pod, shell("obeys", &image, obeys)).await;
    let ignores = "trap '' TERM; echo up; while :; do sleep 0.1; done";
    let ignores = cri.run(&pod, shell("ignores", &image, ignores)).await;
    for made in [&obeys, &ignores] {
        cri.prints(made, "up").await;
    }
    let (one, other) = tokio::join!(cri.stop(&obeys, 9), cri.stop(&ignores, 1));
    one.and(other).or_fail("stop the containers");
    let status = cri.ended(&obeys).await;
    assert_eq!(status.exit_code, 143);
    contains(&status.message, &["asked to stop", "128 + SIGTERM", "not a failure"]);
    let status = cri.ended(&ignores).await;
    contains(
        &status.message,
        &["did not end within 1 s of SIGTERM", "terminationGracePeriodSeconds"],
    );
}

#[tokio::test]
async fn a_profile_that_lets_nothing_start_or_end_is_refused() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    for call in ["execve", "exit_group"] {
        let config = container(call, &image, &["true"]);
        let config = refusing(&node, &format!("{call}.json"), &[call], config);
        let refused = cri.create(&pod, config).await.err().or_fail("be refused");
        let wanted = format!("it refuses system call `{call}`");
        contains(refused.message(), &["seccomp profile", &wanted, &format!("allow `{call}`")]);
    }
}

#[tokio::test]
async fn a_profile_without_hulls_own_calls_is_refused_once_with_all_of_them() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let config = |name: &str, no_new_privs: bool, calls: &[String]| {
        let mut config = container(name, &image, &["/bin/true"]);
        security(&mut config).no_new_privs = no_new_privs;
        let profile = serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": calls, "action": "SCMP_ACT_ALLOW"}],
        });
        with_profile(&node, &format!("{name}.json"), &profile, config)
    };
    let own: Vec<String> = hull_tests::calls::OF_PROGRAM.map(str::to_owned).to_vec();
    let lacking = config("lacking", false, &own);
    let refused = cri.create(&pod, lacking).await.err().or_fail("be refused");
    let text = refused.message();
    contains(text, &["it refuses system calls", "`ppoll`", "`rt_sigprocmask`", "`setresuid`"]);
    let (_, names) = text.split_once("hint: allow ").or_fail("find the hint");
    let (names, more) = names.split_once(" in the seccomp profile").or_fail("find the names");
    contains(more, &["programs usually need also"]);
    let names = names.split(", ").map(|name| name.trim_matches('`').to_owned());
    let all: Vec<String> = own.iter().cloned().chain(names).collect();
    let made = cri.run(&pod, config("enough", false, &all)).await;
    assert_eq!(cri.ended(&made).await.exit_code, 0);
    // As the last step, only the exec is Hull's.
    let last = [own.as_slice(), &["execve".to_owned(), "exit_group".to_owned()]].concat();
    let refused = cri.create(&pod, config("rights", false, &last)).await.err();
    contains(refused.or_fail("be refused").message(), &["allowPrivilegeEscalation: false"]);
    let made = cri.run(&pod, config("last", true, &last)).await;
    assert_eq!(cri.ended(&made).await.exit_code, 0);
}

#[tokio::test]
async fn what_a_profile_refuses_a_program_is_not_a_limit_or_a_missing_file() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let forks = ["clone", "clone3", "fork", "vfork"];
    let script = shell("forks", &image, "true | true; echo done");
    let text = message(&cri, &pod, refusing(&node, "forks.json", &forks, script)).await;
    contains(&text, &["Localhost profile `forks.json`", "refuses clone", "in the profile"]);
    assert!(!text.contains("limit"), "{text}");
    let start = container("start", &image, &["/bin/true"]);
    let calls = ["arch_prctl", "brk", "mmap", "set_tid_address", "rseq"];
    let text = message(&cri, &pod, refusing(&node, "start.json", &calls, start)).await;
    contains(&text, &["refuses arch_prctl, brk, mmap, set_tid_address", "need also rseq"]);
}

#[tokio::test]
async fn a_killed_child_is_in_the_status_while_its_container_runs() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let hungry = "x=a; while true; do x=$x$x$x$x; done";
    let script = format!("sh -c '{hungry}'; echo survived; exec sleep 600");
    let mut config = shell("main", &image, &script);
    resources(&mut config).memory_limit_in_bytes = 16 << 20;
    let made = cri.run(&pod, config).await;
    cri.prints(&made, "survived").await;
    let status = cri.status(&made).await;
    assert_eq!(status.state, api::ContainerState::ContainerRunning as i32);
    contains(
        &status.message,
        &["out of memory: container limit 16 MiB", "its first process runs on"],
    );

    // They end when their parent is a program that waits for none: the shell itself waits for those that have ended
    // whenever it starts another one.
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; exec sleep 600";
    let zombies = cri.run(&pod, shell("zombies", &image, script)).await;
    let text = eventually("zombies are reported", || async {
        let text = cri.status(&zombies).await.message;
        if text.is_empty() { Err("the message is empty".to_owned()) } else { Ok(text) }
    });
    contains(&text.await, &["zombie processes", "hull.run/init", "shareProcessNamespace"]);
}

#[tokio::test]
async fn an_end_while_no_daemon_runs_is_explained_by_the_next() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let script = "trap 'chown 1 /tmp; exit 1' USR1; echo up; while :; do sleep 0.1; done";
    let config = without_capabilities(shell("main", &image, script));
    let made = cri.run(&pod, config).await;
    cri.prints(&made, "up").await;
    let pid = nix::unistd::Pid::from_raw(cri.pid(&made).await);
    node.kill();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).or_fail("signal a process");
    node.start_again().await;
    let cri = node.cri();
    contains(&cri.ended(&made).await.message, &["operation not permitted", "CAP_CHOWN"]);
}

#[tokio::test]
async fn what_has_no_effect_here_is_refused_or_noted() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let profile =
        refusing(&node, "misspelt.json", &["mkdri"], container("main", &image, &["true"]));
    let made = cri.make(&pod, profile).await;
    let info = cri.inspect(&made).await.or_fail("get the verbose status").info;
    contains(&info["info"], &["`mkdri`", "did you mean `mkdir`"]);
    let bounding = fs::read_to_string("/proc/self/status").or_fail("read our status");
    let bounding = bounding.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounding = u64::from_str_radix(bounding.or_fail("find CapBnd").trim(), 16);
    if bounding.or_fail("read CapBnd") >> 24 & 1 == 1 {
        println!("this host has every capability: a missing one is tested as a value");
        return;
    }
    let mut config = container("resource", &image, &["true"]);
    let add =
        api::Capability { add_capabilities: vec!["SYS_RESOURCE".into()], ..Default::default() };
    security(&mut config).capabilities = Some(add);
    let refused = cri.create(&pod, config).await.err().or_fail("be refused");
    contains(refused.message(), &["CAP_SYS_RESOURCE", "bounding set", "remove SYS_RESOURCE"]);
}

/// Of a container that reaches its limit again and again, with the command's process as the first to be killed.
#[tokio::test]
async fn a_command_that_is_killed_for_memory_before_its_program_runs_says_so() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("full").await;
    let script = "until [ -e /go ]; do sleep 0.05; done; head -c 14m /dev/zero > /dev/shm/base; \
                  while :; do : > /dev/shm/more; \
                  (echo 500 > /proc/self/oom_score_adj; while printf %4096s x; do :; done >> /dev/shm/more); done";
    let mut config = shell("main", &image, script);
    let limits = resources(&mut config);
    (limits.memory_limit_in_bytes, limits.oom_score_adj) = (16 << 20, 1000);
    let id = cri.run(&pod, config).await;
    let pid = cri.pid(&id).await;
    // What fills the memory has a higher score than this, and a command the highest.
    fs::write(format!("/proc/{pid}/oom_score_adj"), "0").or_fail("spare the first process");
    let go = Path::new("/proc").join(pid.to_string()).join("root/go");
    drop(fs::File::create_new(go).or_fail("let it begin"));
    let said = eventually("a command is killed before its program runs", || async {
        match cri.exec(&id, &["true"]).await {
            Ok(ran) => Err(format!("{ran:?}")),
            Err(said) if said.message().contains("before its program ran") => {
                Ok(said.message().to_owned())
            }
            Err(said) => Err(said.message().to_owned()),
        }
    })
    .await;
    let parts = ["out of memory before its program ran", "its container reached its memory limit"];
    contains(&said, &parts);
    contains(&said, &["16 MiB", "raise the memory limit"]);
    assert_eq!(cri.status(&id).await.state(), api::ContainerState::ContainerRunning);
}
