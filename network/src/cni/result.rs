// SPDX-License-Identifier: Apache-2.0
//! ADD results of every CNI version, parsed into one form and written in any version.
//!
//! | versions | form |
//! |---|---|
//! | 0.1.0, 0.2.0 | `ip4` and `ip6`, no interfaces |
//! | 0.3.0 to 0.4.0 | `interfaces`, `ips` with a `version` each, `routes` |
//! | 1.0.0, 1.1.0 | the same without that `version` |
//!
//! Plugins answer in the version of the request, old plugins in a version of their own. Fields that later
//! versions added to interfaces, addresses and routes are kept unchanged.

use super::version::Version;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// A result in the form of the newest version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct AddResult {
    pub(super) interfaces: Vec<Interface>,
    pub(super) ips: Vec<Ip>,
    pub(super) routes: Vec<Map<String, Value>>,
    pub(super) dns: Map<String, Value>,
}

/// A link that the plugins created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Interface {
    pub(super) name: String,
    /// The pod's network namespace, or empty for a link on the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) sandbox: String,
    #[serde(flatten)]
    pub(super) more: Map<String, Value>,
}

/// An address that the plugins assigned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ip {
    pub(super) address: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gateway: Option<IpAddr>,
    /// The index of the interface with this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) interface: Option<usize>,
}

/// `ip4` or `ip6` of the oldest form.
#[derive(Debug, Deserialize)]
struct LegacyIp {
    ip: IpNet,
    #[serde(default)]
    gateway: Option<IpAddr>,
    #[serde(default)]
    routes: Vec<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
struct LegacyResult {
    #[serde(default)]
    ip4: Option<LegacyIp>,
    #[serde(default)]
    ip6: Option<LegacyIp>,
    #[serde(default)]
    dns: Map<String, Value>,
}

impl AddResult {
    /// Parses a result of any version.
    pub(super) fn read(value: &Value) -> Result<Self, String> {
        let Some(object) = value.as_object() else {
            return Err("a result is a JSON object".into());
        };
        // Some plugins write null for absent fields.
        let given = object.iter().filter(|(_, of)| !of.is_null());
        let value = &Value::Object(given.map(|(key, of)| (key.clone(), of.clone())).collect());
        let stated = value.get("cniVersion").and_then(Value::as_str);
        let oldest = matches!(stated, Some("0.1.0" | "0.2.0"))
            || value.get("ip4").is_some()
            || value.get("ip6").is_some();
        if oldest {
            let old: LegacyResult =
                serde_json::from_value(value.clone()).map_err(|err| err.to_string())?;
            return Ok(Self::from_legacy(old));
        }
        let outcome: Self = serde_json::from_value(value.clone()).map_err(|err| err.to_string())?;
        let beyond = |ip: &&Ip| ip.interface.is_some_and(|at| at >= outcome.interfaces.len());
        match outcome.ips.iter().find(beyond) {
            Some(ip) => Err(format!("{} refers to an interface that is not listed", ip.address)),
            None => Ok(outcome),
        }
    }

    fn from_legacy(old: LegacyResult) -> Self {
        let mut outcome = Self { dns: old.dns, ..Self::default() };
        for single in [old.ip4, old.ip6].into_iter().flatten() {
            let (address, gateway) = (single.ip, single.gateway);
            outcome.ips.push(Ip { address, gateway, interface: None });
            outcome.routes.extend(single.routes);
        }
        outcome
    }

    /// Formats the result for `version`.
    pub(super) fn write(&self, version: Version) -> Value {
        let mut ips: Vec<Value> = self.ips.iter().map(|ip| json!(ip)).collect();
        if version.names_families() {
            for (value, ip) in ips.iter_mut().zip(&self.ips) {
                value["version"] = json!(if ip.address.addr().is_ipv4() { "4" } else { "6" });
            }
        }
        json!({
            "cniVersion": version.text(),
            "interfaces": self.interfaces,
            "ips": ips,
            "routes": self.routes,
            "dns": self.dns,
        })
    }

    /// The addresses of the pod's link `name`, in the order of the result. An address without an interface
    /// counts as the pod's.
    pub(super) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let of = |ip: &&Ip| match ip.interface.and_then(|at| self.interfaces.get(at)) {
            Some(interface) => interface.name == name && !interface.sandbox.is_empty(),
            None => true,
        };
        self.ips.iter().filter(of).map(|ip| ip.address.addr()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn of_version(version: &str) -> Value {
        json!({
            "cniVersion": version,
            "interfaces": [
                {"name": "cni0", "mac": "02:00:00:00:00:01"},
                {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/x", "mtu": 1400},
            ],
            "ips": [
                {"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 1, "version": "4"},
                {"address": "fd00::5/64", "interface": 1, "version": "6"},
                {"address": "10.1.0.1/16", "interface": 0, "version": "4"},
            ],
            "routes": [{"dst": "0.0.0.0/0", "priority": 3}],
            "dns": {"nameservers": ["10.1.0.1"]},
        })
    }

    #[test]
    fn every_version_gives_the_pods_addresses() {
        for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let outcome = AddResult::read(&of_version(version)).unwrap();
            assert_eq!(outcome.addresses("eth0"), ips(&["10.1.0.5", "fd00::5"]), "{version}");
        }
        let oldest = json!({
            "cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.5/16", "routes": [{"dst": "0.0.0.0/0"}]},
            "ip6": {"ip": "fd00::5/64"},
        });
        let outcome = AddResult::read(&oldest).unwrap();
        assert_eq!(outcome.addresses("eth0"), ips(&["10.1.0.5", "fd00::5"]));
        assert_eq!(outcome.routes.len(), 1);
    }

    #[test]
    fn a_result_is_written_in_the_version_asked_for_and_loses_nothing() {
        let outcome = AddResult::read(&of_version("1.0.0")).unwrap();
        let old = outcome.write(Version::V0_4_0);
        assert_eq!(old["ips"][1]["version"], "6");
        assert_eq!(old["cniVersion"], "0.4.0");
        let new = outcome.write(Version::V1_1_0);
        assert_eq!(new["ips"][1].get("version"), None);
        assert_eq!(new["interfaces"][1]["mtu"], 1400);
        assert_eq!(new["routes"][0]["priority"], 3);
        for written in [old, new] {
            assert_eq!(AddResult::read(&written).unwrap(), outcome);
        }
    }

    #[test]
    fn addresses_without_interfaces_are_the_pods() {
        let outcome =
            AddResult::read(&json!({"ips": [{"address": "10.1.0.5/16"}], "routes": null})).unwrap();
        assert_eq!(outcome.addresses("eth0"), ips(&["10.1.0.5"]));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            json!(null),
            json!([]),
            json!({"ips": [{"address": "here"}]}),
            json!({"ips": [{"address": "10.1.0.5/16", "interface": 0}]}),
            json!({"ips": [{"address": "10.1.0.5/16", "interface": -1}]}),
            json!({"interfaces": {"name": "eth0"}, "ips": null}),
            json!({"cniVersion": "0.2.0", "ip4": {"ip": 7}}),
        ] {
            AddResult::read(&bad).unwrap_err();
        }
    }
}
