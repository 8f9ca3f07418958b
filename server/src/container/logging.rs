// SPDX-License-Identifier: Apache-2.0
//! The rules of a container's log: from the settings of the node, and the annotations of its pod.
//!
//! ```text
//! annotation of the container ─ else ─▶ of the pod, with its name ─ else ─▶ of the pod ─ else ─▶ [logs]
//! ```
//!
//! The rule: the author of a pod may lower a limit of the node, and never raise it: that is refused, not ignored.

use super::ContainerRecord;
use crate::config::Size;
use crate::config::logs::{BURST_DEFAULT, BURST_MIN, FILE_MIN, Logs, OverRate, RATE_MIN};
use crate::error::{Chain, Error};
use crate::monitors::{self, Client};
use crate::pod::{PodRecord, run_pods};
use hull_proto::cri;
use hull_proto::monitor::{LogPolicy, LogRate, LogRotation, Logging, VERSION_LOGGING};
use hull_sys::text::shown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use tracing::warn;

/// Annotations of pods and containers.
const RATE: &str = "hull.run/log-rate-limit";
const BURST: &str = "hull.run/log-burst";
const OVER_RATE: &str = "hull.run/log-over-rate";
const SIZE: &str = "hull.run/log-size-max";
/// All of them: authors of pods may set these.
const ANNOTATIONS: [&str; 4] = [RATE, BURST, OVER_RATE, SIZE];

/// Most text of a journal's field, in bytes.
const FIELD_BYTES_MAX: usize = 512;
/// Digits of a short id, as docker's journal driver has it.
const SHORT_ID: usize = 12;
/// Longest name of a log that is rotated, in bytes: a number follows it, in a name of at most 255.
const ROTATED_NAME_BYTES_MAX: usize = 247;

/// Whether an annotation is one that the author of a pod may set.
pub(crate) fn is_annotation(key: &str) -> bool {
    ANNOTATIONS
        .iter()
        .any(|of| key.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// The rules of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogRules {
    pub(crate) rate: Option<LogRate>,
    pub(crate) size_max: Option<Size>,
    pub(crate) rotate: Option<(Size, u32)>,
    pub(crate) journald: bool,
    /// An annotation, not only the node, asks for them.
    is_asked: bool,
}

/// The rules of a container's log.
///
/// # Errors
/// An annotation makes no sense, or asks for more than the node allows.
pub(crate) fn rules(
    settings: &Logs,
    pod: &PodRecord,
    config: &cri::ContainerConfig,
) -> Result<LogRules, Error> {
    let asked = Asked::of(pod, config)?;
    let limit = lower(RATE, "logs.rate_limit", asked.rate, settings.rate_limit)?;
    let over_rate = asked.over_rate.unwrap_or(settings.over_rate);
    let rate = match limit {
        Some(limit) => {
            let wanted = lower(BURST, "logs.burst", asked.burst, settings.burst)?;
            let burst = wanted.unwrap_or(limit.max(BURST_DEFAULT));
            let policy = match over_rate {
                OverRate::Drop => LogPolicy::Drop,
                OverRate::Wait => LogPolicy::Wait,
            };
            Some(LogRate { bytes_per_s: limit.bytes(), burst_bytes: burst.bytes(), policy })
        }
        None if asked.burst.is_some() || asked.over_rate.is_some() => {
            let field = if asked.burst.is_some() { BURST } else { OVER_RATE };
            let why = format!("it has no effect without a rate; set `{RATE}` too");
            return Err(Error::Invalid { field, why });
        }
        None => None,
    };
    let size_max = lower(SIZE, "logs.size_max", asked.size_max, settings.size_max)?;
    let rotates = !run_pods::is_of_kubelet(pod, config) && !config.log_path.is_empty();
    let rotate = settings.rotate_size.filter(|_| rotates).map(|of| (of, settings.rotate_files));
    let name = file_name(&config.log_path);
    if rotate.is_some() && name.len() > ROTATED_NAME_BYTES_MAX {
        let why = format!(
            "its file name is longer than {ROTATED_NAME_BYTES_MAX} bytes, too long for rotated files; shorten it, or unset `logs.rotate_size`"
        );
        return Err(Error::Invalid { field: "config.log_path", why });
    }
    let is_asked = asked.rate.is_some() || asked.size_max.is_some() || asked.over_rate.is_some();
    Ok(LogRules { rate, size_max, rotate, journald: settings.journald, is_asked })
}

/// The requests of annotations.
struct Asked {
    rate: Option<Size>,
    burst: Option<Size>,
    over_rate: Option<OverRate>,
    size_max: Option<Size>,
}

impl Asked {
    fn of(pod: &PodRecord, config: &cri::ContainerConfig) -> Result<Self, Error> {
        let size = |key: &'static str, min: Size| {
            let Some(text) = value(key, pod, config) else { return Ok(None) };
            let bad = |why: String| Error::Invalid {
                field: key,
                why: format!("`{}`: {why}", shown(text, FIELD_BYTES_MAX)),
            };
            match Size::parse(text) {
                Ok(size) if size < min => Err(bad(format!("it must be at least {min}"))),
                Ok(size) => Ok(Some(size)),
                Err(why) => Err(bad(why.to_owned())),
            }
        };
        let over_rate = match value(OVER_RATE, pod, config) {
            None => None,
            Some("drop") => Some(OverRate::Drop),
            Some("wait") => Some(OverRate::Wait),
            Some(other) => {
                let other = shown(other, FIELD_BYTES_MAX);
                let why = format!("`{other}` is neither `drop` nor `wait`");
                return Err(Error::Invalid { field: OVER_RATE, why });
            }
        };
        Ok(Self {
            rate: size(RATE, RATE_MIN)?,
            burst: size(BURST, BURST_MIN)?,
            over_rate,
            size_max: size(SIZE, FILE_MIN)?,
        })
    }
}

