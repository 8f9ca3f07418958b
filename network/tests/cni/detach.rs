// SPDX-License-Identifier: Apache-2.0
//! Pods whose plugins fail in DEL: the present configuration in place of one that cannot work, and an end of tries.

use crate::common::on_a_host;
use crate::support::{Host, TestPod, sentence};
use hull_network::cni::Error;
use std::fs;

const FAIL: &str = r#"echo '{"code": 107, "msg": "no such luck", "details": "really"}'; exit 1"#;
/// Fails while the configuration has `"bad": true`.
const REJECT: &str = r#"case "$input" in *'"bad":true'*) echo '{"code": 999, "msg": "invalid CIDR address: 10.82.0.0/33"}'; exit 1;; esac"#;

#[test]
fn a_pod_that_was_never_attached_is_detached_by_the_corrected_configuration() {
    on_a_host(|| {
        let mut host = Host::with(&["one"]);
        let conf = |host: &Host, bad: bool| {
            let plugin = if bad { r#"{"type": "one", "bad": true}"# } else { r#"{"type": "one"}"# };
            let text =
                format!(r#"{{"cniVersion": "1.0.0", "name": "pods", "plugins": [{plugin}]}}"#);
            host.conf("10-pods.conflist", &text);
        };
        conf(&host, true);
        host.tell("one", "ADD", REJECT);
        host.tell("one", "DEL", REJECT);
        let pod = TestPod::new(1);
        let said = sentence(&host.attach(&pod).unwrap_err());
        assert!(said.contains("correct ") && said.contains("net.d/10-pods.conflist"), "{said}");
        let err = host.cni.detach(&pod.id).unwrap_err();
        let hint = err.hint().unwrap();
        assert!(hint.contains("10-pods.conflist") && hint.contains("the next try"), "{hint}");
        conf(&host, false);
        // Also by a daemon that knows the pod from its record only.
        host.again(|_| {});
        host.calls();
        host.cni.detach(&pod.id).unwrap();
        assert_eq!(host.calls(), ["DEL one", "DEL one"]);
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

#[test]
fn plugins_that_never_succeed_do_not_keep_a_pod_for_ever() {
    on_a_host(|| {
        let mut host = Host::with(&["one", "two"]);
        host.chain("1.0.0", &["one", "two"]);
        host.tell("two", "DEL", FAIL);
        let pod = TestPod::new(1);
        for (is_attached, tries) in [(false, 10), (true, 100)] {
            if is_attached {
                host.attach(&pod).unwrap();
            } else {
                host.tell("two", "ADD", FAIL);
                host.attach(&pod).unwrap_err();
                host.untell("two", "ADD");
            }
            // The attach that failed has tried once.
            for round in (if is_attached { 1 } else { 2 })..tries {
                host.cni.detach(&pod.id).unwrap_err();
                assert!(host.cni.is_attached(&pod.id), "{round}");
                // A restart does not begin the count again.
                if round == 5 {
                    host.again(|_| {});
                }
            }
            host.calls();
            host.cni.detach(&pod.id).unwrap();
            assert_eq!(
                host.calls(),
                ["DEL two", "DEL two", "DEL one"],
                "those before it are called"
            );
            assert_eq!(host.left(), [""; 0]);
        }
    });
}
