// SPDX-License-Identifier: Apache-2.0
//! Containers whose first process is an init of Hull's own (`hull.run/init`, `hull run --init`).

use hull_proto::cri::{self as api, ContainerConfig, NamespaceMode};
use hull_tests::cri::{container, mount, pod_namespaces, security, shell};
use hull_tests::{ExpectExt as _, Node, eventually, fixture};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

const INIT: &str = "hull.run/init";

fn with_init(mut config: ContainerConfig) -> ContainerConfig {
    config.annotations.insert(INIT.into(), "true".into());
    config
}

/// Leaves an orphan that ends when a file appears, and becomes a program that reaps nobody.
fn with_orphan(name: &str, image: &str) -> ContainerConfig {
    let orphan = "sh -c 'until [ -e /end ]; do sleep 0.1; done' &";
    shell(name, image, &format!("(sh -c \"{orphan}\"); exec sleep 86404.17"))
}

/// Names and states of the children of a process, as the host has them.
fn children(parent: i32) -> Vec<String> {
    let processes = fs::read_dir("/proc").or_fail("list processes").flatten();
    let stats = processes.filter_map(|of| fs::read_to_string(of.path().join("stat")).ok());
    let child = |stat: String| {
        let (head, rest) = stat.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let mut rest = rest.split_whitespace();
        let (state, of) = (rest.next()?, rest.next()?);
        (of == parent.to_string()).then(|| format!("{name} {state}"))
    };
    let mut found: Vec<_> = stats.filter_map(child).collect();
    found.sort();
    found
}

async fn has_children(parent: i32, wanted: &[&str]) {
    eventually(format!("{parent} has the children {wanted:?}"), || async {
        let found = children(parent);
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

#[tokio::test]
async fn orphans_are_reaped_also_where_others_share_the_pid_namespace() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = cri.pod_config("shared");
    pod_namespaces(&mut config).pid = NamespaceMode::Pod.into();
    let shared = cri.run_pod_with(config).await.unwrap();
    let mut among = with_init(with_orphan("among", &image));
    security(&mut among).namespace_options.get_or_insert_default().pid = NamespaceMode::Pod.into();
    let without = cri.run(&pod, with_orphan("without", &image)).await;
    let alone = cri.run(&pod, with_init(with_orphan("alone", &image))).await;
    let among = cri.run(&shared, among).await;
    // Without an init, the orphan stays as a zombie: so this test sees one where it is.
    for (id, before, after) in [
        (&without, &["sh S"][..], &["sh Z"][..]),
        (&alone, &["sh S", "sleep S"][..], &["sleep S"][..]),
        (&among, &["sh S", "sleep S"][..], &["sleep S"][..]),
    ] {
        let first = cri.pid(id).await;
        has_children(first, before).await;
        assert_eq!(cri.exec(id, &["touch", "/end"]).await.unwrap().code, 0);
        has_children(first, after).await;
    }
}

#[tokio::test]
async fn signals_reach_the_program_which_ends_by_them_as_it_would_anywhere_else() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    // As a first process it would not see SIGTERM, and be killed after the grace.
    let id = cri.run(&pod, with_init(container("plain", &image, &["sleep", "86405.17"]))).await;
    let begin = Instant::now();
    cri.stop(&id, 120).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    assert_eq!(cri.status(&id).await.exit_code, 128 + 15);

    let script = "for s in HUP INT QUIT USR1 USR2 WINCH 40 64; do trap \"echo $s\" $s; done; \
                  trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let mut config = with_init(shell("all", &image, script));
    config.stop_signal = api::Signal::Sigusr1.into();
    let id = cri.run(&pod, config).await;
    cri.prints(&id, "ready").await;
    // Neither the daemon nor its end has a part in it.
    node.restart().await;
    let pid = cri.pid(&id).await;
    for (signal, name) in
        [(1, "HUP"), (2, "INT"), (3, "QUIT"), (12, "USR2"), (28, "WINCH"), (40, "40"), (64, "64")]
    {
        let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).status();
        assert!(sent.unwrap().success());
        cri.prints(&id, name).await;
    }
    let exec = cri.exec(&id, &["cat", "/proc/1/comm"]).await.unwrap();
    assert_eq!(exec.stdout, "init\n");
    // The stop signal is forwarded, too; the program does not end by it.
    cri.stop(&id, 1).await.unwrap();
    cri.prints(&id, "USR1").await;
    assert_eq!(cri.status(&id).await.exit_code, 128 + 9);
    let id = cri.run(&pod, with_init(shell("term", &image, script))).await;
    cri.prints(&id, "ready").await;
    cri.stop(&id, 60).await.unwrap();
    assert_eq!(cri.status(&id).await.exit_code, 7);
}

