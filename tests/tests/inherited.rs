// SPDX-License-Identifier: Apache-2.0
//! The attributes that a daemon is started with (affinity, priorities, limits, signals, umask) are its own: no container
//! has them.

use hull_tests::cri::shell;
use hull_tests::{Cri, ExpectExt as _, Node};

/// Everything that a process inherits and can find out about itself, and modes of files that were made for it.
const REPORT: &str = r#"
grep -E '^(Umask|Cpus_allowed_list|Mems_allowed_list|SigBlk|SigIgn|THP_enabled|Speculation.*):' /proc/self/status
echo "nice, rt_priority, policy: $(cut -d' ' -f19,40,41 /proc/self/stat)"
ionice -p $$
for file in oom_score_adj coredump_filter timerslack_ns personality; do echo "$file $(cat /proc/self/$file)"; done
cat /proc/self/limits
stat -c '%n %a %u' / /dev /dev/null /dev/pts /dev/shm /proc /sys /etc/hosts /etc/hostname /etc/resolv.conf /made /made/here
"#;

/// Changes all of it for the daemon. Only soft limits: a machine without CAP_SYS_RESOURCE cannot raise hard ones.
const CHANGED: &str = r#"
umask 077
ulimit -S -n 4000; ulimit -S -c 0; ulimit -S -s 4096; ulimit -S -l 128; ulimit -S -f 10000000; ulimit -S -t 100000
trap '' USR1 HUP QUIT
echo 500 > /proc/$$/oom_score_adj
echo 0x7f > /proc/$$/coredump_filter
echo 2000000 > /proc/$$/timerslack_ns
by='taskset -c 0 ionice -c 2 -n 7 setarch -R chrt -b 0 nice -n 9 env --block-signal=USR2 --ignore-signal=TTOU'
"#;

/// The reports of a container's first process, and of a command in a container.
async fn reports(cri: &Cri, name: &str, image: &str) -> [String; 2] {
    let pod = cri.run_pod(name).await.or_fail("run a pod");
    let mut config = shell("main", image, REPORT);
    config.working_dir = "/made/here".into();
    let said = cri.output(&pod, config).await;
    let idle = cri.run_idle(&pod, "idle", image).await;
    let script = format!("mkdir -p /made/here; {REPORT}");
    let exec = cri.exec(&idle, &["sh", "-c", &script]).await.or_fail("exec");
    assert_eq!((said.stderr.as_str(), exec.stderr.as_str()), ("", ""));
    [said.stdout, exec.stdout]
}

#[tokio::test]
async fn nothing_that_the_daemon_was_started_with_reaches_a_container_or_a_command_in_it() {
    let mut node = Node::start_with("[runtime]\ndefault_ulimits = [\"nproc=30000:40000\"]\n").await;
    let (cri, _, image) = node.pod("first").await;
    let before = reports(&cri, "before", &image).await;
    for line in [
        "Umask:\t0022\n",
        "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n",
        "nice, rt_priority, policy: 0 0 0\n",
        "none: prio 0\n",
        "oom_score_adj 0\n",
        "timerslack_ns 50000\n",
        "personality 00000000\n",
        "Max processes             30000                40000                processes \n",
        "Max core file size        unlimited            unlimited            bytes     \n",
        "/dev/null 666 0\n",
        "/made/here 755 0\n",
    ] {
        for report in &before {
            assert!(report.contains(line), "{line:?} in:\n{report}");
        }
    }
    node.restart_from_shell(CHANGED).await;
    // The daemon has it all: what follows would prove nothing otherwise.
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.daemon_pid())).unwrap();
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    let after = reports(&cri, "after", &image).await;
    assert_eq!(after, before);
}
