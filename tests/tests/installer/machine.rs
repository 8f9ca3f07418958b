// SPDX-License-Identifier: Apache-2.0
//! A node for the installer: a directory stands for its root, and programs in a directory of their own stand for
//! systemd, the kubelet and Hull. Each writes its calls into one list, in their order.

use hull_tests::shell::{Ran, finish};
use hull_tests::{ExpectExt as _, debian, paths};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// systemd, as far as the installer calls it. The kubelet gets its arguments from the drop-in, as its unit would; it
/// does not start on Hull if there is a file `kubelet-refuses`, and ignores the drop-in if there is `kubelet-ignores`.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "systemctl $*" >> "$MACHINE/calls"
dropin=$ROOT/etc/systemd/system/kubelet.service.d/90-hull.conf
case "$*" in
  "restart hull.service") "$ROOT/usr/local/bin/hull" serve ;;
  "stop kubelet.service") rm -f "$MACHINE/kubelet-runs" ;;
  "start kubelet.service" | "restart kubelet.service")
    mkdir -p "$ROOT/proc/77"
    printf 'kubelet\0' > "$ROOT/proc/77/cmdline"
    if [ -e "$dropin" ] && [ ! -e "$MACHINE/kubelet-ignores" ]; then
      for word in $(sed 's/^[A-Z_]*=//' "$ROOT/etc/hull/kubelet.env"); do printf '%s\0' "$word"; done >> "$ROOT/proc/77/cmdline"
    fi
    if [ -e "$dropin" ] && [ -e "$MACHINE/kubelet-refuses" ]; then exit 0; fi
    touch "$MACHINE/kubelet-runs" ;;
  "is-active kubelet.service") [ -e "$MACHINE/kubelet-runs" ] || { echo activating; exit 3; } ;;
  "show --property=MainPID --value kubelet.service") echo 77 ;;
esac
"#;

/// Runs the command that it gets after its options, below the root of the machine.
const SYSTEMD_RUN: &str = r#"#!/bin/sh
echo "systemd-run" >> "$MACHINE/calls"
while [ "$1" != /bin/sh ]; do shift; done
shift
script=$1
shift
exec sh "$ROOT$script" "$@"
"#;

/// A program that only notes its call.
const NOTES: &str = "#!/bin/sh\necho \"${0##*/} $*\" >> \"$MACHINE/calls\"\n";

/// A release of Hull in which some commands fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Release {
    pub(crate) name: &'static str,
    pub(crate) broken: &'static [&'static str],
}

impl Release {
    pub(crate) fn working(name: &'static str) -> Self {
        Self { name, broken: &[] }
    }

    fn program(self) -> String {
        let name = self.name;
        let broken: String = self
            .broken
            .iter()
            .map(|command| format!("  {command}) echo '{name} cannot {command}' >&2; exit 1 ;;\n"))
            .collect();
        format!(
            "#!/bin/sh\n# {name}\nsocket=\n[ \"$1\" != --socket ] || {{ socket=\" ${{2#\"$ROOT\"}}\"; shift 2; }}\n\
             echo \"$(basename \"$0\") {name} $*$socket\" >> \"$MACHINE/calls\"\n\
             [ \"$1\" != info ] || [ ! -e \"$MACHINE/daemon-is-dead\" ] || exit 1\n\
             case $1 in\n  ps) echo CONTAINER ;;\n{broken}esac\n"
        )
    }
}

