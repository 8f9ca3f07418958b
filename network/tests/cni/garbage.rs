// SPDX-License-Identifier: Apache-2.0
//! The garbage collection of CNI 1.1 (GC): which networks get it, with which attachments, and when.

use crate::chains::FAIL;
use crate::common::on_a_host;
use crate::support::{Called, Host, TestPod};
use hull_network::cni::Collected;
use hull_network::{Config, LinkMode, Mode, Network};
use serde_json::json;
use std::fs;

#[test]
fn garbage_is_collected_with_the_attachments_that_are_valid() {
    on_a_host(|| {
        let host = Host::with(&["one", "two"]);
        host.chain("1.1.0", &["one", "two"]);
        let (kept, gone) = (TestPod::new(1), TestPod::new(2));
        host.attach(&kept).unwrap();
        host.attach(&gone).unwrap();
        host.cni.detach(&gone.id).unwrap();
        host.calls();
        host.tell("one", "GC", FAIL);
        let Collected::Done(failed) = host.cni.collect_garbage(true).unwrap() else {
            panic!("busy")
        };
        assert_eq!(failed.len(), 1, "the second is asked although the first failed: {failed:?}");
        for call in host.called() {
            let valid = &call.all["input"]["cni.dev/valid-attachments"];
            assert_eq!(valid, &json!([{"containerID": kept.id, "ifname": "eth0"}]));
        }
        let off = r#"{"cniVersion": "1.1.0", "name": "pods", "disableGC": true, "plugins": [{"type": "one"}]}"#;
        host.conf("10-pods.conflist", off);
        host.cni.collect_garbage(true).unwrap();
        assert_eq!(host.calls(), [""; 0]);
        host.cni.detach(&kept.id).unwrap();
    });
}

#[test]
fn garbage_is_collected_of_networks_that_pods_have_named() {
    on_a_host(|| {
        let host = Host::with(&["one", "two", "three"]);
        host.chain("1.1.0", &["one"]);
        for (file, name, plugin) in
            [("20-blue.conflist", "blue", "two"), ("30-red.conflist", "red", "three")]
        {
            let plugins = json!([{"type": plugin}]);
            let list = json!({"cniVersion": "1.1.0", "name": name, "plugins": plugins});
            host.conf(file, &list.to_string());
        }
        let pod = TestPod { network: Some("blue"), ..TestPod::new(1) };
        host.attach(&pod).unwrap();
        host.calls();
        host.cni.collect_garbage(true).unwrap();
        let called = host.called();
        let of = |call: &Called| call.all["input"]["cni.dev/valid-attachments"].clone();
        assert_eq!(
            called.iter().map(|call| call.plugin.as_str()).collect::<Vec<_>>(),
            ["one", "two"]
        );
        assert_eq!(of(&called[1]), json!([{"containerID": pod.id, "ifname": "eth0"}]));
        // Where CNI does not attach pods, what others have on a network of theirs is left alone.
        let builtin = Config {
            link_mode: LinkMode::Bridge,
            uplink: None,
            bridge: "hulltest0".into(),
            pod_cidr: Vec::new(),
            mtu: None,
            masquerade: true,
            cluster_cidrs: Vec::new(),
            wait_for_pod_cidr: false,
            table: "hulltest".into(),
            state_dir: host.dir.path().join("leases"),
        };
        let network = Network::open(Mode::None, builtin, Host::config(&host.dir)).unwrap();
        network.collect_garbage().unwrap();
        assert_eq!(host.calls(), ["GC two"]);
        host.cni.detach(&pod.id).unwrap();
        host.calls();
        host.cni.collect_garbage(false).unwrap();
        assert_eq!(host.calls(), [""; 0]);
    });
}

#[test]
fn a_collection_begins_with_what_the_last_one_had_no_time_for() {
    on_a_host(|| {
        let host = Host::with(&["one", "two", "three"]);
        host.chain("1.1.0", &["one", "two"]);
        let three = json!({"cniVersion": "1.1.0", "name": "blue", "plugins": [{"type": "three"}]});
        host.conf("20-blue.conflist", &three.to_string());
        let pod = TestPod { network: Some("blue"), ..TestPod::new(1) };
        host.attach(&pod).unwrap();
        host.calls();
        let collect = || match host.cni.collect_garbage(true).unwrap() {
            Collected::Done(failed) => failed.len(),
            Collected::Busy => panic!("busy"),
        };
        host.tell("one", "GC", "sleep 600");
        assert_eq!((collect(), host.calls()), (1, vec!["GC one".to_owned()]));
        host.untell("one", "GC");
        assert_eq!(collect(), 0);
        assert_eq!(host.calls(), ["GC two", "GC three", "GC one"]);
        host.cni.detach(&pod.id).unwrap();
    });
}

#[test]
fn garbage_is_not_collected_while_a_pod_is_attached() {
    on_a_host(|| {
        let host = Host::with(&["one"]);
        host.chain("1.1.0", &["one"]);
        let (begun, go_on) = (host.bin("begun"), host.bin("go-on"));
        let wait =
            format!("mkfifo {0}; echo > {1}; read -r _ < {0}", go_on.display(), begun.display());
        nix_fifo(&begun);
        host.tell("one", "ADD", &wait);
        let pod = TestPod::new(1);
        std::thread::scope(|scope| {
            // A thread is born where its maker is.
            let attached = scope.spawn(|| host.attach(&pod));
            // Opens when the plugin does.
            fs::read(&begun).unwrap();
            assert!(matches!(host.cni.collect_garbage(true).unwrap(), Collected::Busy));
            fs::write(&go_on, "\n").unwrap();
            attached.join().unwrap().unwrap();
        });
        assert!(matches!(host.cni.collect_garbage(true).unwrap(), Collected::Done(_)));
        host.cni.detach(&pod.id).unwrap();
    });
}

fn nix_fifo(path: &std::path::Path) {
    use rustix::fs::{CWD, FileType, mknodat};
    mknodat(CWD, path, FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
}
