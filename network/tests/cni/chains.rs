// SPDX-License-Identifier: Apache-2.0
//! The order of calls, their input, and plugins that fail in every way at every verb.

use crate::common::on_a_host;
use crate::support::{Host, TestPod, cni_error, sentence};
use hull_network::cni::{Error, Verb, pins, unpin};
use hull_network::{Bandwidth, Dns};
use serde_json::json;
use std::fs;
use std::time::Duration;

pub(crate) const FAIL: &str =
    r#"echo '{"code": 107, "msg": "no such luck", "details": "really"}'; exit 1"#;

#[test]
fn a_pod_is_attached_by_the_chain_and_detached_by_it_backwards() {
    on_a_host(|| {
        let host = Host::with(&["one", "two"]);
        host.chain("1.0.0", &["one", "two"]);
        let pod = TestPod::new(1);
        let ips = host.attach(&pod).unwrap();
        assert_eq!(ips, ["10.9.0.7".parse::<std::net::IpAddr>().unwrap()]);

        let calls = host.called();
        let [one, two] = &calls[..] else { panic!("{calls:?}") };
        assert_eq!((one.plugin.as_str(), two.plugin.as_str()), ("one", "two"));
        assert_eq!(one.all["input"].get("prevResult"), None);
        assert_eq!(two.all["input"]["prevResult"]["dns"]["domain"], "by-one");
        assert_eq!(one.all["input"]["name"], "pods");
        assert_eq!(one.all["id"], pod.id.as_str());
        assert_eq!(one.all["if"], "eth0");
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-1;K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID=uid-1",
            pod.id
        );
        assert_eq!(one.all["args"], args.as_str());
        // Plugins and their agents open the namespace by this path.
        let pinned = fs::metadata(&one.netns).unwrap();
        use std::os::unix::fs::MetadataExt as _;
        let own = rustix::fs::fstat(&pod.netns).unwrap();
        assert_eq!((pinned.dev(), pinned.ino()), (own.st_dev, own.st_ino));
        let netns_dir = host.dir.path().join("netns");
        assert_eq!(pins(&netns_dir), [(pod.id.clone(), one.netns.clone().into())]);

        host.cni.detach(&pod.id).unwrap();
        let calls = host.called();
        let order: Vec<_> = calls.iter().map(|of| format!("{} {}", of.verb, of.plugin)).collect();
        assert_eq!(order, ["DEL two", "DEL one"]);
        for call in &calls {
            assert_eq!(call.all["input"]["prevResult"]["dns"]["domain"], "by-two");
            assert_eq!(call.netns, one.netns);
        }
        assert_eq!(host.left(), [""; 0]);
        host.cni.detach(&pod.id).unwrap();
        assert_eq!(host.calls(), [""; 0], "what is gone is not asked for again");
    });
}

#[test]
fn a_pin_is_removed_with_its_file_and_no_link_is_followed() {
    on_a_host(|| {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["hull-pod", "hull-link", "other"] {
            fs::write(at(name), "").unwrap();
        }
        rustix::mount::mount_bind("/proc/self/ns/net", at("hull-pod")).unwrap();
        rustix::mount::mount_bind("/proc/self/ns/net", at("other")).unwrap();
        fs::remove_file(at("hull-link")).unwrap();
        std::os::unix::fs::symlink(at("other"), at("hull-link")).unwrap();
        let mut found = pins(dir.path());
        found.sort();
        let names = ["link", "pod"].map(|name| (name.to_owned(), at(&format!("hull-{name}"))));
        assert_eq!(found, names);
        for (_, path) in found {
            unpin(&path).unwrap();
            unpin(&path).unwrap();
        }
        assert_eq!(pins(dir.path()), []);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = mounts.lines().filter(|line| line.contains(dir.path().to_str().unwrap()));
        assert_eq!(here.count(), 1, "what the link leads to is another's: {mounts}");
        unpin(&at("other")).unwrap();
        assert!(pins(&at("none")).is_empty());
    });
}

