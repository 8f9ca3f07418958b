// SPDX-License-Identifier: Apache-2.0
//! Parses the values of the less frequent flags of `hull run`. Pure.

use super::error::{Error, Result};
use super::parse;
use crate::container::{logging, quota};
use crate::oci_spec::CGROUP_WRITABLE;
use crate::pod::run_pods;
use hull_proto::cri as api;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

/// Length of the range of ids of --userns.
const USERNS_IDS: u32 = 65_536;
/// Longest name of a volume, in bytes.
const VOLUME_NAME_BYTES_MAX: usize = 128;

fn bad(flag: &'static str, value: &str, why: impl Into<String>) -> Error {
    Error::BadFlag { flag, value: value.to_owned(), why: why.into() }
}

/// The directories of volumes.
#[derive(Debug)]
pub(crate) struct Volumes<'a> {
    /// Of named volumes, below `data_dir`.
    pub(crate) named: &'a Path,
    /// Of volumes without a name, which go with the pod.
    pub(crate) unnamed: &'a Path,
    /// The directory that relative paths begin in.
    pub(crate) here: &'a Path,
}

/// The mounts of a container, the directories to create for them, and its tmpfs.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    pub(crate) mounts: Vec<api::Mount>,
    pub(crate) create: Vec<PathBuf>,
    /// In the form of [`crate::oci_spec::run_options::TMPFS`].
    pub(crate) tmpfs: Vec<String>,
}

impl Mounts {
    /// Adds the mount of a --volume.
    pub(crate) fn volume(&mut self, text: &str, at: &Volumes<'_>) -> Result<()> {
        let is_unnamed = text.starts_with('/') && !text.contains(':');
        let (source, rest) =
            if is_unnamed { ("", text) } else { text.split_once(':').unwrap_or((text, "")) };
        let host = self.source("--volume", text, source, at)?;
        self.mounts.push(parse::volume(text, &host, rest)?);
        Ok(())
    }

    /// The path on the host of a source: a path, or the name of a volume.
    fn source(
        &mut self,
        flag: &'static str,
        whole: &str,
        source: &str,
        at: &Volumes<'_>,
    ) -> Result<String> {
        let path = if source.is_empty() {
            self.directory(at.unnamed.join(self.create.len().to_string()))
        } else if source.starts_with(['/', '.']) {
            normal(&at.here.join(source))
        } else {
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            if source.len() > VOLUME_NAME_BYTES_MAX || !source.bytes().all(is_plain) {
                let why = format!(
                    "`{source}` is neither a path nor a name of letters, digits, `-`, `.` and `_`"
                );
                return Err(bad(flag, whole, why));
            }
            self.directory(at.named.join(source))
        };
        path.to_str().map(str::to_owned).ok_or_else(|| bad(flag, whole, "its path is not UTF-8"))
    }

    fn directory(&mut self, path: PathBuf) -> PathBuf {
        self.create.push(path.clone());
        path
    }

    /// Adds the mount of a --mount.
    pub(crate) fn mount(&mut self, text: &str, at: &Volumes<'_>) -> Result<()> {
        const FLAG: &str = "--mount";
        let bad = |why: String| bad(FLAG, text, why);
        let mut of = MountKeys::default();
        for part in text.split(',') {
            let (key, value) = part.split_once('=').unwrap_or((part, "true"));
            let value = value.to_owned();
            match key {
                "type" => of.kind = value,
                "src" | "source" => of.source = value,
                "dst" | "destination" | "target" => of.target = value,
                "ro" | "readonly" => of.read_only = boolean(&value).map_err(bad)?,
                "rro" => {
                    of.recursive = boolean(&value).map_err(bad)?;
                    of.read_only |= of.recursive;
                }
                "propagation" | "bind-propagation" => of.propagation = value,
                "subpath" => of.subpath = value,
                "tmpfs-size" | "size" => of.tmpfs.push(format!("size={value}")),
                "tmpfs-mode" | "mode" => of.tmpfs.push(format!("mode={value}")),
                other => return Err(bad(format!("`{other}` is not a key of a mount"))),
            }
        }
        if !of.target.starts_with('/') {
            return Err(bad("it has no absolute dst".into()));
        }
        if !of.tmpfs.is_empty() && of.kind != "tmpfs" {
            return Err(bad("size and mode are options of a tmpfs".into()));
        }
        let options =
            if of.propagation.is_empty() { String::new() } else { format!(":{}", of.propagation) };
        match of.kind.as_str() {
            "tmpfs" => {
                self.tmpfs.push(of.into_tmpfs().map_err(bad)?);
                return Ok(());
            }
            "image" if !of.propagation.is_empty() => {
                return Err(bad("propagation is not an option of an image".into()));
            }
            // Images are mounted read-only.
            "image" => self.mounts.push(api::Mount {
                container_path: of.target.clone(),
                image: Some(api::ImageSpec { image: of.source.clone(), ..Default::default() }),
                image_sub_path: of.subpath.clone(),
                ..Default::default()
            }),
            "bind" | "volume" | "" => {
                if !of.subpath.is_empty() {
                    return Err(bad("subpath is an option of an image".into()));
                }
                let is_path = of.source.starts_with(['/', '.']);
                if of.kind == "bind" && !is_path {
                    return Err(bad("the src of a bind mount is not a path".into()));
                }
                let host = self.source(FLAG, text, &of.source, at)?;
                self.mounts.push(parse::volume(text, &host, &format!("{}{options}", of.target))?);
            }
            other => return Err(bad(format!("`{other}` is none of bind, volume, image, tmpfs"))),
        }
        if let Some(mount) = self.mounts.last_mut() {
            mount.readonly = of.read_only || mount.image.is_some();
            mount.recursive_read_only = of.recursive;
        }
        Ok(())
    }
}

