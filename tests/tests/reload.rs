// SPDX-License-Identifier: Apache-2.0
//! Changed settings without a restart: by a file that changes, by SIGHUP, by `hull reload`; and what a bad file does.

use hull_tests::cri::{idle, shell};
use hull_tests::shell::Ran;
use hull_tests::{ExpectExt as _, Node, eventually};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Another value of every setting than the node's and the default.
const OTHERS: &[(&str, &str)] = &[
    ("state_dir", "\"/run/elsewhere\""),
    ("data_dir", "\"/var/lib/elsewhere\""),
    ("socket", "\"/run/elsewhere.sock\""),
    ("log.level", "\"trace\""),
    ("log.format", "\"json\""),
    ("cgroup.driver", "\"auto\""),
    ("cgroup.parent", "\"/elsewhere\""),
    ("network.mode", "\"none\""),
    ("network.uplink", "\"eth9\""),
    ("network.bridge", "\"elsewhere\""),
    ("network.pod_cidr", "[\"10.214.0.0/24\"]"),
    ("network.mtu", "1400"),
    ("network.masquerade", "false"),
    ("network.cluster_cidrs", "[\"10.0.0.0/8\"]"),
    ("network.table", "\"elsewhere\""),
    ("network.cni.conf_dir", "\"/elsewhere\""),
    ("network.cni.bin_dirs", "[\"/elsewhere\"]"),
    ("network.cni.networks_max", "2"),
    ("network.cni.conf_template", "\"/elsewhere\""),
    ("network.cni.netns_dir", "\"/elsewhere\""),
    ("network.cni.plugin_timeout_s", "77"),
    ("network.cni.gc_interval_s", "77"),
    ("logs.rate_limit", "\"77k\""),
    ("logs.over_rate", "\"wait\""),
    ("logs.size_max", "\"77m\""),
    ("logs.rotate_size", "\"77m\""),
    ("logs.rotate_files", "7"),
    ("logs.journald", "true"),
    ("logs.journald_socket", "\"/elsewhere\""),
    ("metrics.address", "\"127.0.0.1:9\""),
    ("tracing.endpoint", "\"http://127.0.0.1:9\""),
    ("tracing.sample_percent", "77"),
    ("runtime.shm_bytes", "\"8m\""),
    ("runtime.seccomp_root", "\"/elsewhere\""),
    ("runtime.cdi_spec_dirs", "[\"/elsewhere\"]"),
    ("runtime.hooks_dir", "[\"/elsewhere\"]"),
    ("runtime.writable_layer_size", "\"77m\""),
    ("runtime.default_seccomp", "\"runtime/default\""),
    ("runtime.default_ulimits", "[\"nofile=64:128\"]"),
    ("runtime.exit_message_output", "true"),
    ("runtime.blockio_config_file", "\"/elsewhere\""),
    ("runtime.exec_output_bytes_max", "77"),
    ("runtime.exec_drain_s", "77"),
    ("runtime.exec_syncs_max", "77"),
    ("runtime.launch_timeout_s", "77"),
    ("runtime.criu", "\"/elsewhere\""),
    ("runtime.userns", "\"auto\""),
    ("runtime.userns_user", "\"elsewhere\""),
    ("runtime.subuid_file", "\"/elsewhere\""),
    ("runtime.subgid_file", "\"/elsewhere\""),
    ("runtime.call_memory_bytes_max", "\"1Gi\""),
    ("runtime.handlers.NAME.type", "\"hull\""),
    ("runtime.handlers.NAME.default_seccomp", "\"runtime/default\""),
    ("runtime.handlers.NAME.seccomp_profile", "\"/elsewhere\""),
    ("runtime.handlers.NAME.cgroup_writable", "false"),
    ("runtime.handlers.NAME.user_namespaces", "\"always\""),
    ("runtime.handlers.NAME.network", "\"elsewhere\""),
    ("runtime.handlers.NAME.shm_bytes", "\"8m\""),
    ("runtime.handlers.NAME.default_ulimits", "[\"nofile=64:128\"]"),
    ("runtime.handlers.NAME.pids_max", "77"),
    ("runtime.handlers.NAME.writable_layer_size", "\"77m\""),
    ("nri.enable", "false"),
    ("nri.socket", "\"/run/elsewhere.nri\""),
    ("nri.disable_connections", "true"),
    ("nri.plugin_path", "\"/elsewhere\""),
    ("nri.plugin_config_path", "\"/elsewhere\""),
    ("nri.registration_timeout_ms", "77"),
    ("nri.request_timeout_ms", "77"),
    ("image.concurrent_layers", "77"),
    ("image.pinned", "[\"docker.io/library/elsewhere:1\"]"),
    ("image.config_path", "\"/elsewhere\""),
    ("image.docker_config", "\"/elsewhere\""),
    ("image.policy", POLICY),
    ("image.stall_s", "77"),
    ("image.layer_bytes_max", "\"77m\""),
    ("image.keep_blobs", "true"),
    ("image.layer_entries_max", "77"),
    ("image.layer_apparent_bytes_max", "\"77m\""),
    ("image.layer_seconds_max", "77"),
    ("image.archive_bytes_max", "\"77m\""),
    ("image.registry.host", "\"elsewhere.example\""),
    ("image.registry.mirrors", "[\"https://elsewhere.example\"]"),
    ("image.registry.plain_http", "true"),
    ("image.registry.skip_verify", "true"),
    ("image.registry.ca_file", "\"/elsewhere\""),
];

