// SPDX-License-Identifier: Apache-2.0
//! Pods whose plugins fail in DEL: the present configuration in place of one that cannot work, and an end of tries.

use crate::common::on_a_host;
use crate::support::{Host, TestPod, sentence};
use hull_network::cni::Error;
use std::fs;

const FAIL: &str = r#"echo '{"code": 107, "msg": "no such luck", "details": "really"}'; exit 1"#;
/// Fails while the configuration has `"bad": true`.
const REJECT: &str = r#"case "$input" in *'"bad":true'*) echo '{"code": 999, "msg": "invalid CIDR address: 10.82.0.0/33"}'; exit 1;; esac"#;

/// A network of plugin `one`, whose configuration it rejects if that is `bad`.
fn configure(host: &Host, bad: bool) {
    let plugin = if bad { r#"{"type": "one", "bad": true}"# } else { r#"{"type": "one"}"# };
    let text = format!(r#"{{"cniVersion": "1.0.0", "name": "pods", "plugins": [{plugin}]}}"#);
    host.conf("10-pods.conflist", &text);
}

/// The configuration is rejected, and corrected: the next DEL succeeds.
fn is_detached_by_the_corrected_configuration(mut host: Host, pod: &TestPod) {
    let err = host.cni.detach(&pod.id).unwrap_err();
    let hint = err.hint().unwrap();
    assert!(hint.contains("10-pods.conflist") && hint.contains("the next try"), "{hint}");
    configure(&host, false);
    // Also by a daemon that knows the pod from its record only.
    host.again(|_| {});
    host.calls();
    host.cni.detach(&pod.id).unwrap();
    let calls = host.called();
    let bad: Vec<_> = calls.iter().map(|of| of.all["input"]["bad"].as_bool()).collect();
    assert_eq!(bad, [Some(true), None], "{calls:?}");
    assert!(calls.iter().all(|of| of.verb == "DEL"), "{calls:?}");
    assert_eq!(host.left(), [""; 0]);
}

#[test]
fn a_pod_that_was_never_attached_is_detached_by_the_corrected_configuration() {
    on_a_host(|| {
        let host = Host::with(&["one"]);
        configure(&host, true);
        host.tell("one", "ADD", REJECT);
        host.tell("one", "DEL", REJECT);
        let pod = TestPod::new(1);
        let said = sentence(&host.attach(&pod).unwrap_err());
        assert!(said.contains("correct ") && said.contains("net.d/10-pods.conflist"), "{said}");
        is_detached_by_the_corrected_configuration(host, &pod);
    });
}

#[test]
fn a_pod_whose_configuration_only_del_rejects_is_detached_by_the_corrected_one() {
    on_a_host(|| {
        let host = Host::with(&["one"]);
        configure(&host, true);
        host.tell("one", "DEL", REJECT);
        let pod = TestPod::new(1);
        host.attach(&pod).unwrap();
        is_detached_by_the_corrected_configuration(host, &pod);
    });
}

#[test]
fn the_rest_of_the_recorded_chain_is_called_before_the_present_one() {
    on_a_host(|| {
        let host = Host::with(&["one", "two", "three"]);
        host.chain("0.4.0", &["one", "two"]);
        let pod = TestPod::new(1);
        host.attach(&pod).unwrap();
        fs::remove_file(host.bin("two")).unwrap();
        host.chain("1.0.0", &["one", "three"]);
        host.calls();
        host.cni.detach(&pod.id).unwrap();
        let calls = host.called();
        let order: Vec<_> = calls
            .iter()
            .map(|of| (of.verb.as_str(), of.plugin.as_str(), &of.all["input"]["cniVersion"]))
            .map(|(verb, plugin, version)| format!("{verb} {plugin} {version}"))
            .collect();
        let wanted = [r#"DEL one "0.4.0""#, r#"DEL three "1.0.0""#, r#"DEL one "1.0.0""#];
        assert_eq!(order, wanted);
        assert_eq!(host.left(), [""; 0]);
    });
}

#[test]
fn a_pod_whose_plugin_is_gone_is_detached_by_the_present_configuration() {
    on_a_host(|| {
        let host = Host::with(&["one", "two"]);
        host.chain("0.4.0", &["one"]);
        let pod = TestPod::new(1);
        host.attach(&pod).unwrap();
        fs::remove_file(host.bin("one")).unwrap();
        let err = host.cni.detach(&pod.id).unwrap_err();
        assert!(matches!(&err, Error::NoProgram { program, .. } if program == "one"), "{err}");
        host.chain("1.0.0", &["two"]);
        host.calls();
        host.cni.detach(&pod.id).unwrap();
        let calls = host.called();
        let [call] = &calls[..] else { panic!("{calls:?}") };
        assert_eq!((call.verb.as_str(), call.plugin.as_str()), ("DEL", "two"));
        assert_eq!(call.all["input"]["prevResult"]["cniVersion"], "1.0.0", "converted");
        assert_eq!(host.left(), [""; 0]);
    });
}

/// The seconds since the boot.
fn now_s() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap()
}

#[test]
fn plugins_that_never_succeed_do_not_keep_a_pod_for_ever() {
    on_a_host(|| {
        let mut host = Host::with(&["one", "two"]);
        host.chain("1.0.0", &["one", "two"]);
        host.tell("two", "DEL", FAIL);
        let pod = TestPod::new(1);
        for (is_attached, tries, seconds) in [(false, 10, 300), (true, 100, 6000)] {
            let began_s = now_s();
            if is_attached {
                host.attach(&pod).unwrap();
            } else {
                host.tell("two", "ADD", FAIL);
                host.attach(&pod).unwrap_err();
                host.untell("two", "ADD");
            }
            // Late, but not often enough. The attach that failed has tried once.
            let late_s = now_s() + seconds;
            for round in (if is_attached { 1 } else { 2 })..tries {
                let at_s = if round == 1 { began_s } else { late_s };
                host.cni.detach_at(&pod.id, at_s).unwrap_err();
                assert!(host.cni.is_attached(&pod.id), "{round}");
                // A restart does not begin the count again.
                if round == 5 {
                    host.again(|_| {});
                }
            }
            // Often, but not for long: callers that hurry do not spend the tries of an agent that is restarted.
            for _ in 0..3 {
                host.cni.detach_at(&pod.id, began_s + seconds - 1).unwrap_err();
            }
            host.calls();
            host.cni.detach_at(&pod.id, late_s).unwrap();
            assert_eq!(
                host.calls(),
                ["DEL two", "DEL two", "DEL one"],
                "those before it are called"
            );
            assert_eq!(host.left(), [""; 0]);
        }
    });
}

#[test]
fn a_network_that_is_given_up_is_not_called_again_and_the_others_have_their_own_tries() {
    on_a_host(|| {
        let mut host = Host::with(&["one", "two"]);
        host.again(|config| config.networks_max = 2);
        host.conf("10.conf", r#"{"cniVersion": "1.0.0", "name": "first", "type": "one"}"#);
        host.conf("20.conf", r#"{"cniVersion": "1.0.0", "name": "second", "type": "two"}"#);
        for (plugin, verb) in [("two", "ADD"), ("two", "DEL"), ("one", "DEL")] {
            host.tell(plugin, verb, FAIL);
        }
        let pod = TestPod::new(1);
        host.attach(&pod).unwrap_err();
        let late_s = now_s() + 300;
        for _ in 2..10 {
            host.cni.detach_at(&pod.id, late_s).unwrap_err();
        }
        host.calls();
        host.cni.detach_at(&pod.id, late_s).unwrap_err();
        assert_eq!(host.calls(), ["DEL two", "DEL two", "DEL one"]);
        // Not by a later daemon either.
        host.again(|config| config.networks_max = 2);
        for _ in 1..99 {
            host.cni.detach_at(&pod.id, late_s + 6000).unwrap_err();
        }
        assert!(host.calls().iter().all(|call| call == "DEL one"));
        host.cni.detach_at(&pod.id, late_s + 6000).unwrap();
        assert_eq!(host.left(), [""; 0]);
    });
}
