// SPDX-License-Identifier: Apache-2.0
//! The options of `hull run`, as the container sees them.

use hull_tests::image::Image;
use hull_tests::{Node, fixture, node};
use serde_json::json;
use std::fs;

/// The output of a script in a container with these options.
fn ran(node: &Node, options: &[&str], script: &str) -> String {
    let image = fixture::busybox();
    let head = ["run", "--rm"];
    let tail = [image.as_str(), "sh", "-c", script];
    node.hull(&[&head[..], options, &tail[..]].concat()).good()
}

#[tokio::test]
async fn network_options_reach_the_files_of_the_pod() {
    let node = Node::start().await;
    let options = [
        "--dns",
        "192.0.2.1",
        "--dns-search",
        "example.org",
        "--dns-opt",
        "ndots:3",
        "--add-host",
        "db:192.0.2.7",
    ];
    let text = ran(&node, &options, "cat /etc/resolv.conf /etc/hosts");
    for part in ["nameserver 192.0.2.1", "search example.org", "ndots:3", "192.0.2.7\tdb"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    node.nothing_is_left().await;
}

#[tokio::test]
async fn a_pod_has_no_network_that_of_the_host_or_ranges_of_ports() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let options = ["--network", "none", "--add-host", "db:192.0.2.7"];
    // Links such as tunl0 are in every network namespace where their modules are loaded; only loopback has addresses.
    let script = "ip -o addr | awk '{print $2}' | sort -u; wc -l < /proc/net/route; cat /etc/hosts";
    let text = ran(&node, &options, script);
    assert!(text.starts_with("lo\n1\n") && text.ends_with("192.0.2.7\tdb\n"), "{text}");
    let of_host = fs::read_to_string("/etc/hosts").unwrap();
    let options = ["--net", "host", "--add-host", "db:192.0.2.7"];
    let text = ran(&node, &options, "cat /etc/hosts");
    assert_eq!(text, format!("{}\n192.0.2.7\tdb\n", of_host.trim_end_matches('\n')));
    let port = node.host_port();
    let range = format!("127.0.0.1:{port}-{}:80-81/udp", port + 1);
    let _id =
        node.hull(&["run", "-d", "--name", "range", "-p", &range, &image, "sleep", "9"]).good();
    let text = node.hull(&["port", "range", "81/udp"]).good();
    assert_eq!(text, format!("127.0.0.1:{}\n", port + 1));
    let _named = node.hull(&["rm", "-f", "range"]).good();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn limits_and_security_options_are_in_effect() {
    let node = Node::start().await;
    let options =
        ["--ulimit", "nofile=123:456", "--security-opt", "no-new-privileges", "--pids-limit", "77"];
    let text = ran(&node, &options, "ulimit -n; ulimit -Hn; grep NoNewPrivs /proc/self/status");
    assert_eq!(text, "123\n456\nNoNewPrivs:\t1\n");
    let text = ran(&node, &["--group-add", "4242", "-u", "1000"], "id -G");
    assert!(text.contains("4242"), "{text}");
    let text = ran(&node, &["--init"], "cat /proc/1/comm; cat /proc/$PPID/comm");
    assert_eq!(text, "init\ninit\n");
    for (limit, part) in [
        ("nproc=0", "own ulimit `nproc` (RLIMIT_NPROC is 0)"),
        ("nofile=1", "own ulimit `nofile` (RLIMIT_NOFILE is 1)"),
    ] {
        let image = fixture::busybox();
        let run = ["run", "--rm", "--init", "-u", "1000", "--ulimit", limit, &image, "true"];
        let ran = node.hull(&run);
        assert!(ran.code == 125 && ran.stderr.contains(part), "{part}: {ran:?}");
    }
    let text =
        ran(&node, &["--sysctl", "net.core.somaxconn=77"], "cat /proc/sys/net/core/somaxconn");
    assert_eq!(text, "77\n");
}

#[tokio::test]
async fn volumes_have_paths_names_or_neither_and_a_tmpfs_is_in_memory() {
    let node = Node::start().await;
    let _text = ran(&node, &["-v", "kept:/data"], "echo once > /data/x");
    assert_eq!(
        ran(
            &node,
            &["--mount", "type=volume,src=kept,dst=/data,ro"],
            "cat /data/x; touch /data/y || echo read-only"
        ),
        "once\nread-only\n"
    );
    let text = ran(
        &node,
        &["--tmpfs", "/cache:size=1m", "-v", "/scratch"],
        "grep /cache /proc/mounts; touch /scratch/x && echo made",
    );
    assert!(
        text.contains("tmpfs /cache tmpfs rw,nosuid,nodev,noexec") && text.contains("size=1024k"),
        "{text}"
    );
    assert!(text.ends_with("made\n"), "{text}");
    let text = ran(&node, &["--shm-size", "3m"], "df -k /dev/shm | tail -1");
    assert!(text.contains(" 3072 "), "{text}");
    node.nothing_is_left().await;
}

#[tokio::test]
async fn variables_labels_and_the_id_come_from_and_go_to_files() {
    let node = Node::start().await;
    let dir = node.host_dir();
    let env = node::write(&dir, "env", "# no\nA=from a file\n").display().to_string();
    assert_eq!(ran(&node, &["--env-file", &env], "echo $A"), "from a file\n");
    let image = fixture::busybox();
    let cidfile = dir.join("cid").display().to_string();
    let run = [
        "run",
        "-d",
        "--name",
        "x",
        "--cidfile",
        &cidfile,
        "-l",
        "a=b",
        "--stop-timeout",
        "0",
        &image,
        "sleep",
        "1000",
    ];
    let id = node.hull(&run).good();
    assert_eq!(fs::read_to_string(&cidfile).unwrap(), id.trim());
    let again = node.hull(&run);
    assert_eq!(again.code, 125, "the file is there: {again:?}");
    let replace = ["run", "-d", "--name", "x", "--replace", &image, "sleep", "1000"];
    let other = node.hull(&replace).good();
    assert_ne!(other, id);
    let _named = node.hull(&["rm", "-f", "x"]).good();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn an_empty_entrypoint_and_groups_by_name_are_those_of_the_image() {
    let node = Node::start().await;
    let image = fixture::pushed("with-entrypoint", || {
        let layer = fixture::busybox_layer().file("etc/group", 0o644, "root:x:0:\nvideo:x:44:\n");
        Image::new(vec![layer.tar()], json!({"Entrypoint": ["echo", "entry"], "Cmd": ["cmd"]}))
    });
    let ran = |options: &[&str], words: &[&str]| {
        node.hull(&[&["run", "--rm"][..], options, &[&image], words].concat())
    };
    assert_eq!(ran(&[], &["mine"]).good(), "entry mine\n");
    assert_eq!(ran(&["--entrypoint", ""], &["echo", "mine"]).good(), "mine\n");
    let none = ran(&["--entrypoint", ""], &[]);
    assert!(none.code == 125 && none.stderr.contains("name a command after the image"), "{none:?}");
    let groups = ["-u", "7:8", "--group-add", "9", "--group-add", "video", "--entrypoint", "id"];
    assert_eq!(ran(&groups, &["-G"]).good(), "8 9 44\n");
    let failed = ran(&["--group-add", "nobody-has-it"], &[]);
    assert!(failed.code == 125 && failed.stderr.contains("`nobody-has-it`"), "{failed:?}");
    assert!(failed.stderr.contains("hint: "), "{failed:?}");
    node.nothing_is_left().await;
}

#[tokio::test]
async fn what_hull_cannot_do_as_asked_ends_the_start_with_an_error() {
    let node = Node::start().await;
    let image = fixture::busybox();
    for (options, word) in [
        (&["--restart", "sometimes"][..], "sometimes"),
        (&["-p", "8000-8010:80-82"], "8000-8010"),
        (&["--network", "macvlan"], "macvlan"),
        (&["--platform", "plan9/mips"], "plan9"),
        (&["--security-opt", "systempaths=unconfined"], "systempaths"),
        (&["--pull", "never", "never/pulled:1"], "never/pulled"),
        (&["--tmpfs", "relative"], "relative"),
        (&["--ulimit", "nothing=1"], "nothing"),
        (&["--device", "vendor.example/none=0"], "vendor.example"),
    ] {
        let failed = node.hull(&[&["run", "--rm"][..], options, &[&image, "true"]].concat());
        assert_eq!(failed.code, 125, "{options:?}: {failed:?}");
        let error = failed.stderr.split_once("error: ").map_or("", |(_, error)| error);
        assert!(error.contains(word), "{options:?}: {failed:?}");
    }
    node.nothing_is_left().await;
}