/// Stands for a policy file, which must be there.
const POLICY: &str = "<policy>";

/// The settings that cannot change alone: with a reason in the message.
const REFUSED: &[(&str, &str, &str)] = &[
    ("network.wait_for_pod_cidr", "true", "pods do not wait for the kubelet"),
    ("logs.burst", "\"128k\"", "it has no effect without"),
    ("metrics.tls_cert", "\"/elsewhere\"", "TLS needs all of"),
    ("metrics.tls_key", "\"/elsewhere\"", "TLS needs all of"),
    ("metrics.client_ca", "\"/elsewhere\"", "TLS needs all of"),
    ("tracing.ca_file", "\"/elsewhere\"", "is not an `https://` address"),
    ("tracing.client_cert", "\"/elsewhere\"", "is not an `https://` address"),
    ("tracing.client_key", "\"/elsewhere\"", "is not an `https://` address"),
];

/// How each setting takes effect, by the table of docs/config.md: `yes` or `restart`.
fn documented() -> BTreeMap<String, String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md");
    let (mut section, mut found) = (String::new(), BTreeMap::new());
    for line in fs::read_to_string(page).or_fail("read docs/config.md").lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            let mut parts = heading.split(['[', ']']);
            let name = parts.find(|part| part.contains(char::is_alphabetic)).unwrap_or_default();
            section = if heading.starts_with('`') { format!("{name}.") } else { String::new() };
        }
        let cells: Vec<&str> = line.split(" | ").collect();
        if let [name, _, reload, ..] = cells[..]
            && let Some(name) = name.strip_prefix("| `")
        {
            found.insert(format!("{section}{}", name.trim_end_matches('`')), reload.to_owned());
        }
    }
    found
}

/// A node whose drop-in file the test changes.
struct Changing {
    node: Node,
    drop_in: PathBuf,
}

impl Changing {
    async fn start() -> Self {
        let node = Node::start_with("# for the test\n").await;
        let drop_in =
            node.host_dir().parent().or_fail("find the node").join("hull.toml.d/test.toml");
        Self { node, drop_in }
    }

    fn write(&self, text: &str) {
        fs::write(&self.drop_in, text).or_fail("write the drop-in file");
    }

    /// The differences between the files and the daemon: the effect, by setting.
    fn differences(&self) -> BTreeMap<String, String> {
        let text = self.node.hull(&["config", "diff", "-o", "json"]).good();
        effects(&text)
    }

    /// Waits until the daemon has taken over all that it can.
    async fn taken_over(&self, what: &str) -> BTreeMap<String, String> {
        eventually(format!("{what} is taken over"), || async {
            let left = self.differences();
            if left.values().any(|effect| effect == "reload") {
                return Err(format!("{left:?}"));
            }
            Ok(left)
        })
        .await
    }
}

fn effects(json: &str) -> BTreeMap<String, String> {
    let rows: serde_json::Value = serde_json::from_str(json).or_fail("parse the differences");
    let rows = rows.as_array().or_fail("find an array");
    let text = |of: &serde_json::Value| of.as_str().unwrap_or_default().to_owned();
    rows.iter().map(|row| (text(&row["setting"]), text(&row["effect"]))).collect()
}