#[test]
fn a_plugin_is_told_of_what_it_declares_in_every_verb() {
    on_a_host(|| {
        let host = Host::with(&["one"]);
        host.conf(
            "10.conflist",
            r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "one", "capabilities": {
                "portMappings": true, "bandwidth": true, "dns": true, "ipRanges": true, "cgroupPath": true,
                "mac": true, "aliases": true, "ips": false}}]}"#,
        );
        host.cni
            .set_pod_cidr(&["10.9.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()])
            .unwrap();
        let mut pod = TestPod::with_port(1, 8080, 80);
        pod.bandwidth = Bandwidth { ingress_bits: Some(1_000_000), egress_bits: None };
        pod.dns = Dns { servers: vec!["10.0.0.10".into()], ..Dns::default() };
        for (key, value) in
            [("mac", "02:00:00:00:00:07"), ("aliases", "web, db"), ("ips", "10.9.0.9")]
        {
            pod.annotations.insert(format!("network.hull.dev/{key}"), value.into());
        }
        host.attach(&pod).unwrap();
        host.cni.check_pod(&pod.id).unwrap();
        host.cni.detach(&pod.id).unwrap();
        let expected = json!({
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
            "bandwidth": {"ingressRate": 1_000_000, "ingressBurst": 2_147_483_647},
            "dns": {"servers": ["10.0.0.10"], "searches": [], "options": []},
            "ipRanges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00::/64"}]],
            "cgroupPath": "/kubepods/pod1",
            "mac": "02:00:00:00:00:07", "aliases": ["web", "db"],
        });
        let calls = host.called();
        let verbs: Vec<_> = calls.iter().map(|of| of.verb.as_str()).collect();
        assert_eq!(verbs, ["ADD", "CHECK", "DEL"]);
        for call in calls {
            assert_eq!(call.all["input"]["runtimeConfig"], expected, "{}", call.verb);
            assert_eq!(call.all["input"].get("capabilities"), None);
        }
    });
}