/// The value of an annotation: the container's own, else the pod's for it, else the pod's.
pub(super) fn value<'a>(
    key: &str,
    pod: &'a PodRecord,
    config: &'a cri::ContainerConfig,
) -> Option<&'a str> {
    let of_pod = &pod.config.annotations;
    let named = || {
        let name = config.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
        of_pod.get(&format!("{key}.{name}"))
    };
    let found = config.annotations.get(key).or_else(named).or_else(|| of_pod.get(key));
    found.map(String::as_str)
}

/// The limit that an annotation asks for, which that of the node bounds.
pub(super) fn lower(
    field: &'static str,
    setting: &str,
    asked: Option<Size>,
    of_node: Option<Size>,
) -> Result<Option<Size>, Error> {
    match (asked, of_node) {
        (Some(asked), Some(node)) if asked > node => {
            let why = format!(
                "{asked} is more than this node allows, {node} (`{setting}`); ask for less, or raise the setting"
            );
            Err(Error::Invalid { field, why })
        }
        (asked, of_node) => Ok(asked.or(of_node)),
    }
}

/// The name of a log's file.
fn file_name(path: &str) -> &str {
    Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The rules as the monitor gets them, with the descriptors that it needs for them; `None` if there are none.
///
/// # Errors
/// The pod's monitor is of an earlier release, and the pod asks for a limit.
pub(crate) fn for_monitor(
    settings: &Logs,
    client: &Client,
    (pod, record): (&PodRecord, &ContainerRecord),
    directory: Option<OwnedFd>,
) -> Result<Option<(Logging, Vec<OwnedFd>)>, Error> {
    let rules = rules(settings, pod, &record.config)?;
    if rules.rate.is_none() && rules.size_max.is_none() && rules.rotate.is_none() && !rules.journald
    {
        return Ok(None);
    }
    let version = client.version();
    if version < VERSION_LOGGING {
        if rules.is_asked {
            let source = monitors::Error::CannotLimitLogs { version };
            return Err(Error::Monitor { doing: "start the container", source });
        }
        warn!(
            container = record.id.get(..SHORT_ID),
            version,
            hint = "delete the pod, so that it is created again with this release's monitor",
            "the settings of `[logs]` have no effect on a container: an older hull started its pod"
        );
        return Ok(None);
    }
    let mut fds = Vec::new();
    let rotate = rules.rotate.zip(directory).map(|((size, files), directory)| {
        fds.push(directory);
        let name = file_name(&record.config.log_path).to_owned();
        LogRotation { name, size: size.bytes(), files }
    });
    let journal = if rules.journald { connected(settings, record) } else { None };
    let journal = journal.map(|socket| {
        fds.push(socket);
        fields(pod, record)
    });
    let size_max = rules.size_max.map(Size::bytes);
    Ok(Some((Logging { rate: rules.rate, size_max, rotate, journal }, fds)))
}

/// A socket that is connected to journald. Without it, the log is only in its file: no container fails to start for
/// that.
fn connected(settings: &Logs, record: &ContainerRecord) -> Option<OwnedFd> {
    let path = &settings.journald_socket;
    let connected = UnixDatagram::unbound().and_then(|socket| {
        socket.connect(path)?;
        Ok(socket.into())
    });
    connected
        .inspect_err(|err| {
            warn!(
                container = record.id.get(..SHORT_ID), socket = %path.display(), error = %Chain(err),
                hint = "start systemd-journald, or set `logs.journald = false`",
                "journald is not there; the output of a container is only in its log"
            );
        })
        .ok()
}

/// The fields of every entry of a container, each with its line end.
fn fields(pod: &PodRecord, record: &ContainerRecord) -> Vec<u8> {
    let metadata = pod.config.metadata.clone().unwrap_or_default();
    let (name, _) = record.metadata();
    let id = record.id.as_str();
    let short = id.get(..SHORT_ID).unwrap_or(id);
    let fields = [
        ("SYSLOG_IDENTIFIER", name),
        ("CONTAINER_NAME", name),
        ("CONTAINER_ID", short),
        ("CONTAINER_ID_FULL", id),
        ("POD_NAME", metadata.name.as_str()),
        ("POD_NAMESPACE", metadata.namespace.as_str()),
        ("POD_UID", metadata.uid.as_str()),
        ("IMAGE_NAME", record.image_name()),
    ];
    // A line end in a value would begin another field.
    let line = |(key, value)| format!("{key}={}\n", shown(value, FIELD_BYTES_MAX));
    fields.into_iter().map(line).collect::<String>().into_bytes()
}

/// The rules of a log, and what is missing in it, for the verbose status.
pub(crate) fn info(
    settings: &Logs,
    pod: &PodRecord,
    record: &ContainerRecord,
) -> serde_json::Value {
    let mut info = serde_json::json!({ "dropped": record.log_loss });
    let rules = rules(settings, pod, &record.config).ok();
    let (Some(rules), Some(of)) = (rules, info.as_object_mut()) else { return info };
    if let Some(rate) = rules.rate {
        let over = match rate.policy {
            LogPolicy::Drop => OverRate::Drop,
            LogPolicy::Wait => OverRate::Wait,
        };
        of.insert("rateLimitBytes".into(), rate.bytes_per_s.into());
        of.insert("burstBytes".into(), rate.burst_bytes.into());
        of.insert("overRate".into(), over.name().into());
    }
    if let Some(size) = rules.size_max {
        of.insert("sizeMaxBytes".into(), size.bytes().into());
    }
    if let Some((size, files)) = rules.rotate {
        of.insert("rotateSizeBytes".into(), size.bytes().into());
        of.insert("rotateFiles".into(), files.into());
    }
    of.insert("journald".into(), rules.journald.into());
    info
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::HashMap;

    fn annotations(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// A pod with these annotations.
    pub(in crate::container) fn pod(of_pod: &[(&str, &str)]) -> PodRecord {
        PodRecord {
            id: "p".into(),
            config: cri::PodSandboxConfig {
                annotations: annotations(of_pod),
                ..Default::default()
            },
            assigned_userns: None,
            handler: String::new(),
            handler_settings: None,
            created_ns: 0,
            cgroup: "/p".into(),
            cgroup_is_ours: true,
            state: crate::pod::State::Stopped,
            last_ready: None,
            restarts_cancelled: std::collections::BTreeSet::new(),
        }
    }

    fn asked(
        settings: &Logs,
        of_pod: &[(&str, &str)],
        of_container: &[(&str, &str)],
    ) -> Result<LogRules, Error> {
        let pod = pod(of_pod);
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: "web".into(), attempt: 0 }),
            annotations: annotations(of_container),
            log_path: "0.log".into(),
            ..Default::default()
        };
        rules(settings, &pod, &config)
    }

    #[test]
    fn the_nearest_annotation_counts_and_may_only_lower_a_limit() {
        let node = Logs { rate_limit: Some(Size::of(1 << 20)), ..Logs::default() };
        let rate = |of: Result<LogRules, Error>| of.unwrap().rate.unwrap();
        let default = rate(asked(&node, &[], &[]));
        assert_eq!((default.bytes_per_s, default.burst_bytes), (1 << 20, 1 << 20));
        assert_eq!(default.policy, LogPolicy::Drop);
        let pod = [(RATE, "64k"), ("hull.run/log-rate-limit.web", "32k"), (OVER_RATE, "wait")];
        let named = rate(asked(&node, &pod, &[]));
        assert_eq!((named.bytes_per_s, named.burst_bytes), (32 << 10, 64 << 10));
        assert_eq!(named.policy, LogPolicy::Wait);
        assert_eq!(rate(asked(&node, &pod, &[(RATE, "2Ki")])).bytes_per_s, 2048);
        let refused = asked(&node, &[(RATE, "2m")], &[]).unwrap_err().to_string();
        assert!(refused.contains("2m is more than this node allows, 1m"), "{refused}");
    }

    #[test]
    fn an_annotation_without_sense_is_refused_by_its_name() {
        for (key, text) in [
            (RATE, "fast"),
            (RATE, "1"),
            (BURST, "1m"),
            (OVER_RATE, "wait"),
            (OVER_RATE, "block"),
            (SIZE, "1k"),
        ] {
            let refused = asked(&Logs::default(), &[(key, text)], &[]).unwrap_err().to_string();
            assert!(refused.contains(key), "{refused}");
        }
    }

    #[test]
    fn annotations_for_one_container_are_known() {
        assert!(is_annotation(RATE) && is_annotation("hull.run/log-size-max.web"));
        assert!(!is_annotation("hull.run/log-rate-limits") && !is_annotation("hull.run/remove"));
    }

    #[test]
    fn a_monitor_of_an_earlier_release_gets_no_rules_and_a_request_for_them_is_refused() {
        let record: ContainerRecord = serde_json::from_value(serde_json::json!({
            "id": "0123456789abcdef", "pod": "p", "config": {}, "image_id": "i", "image_ref": "i",
            "created_ns": 0, "cgroup": "/c", "log_path": "", "user": null, "stop_signal": 15,
            "state": crate::container::State::Created,
        }))
        .unwrap();
        let node = Logs { rate_limit: Some(Size::of(1 << 20)), ..Logs::default() };
        let (plain, asking) = (pod(&[]), pod(&[(RATE, "64k")]));
        let of = |version, pod: &PodRecord| {
            for_monitor(&node, &Client::of_version(version), (pod, &record), None)
        };
        assert!(of(VERSION_LOGGING, &plain).unwrap().is_some());
        assert!(of(VERSION_LOGGING - 1, &plain).unwrap().is_none());
        let refused = of(VERSION_LOGGING - 1, &asking).unwrap_err();
        assert!(Chain(&refused).to_string().contains("limit its log"), "{}", Chain(&refused));
        assert!(refused.hint().unwrap().starts_with("delete the pod"));
    }
}