/// A setting as a file.
fn file(key: &str, value: &str) -> String {
    match key.strip_prefix("image.registry.") {
        Some("host") => format!("[[image.registry]]\nhost = {value}\n"),
        Some(name) => format!("[[image.registry]]\nhost = \"a.example\"\n{name} = {value}\n"),
        // `NAME` stands for any name.
        None => format!("{} = {value}\n", key.replace(".NAME.", ".any.")),
    }
}

#[tokio::test]
async fn each_setting_is_taken_over_or_named_as_the_docs_say() {
    let of = Changing::start().await;
    let policy =
        hull_tests::node::write(&of.node.host_dir(), "policy.toml", "default = \"accept\"\n");
    let policy = format!("{:?}", policy.display().to_string());
    let mut documented = documented();
    for (key, value, why) in REFUSED {
        let effect = documented.remove(*key).or_fail(format!("find {key} in the docs"));
        let expected = if key.starts_with("logs.") { "yes" } else { "restart" };
        assert_eq!(effect, expected, "{key}");
        of.write(&file(key, value));
        let refused = of.node.hull(&["reload"]);
        assert!(refused.code == 1 && refused.stderr.contains(why), "{key}: {refused:?}");
    }
    for (key, value) in OTHERS {
        let effect = documented.remove(*key).or_fail(format!("find {key} in the docs"));
        let value = if *value == POLICY { &policy } else { *value };
        of.write(&file(key, value));
        let left = of.taken_over(key).await;
        let shown = of.node.hull(&["config", "show", "--daemon"]).good();
        match effect.as_str() {
            "yes" => assert_eq!(left, BTreeMap::new(), "{key}"),
            "restart" => {
                let named = BTreeMap::from([((*key).to_owned(), "restart".to_owned())]);
                assert_eq!(left, named, "{key}");
                assert!(!shown.contains("elsewhere"), "{key}: {shown}");
            }
            other => panic!("{key} has `{other}` under Reload"),
        }
    }
    assert!(documented.is_empty(), "the test knows no other value of {documented:?}");
    of.write("");
    assert_eq!(of.taken_over("the first configuration").await, BTreeMap::new());
}

