// SPDX-License-Identifier: Apache-2.0
//! The directory, socket, cgroups and start scripts of one runtime of the testbed.

use hull_tests::{ExpectExt as _, host, shell};
use std::path::{Path, PathBuf};

/// Directory of all files of the testbed.
pub(super) const ROOT: &str = "/var/tmp/cri-bench-bed";
/// Parent of all cgroups of the testbed.
pub(super) const CGROUP: &str = "/cri-bench";

/// The directory and the cgroups of one runtime.
#[derive(Debug)]
pub(super) struct Place {
    /// The runtime's name in paths.
    pub(super) name: &'static str,
}

impl Place {
    pub(super) fn dir(&self) -> PathBuf {
        Path::new(ROOT).join(self.name)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir().join("cri.sock")
    }

    pub(super) fn restart(&self) -> PathBuf {
        self.dir().join("restart")
    }

    pub(super) fn cgroup(&self) -> String {
        format!("{CGROUP}/{}", self.name)
    }

    pub(super) fn pods(&self) -> String {
        format!("{}/pods", self.cgroup())
    }

    /// Mount point of the hierarchy that counts CPU time: of v1, else of v2.
    fn counting() -> PathBuf {
        let mounts = host::hierarchies();
        let v1 = mounts.iter().find(|mount| mount.join("cpuacct.usage").is_file());
        let v2 = || mounts.iter().find(|mount| mount.join("cgroup.controllers").is_file());
        v1.or_else(v2).or_fail("find a cgroup hierarchy that counts CPU time").clone()
    }

    /// Writes the programs that start the daemon and restart it.
    pub(super) fn write_programs(&self, command: &[String]) {
        let dir = self.dir();
        let cgroup = Self::counting().join(self.cgroup().trim_start_matches('/')).join("runtime");
        let quoted: Vec<String> = command.iter().map(|word| format!("'{word}'")).collect();
        let start = format!(
            "#!/bin/sh\n\
             mkdir -p {cgroup}\n\
             setsid sh -c 'echo $$ > {cgroup}/cgroup.procs; exec \"$@\"' sh {command} \
             >> {log} 2>&1 < /dev/null &\n\
             echo $! > {pid}\n",
            cgroup = cgroup.display(),
            command = quoted.join(" "),
            log = dir.join("log").display(),
            pid = dir.join("pid").display(),
        );
        let restart = format!(
            "#!/bin/sh\n\
             pid=$(cat {pid})\n\
             kill \"$pid\"\n\
             while kill -0 \"$pid\" 2> /dev/null; do sleep 0.002; done\n\
             exec {start}\n",
            pid = dir.join("pid").display(),
            start = dir.join("start").display(),
        );
        self.write("start", &start);
        self.write("restart", &restart);
        let programs = [dir.join("start"), dir.join("restart")];
        let _done = shell::run(
            "chmod",
            ["0755".as_ref(), programs[0].as_os_str(), programs[1].as_os_str()],
        )
        .good();
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.dir().join(name);
        let dir = path.parent().or_fail("find the file's folder");
        std::fs::create_dir_all(dir).or_fail(format!("make {}", dir.display()));
        std::fs::write(&path, text).or_fail(format!("write {}", path.display()));
    }
}

/// Words before a command that show it cgroup v1 alone where v2 is mounted beside it with controllers of
/// its own: crun refuses such hosts. In a mount namespace of its own v2 is covered, not taken away.
pub(super) fn without_v2() -> Vec<String> {
    let mounts = host::hierarchies();
    let has_v1 = mounts.iter().any(|mount| mount.join("cgroup.sane_behavior").is_file());
    let v2 = mounts.iter().find(|mount| {
        std::fs::read_to_string(mount.join("cgroup.controllers"))
            .is_ok_and(|controllers| !controllers.trim().is_empty())
    });
    let Some(v2) = v2.filter(|_| has_v1) else { return Vec::new() };
    let cover = format!("mount -t tmpfs none {} && exec \"$@\"", v2.display());
    ["unshare", "--mount", "sh", "-c", &cover, "sh"].map(String::from).into()
}