#[tokio::test]
async fn exit_codes_and_failed_starts_are_those_of_the_program() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    for (name, script, code) in [
        ("good", "exit 0", 0),
        ("code", "exit 3", 3),
        ("killed", "kill -9 $$", 137),
        ("aborted", "kill -ABRT $$", 134),
    ] {
        let ended = cri.output(&pod, with_init(shell(name, &image, script))).await;
        assert_eq!(ended.code, code, "{name}");
    }
    let id = cri.make(&pod, container("plain", &image, &["/no/such/program"])).await;
    let plain = cri.start(&id).await.unwrap_err();
    let id = cri.make(&pod, with_init(container("init", &image, &["/no/such/program"]))).await;
    let said = cri.start(&id).await.unwrap_err();
    assert_eq!(said.message(), plain.message());
    assert_eq!(cri.status(&id).await.state(), api::ContainerState::ContainerExited);

    let mut odd = shell("odd", &image, "true");
    odd.annotations.insert(INIT.into(), "perhaps".into());
    let said = cri.create(&pod, odd).await.unwrap_err();
    assert_eq!(said.code(), tonic::Code::InvalidArgument);
    assert!(said.message().contains("`perhaps`") && said.message().contains("(hint:"), "{said}");
}

#[tokio::test]
async fn the_program_has_the_terminal_and_is_in_its_foreground() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let script = "read -r pid comm state parent group session tty front rest < /proc/$$/stat; \
                  [ $pid = $group ] && [ $pid = $session ] && [ $pid = $front ] && echo front $parent; \
                  [ -t 0 ] && [ -t 2 ] && echo terminal";
    let mut config = with_init(shell("main", &image, script));
    config.tty = true;
    let said = cri.output(&pod, config).await;
    assert_eq!(said.stdout.replace('\r', ""), "front 1\nterminal\n", "{said:?}");
    assert_eq!(said.code, 0, "{said:?}");
}

type Change = fn(&mut api::LinuxContainerSecurityContext);

/// Containers of which the init must be as confined as the program.
const SHAPES: [(&str, Change); 5] = [
    ("root", |_| {}),
    ("user", |of| of.run_as_user = Some(api::Int64Value { value: 1000 })),
    ("confined", |of| {
        of.no_new_privs = true;
        of.seccomp = Some(api::SecurityProfile::default());
    }),
    ("filtered", |of| of.seccomp = Some(api::SecurityProfile::default())),
    ("read-only", |of| of.readonly_rootfs = true),
];

#[tokio::test]
async fn the_init_has_the_rights_and_limits_of_the_program_and_nothing_else() {
    let node = Node::start().await;
    let cri = node.cri();
    let image = fixture::busybox();
    cri.pull(&image).await.unwrap();
    let mut mapped = cri.pod_config("mapped");
    let ranges = vec![api::IdMapping { host_id: 200_000, container_id: 0, length: 65_536 }];
    pod_namespaces(&mut mapped).userns_options = Some(api::UserNamespace {
        mode: NamespaceMode::Pod.into(),
        uids: ranges.clone(),
        gids: ranges,
    });
    // The annotation of the pod is for all of its containers.
    let mut plain = cri.pod_config("plain");
    for config in [&mut mapped, &mut plain] {
        config.annotations.insert(INIT.into(), "true".into());
    }
    let pods = [
        ("plain", cri.run_pod_with(plain).await.unwrap()),
        ("mapped", cri.run_pod_with(mapped).await.unwrap()),
    ];
    let fields =
        "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|Seccomp_filters|Cpus_allowed):'";
    let looks = format!(
        "cat /proc/1/comm; cut -d' ' -f1 /proc/1/oom_score_adj /proc/self/oom_score_adj | uniq | wc -l; \
         {fields} /proc/1/status > /tmp/init; {fields} /proc/self/status | cmp - /tmp/init && echo same; \
         cmp /proc/1/limits /proc/self/limits && echo limits; ls /proc/1/fd | tr '\\n' ' '; echo; \
         (: > /proc/1/exe) 2>/dev/null || echo kept; readlink /proc/1/cwd"
    );
    for (kind, pod) in &pods {
        for (name, change) in SHAPES {
            let mut config = shell(name, &image, &looks);
            change(security(&mut config));
            config.mounts.push(scratch(&node, &format!("{kind}-{name}")));
            let said = cri.output(pod, config).await;
            let wanted = "init\n1\nsame\nlimits\n0 1 2 \nkept\n/\n";
            assert_eq!(said.stdout, wanted, "{kind} {name}: {said:?}");
        }
    }
}

/// A directory for everybody at /tmp.
fn scratch(node: &Node, name: &str) -> api::Mount {
    let dir = node.host_dir().join(name);
    fs::create_dir(&dir).or_fail("make a directory");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).or_fail("set a mode");
    mount(&dir, "/tmp")
}
