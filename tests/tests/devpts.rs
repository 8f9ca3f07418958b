// SPDX-License-Identifier: Apache-2.0
//! Terminals of the containers' own devpts: of containers with `tty: true` and of execs, in user namespaces too; what
//! a hostile container puts in their place; and programs that need a real terminal, through the clients that people
//! have.

use hull_proto::cri::{self as api, NamespaceMode};
use hull_tests::cri::{pod_namespaces, security, shell};
use hull_tests::crictl::{crictl, lacks_crictl};
use hull_tests::terminal::Terminal;
use hull_tests::{Cri, ExpectExt as _, Node, eventually, fixture, paths, session};
use std::process::Command;

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
        // The default profile refuses every mount, where the node has AppArmor.
        security(&mut config).apparmor = Some(api::SecurityProfile {
            profile_type: api::security_profile::ProfileType::Unconfined.into(),
            ..api::SecurityProfile::default()
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

/// Waits until the output contains `text` this many times.
async fn shows(terminal: &Terminal, text: &str, times: usize) {
    eventually(format!("the terminal shows {text:?} {times} times"), || async {
        let screen = terminal.screen();
        if screen.matches(text).count() >= times { Ok(()) } else { Err(format!("{screen:?}")) }
    })
    .await;
}

/// Works with a shell and programs that draw on the terminal. `file` does not exist in the container yet.
async fn use_programs(terminal: &mut Terminal, file: &str) {
    terminal.wait_for("ready> ").await;
    terminal.type_keys("tty; stty size; echo $((40+2)) $TERM\r");
    terminal.wait_for("/dev/pts/0\r\n").await;
    terminal.wait_for("24 80\r\n").await;
    terminal.wait_for("42 xterm\r\n").await;
    // Job control.
    // A job has the terminal before it runs, so what it prints says that keys are its own: an echo does not.
    terminal.type_keys("sh -c 'echo job $((60+6)); exec sleep 1111'\r");
    terminal.wait_for("job 66\r\n").await;
    terminal.type_keys("\u{1a}");
    terminal.wait_for("Stopped").await;
    terminal.type_keys("bg; jobs\r");
    terminal.wait_for("Running").await;
    terminal.type_keys("kill %1; wait; echo ended $((3+4))\r");
    terminal.wait_for("ended 7\r\n").await;
    shows(terminal, "ready> ", 5).await;
    terminal.type_keys("sh -c 'echo job $((70+7)); read w; echo got $w; exec sleep 2222'\r");
    terminal.wait_for("job 77\r\n").await;
    terminal.type_keys("\u{1a}");
    shows(terminal, "Stopped", 2).await;
    terminal.type_keys("fg\r");
    // As it was typed, as it was stopped, and as it is continued.
    shows(terminal, "exec sleep 2222'\r\n", 3).await;
    terminal.type_keys("again\r");
    terminal.wait_for("got again\r\n").await;
    terminal.type_keys("\u{3}");
    shows(terminal, "ready> ", 7).await;
    terminal.type_keys("echo code $?\r");
    terminal.wait_for("code 130\r\n").await;
    assert!(!terminal.screen().contains("no job control"), "{}", terminal.screen());
    // Keys that come before a program has left the screen are its own.
    shows(terminal, "ready> ", 8).await;
    terminal.type_keys("top\r");
    terminal.wait_for("load average").await;
    terminal.type_keys("q");
    shows(terminal, "ready> ", 9).await;
    terminal.type_keys("seq 1000 1999 | less\r");
    terminal.wait_for("1022").await;
    terminal.type_keys("G");
    terminal.wait_for("(END)").await;
    terminal.type_keys("q");
    shows(terminal, "ready> ", 10).await;
    terminal.type_keys(&format!("vi {file}\r"));
    terminal.wait_for("[New").await;
    terminal.type_keys("iwritten\u{1b}");
    terminal.type_keys(":wq\r");
    terminal.wait_for("8 bytes written").await;
    shows(terminal, "ready> ", 11).await;
    terminal.type_keys(&format!("cat {file} | tr a-z A-Z\r"));
    terminal.wait_for("WRITTEN\r\n").await;
    shows(terminal, "ready> ", 12).await;
    terminal.type_keys("tmux\r");
    terminal.wait_for("[0]").await;
    terminal.type_keys("tty > /tmp/inner; echo $((500+55))\r");
    terminal.wait_for("555").await;
    // Detaches.
    terminal.type_keys("\u{2}d");
    terminal.wait_for("[detached").await;
    terminal.type_keys("echo inner $(cat /tmp/inner)\r");
    terminal.wait_for("inner /dev/pts/1\r\n").await;
    terminal.type_keys("tmux kill-server; exit\r");
}

/// The shell of these tests.
const SHELL: [&str; 4] = ["env", "PS1=ready> ", "bash", "--norc"];

#[tokio::test]
async fn programs_draw_on_the_terminal_of_crictl() {
    if lacks_crictl("programs_draw_on_the_terminal_of_crictl") {
        return;
    }
    let node = Node::start().await;
    let (cri, pod, _image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &fixture::terminal_programs()).await;
    let mut words = vec!["exec", "-it", &id];
    words.extend(SHELL);
    let mut terminal = Terminal::start(&crictl(&node, &words), (80, 24));
    use_programs(&mut terminal, "/tmp/text").await;
    assert_eq!(terminal.finish(), 0, "{}", terminal.screen());
}

#[tokio::test]
async fn programs_draw_on_the_terminal_of_kubectl() {
    let Some(kubeclient) = paths::kubeclient() else {
        paths::cannot_run("programs_draw_on_the_terminal_of_kubectl", "kubeclient (`make tools`)");
        return;
    };
    let node = Node::start().await;
    let (cri, pod, _image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &fixture::terminal_programs()).await;
    for transport in ["websocket", "spdy"] {
        let request = api::ExecRequest {
            container_id: id.clone(),
            cmd: SHELL.map(str::to_owned).into(),
            tty: true,
            stdin: true,
            stdout: true,
            stderr: false,
        };
        let url = cri.runtime.clone().exec(request).await.or_fail("request exec").into_inner().url;
        // kubectl sets its own terminal to raw mode.
        let line = format!(
            "stty raw -echo; exec '{}' -transport {transport} -i -t -size 80x24 exec '{url}'",
            kubeclient.display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &line]);
        let mut terminal = Terminal::start(&command, (80, 24));
        use_programs(&mut terminal, &format!("/tmp/{transport}")).await;
        assert_eq!(terminal.finish(), 0, "{transport}: {}", terminal.screen());
    }
}