#[derive(Default)]
struct MountKeys {
    kind: String,
    source: String,
    target: String,
    read_only: bool,
    recursive: bool,
    propagation: String,
    subpath: String,
    tmpfs: Vec<String>,
}

impl MountKeys {
    /// As the value of --tmpfs.
    fn into_tmpfs(mut self) -> std::result::Result<String, String> {
        let others = [&self.source, &self.subpath, &self.propagation];
        if self.recursive || others.iter().any(|value| !value.is_empty()) {
            return Err("a tmpfs has only dst, ro, size and mode".into());
        }
        if self.read_only {
            self.tmpfs.push("ro".into());
        }
        Ok(format!("{}:{}", self.target, self.tmpfs.join(",")))
    }
}

fn boolean(text: &str) -> std::result::Result<bool, String> {
    match text {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(format!("`{other}` is neither true nor false")),
    }
}

/// A path without `.` and `..`, which are resolved as text.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => out.push(component),
        }
    }
    out
}

/// Devices by path, and those of CDI vendors.
pub(crate) fn devices(
    texts: &[String],
    gpus: Option<&str>,
) -> Result<(Vec<api::Device>, Vec<api::CdiDevice>)> {
    let (mut devices, mut cdi) = (Vec::new(), Vec::new());
    for text in texts {
        if !text.starts_with('/') && text.contains('=') {
            cdi.push(api::CdiDevice { name: text.clone() });
            continue;
        }
        let mut parts = text.split(':');
        let host = parts.next().unwrap_or_default();
        let (mut path, mut permissions) = (host, "rwm");
        for part in parts {
            if part.starts_with('/') {
                path = part;
            } else {
                permissions = part;
            }
        }
        let are_known = !permissions.is_empty() && permissions.chars().all(|c| "rwm".contains(c));
        if !host.starts_with('/') || !are_known {
            return Err(bad(
                "--device",
                text,
                "it is neither SRC[:DST[:rwm]] nor VENDOR/CLASS=NAME",
            ));
        }
        devices.push(api::Device {
            container_path: path.to_owned(),
            host_path: host.to_owned(),
            permissions: permissions.to_owned(),
        });
    }
    for name in gpus.iter().flat_map(|of| of.trim_start_matches("device=").split(',')) {
        if name.is_empty() || name.contains('=') {
            return Err(bad(
                "--gpus",
                gpus.unwrap_or_default(),
                "it is neither `all` nor a list of devices",
            ));
        }
        cdi.push(api::CdiDevice { name: format!("nvidia.com/gpu={name}") });
    }
    Ok((devices, cdi))
}

/// Applies the --security-opt to a container; SELinux labels are also the pod's.
pub(crate) fn security(
    options: &[String],
    into: &mut api::LinuxContainerSecurityContext,
) -> Result<()> {
    const FLAG: &str = "--security-opt";
    for option in options {
        // Docker once had `:` in place of `=`.
        let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => into.no_new_privs = true,
            ("no-new-privileges", "false") => into.no_new_privs = false,
            ("seccomp", value) => into.seccomp = Some(profile(FLAG, option, value, true)?),
            ("apparmor", value) => into.apparmor = Some(profile(FLAG, option, value, false)?),
            ("label", "disable") => {
                let why = "hull has no containers without a label on a node with SELinux";
                return Err(bad(FLAG, option, why));
            }
            ("label", value) => {
                let label = into.selinux_options.get_or_insert_default();
                match value.split_once(':') {
                    Some(("user", text)) => text.clone_into(&mut label.user),
                    Some(("role", text)) => text.clone_into(&mut label.role),
                    Some(("type", text)) => text.clone_into(&mut label.r#type),
                    Some(("level", text)) => text.clone_into(&mut label.level),
                    _ => {
                        return Err(bad(
                            FLAG,
                            option,
                            "it is not label=user|role|type|level:VALUE",
                        ));
                    }
                }
            }
            _ => {
                let why = "it is none of no-new-privileges, seccomp=, apparmor=, label=";
                return Err(bad(FLAG, option, why));
            }
        }
    }
    Ok(())
}