#[test]
fn a_pod_can_have_a_link_of_each_of_several_networks() {
    on_a_host(|| {
        let mut host = Host::with(&["one", "two"]);
        host.again(|config| config.networks_max = 2);
        host.conf("10.conf", r#"{"cniVersion": "1.0.0", "name": "first", "type": "one"}"#);
        host.conf("20.conf", r#"{"cniVersion": "0.3.1", "name": "second", "type": "two"}"#);
        host.conf("30.conf", r#"{"cniVersion": "1.0.0", "name": "third", "type": "missing"}"#);
        let pod = TestPod::new(1);
        host.attach(&pod).unwrap();
        host.cni.detach(&pod.id).unwrap();
        let order: Vec<_> = host
            .called()
            .iter()
            .map(|of| format!("{} {} {}", of.verb, of.plugin, of.all["if"]))
            .collect();
        assert_eq!(
            order,
            [r#"ADD one "eth0""#, r#"ADD two "eth1""#, r#"DEL two "eth1""#, r#"DEL one "eth0""#]
        );
    });
}

#[test]
fn a_pod_gets_the_network_that_it_names_and_no_other() {
    on_a_host(|| {
        let host = Host::with(&["one", "two"]);
        host.conf("10.conf", r#"{"cniVersion": "1.0.0", "name": "first", "type": "one"}"#);
        host.conf("20.conf", r#"{"cniVersion": "1.0.0", "name": "second", "type": "two"}"#);
        let mut pod = TestPod::new(1);
        pod.network = Some("second");
        host.attach(&pod).unwrap();
        host.cni.detach(&pod.id).unwrap();
        let order: Vec<_> =
            host.called().iter().map(|of| format!("{} {}", of.verb, of.plugin)).collect();
        assert_eq!(order, ["ADD two", "DEL two"]);
        pod.network = Some("third");
        let said = sentence(&host.attach(&pod).unwrap_err());
        assert!(said.contains("`third`") && said.contains("first, second"), "{said}");
        assert!(!host.cni.is_attached(&pod.id));
    });
}

#[test]
fn an_attach_that_fails_is_undone_and_says_why() {
    let ways = [
        (FAIL, "the plugin reported \"no such luck; really\" (code 107)"),
        ("echo could not >&2; exit 4", "exit code 4; its last output: could not"),
        ("kill -9 $$", "killed by signal 9"),
        ("echo '{\"ips\": ['; exit 0", "it is not JSON"),
        ("echo nonsense; exit 0", "it is not JSON"),
        ("exit 0", "it is not JSON"),
        ("echo '[]'; exit 0", "a result is a JSON object"),
        (
            r#"echo '{"cniVersion": "1.0.0", "ips": [{"address": "x"}]}'; exit 0"#,
            "invalid IP address",
        ),
        (r#"echo '{"cniVersion": "1.0.0"}'; exit 0"#, "assigned none to its eth0"),
        ("yes; exit 0", "more than 1048576 bytes"),
    ];
    for (shell, why) in ways {
        on_a_host(|| {
            let host = Host::with(&["one", "two"]);
            host.chain("1.0.0", &["one", "two"]);
            host.tell("two", "ADD", shell);
            let err = sentence(&host.attach(&TestPod::new(1)).unwrap_err());
            assert!(err.contains(why), "{shell}: {err}");
            assert_eq!(host.calls(), ["ADD one", "ADD two", "DEL two", "DEL one"], "{shell}");
            assert_eq!(host.left(), [""; 0], "{shell}");
        });
    }
}

#[test]
fn a_plugin_that_hangs_holds_nobody_longer_than_its_time() {
    on_a_host(|| {
        let mut host = Host::with(&["one"]);
        host.again(|config| config.plugin_timeout = Duration::from_millis(500));
        host.chain("1.0.0", &["one"]);
        host.tell("one", "ADD", "echo waiting for the agent >&2; sleep 600");
        let err = host.attach(&TestPod::new(1)).unwrap_err();
        let text = sentence(&err);
        assert!(
            text.contains("did not end within") && text.contains("waiting for the agent"),
            "{text}"
        );
        assert!(text.contains("plugin_timeout_s"), "{text}");
        assert_eq!(host.left(), [""; 0]);
    });
}

#[test]
fn a_detach_that_fails_is_kept_and_asked_again_after_a_restart() {
    on_a_host(|| {
        let mut host = Host::with(&["one", "two"]);
        host.chain("0.4.0", &["one", "two"]);
        let pod = TestPod::new(1);
        host.attach(&pod).unwrap();
        host.tell("one", "DEL", FAIL);
        for _ in 0..2 {
            let err = host.cni.detach(&pod.id).unwrap_err();
            assert!(matches!(&err, Error::Plugin { call, .. } if call.verb == Verb::Del), "{err}");
            assert_eq!(host.cni.attachments(), std::slice::from_ref(&pod.id));
        }
        // Neither a restart nor another configuration makes it forget what it has to undo.
        host.calls();
        host.chain("1.0.0", &["two"]);
        host.again(|_| {});
        assert_eq!(host.cni.attachments(), std::slice::from_ref(&pod.id));
        host.cni.detach(&pod.id).unwrap_err();
        assert_eq!(host.calls(), ["DEL two", "DEL one"], "not by the present configuration");
        host.untell("one", "DEL");
        let id = pod.id.clone();
        // The pod's processes are gone meanwhile; the pin kept the namespace.
        drop(pod);
        host.cni.detach(&id).unwrap();
        let calls = host.called();
        let order: Vec<_> = calls.iter().map(|of| format!("{} {}", of.verb, of.plugin)).collect();
        assert_eq!(order, ["DEL two", "DEL one"]);
        assert_eq!(calls[0].all["input"]["cniVersion"], "0.4.0");
        assert!(!calls[0].netns.is_empty());
        assert_eq!(
            calls[0].all["input"]["prevResult"]["cniVersion"], "0.4.0",
            "converted for the chain"
        );
        assert_eq!(host.left(), [""; 0]);
    });
}

#[test]
fn a_pod_whose_namespace_is_gone_is_detached_without_one() {
    on_a_host(|| {
        let host = Host::with(&["one"]);
        host.chain("1.0.0", &["one"]);
        let pod = TestPod::new(1);
        host.attach(&pod).unwrap();
        let pinned = host.called()[0].netns.clone();
        rustix::mount::unmount(&pinned, rustix::mount::UnmountFlags::DETACH).unwrap();
        host.cni.detach(&pod.id).unwrap();
        assert_eq!(host.called()[0].netns, "");
        assert_eq!(host.left(), [""; 0]);
    });
}

#[test]
fn a_pod_attached_again_is_detached_first() {
    on_a_host(|| {
        let host = Host::with(&["one"]);
        host.chain("1.0.0", &["one"]);
        let pod = TestPod::new(1);
        host.attach(&pod).unwrap();
        host.attach(&pod).unwrap();
        assert_eq!(host.calls(), ["ADD one", "DEL one", "ADD one"]);
        host.cni.detach(&pod.id).unwrap();
        assert_eq!(host.left(), [""; 0]);
    });
}

#[test]
fn a_host_port_has_one_holder_who_is_named() {
    on_a_host(|| {
        let host = Host::with(&["one"]);
        host.chain("1.0.0", &["one"]);
        let (first, second) = (TestPod::with_port(1, 8080, 80), TestPod::with_port(2, 8080, 81));
        host.attach(&first).unwrap();
        let err = host.attach(&second).unwrap_err().to_string();
        assert!(err.contains("8080") && err.contains(&first.id), "{err}");
        assert_eq!(host.cni.attachments(), std::slice::from_ref(&first.id));
        host.cni.detach(&first.id).unwrap();
        host.attach(&second).unwrap();
        host.cni.detach(&second.id).unwrap();
    });
}

#[test]
fn configurations_are_read_again_when_they_change() {
    on_a_host(|| {
        let host = Host::with(&["one", "two"]);
        let err = host.cni.check().unwrap_err();
        assert!(matches!(&err, Error::NoNetwork { bad, .. } if bad.is_empty()), "{err}");
        assert!(err.hint().unwrap().contains("network.cni"));
        host.conf("10.conflist", "{");
        let err = host.cni.check().unwrap_err().to_string();
        assert!(err.contains("10.conflist: it is not a JSON object"), "{err}");
        host.chain("1.0.0", &["two"]);
        host.cni.check().unwrap();
        let pod = TestPod::new(1);
        host.attach(&pod).unwrap();
        host.conf("05.conf", r#"{"cniVersion": "1.0.0", "name": "new", "type": "one"}"#);
        host.attach(&pod).unwrap();
        host.cni.detach(&pod.id).unwrap();
        assert_eq!(host.calls(), ["ADD two", "DEL two", "ADD one", "DEL one"]);
    });
}

#[test]
fn the_version_is_one_that_all_plugins_speak() {
    on_a_host(|| {
        let host = Host::with(&["one", "two"]);
        host.conf(
            "10.conflist",
            r#"{"cniVersion": "0.4.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "pods",
                "plugins": [{"type": "one"}, {"type": "two"}]}"#,
        );
        fs::write(host.bin("two.versions"), r#""0.3.1","0.4.0","1.0.0""#).unwrap();
        let pod = TestPod::new(1);
        host.attach(&pod).unwrap();
        assert_eq!(host.called()[0].all["input"]["cniVersion"], "1.0.0");
        host.cni.detach(&pod.id).unwrap();
        host.chain("1.1.0", &["one", "two"]);
        let err = sentence(&host.attach(&pod).unwrap_err());
        assert!(err.contains("`two` supports 0.3.1, 0.4.0, 1.0.0"), "{err}");
        assert!(err.contains("10-pods.conflist"), "{err}");
    });
}

#[test]
fn a_missing_plugin_is_named_with_where_it_was_looked_for() {
    on_a_host(|| {
        let host = Host::with(&["one"]);
        host.chain("1.0.0", &["one", "nowhere"]);
        let err = host.attach(&TestPod::new(1)).unwrap_err();
        let text = sentence(&err);
        assert!(text.contains("`nowhere`") && text.contains("/usr/lib/cni"), "{text}");
        assert!(matches!(cni_error(err), Error::NoProgram { .. }));
        assert_eq!(host.calls(), [""; 0], "nothing was begun");
        assert!(host.cni.check().unwrap_err().to_string().contains("nowhere"));
    });
}

#[test]
fn readiness_is_what_the_plugins_say() {
    on_a_host(|| {
        let host = Host::with(&["one", "two"]);
        host.chain("1.1.0", &["one", "two"]);
        host.cni.check().unwrap();
        assert_eq!(host.calls(), ["STATUS one", "STATUS two"]);
        host.tell("two", "STATUS", r#"echo '{"code": 50, "msg": "agent is down"}'; exit 1"#);
        let err = host.cni.check().unwrap_err().to_string();
        assert!(err.contains("`two` (STATUS)") && err.contains("agent is down"), "{err}");
        // Older versions cannot tell.
        host.chain("1.0.0", &["one", "two"]);
        host.cni.check().unwrap();
    });
}

#[test]
fn the_hint_for_an_unknown_network_names_those_that_pods_can_have() {
    on_a_host(|| {
        let host = Host::with(&["one"]);
        host.conf("99-lo.conf", r#"{"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}"#);
        let pod = TestPod { network: Some("blue"), ..TestPod::new(1) };
        let said = sentence(&host.attach(&pod).unwrap_err());
        assert!(said.contains("network `blue`") && said.contains("there is none"), "{said}");
        host.chain("1.1.0", &["one"]);
        let said = sentence(&host.attach(&pod).unwrap_err());
        assert!(said.ends_with("(use one of pods)"), "{said}");
    });
}

#[test]
fn a_pod_with_a_name_that_would_forge_arguments_is_refused() {
    on_a_host(|| {
        let host = Host::with(&["one"]);
        host.chain("1.0.0", &["one"]);
        let mut pod = TestPod::new(1);
        pod.name = "web;K8S_POD_NAMESPACE=kube-system".into();
        let err = cni_error(host.attach(&pod).unwrap_err());
        assert!(matches!(err, Error::BadArgument { what: "name", .. }), "{err}");
        assert_eq!(host.left(), [""; 0]);
    });
}
