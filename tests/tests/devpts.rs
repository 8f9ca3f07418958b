// SPDX-License-Identifier: Apache-2.0
//! Terminals of the containers' own devpts: of containers with `tty: true` and of execs, in user namespaces too; and what
//! a hostile container puts in their place.

use hull_proto::cri::{self as api, NamespaceMode};
use hull_tests::cri::{pod_namespaces, security, shell};
use hull_tests::terminal::Terminal;
use hull_tests::{Cri, Node, fixture, session};

/// A user namespace as a kubelet requests it with `hostUsers: false`.
fn in_user_namespace(config: &mut api::PodSandboxConfig) {
    let map = vec![api::IdMapping { host_id: 200_000, container_id: 0, length: 65_536 }];
    pod_namespaces(config).userns_options =
        Some(api::UserNamespace { mode: NamespaceMode::Pod.into(), uids: map.clone(), gids: map });
}

/// The output of a command at a terminal of its own, and its exit code.
async fn at_terminal(cri: &Cri, id: &str, script: &str) -> (String, Option<i32>) {
    let (_input, mut output) = session::exec(cri, id, &["sh", "-c", script], true).await;
    let transcript = output.rest().await;
    let text = String::from_utf8_lossy(&transcript.stdout).replace('\r', "");
    (text, transcript.code())
}

#[tokio::test]
async fn a_terminal_is_the_containers_own_with_and_without_a_user_namespace() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), fixture::busybox());
    for mapped in [false, true] {
        let mut config = cri.pod_config(if mapped { "mapped" } else { "plain" });
        if mapped {
            in_user_namespace(&mut config);
        }
        let pod = cri.run_pod_with(config).await.unwrap();
        let script = "tty; stat -c '%F %u:%g' /dev/console; test -t 0 && test -t 1 && test -t 2 && echo yes; \
                      ls -1 /dev/pts; echo console > /dev/console; echo $TERM; sleep 1000000";
        let mut config = shell("main", &image, script);
        (config.tty, config.stdin) = (true, true);
        security(&mut config).run_as_user = Some(api::Int64Value { value: 1000 });
        let id = cri.run(&pod, config).await;
        cri.prints(&id, "xterm").await;
        let logs = cri.logs(&id).await;
        assert_eq!(
            hull_tests::cri::text(&logs, "stdout").replace('\r', ""),
            "/dev/pts/0\ncharacter special file 1000:5\nyes\n0\nptmx\nconsole\nxterm\n",
            "user namespace: {mapped}"
        );
        let script = "tty; stat -c %u:%g $(tty); echo mine > $(tty); echo $TERM; exit 4";
        for _ in 0..2 {
            let (text, code) = at_terminal(&cri, &id, script).await;
            assert_eq!((text.as_str(), code), ("/dev/pts/1\n1000:5\nmine\nxterm\n", Some(4)));
        }
        cri.stop(&id, 0).await.unwrap();
    }
    cri.remove_all_pods().await.unwrap();
    node.nothing_is_left().await;
}

/// Prints the size that the terminal has first, and waits.
const SIZE: &str = "stty size; read -r _; true";

#[tokio::test]
async fn a_process_starts_with_the_size_of_its_clients_terminal() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let _id = node.hull(&["run", "-d", "--name", "web", &image, "sleep", "1000000"]).good();
    for (columns, rows) in [(93, 31), (200, 60), (41, 11)].into_iter().cycle().take(12) {
        let exec = node.hull_command(&["exec", "-it", "web", "sh", "-c", SIZE]);
        let mut terminal = Terminal::start(&exec, (columns, rows));
        terminal.wait_for(&format!("{rows} {columns}\r\n")).await;
        terminal.type_keys("\n");
        assert_eq!(terminal.finish(), 0);
    }
    for (columns, rows) in [(93, 31), (41, 11)] {
        let run = node.hull_command(&["run", "--rm", "-it", &image, "sh", "-c", SIZE]);
        let mut terminal = Terminal::start(&run, (columns, rows));
        terminal.wait_for(&format!("{rows} {columns}\r\n")).await;
        terminal.type_keys("\n");
        assert_eq!(terminal.finish(), 0);
    }
}

#[tokio::test]
async fn a_hostile_container_gets_an_error_and_no_terminal_of_the_host() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let attacks = [
        ("umount /dev/pts", "it is not a devpts"),
        ("umount /dev/pts && mkfifo /dev/pts/ptmx", "it is not a devpts"),
        ("mount -t tmpfs none /dev/pts && mknod /dev/pts/ptmx c 5 2", "it is not a devpts"),
        ("echo > /file && mount -o bind /file /dev/pts/ptmx", "/dev/pts/ptmx of the container"),
        (
            "umount /dev/pts && rmdir /dev/pts && ln -s /proc/1/root/dev/pts /dev/pts",
            "/dev/pts of the container",
        ),
    ];
    for (number, (attack, message)) in attacks.into_iter().enumerate() {
        let script = format!("{attack} && echo replaced; sleep 1000000");
        let mut config = shell(&format!("hostile{number}"), &image, &script);
        security(&mut config).capabilities = Some(api::Capability {
            add_capabilities: vec!["SYS_ADMIN".into(), "MKNOD".into()],
            ..api::Capability::default()
        });
        let id = cri.run(&pod, config).await;
        cri.prints(&id, "replaced").await;
        let (_input, mut output) = session::exec(&cri, &id, &["tty"], true).await;
        let transcript = output.rest().await;
        let shown = transcript.status["message"].as_str().unwrap_or_default();
        assert!(shown.contains(message) && shown.contains("terminal"), "{attack}: {transcript:?}");
        assert_eq!(transcript.stdout, b"", "{attack}");
        // Without a terminal, nothing of that is in the way.
        assert_eq!(cri.exec(&id, &["echo", "works"]).await.unwrap().stdout, "works\n");
        cri.stop(&id, 0).await.unwrap();
    }
}
