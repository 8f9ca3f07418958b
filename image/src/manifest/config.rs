// SPDX-License-Identifier: Apache-2.0
//! Configs of images.
//!
//! Pure. The rule: what Docker and containerd take is taken. The config keeps its bytes, of which its digest is.

use super::json;
use super::platform::{Machine, Platform};
use crate::digest::Digest;
use crate::error::{Cause, NAME_MAX, shown};
use crate::limits::IMAGE_VOLUMES;
use oci_spec::image::ImageConfiguration;
use serde_json::Value;

const WHAT: &str = "the image's config";
const KEYS: [&str; 7] = ["architecture", "os", "variant", "config", "rootfs", "created", "history"];
const CONFIG_KEYS: [&str; 8] =
    ["User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "StopSignal"];

/// The part of an image's config that a pull needs.
#[derive(Debug, Clone)]
pub(crate) struct ImageConfig {
    /// The diff ids of its layers, lowest first.
    pub(crate) diff_ids: Vec<Digest>,
    /// The platform that it states, if it does.
    pub(crate) platform: Option<Platform>,
}

/// Reads a config. Lists and maps may be absent, and so may the type of the root file system: there is only one.
pub(crate) fn configuration(bytes: &[u8]) -> Result<ImageConfiguration, String> {
    let mut value = json::parse(bytes)?;
    let top = value.as_object_mut().ok_or("it is not an object")?;
    json::respell(top, &KEYS);
    for key in ["architecture", "os"] {
        top.entry(key).or_insert_with(|| Value::String(String::new()));
    }
    if let Some(Value::Object(config)) = top.get_mut("config") {
        json::respell(config, &CONFIG_KEYS);
    }
    let rootfs = json::object(top, "rootfs").ok_or("its rootfs is not an object")?;
    json::respell(rootfs, &["type", "diff_ids"]);
    rootfs.entry("type").or_insert_with(|| "layers".into());
    rootfs.entry("diff_ids").or_insert_with(|| Value::Array(Vec::new()));
    serde_json::from_value(value).map_err(|err| err.to_string())
}

/// Reads the config of an image that is being added. Unless an index said that the image is for this machine,
/// the config's own words decide.
pub(crate) fn parse_config(
    bytes: &[u8],
    machine: &Machine,
    is_believed: bool,
) -> Result<ImageConfig, Cause> {
    let wrong = |why: String| Cause::Document { what: WHAT.into(), why };
    super::few_values(bytes, WHAT)?;
    let config = configuration(bytes).map_err(wrong)?;
    let platform = Platform {
        os: config.os().to_string(),
        architecture: config.architecture().to_string(),
        variant: config.variant().clone(),
        ..Platform::default()
    };
    // Machine-made images of long ago do not say what they are for.
    let is_said = !platform.os.is_empty() && !platform.architecture.is_empty();
    if is_said && !is_believed && machine.rank(&platform).is_none() {
        return Err(Cause::Platform { want: machine.shown(), there: platform.shown() });
    }
    let volumes = config.config().as_ref().and_then(|of| of.volumes().as_ref());
    let (volumes, max) = (volumes.map_or(0, Vec::len), IMAGE_VOLUMES.count());
    if volumes > max {
        let name = IMAGE_VOLUMES.name;
        return Err(wrong(format!(
            "it defines {volumes} volumes (VOLUME), more than the {max} that are allowed (`{name}`)"
        )));
    }
    let diff_ids: Result<Vec<Digest>, Cause> = config
        .rootfs()
        .diff_ids()
        .iter()
        .map(|text| {
            Digest::parse(text).ok_or_else(|| {
                wrong(format!("diff id `{}` is not a digest", shown(text, NAME_MAX)))
            })
        })
        .collect();
    Ok(ImageConfig { diff_ids: diff_ids?, platform: is_said.then_some(platform) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> ImageConfiguration {
        configuration(text.as_bytes()).unwrap()
    }

    #[test]
    fn lists_that_are_null_or_absent_are_empty() {
        for rootfs in [
            r#"{"type": "layers"}"#,
            r#"{"type": "layers", "diff_ids": null}"#,
            r#"{"diff_ids": []}"#,
            "null",
            "{}",
        ] {
            let text = format!(r#"{{"os": "linux", "architecture": "amd64", "rootfs": {rootfs}}}"#);
            assert!(read(&text).rootfs().diff_ids().is_empty(), "{rootfs}");
        }
        assert!(read("{}").config().is_none());
        let nulls = r#"{"config": {"Cmd": null, "Env": null, "Volumes": {"/d": null},
            "ExposedPorts": null, "Labels": {"a": null}, "User": null}, "history": null,
            "created": null, "os": "windows", "os": "linux", "variant": null}"#;
        let of = read(nulls);
        assert_eq!(of.os().to_string(), "linux");
        let config = of.config().as_ref().unwrap();
        assert_eq!(config.volumes().as_deref(), Some(&["/d".to_owned()][..]));
        assert_eq!(config.labels().as_ref().unwrap()["a"], "");
        assert!(config.cmd().is_none() && config.user().is_none());
        let lower = r#"{"config": {"cmd": ["x"], "env": ["A=b"], "workingdir": "/w"}}"#;
        let config = read(lower).config().clone().unwrap();
        assert_eq!(config.cmd().as_deref(), Some(&["x".to_owned()][..]));
        assert_eq!(config.working_dir().as_deref(), Some("/w"));
        for bad in ["[]", "1", r#"{"rootfs": []}"#, r#"{"config": {"Cmd": "text"}}"#] {
            assert!(configuration(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_config_with_too_many_volumes_is_refused() {
        let parse = |count: u32| {
            let volumes: serde_json::Map<_, _> =
                (0..count).map(|number| (format!("/v{number}"), json!({}))).collect();
            let text = json!({"config": {"Volumes": volumes}}).to_string();
            parse_config(text.as_bytes(), &Machine::this(), true)
        };
        assert!(parse(256).is_ok());
        let err = parse(300).unwrap_err().to_string();
        assert!(err.contains("300 volumes (VOLUME), more than the 256"), "{err}");
    }

    #[test]
    fn a_config_for_another_machine_is_refused_unless_the_index_says_otherwise() {
        let config = json!({"os": "linux", "architecture": "s390x", "rootfs": {"type": "layers", "diff_ids": []}});
        let text = config.to_string();
        let err = parse_config(text.as_bytes(), &Machine::this(), false).unwrap_err();
        assert!(matches!(err, Cause::Platform { .. }), "{err}");
        let believed = parse_config(text.as_bytes(), &Machine::this(), true).unwrap();
        assert_eq!(believed.platform.map(|of| of.shown()).as_deref(), Some("linux/s390x"));
    }
}