#[tokio::test]
async fn what_begins_after_a_change_has_the_new_settings() {
    let of = Changing::start().await;
    let (cri, old, image) = of.node.pod("old").await;
    let old_box = cri.run_idle(&old, "box", &image).await;
    let policy =
        hull_tests::node::write(&of.node.host_dir(), "policy.toml", "default = \"reject\"\n");
    of.write(&format!(
        "[log]\nlevel = \"warn\"\n[image]\npinned = [{image:?}]\npolicy = {policy:?}\n[runtime]\nshm_bytes = \"8m\"\n\
         exec_output_bytes_max = 10\nexit_message_output = true\ndefault_ulimits = [\"nofile=64:128\"]\n",
    ));
    assert_eq!(of.taken_over("the file").await, BTreeMap::new());

    let pod = cri.run_pod("new").await.or_fail("run a pod");
    let made = cri.run(&pod, idle("box", &image)).await;
    let size = ["sh", "-c", "df -k /dev/shm | tail -n 1 | awk '{print $2}'"];
    assert_eq!(cri.exec(&made, &size).await.or_fail("exec").stdout.trim(), "8192");
    assert_eq!(cri.exec(&old_box, &size).await.or_fail("exec").stdout.trim(), "65536");
    let files = ["sh", "-c", "ulimit -n"];
    assert_eq!(cri.exec(&made, &files).await.or_fail("exec").stdout.trim(), "64");
    let long = cri.exec(&old_box, &["echo", "0123456789abcdef"]).await.or_fail("exec").stdout;
    assert!(long.starts_with("0123456789") && !long.contains("abcdef"), "{long}");
    let failed = cri.run(&pod, shell("failed", &image, "echo the last words; exit 3")).await;
    let message = cri.ended(&failed).await.message;
    assert!(message.contains("the last words"), "{message}");
    let pinned = cri.image_status(&image).await.or_fail("find the image").or_fail("find the image");
    assert!(pinned.pinned);
    let refused = cri.pull(&image).await.unwrap_err();
    assert!(refused.message().contains("policy"), "{}", refused.message());
    let before = of.node.daemon_log();
    let _pod = cri.run_pod("quiet").await.or_fail("run a pod");
    let log = of.node.daemon_log();
    assert!(!log[before.len()..].contains("pod ready"), "{}", &log[before.len()..]);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_says_line_and_key() {
    let of = Changing::start().await;
    let daemon = || of.node.hull(&["config", "show", "--daemon"]).good();
    let before = daemon();
    for (text, words) in [
        (
            "[image]\nconcurrent_layers = 7\n\n[network]\nmtu = 10\n",
            "test.toml:5: 10 is not within",
        ),
        (
            "[image]\nstall_s = 7\nlayer_bytes_max = \"7 bananas\"\n",
            "test.toml:3: its unit is none of",
        ),
        ("[image]\nstall_s = 7\npined = []\n", "test.toml:3: unknown setting `image.pined`"),
        ("[image]\nstall_s = 7\nkeep_blobs = \"no\"\n", "test.toml:3: it is the string"),
        ("[image\n", "test.toml:1: "),
        ("[image]\nstall_s = 7\npolicy = \"/does/not/exist\"\n", "/does/not/exist"),
    ] {
        of.write(text);
        eventually("the log says so", || async {
            let log = of.node.daemon_log();
            let line = log.lines().rfind(|line| line.contains("configuration not taken over"));
            let line = line.unwrap_or_default().to_owned();
            if line.contains(words) { Ok(()) } else { Err(line) }
        })
        .await;
        for args in [&["reload"][..], &["config", "diff"]] {
            let refused = of.node.hull(args);
            let is_policy = text.contains("policy");
            assert!(is_policy && args.len() == 2 || refused.code == 1, "{args:?}: {refused:?}");
            assert!(is_policy || refused.stderr.contains(words), "{args:?}: {refused:?}");
        }
        assert_eq!(daemon(), before, "{text}");
    }
    of.write("");
    assert_eq!(of.taken_over("the first configuration").await, BTreeMap::new());
}

#[tokio::test]
async fn a_file_that_is_not_regular_or_too_large_changes_nothing_and_blocks_nothing() {
    let of = Changing::start().await;
    let odd = of.drop_in.with_file_name("odd.toml");
    let policy = of.node.host_dir().join("policy.toml");
    let fifo = |path: &Path| hull_tests::shell::run("mkfifo", [path.display().to_string()]).good();
    let refused = |why: &str, hint: &str| {
        let Ran { code, stderr, .. } = of.node.hull(&["reload"]);
        assert!(code == 1 && stderr.contains(why) && stderr.contains(hint), "{stderr}");
    };
    let no_file = "it is not a regular file";
    std::os::unix::fs::symlink("/dev/zero", &odd).or_fail("link to what has no end");
    refused(no_file, "a regular file of UTF-8 text");
    fs::remove_file(&odd).or_fail("remove the link");
    let sparse = fs::File::create_new(&odd).or_fail("make a file");
    sparse.set_len(3 << 29).or_fail("make it large");
    refused("it is larger than 1048576 bytes", "at most 1 MiB");
    fs::remove_file(&odd).or_fail("remove the file");
    let _made = fifo(&odd);
    refused(no_file, "a regular file of UTF-8 text");
    fs::remove_file(&odd).or_fail("remove the FIFO");
    let _made = fifo(&policy);
    of.write(&format!("[image]\npolicy = {:?}\n", policy.display().to_string()));
    refused(no_file, "");
    fs::remove_file(&policy).or_fail("remove the FIFO");
    // Hidden files are not read.
    fs::write(odd.with_file_name(".hidden.toml"), "nonsense").or_fail("write the file");
    of.write("[image]\nstall_s = 78\n");
    assert_eq!(of.taken_over("what came after them").await, BTreeMap::new());
    let shown = of.node.hull(&["config", "show", "--daemon"]).good();
    assert!(shown.contains("stall_s = 78"), "{shown}");
}

#[tokio::test]
async fn a_reload_says_that_the_policy_has_other_rules() {
    let of = Changing::start().await;
    let write = |text: &str| hull_tests::node::write(&of.node.host_dir(), "policy.toml", text);
    let policy = write("default = \"accept\"\n");
    of.write(&format!("[image]\npolicy = {:?}\n", policy.display().to_string()));
    assert_eq!(of.taken_over("a policy").await, BTreeMap::new());
    let said = || of.node.hull(&["reload"]).stderr;
    assert_eq!(said(), "nothing has changed\n");
    let _same_place = write("default = \"reject\"\n");
    assert!(said().contains("the image policy has other rules"));
    assert_eq!(said(), "nothing has changed\n");
}

#[tokio::test]
async fn a_drop_in_file_that_is_linked_is_taken_over() {
    let of = Changing::start().await;
    let elsewhere =
        hull_tests::node::write(&of.node.host_dir(), "elsewhere", "[image]\nstall_s = 79\n");
    std::os::unix::fs::symlink(&elsewhere, of.drop_in.with_file_name("linked.toml"))
        .or_fail("link the file");
    eventually("the link's setting is in force", || async {
        let shown = of.node.hull(&["config", "show", "--daemon"]).good();
        if shown.contains("stall_s = 79") { Ok(()) } else { Err(shown) }
    })
    .await;
}

/// The drop-in file by a second name, by which it is not watched.
fn unwatched(of: &Changing) -> PathBuf {
    let other = of.node.host_dir().join("same-file");
    fs::hard_link(&of.drop_in, &other).or_fail("link the drop-in file");
    other
}

#[tokio::test]
async fn a_reload_by_hand_and_by_signal_says_what_it_did() {
    let of = Changing::start().await;
    let other = unwatched(&of);
    let nothing = of.node.hull(&["reload"]);
    assert_eq!(
        (nothing.code, nothing.stderr.as_str()),
        (0, "nothing has changed\n"),
        "{nothing:?}"
    );
    fs::write(&other, "[network]\nmtu = 1400\n[image]\nstall_s = 77\n").or_fail("write the file");
    let both = BTreeMap::from([
        ("image.stall_s".to_owned(), "reload".to_owned()),
        ("network.mtu".to_owned(), "restart".to_owned()),
    ]);
    assert_eq!(of.differences(), both);
    let Ran { code, stdout, stderr } = of.node.hull(&["reload", "-o", "json"]);
    assert_eq!((code, effects(&stdout)), (0, both), "{stdout}{stderr}");
    assert!(stderr.contains("network.mtu needs a restart of the daemon"), "{stderr}");
    assert_eq!(of.differences().into_keys().collect::<Vec<_>>(), ["network.mtu"]);
    let wrong = of.node.hull(&["log-level", "--reset", "--for", "5s"]);
    assert!(wrong.code != 0 && wrong.stderr.contains("--reset"), "{wrong:?}");

    fs::write(&other, "[image]\nstall_s = 78\n").or_fail("write the file");
    signal(&of.node, "HUP");
    assert_eq!(of.taken_over("a file, by SIGHUP").await, BTreeMap::new());
    let log = of.node.daemon_log();
    let line = log.lines().rfind(|line| line.contains("setting taken over")).unwrap_or_default();
    for part in ["image.stall_s", "before=\"77\"", "now=\"78\"", "test.toml:2"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    fs::remove_file(other).or_fail("remove the second name");
}

fn signal(node: &Node, name: &str) {
    let pid = node.daemon_pid().to_string();
    let _sent = hull_tests::shell::run("kill", [format!("-{name}"), pid]).good();
}

#[tokio::test]
async fn no_signal_that_means_nothing_ends_or_stops_the_daemon() {
    let node = Node::start().await;
    let names = "HUP USR1 USR2 PIPE ALRM VTALRM PROF IO PWR STKFLT XCPU XFSZ TTIN TTOU 34 40 64";
    for name in names.split(' ') {
        signal(&node, name);
        let state =
            hull_tests::shell::run("ps", ["-o", "stat=", "-p", &node.daemon_pid().to_string()])
                .good();
        assert!(!state.starts_with(['T', 'Z']), "{name}: {state}");
        assert!(node.cri().pods().await.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn a_dump_names_operations_with_stage_and_age() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let config =
        shell("stubborn", &image, "trap '' TERM; touch /trapped; while :; do sleep 1; done");
    let made = cri.run(&pod, config).await;
    eventually("it ignores the signal", || async {
        let found = cri.exec(&made, &["test", "-e", "/trapped"]).await.or_fail("exec");
        if found.code == 0 { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    let stopping = {
        let (cri, made) = (cri.clone(), made.clone());
        tokio::spawn(async move { cri.stop(&made, 1000).await })
    };
    let parts = [
        "call under way verb=\"StopContainer\" age_ms=",
        "operation=stop container age_ms=",
        "task of a pod pod=\"tests/web\"",
        "what the daemon is at",
    ];
    eventually("the operation is in the log", || async {
        signal(&node, "USR1");
        let log = node.daemon_log();
        let missing: Vec<_> = parts.iter().filter(|part| !log.contains(**part)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    })
    .await;
    cri.remove(&made).await.or_fail("remove the container");
    stopping.await.or_fail("join").or_fail("stop the container");
}