/// A node whose root is a directory.
#[derive(Debug)]
pub(crate) struct Machine {
    dir: TempDir,
    settings: Vec<(&'static str, String)>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let machine = Self {
            dir: tempfile::tempdir().or_fail("make a directory"),
            settings: [
                ("BIN_DIR", "/usr/local/bin"),
                ("SOCKET", "/run/hull/hull.sock"),
                ("GATE_SECONDS", "20"),
                ("ATTEMPT", "1"),
                ("KUBELET", "false"),
                ("KUBELET_VARIABLE", "KUBELET_EXTRA_ARGS"),
                ("FORMER_SOCKET", "/run/containerd/containerd.sock"),
                ("FORMER_UNIT", "containerd.service"),
                ("WATCH_SECONDS", "0"),
            ]
            .map(|(name, value)| (name, value.to_owned()))
            .into(),
        };
        let fakes = [
            ("systemctl", SYSTEMCTL),
            ("systemd-run", SYSTEMD_RUN),
            ("modprobe", NOTES),
            ("ip", NOTES),
            ("nft", NOTES),
            ("apparmor_parser", NOTES),
        ];
        for (name, text) in fakes {
            program(&machine.path("bin").join(name), text);
        }
        machine.touch("calls");
        fs::create_dir_all(machine.path("root")).or_fail("make a root");
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// A file of the node; nothing if it is not there.
    pub(crate) fn file(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path("root").join(path)).ok()
    }

    pub(crate) fn mode(&self, path: &str) -> u32 {
        let file = fs::metadata(self.path("root").join(path)).or_fail(format!("find {path}"));
        file.permissions().mode() & 0o7777
    }

    /// Writes a file of the node.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let file = self.path("root").join(path);
        fs::create_dir_all(file.parent().or_fail("find a parent")).or_fail("make a directory");
        fs::write(file, text).or_fail("write a file of the node");
    }

    /// A file beside the node's root, which its programs look for.
    pub(crate) fn touch(&self, name: &str) {
        fs::write(self.path(name), "").or_fail("make a file");
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).try_exists().or_fail("look for a file")
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        for setting in &mut self.settings {
            if setting.0 == name {
                setting.1 = value.to_owned();
            }
        }
    }

    /// The calls of programs since the last look.
    pub(crate) fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("calls")).or_fail("read the calls");
        self.touch("calls");
        text.lines().map(str::to_owned).collect()
    }

    /// The directory of the image that the pod sees.
    fn image(&self, release: Release) -> PathBuf {
        let image = self.path("image");
        fs::create_dir_all(&image).or_fail("make a directory");
        program(&image.join("hull"), &release.program());
        let source = paths::root();
        for (from, to) in [
            ("charts/hull/files/installer", "installer"),
            ("scripts/package/hull.service", "hull.service"),
            ("scripts/package/hull.socket", "hull.socket"),
            ("scripts/package/modules.conf", "modules.conf"),
        ] {
            let _bytes =
                fs::copy(source.join(from), image.join(to)).or_fail(format!("copy {from}"));
        }
        image
    }

    /// `words` for the installer, run by `shell`.
    fn command(&self, mut shell: Command, words: &[&str]) -> Command {
        let path = std::env::var("PATH").or_fail("read PATH");
        shell
            .arg(self.path("image/installer"))
            .args(words)
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("MACHINE", self.dir.path())
            .env("ROOT", self.path("root"))
            .env("FILES", self.path("image"))
            .env("CONFIG", self.path("chart.toml"))
            .env("WORK", self.path("work"))
            // The pod would enter the node's namespaces.
            .env("HOST", "")
            .env("ONCE", "1")
            .envs(self.settings.iter().map(|(name, value)| (name, value)));
        shell
    }

    /// The shell of the image. It prefers its own programs to those in PATH.
    fn in_pod(&self, words: &[&str]) -> Ran {
        let mut busybox = Command::new(debian::unpacked("busybox-static").join("bin/busybox"));
        busybox.arg("sh");
        finish(&mut self.command(busybox, words))
    }

    /// The pod of a release starts on the node.
    pub(crate) fn start_pod(&self, release: Release) -> Ran {
        let _image = self.image(release);
        let config = "[log]\nlevel = \"debug\"\n";
        fs::write(self.path("chart.toml"), config).or_fail("write the configuration");
        let _removed = fs::remove_dir_all(self.path("work"));
        self.in_pod(&["run"])
    }

    /// The readiness probe of the pod.
    pub(crate) fn ready(&self) -> Ran {
        self.in_pod(&["ready"])
    }

    pub(crate) fn uninstall(&self) -> Ran {
        finish(&mut self.command(Command::new("sh"), &["uninstall"]))
    }

    /// The name of the release whose binary is installed.
    pub(crate) fn installed(&self) -> Option<String> {
        let binary = self.file("usr/local/bin/hull")?;
        binary.lines().nth(1).map(|line| line.trim_start_matches("# ").to_owned())
    }
}

fn program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().or_fail("find a parent")).or_fail("make a directory");
    // A new file each time: the old one may run.
    let _removed = fs::remove_file(path);
    fs::write(path, text).or_fail("write a program");
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(path, executable).or_fail("make a program executable");
}
