// SPDX-License-Identifier: Apache-2.0
//! The limit of a container's writable layer: from the settings of the node, and the annotations of its pod.
//!
//! A node whose filesystem has no project quotas gives containers no limit by its own settings, which the container's
//! remarks say; a pod that asks for one is refused there.

use super::logging::{lower, value};
use crate::config::{LAYER_MIN, Size};
use crate::error::Error;
use crate::node::Node;
use crate::pod::PodRecord;
use hull_proto::cri;
use hull_sys::text::shown;
use std::borrow::Cow;

/// The annotation of pods and containers, and of `hull run --storage-opt size=SIZE`.
pub(crate) const ANNOTATION: &str = "hull.run/writable-layer-size";
/// The setting of the node.
pub(crate) const SETTING: &str = "runtime.writable_layer_size";
/// Whether an annotation is this one.
pub(crate) fn is_annotation(key: &str) -> bool {
    let rest = key.strip_prefix(ANNOTATION);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The limit of a writable layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerLimit {
    None,
    /// Asked for by the node's settings.
    OfNode(Size),
    /// Asked for by the author of the pod.
    OfPod(Size),
}

/// The setting of the pod's handler, else of the node, with its name.
fn setting(of_node: Option<Size>, pod: &PodRecord) -> (Cow<'static, str>, Option<Size>) {
    let of_handler = pod.handler_settings.as_ref().and_then(|of| of.writable_layer_size);
    match of_handler {
        Some(size) => {
            let name = format!("runtime.handlers.{}.writable_layer_size", pod.handler);
            (name.into(), Some(size))
        }
        None => (SETTING.into(), of_node),
    }
}

/// The limit that a container asks for, and that of its handler or the node.
///
/// # Errors
/// The annotation makes no sense, or asks for more than the node allows.
pub(crate) fn wanted(
    of_node: Option<Size>,
    pod: &PodRecord,
    config: &cri::ContainerConfig,
) -> Result<LayerLimit, Error> {
    let (name, setting) = setting(of_node, pod);
    let Some(text) = value(ANNOTATION, pod, config) else {
        return Ok(setting.map_or(LayerLimit::None, LayerLimit::OfNode));
    };
    let bad = |why: String| Error::Invalid { field: ANNOTATION, why };
    let text = shown(text, 80);
    let size = Size::parse(&text).map_err(|why| bad(format!("`{text}`: {why}")))?;
    if size < LAYER_MIN {
        return Err(bad(format!("`{text}`: it must be at least {LAYER_MIN}")));
    }
    let size = lower(ANNOTATION, &name, Some(size), setting)?;
    Ok(size.map_or(LayerLimit::None, LayerLimit::OfPod))
}

/// The limit to set, and a remark if the node cannot set the one that it is to have.
///
/// # Errors
/// The pod asks for a limit that this node cannot set.
pub(crate) fn of(
    node: &Node,
    pod: &PodRecord,
    config: &cri::ContainerConfig,
) -> Result<(Option<u64>, Option<String>), Error> {
    let of_node = node.config.current().runtime.writable_layer_size;
    let (name, _) = setting(of_node, pod);
    let wanted = wanted(of_node, pod, config)?;
    let (size, is_asked) = match wanted {
        LayerLimit::None => return Ok((None, None)),
        LayerLimit::OfNode(size) => (size, false),
        LayerLimit::OfPod(size) => (size, true),
    };
    match node.images.check_quotas() {
        Ok(()) => Ok((Some(size.bytes()), None)),
        Err(why) if is_asked => {
            let directory = node.config.current().data_dir.display().to_string();
            Err(Error::NoQuotas { directory, why })
        }
        Err(why) => {
            let remark =
                format!("its writable layer has no limit, though `{name}` is {size}: {why}");
            Ok((None, Some(remark)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_may_have_a_smaller_layer_than_the_node_gives_and_no_larger_one() {
        let pod = super::super::logging::tests::pod(&[(ANNOTATION, "100m")]);
        let config = cri::ContainerConfig::default();
        let size = |text| Size::parse(text).unwrap();
        assert_eq!(wanted(None, &pod, &config).unwrap(), LayerLimit::OfPod(size("100m")));
        assert_eq!(
            wanted(Some(size("1g")), &pod, &config).unwrap(),
            LayerLimit::OfPod(size("100m"))
        );
        let refused = wanted(Some(size("50m")), &pod, &config).unwrap_err().to_string();
        assert!(refused.contains("more than this node allows, 50m"), "{refused}");
        let mut of_handler = pod.clone();
        of_handler.handler = "small".into();
        of_handler.handler_settings = Some(crate::config::Handler {
            writable_layer_size: Some(size("50m")),
            ..Default::default()
        });
        let refused = wanted(None, &of_handler, &config).unwrap_err().to_string();
        assert!(refused.contains("`runtime.handlers.small.writable_layer_size`"), "{refused}");
        of_handler.config = cri::PodSandboxConfig::default();
        let limit = wanted(Some(size("1g")), &of_handler, &config).unwrap();
        assert_eq!(limit, LayerLimit::OfNode(size("50m")));
        let plain = super::super::logging::tests::pod(&[]);
        assert_eq!(
            wanted(Some(size("1g")), &plain, &config).unwrap(),
            LayerLimit::OfNode(size("1g"))
        );
        for text in ["1k", "much", "-1"] {
            let pod = super::super::logging::tests::pod(&[(ANNOTATION, text)]);
            let refused = wanted(None, &pod, &config).unwrap_err().to_string();
            assert!(refused.contains(ANNOTATION), "{refused}");
        }
    }

    #[test]
    fn a_node_without_quotas_names_the_option_and_the_annotation() {
        let refused = Error::NoQuotas { directory: "/var/lib/hull".into(), why: "none".into() };
        let hint = refused.hint().unwrap();
        assert!(hint.contains("--storage-opt") && hint.contains(ANNOTATION), "{hint}");
    }
}
