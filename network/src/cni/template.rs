// SPDX-License-Identifier: Apache-2.0
//! Generates a network configuration from a template and the kubelet's pod subnets, for clusters whose
//! network plugin is configured by the runtime.
//!
//! A template is JSON with two placeholders: `{{.PodCIDR}}`, the first subnet, and `{{.PodCIDRRanges}}`,
//! host-local's `ranges` with all of them. Other template directives are errors. The file belongs to Hull;
//! it is not written while another file defines a network.

use super::args::ranges;
use super::conf;
use super::error::Error;
use hull_records::{Durability, Location, PRIVATE, replace};
use ipnet::IpNet;
use std::fs;
use std::path::Path;

/// The name of the generated file.
pub(super) const FILE: &str = "10-hull.conflist";

/// Writes the configuration, unless another network is configured. Returns whether it was written.
pub(super) fn fill(template: &Path, dir: &Path, pod_cidr: &[IpNet]) -> Result<bool, Error> {
    let ours = dir.join(FILE);
    let found =
        conf::read(dir).map_err(|source| Error::ReadConf { dir: dir.to_owned(), source })?;
    if found.networks.iter().any(|network| network.file != ours) {
        return Ok(false);
    }
    let text = fs::read_to_string(template)
        .map_err(|source| Error::ReadTemplate { path: template.to_owned(), source })?;
    let bad = |why| Error::BadTemplate { path: template.to_owned(), why };
    let filled = filled(&text, pod_cidr).map_err(bad)?;
    conf::network(&ours, &filled).map_err(bad)?;
    write(&ours, dir, &filled)?;
    Ok(true)
}

fn write(file: &Path, dir: &Path, text: &str) -> Result<(), Error> {
    let failed = |source| Error::WriteConf { path: file.to_owned(), source };
    fs::create_dir_all(dir).map_err(failed)?;
    let scratch = file.with_extension("new");
    let (file, scratch) = (Location::at(file), Location::at(&scratch));
    replace(file, scratch, text.as_bytes(), PRIVATE, Durability::Process)
        .map_err(|err| failed(err.errno().into()))
}

fn filled(template: &str, pod_cidr: &[IpNet]) -> Result<String, String> {
    let first = pod_cidr.first().ok_or("the kubelet reported no pod subnet")?;
    let text = template
        .replace("{{.PodCIDR}}", &first.to_string())
        .replace("{{.PodCIDRRanges}}", &ranges(pod_cidr).to_string());
    match text.find("{{") {
        None => Ok(text),
        Some(at) => {
            let rest: String = text[at..].chars().take(40).collect();
            Err(format!("{rest:?} is not supported"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = r#"{"cniVersion": "0.4.0", "name": "pods", "plugins": [
        {"type": "ptp", "ipam": {"type": "host-local", "subnet": "{{.PodCIDR}}", "ranges": {{.PodCIDRRanges}}}}]}"#;

    fn subnets() -> Vec<IpNet> {
        ["10.1.0.0/24", "fd00:1::/64"].iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn subnets_are_filled_in_and_the_file_is_a_network() {
        let dir = tempfile::tempdir().unwrap();
        let template = dir.path().join("template");
        fs::write(&template, TEMPLATE).unwrap();
        let conf_dir = dir.path().join("net.d");
        assert!(fill(&template, &conf_dir, &subnets()).unwrap());
        let found = conf::read(&conf_dir).unwrap();
        let ipam = &found.networks[0].plugins[0].object["ipam"];
        assert_eq!(ipam["subnet"], "10.1.0.0/24");
        assert_eq!(ipam["ranges"][1][0]["subnet"], "fd00:1::/64");
        // A second call replaces our file; another network prevents it.
        assert!(fill(&template, &conf_dir, &subnets()[..1]).unwrap());
        fs::write(
            conf_dir.join("20.conflist"),
            r#"{"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "x"}]}"#,
        )
        .unwrap();
        assert!(!fill(&template, &conf_dir, &subnets()).unwrap());
    }

    #[test]
    fn what_is_not_known_is_said() {
        let err = filled("{{range .Routes}}", &subnets()).unwrap_err();
        assert!(err.contains("range .Routes"), "{err}");
        filled(TEMPLATE, &[]).unwrap_err();
    }
}
