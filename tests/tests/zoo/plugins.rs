// SPDX-License-Identifier: Apache-2.0
//! Network plugins: what they lack, and what they report.

use crate::case::{Case, Set, Setup};
use crate::network::publish;
use crate::{driver, judge};
use hull_tests::host::Names;
use hull_tests::shell::say;
use hull_tests::{Node, paths};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// A case with its network of plugins.
struct Plugins {
    case: Case,
    /// The file of the network; text as it stands.
    network: fn(&Names) -> String,
}

fn list(plugins: &Value) -> String {
    json!({"cniVersion": "1.0.0", "name": "zoo", "plugins": plugins}).to_string()
}

/// A bridge with so many addresses.
fn bridge(names: &Names, subnet: &str) -> Value {
    json!({"type": "bridge", "bridge": names.bridge, "isGateway": true,
           "ipam": {"type": "host-local", "dataDir": names.root.join("host/ipam"), "ranges": [[{"subnet": subnet}]]}})
}

fn no_container(setup: &mut Setup) {
    setup.container = None;
}

static CASES: [Plugins; 7] = [
    Plugins {
        case: Case {
            name: "a plugin is not installed",
            set: Set::Configs(no_container),
            place: &["`absent`"],
            cause: &["it is not found in"],
            fix: &["install `absent`"],
            never: &[],
        },
        network: |_| list(&json!([{"type": "absent"}])),
    },
    Plugins {
        case: Case {
            name: "a plugin has no x bit",
            set: Set::Configs(no_container),
            place: &["/bin/plain"],
            cause: &["no execute permission"],
            fix: &["chmod +x"],
            never: &["install `plain`"],
        },
        network: |_| list(&json!([{"type": "plain"}])),
    },
    Plugins {
        case: Case {
            name: "a network's file is not JSON",
            set: Set::Configs(no_container),
            place: &["10-zoo.conflist"],
            cause: &["it is not a JSON object"],
            fix: &["correct these files"],
            never: &[],
        },
        network: |_| "{\"name\": \"zoo\"".to_owned(),
    },
    Plugins {
        case: Case {
            name: "no address is free",
            set: Set::Configs(no_container),
            place: &["network `zoo`"],
            cause: &["no IP addresses available"],
            fix: &["enlarge the address range"],
            never: &["see the log"],
        },
        network: |names| {
            // The only address of this subnet beside the gateway's.
            let held = names.root.join("host/ipam/zoo");
            let made = fs::create_dir_all(&held);
            assert!(made.is_ok(), "make {}: {made:?}", held.display());
            write(&held.join("10.213.255.2"), "gone\r\neth0", 0o644);
            list(&json!([bridge(names, "10.213.255.0/30")]))
        },
    },
    Plugins {
        case: Case {
            name: "a plugin's agent is away",
            set: Set::Configs(no_container),
            place: &["`agent`"],
            cause: &["connection refused"],
            fix: &["the agent of `agent` at 127.0.0.1:50051 does not answer"],
            never: &["temporary condition"],
        },
        network: |_| list(&json!([{"type": "agent"}])),
    },
    Plugins {
        case: Case {
            name: "a plugin writes something else than a result",
            set: Set::Configs(no_container),
            place: &["`odd`"],
            cause: &["it is not JSON"],
            fix: &["update or reinstall `odd`"],
            never: &[],
        },
        network: |_| list(&json!([{"type": "odd"}])),
    },
    Plugins {
        case: Case {
            name: "no plugin publishes host ports",
            set: Set::Configs(|setup| publish(setup, 18_099)),
            place: &["network `zoo`"],
            cause: &["no plugin of network `zoo` (bridge) takes them"],
            fix: &["\"type\": \"portmap\""],
            never: &[],
        },
        network: |names| list(&json!([bridge(names, "10.213.254.0/24")])),
    },
];

fn write(file: &Path, text: &str, mode: u32) {
    let written = fs::write(file, text);
    let set = written.and_then(|()| fs::set_permissions(file, fs::Permissions::from_mode(mode)));
    assert!(set.is_ok(), "write {}: {set:?}", file.display());
}

/// Networks of plugins, one after the other on one node.
pub(crate) async fn run() {
    if !Path::new("/usr/lib/cni/bridge").is_file() {
        return paths::cannot_run(
            "network plugins",
            "CNI plugins (apt-get install containernetworking-plugins)",
        );
    }
    let node = Node::start_on_network(|names| {
        let at = names.root.join("host");
        format!(
            "mode = \"cni\"\n[network.cni]\nconf_dir = {:?}\nbin_dirs = [{:?}, \"/usr/lib/cni\"]\nnetns_dir = {:?}\n",
            at.join("net.d").display().to_string(),
            at.join("bin").display().to_string(),
            names.root.join("state/netns").display().to_string(),
        )
    })
    .await;
    let (bin, conf) = (node.host_dir().join("bin"), node.host_dir().join("net.d"));
    for dir in [&bin, &conf] {
        assert!(fs::create_dir_all(dir).is_ok(), "make {}", dir.display());
    }
    let version = "[ \"$CNI_COMMAND\" = VERSION ] && echo '{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"1.0.0\"]}'\n[ \"$CNI_COMMAND\" = ADD ] || exit 0\n";
    let away = "echo '{\"cniVersion\":\"1.0.0\",\"code\":11,\"msg\":\"ipam daemon not reachable\",\"details\":\"dial tcp 127.0.0.1:50051: connection refused\"}'\nexit 1\n";
    write(&bin.join("agent"), &format!("#!/bin/sh\n{version}{away}"), 0o755);
    write(&bin.join("odd"), &format!("#!/bin/sh\n{version}echo hello\n"), 0o755);
    write(&bin.join("plain"), "#!/bin/sh\n", 0o644);
    let mut lost = Vec::new();
    for (number, of) in CASES.iter().enumerate() {
        write(&conf.join("10-zoo.conflist"), &(of.network)(node.names()), 0o644);
        let setup = Setup::new(&node, number);
        let answer = driver::answer(&node.cri(), setup, of.case.set.clone()).await;
        let judged = judge(&of.case, answer);
        say(&format!("  {} {}: {}", judged.letters(), judged.name, judged.answer));
        if !judged.is_complete() {
            lost.push(format!("{} ({}): {}", judged.name, judged.letters(), judged.answer));
        }
    }
    assert!(lost.is_empty(), "points lost (where, cause, fix):\n{}", lost.join("\n"));
}