fn profile(
    flag: &'static str,
    option: &str,
    value: &str,
    is_file: bool,
) -> Result<api::SecurityProfile> {
    use api::security_profile::ProfileType;
    let (kind, reference) = match value {
        "" => return Err(bad(flag, option, "it has no value")),
        "unconfined" => (ProfileType::Unconfined, String::new()),
        "runtime/default" | "default" => (ProfileType::RuntimeDefault, String::new()),
        file if is_file && !file.starts_with('/') => {
            return Err(bad(flag, option, "the profile is not an absolute path"));
        }
        other => (ProfileType::Localhost, other.to_owned()),
    };
    Ok(api::SecurityProfile { profile_type: kind as i32, localhost_ref: reference })
}

/// Whether the daemon assigns the ids of a user namespace.
pub(crate) fn is_auto(text: &str) -> bool {
    text.split(':').next() == Some("auto")
}

/// The user namespace of a pod: of its own for a number, the first of 65536 ids of the host; the host's for `host`; for
/// `auto`, what [`run_pods::USERNS`] asks for.
pub(crate) fn userns(text: &str) -> Result<Option<api::UserNamespace>> {
    if text == "host" {
        let mode = api::NamespaceMode::Node as i32;
        return Ok(Some(api::UserNamespace { mode, ..Default::default() }));
    }
    if is_auto(text) {
        crate::userns::size(text).map_err(|why| bad("--userns", text, why))?;
        return Ok(None);
    }
    let first = text.parse::<u32>().ok().filter(|id| *id > 0 && id % USERNS_IDS == 0);
    let first = first.filter(|id| id.checked_add(USERNS_IDS).is_some()).ok_or_else(|| {
        bad("--userns", text, "it is none of `auto`, `host` and a multiple of 65536, as in 1048576")
    })?;
    let map = api::IdMapping { host_id: first, container_id: 0, length: USERNS_IDS };
    Ok(Some(api::UserNamespace {
        mode: api::NamespaceMode::Pod as i32,
        uids: vec![map],
        gids: vec![map],
    }))
}

/// Labels or annotations, KEY=VALUE; KEY alone has an empty value.
pub(crate) fn pairs(flag: &'static str, texts: &[String]) -> Result<HashMap<String, String>> {
    let mut pairs = HashMap::new();
    for text in texts {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let is_open =
            logging::is_annotation(key) || quota::is_annotation(key) || key == CGROUP_WRITABLE;
        let is_reserved = key.starts_with("hull.run/") && !is_open;
        if key.is_empty() || is_reserved {
            return Err(bad(flag, text, "its key is empty, or reserved for hull"));
        }
        pairs.insert(key.to_owned(), value.to_owned());
    }
    Ok(pairs)
}

/// Settings below /proc/sys.
pub(crate) fn sysctls(texts: &[String]) -> Result<HashMap<String, String>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(bad("--sysctl", text, "it is not NAME=VALUE")),
    };
    texts.iter().map(pair).collect()
}

/// Variables of a file: KEY=VALUE, or KEY for the value that hull has; lines that begin with `#` are comments.
pub(crate) fn env_file(
    text: &str,
    own: impl Fn(&str) -> Option<String> + Copy,
) -> Result<Vec<api::KeyValue>> {
    let is_variable = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
    let mut all = Vec::new();
    for line in text.lines().filter(is_variable) {
        all.extend(parse::env(line, own)?);
    }
    Ok(all)
}

/// Names and addresses of --add-host.
pub(crate) fn hosts(texts: &[String]) -> Result<Vec<(String, IpAddr)>> {
    let host = |text: &String| {
        let (name, ip) = text.split_once([':', '=']).unwrap_or((text, ""));
        match ip.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(ip) if run_pods::is_host_name(name) => Ok((name.to_owned(), ip)),
            _ => Err(bad("--add-host", text, "it is not NAME:IP")),
        }
    };
    texts.iter().map(host).collect()
}

/// Refuses a platform that is not this machine's.
pub(crate) fn platform(text: &str) -> Result<()> {
    let own = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let architecture = text.strip_prefix("linux/").unwrap_or(text);
    let architecture = architecture.split('/').next().unwrap_or_default();
    if architecture == own {
        return Ok(());
    }
    Err(bad("--platform", text, format!("this machine is linux/{own}, and hull emulates no other")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Volumes<'static> {
        Volumes {
            named: Path::new("/d/volumes"),
            unnamed: Path::new("/d/run/volumes"),
            here: Path::new("/here"),
        }
    }

    #[test]
    fn sources_are_paths_names_or_nothing() {
        let mut all = Mounts::default();
        for text in ["/a:/b:ro", "./x/../y:/c", "data:/d", "/e"] {
            all.volume(text, &at()).unwrap();
        }
        let sources: Vec<&str> = all.mounts.iter().map(|of| of.host_path.as_str()).collect();
        assert_eq!(sources, ["/a", "/here/y", "/d/volumes/data", "/d/run/volumes/1"]);
        assert_eq!(all.create.len(), 2);
        assert!(all.mounts[0].readonly);
        for text in ["a/b:/c", "x", "/a:b", "a%:/x"] {
            assert!(Mounts::default().volume(text, &at()).is_err(), "{text}");
        }
    }

    #[test]
    fn mounts_have_the_keys_of_docker() {
        let mut all = Mounts::default();
        for text in [
            "type=bind,src=/a,dst=/b,ro",
            "type=volume,source=v,target=/c",
            "type=tmpfs,dst=/t,tmpfs-size=64m",
            "type=image,src=app:1,dst=/i,subpath=x",
        ] {
            all.mount(text, &at()).unwrap();
        }
        assert!(all.mounts[0].readonly && all.mounts[1].host_path == "/d/volumes/v");
        assert_eq!(all.tmpfs, ["/t:size=64m"]);
        assert_eq!(all.mounts[2].image_sub_path, "x");
        for text in [
            "dst=b",
            "type=bind,src=x,dst=/y",
            "type=nfs,src=/a,dst=/b",
            "colour=red",
            "src=/a,dst=/b,size=1",
        ] {
            assert!(Mounts::default().mount(text, &at()).is_err(), "{text}");
        }
    }

    #[test]
    fn devices_are_paths_or_names_of_vendors() {
        let texts = ["/dev/fuse", "/dev/a:/dev/b:rw", "/dev/c:r", "v.com/x=1"].map(String::from);
        let (devices, cdi) = devices(&texts, Some("0,1")).unwrap();
        assert_eq!(devices[1].container_path, "/dev/b");
        assert_eq!(devices[2].permissions, "r");
        let names: Vec<&str> = cdi.iter().map(|of| of.name.as_str()).collect();
        assert_eq!(names, ["v.com/x=1", "nvidia.com/gpu=0", "nvidia.com/gpu=1"]);
        assert!(super::devices(&["fuse".to_owned()], None).is_err());
        assert!(super::devices(&["/dev/a:x".to_owned()], None).is_err());
    }

    #[test]
    fn security_options_are_applied_or_refused() {
        let mut context = api::LinuxContainerSecurityContext::default();
        let options = ["no-new-privileges", "seccomp=unconfined", "apparmor=mine", "label=type:t"];
        security(&options.map(String::from), &mut context).unwrap();
        assert!(context.no_new_privs);
        assert_eq!(context.seccomp.clone().unwrap().profile_type, 1);
        assert_eq!(context.apparmor.clone().unwrap().localhost_ref, "mine");
        assert_eq!(context.selinux_options.clone().unwrap().r#type, "t");
        for option in ["seccomp=p.json", "label=disable", "systempaths=unconfined", "seccomp="] {
            assert!(security(&[option.to_owned()], &mut context).is_err(), "{option}");
        }
    }

    #[test]
    fn other_values_are_checked() {
        assert_eq!(userns("host").unwrap().unwrap().mode(), api::NamespaceMode::Node);
        assert!(userns("auto").unwrap().is_none() && userns("auto:size=9").unwrap().is_none());
        assert_eq!(userns("1048576").unwrap().unwrap().uids[0].host_id, 1_048_576);
        for text in ["0", "5", "x", "4294901760", "auto:", "auto:size=0", "auto:uidmapping=0:0:1"] {
            assert!(userns(text).is_err(), "{text}");
        }
        assert!(hosts(&["a:1.2.3.4".into(), "b:[::1]".into()]).is_ok());
        assert!(hosts(&["a".into()]).is_err());
        assert!(pairs("--label", &["hull.run/uid=x".into()]).is_err());
        assert!(platform("plan9/mips").is_err());
        let own = |_: &str| None;
        let read = env_file("# no\nA=b c\n\nNONE\n", own).unwrap();
        assert_eq!((read.len(), read[0].value.as_slice()), (1, &b"b c"[..]));
    }
}
