// SPDX-License-Identifier: Apache-2.0
//! Tables of outputs, as programs print them: the error that ended the program, errors that did not, and lines that
//! only have the words of an error.

use super::clues::{Clue, find};
use super::phrases::Phrase;
use Phrase::{
    AddressInUse, CommandMissing, ConnectionRefused, HostUnknown, Missing, NoSpace, NotPermitted,
    OutOfMemory, PermissionDenied, ReadOnly, TooManyFiles,
};
use hull_plan::LastLines;

fn clue(stderr: &[&str], stdout: &[&str]) -> Option<Clue> {
    let lines = |of: &[&str]| of.iter().map(|line| (*line).to_owned()).collect();
    find(&LastLines { stdout: lines(stdout), stderr: lines(stderr) })
}

/// The phrase that counts as the cause.
fn cause(stderr: &[&str]) -> Option<Phrase> {
    clue(stderr, &[]).filter(|clue| clue.is_last).map(|clue| clue.phrase)
}

/// The last lines of programs that failed, and the error that ended them.
const ENDS: &[(&[&str], Phrase)] = &[
    (
        &["2026/11/30 10:00:00 [emerg] 1#1: bind() to 0.0.0.0:80 failed (13: Permission denied)"],
        PermissionDenied,
    ),
    (
        &[
            "nginx: [emerg] bind() to 0.0.0.0:80 failed (98: Address already in use)",
            "nginx: [emerg] still could not bind()",
        ],
        AddressInUse,
    ),
    (
        &[
            "2026-11-30 10:00:00.000 UTC [1] FATAL:  could not create lock file \"postmaster.pid\": Permission \
                 denied",
            "2026-11-30 10:00:00.000 UTC [1] LOG:  database system is shut down",
        ],
        PermissionDenied,
    ),
    (
        &[
            "FATAL:  could not bind Unix address \"/run/postgresql/.s.PGSQL.5432\": Address already in use",
            "HINT:  Is another postmaster already running on port 5432?",
        ],
        AddressInUse,
    ),
    (
        &[
            "1:M 30 Nov 2026 10:00:00.000 # Warning: Could not create server TCP listening socket *:6379: bind: \
                 Address already in use",
            "1:M 30 Nov 2026 10:00:00.001 # Failed listening on port 6379 (tcp), aborting.",
        ],
        AddressInUse,
    ),
    (
        &[">>> 'logfile /var/log/redis.log'", "Can't open the log file: Permission denied"],
        PermissionDenied,
    ),
    (
        &[
            "node:events:497",
            "      throw er; // Unhandled 'error' event",
            "      ^",
            "Error: listen EADDRINUSE: address already in use :::8080",
            "    at Server.setupListenHandle [as _listen2] (node:net:1817:16)",
            "Emitted 'error' event on Server instance at:",
            "    at emitErrorNT (node:net:1796:8) {",
            "  code: 'EADDRINUSE',",
            "}",
            "Node.js v20.11.0",
        ],
        AddressInUse,
    ),
    (&["Error: connect ECONNREFUSED 127.0.0.1:6379"], ConnectionRefused),
    (&["Error: getaddrinfo ENOTFOUND db"], HostUnknown),
    (
        &[
            "Error: EACCES: permission denied, mkdir '/app/.npm'",
            "npm ERR! A complete log of this run can be found in: x",
        ],
        PermissionDenied,
    ),
    (&["Error: EMFILE: too many open files, watch '/app'"], TooManyFiles),
    (
        &[
            "Traceback (most recent call last):",
            "  File \"/app.py\", line 3, in <module>",
            "PermissionError: [Errno 13] Permission denied: '/srv/key'",
        ],
        PermissionDenied,
    ),
    (
        &[
            "urllib3: Max retries exceeded with url: / (Caused by NewConnectionError('<x>: Failed to establish \
                 a new connection: [Errno 111] Connection refused'))",
        ],
        ConnectionRefused,
    ),
    (
        &[
            "sqlalchemy.exc.OperationalError: (psycopg2.OperationalError) connection to server at \"db\" \
                 (10.0.0.1), port 5432 failed: Connection refused",
            "\\tIs the server running on that host and accepting TCP/IP connections?",
            "(Background on this error at: https://sqlalche.me/e/20/e3q8)",
        ],
        ConnectionRefused,
    ),
    (
        &[
            "ERROR:    [Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already \
                 in use",
            "INFO:     Waiting for application shutdown.",
            "INFO:     Application shutdown complete.",
        ],
        AddressInUse,
    ),
    (
        &[
            "Exception in thread \"main\" java.net.BindException: Permission denied",
            "\\tat java.base/sun.nio.ch.Net.bind0(Native Method)",
            "\\t... 12 more",
        ],
        PermissionDenied,
    ),
    (&["java.io.FileNotFoundException: /data/x (Permission denied)"], PermissionDenied),
    (&["Terminating due to java.lang.OutOfMemoryError: Java heap space"], OutOfMemory),
    (&["Caused by: java.net.UnknownHostException: db: Name or service not known"], HostUnknown),
    (
        &[
            "org.apache.kafka.common.KafkaException: Socket server failed to bind to 0.0.0.0:9092: Address \
                 already in use.",
            "\\tat kafka.network.Acceptor.openServerSocket(SocketServer.scala:1)",
            "[2026-11-30 10:00:00,000] INFO [KafkaServer id=0] shutting down (kafka.server.KafkaServer)",
        ],
        AddressInUse,
    ),
    (
        &[
            "panic: open /etc/app.key: permission denied",
            "goroutine 1 [running]:",
            "main.main()",
            "\\t/app/main.go:10 +0x1d",
            "exit status 2",
        ],
        PermissionDenied,
    ),
    (&["2026/11/30 10:00:00 listen tcp :80: bind: permission denied"], PermissionDenied),
    (
        &["F1130 10:00:00.000000       1 server.go:123] listen tcp :80: bind: permission denied"],
        PermissionDenied,
    ),
    (
        &[
            r#"{"level":"fatal","ts":"2026","caller":"etcdmain/etcd.go:204","msg":"discovery failed","error":"listen tcp 10.0.0.1:2380: bind: address already in use","stacktrace":"x"}"#,
        ],
        AddressInUse,
    ),
    (
        &[
            "time=2026-11-30T10:00:00Z level=error msg=\"open /data: permission denied\" component=store",
        ],
        PermissionDenied,
    ),
    (&["Listen: listen tcp :53: bind: address already in use"], AddressInUse),
    (&["/entrypoint.sh: line 5: /data/x: Permission denied"], PermissionDenied),
    (
        &["chown: changing ownership of '/var/lib/postgresql/data': Operation not permitted"],
        NotPermitted,
    ),
    (
        &[
            "Failed to create /init.scope control group: Permission denied",
            "[!!!!!!] Failed to allocate manager object.",
            "Exiting PID 1...",
        ],
        PermissionDenied,
    ),
    (
        &[
            "[2026-11-30][1][critical][main] cannot bind '0.0.0.0:80': Permission denied",
            "[2026-11-30][1][info][main] exiting",
        ],
        PermissionDenied,
    ),
    (
        &[
            "2026-11-30T10:00:00Z 0 [ERROR] [MY-010262] [Server] Can't start server: Bind on TCP/IP port: \
                 Address already in use",
            "2026-11-30T10:00:00Z 0 [ERROR] [MY-010257] [Server] Do you already have another mysqld server \
                 running on port: 3306 ?",
            "2026-11-30T10:00:00Z 0 [ERROR] [MY-010119] [Server] Aborting",
        ],
        AddressInUse,
    ),
    (
        &[
            "mysqld: Can't create/write to file '/var/lib/mysql/is_writable' (OS errno 13 - Permission denied)",
        ],
        PermissionDenied,
    ),
    (
        &[
            "Failed to start Ranch listener {acceptor,{0,0,0,0},5672} for reason eaddrinuse (address already in \
                 use)",
        ],
        AddressInUse,
    ),
    (
        &[
            "[30-Nov-2026 10:00:00] ERROR: unable to bind listening socket for address '0.0.0.0:9000': Address \
                 already in use (98)",
            "[30-Nov-2026 10:00:00] ERROR: FPM initialization failed",
        ],
        AddressInUse,
    ),
    (
        &[
            "IOError: [Errno 13] Permission denied: '/var/log/supervisord.log'",
            "For help, use /usr/bin/supervisord -h",
        ],
        PermissionDenied,
    ),
    (&["[FATAL tini (7)] exec /app failed: Permission denied"], PermissionDenied),
    (&["[dumb-init] /app: No such file or directory"], Missing),
    (&["runsv app: fatal: unable to open supervise/lock: Permission denied"], PermissionDenied),
    (
        &[
            "(98)Address already in use: AH00072: make_sock: could not bind to address 0.0.0.0:80",
            "no listening sockets available, shutting down",
            "AH00015: Unable to open logs",
        ],
        AddressInUse,
    ),
    (
        &[
            "[ALERT] (1) : Starting frontend fe: cannot bind socket (Permission denied) [0.0.0.0:80]",
        ],
        PermissionDenied,
    ),
    (
        &["Errno::ECONNREFUSED: Connection refused - connect(2) for \"localhost\" port 6379"],
        ConnectionRefused,
    ),
    (&["Can't open /data/x: Permission denied at /app.pl line 3."], PermissionDenied),
    (
        &[
            "thread 'main' panicked at src/main.rs:2:5:",
            "called `Result::unwrap()` on an `Err` value: Os { code: 13, kind: PermissionDenied, message: \
                 \"Permission denied\" }",
            "note: run with `RUST_BACKTRACE=1`",
        ],
        PermissionDenied,
    ),
    (&["-bash: /data/x: Permission denied"], PermissionDenied),
    (&["passwd: Permission denied"], PermissionDenied),
    (&["cat: /app/fallback.html: Permission denied"], PermissionDenied),
    (&["cannot run without root: permission denied"], PermissionDenied),
    (&["db could not be resolved: no such host"], HostUnknown),
    (&["Error: Permission denied (os error 13)"], PermissionDenied),
    (&["\\u{1b}[31mError: Permission denied\\u{1b}[0m"], PermissionDenied),
    (
        &[
            "Error: open /x: permission denied",
            "error Command failed with exit code 1.",
            "info Visit https://yarnpkg.com/en/docs/cli/run for documentation about this command.",
        ],
        PermissionDenied,
    ),
    (
        &[
            "docker: permission denied while trying to connect to the Docker daemon socket at unix:///x.sock: \
                 dial unix /x.sock: connect: permission denied",
        ],
        PermissionDenied,
    ),
    (&["Error: ENOSPC: no space left on device, write"], NoSpace),
    (
        &[
            "E1130 10:00:00.000000 1 run.go:72] \"command failed\" err=\"open /etc/kube/x: permission denied\"",
        ],
        PermissionDenied,
    ),
    (&["curl: (6) Could not resolve host: example.invalid"], HostUnknown),
    (
        &["curl: (7) Failed to connect to localhost port 80 after 0 ms: Connection refused"],
        ConnectionRefused,
    ),
    (&["wget: can't connect to remote host (10.0.0.1): Connection refused"], ConnectionRefused),
    (&["ping: permission denied (are you root?)"], PermissionDenied),
    (
        &[
            "PermissionError: [Errno 1] Operation not permitted",
            "[1] Failed to execute script 'main' due to unhandled exception!",
        ],
        NotPermitted,
    ),
    (&["touch: /a: Read-only file system", "cat: /a: No such file or directory"], ReadOnly),
    (&["/run.sh: line 3: curl: command not found"], CommandMissing),
    (
        &[
            "tar: /data/x: Wrote only 512 of 10240 bytes",
            "tar: Error is not recoverable: exiting now",
            "cp: error writing '/data/x': No space left on device",
        ],
        NoSpace,
    ),
];

#[test]
fn the_error_that_ends_a_server_is_its_cause() {
    for (lines, wanted) in ENDS {
        assert_eq!(cause(lines), Some(*wanted), "{lines:?}");
    }
}

#[test]
fn an_error_before_another_one_is_not_the_cause() {
    for lines in [
        &[
            "warn: cannot open /etc/app.conf: Permission denied, using defaults",
            "fatal: bad password",
        ][..],
        &["warn: cannot open /etc/app.conf: Permission denied", "fatal: bad password"],
        &[
            "nginx: [alert] could not open error log file: open() \"/var/log/x\" failed (13: Permission denied)",
            "nginx: [emerg] host not found in upstream \"app\" in /etc/nginx/nginx.conf:12",
        ],
        &[
            "FATAL:  password authentication failed for user \"app\"",
            "2026/11/30 [error] 29#29: *1 connect() failed (111: Connection refused) while connecting to upstream, \
             client: 10.0.0.1",
        ],
        &[
            r#"{"level":"warn","msg":"failed to reach peer","error":"dial tcp 10.0.0.2:2380: connect: connection refused"}"#,
            r#"{"level":"fatal","msg":"member has been removed"}"#,
        ],
        &["dial tcp 10.0.0.1:5432: connect: connection refused, retrying in 5s", "giving up"],
        &[
            "error: cache: connection refused",
            "connected",
            "panic: runtime error: index out of range",
            "goroutine 1 [running]:",
        ],
        &["WARN: /data/cache: Read-only file system", "exiting: bad license"],
        &[
            "find: '/proc/1/fd': Permission denied",
            "java.lang.IllegalStateException: no license",
            "\\tat A.b(C.java:1)",
        ],
        &[
            "[ERROR] plugin/errors: 2 example.com. A: read udp 10.0.0.1:4->8.8.8.8:53: connection refused",
            "[INFO] SIGTERM: Shutting down servers then terminating",
            "[ERROR] invalid Corefile",
        ],
        &[
            "chmod: /run/x: Operation not permitted",
            "FATAL:  data directory \"/data\" has wrong ownership",
        ],
        &["INFO retry: connect: Connection refused"],
        &[
            "error: a: connection refused",
            "cat: /etc/missing: No such file or directory",
            "bad config",
        ],
    ] {
        assert_eq!(cause(lines), None, "{lines:?}");
    }
    // The program overcame it.
    let overcome = [
        "warn: cannot open /etc/app.conf: Permission denied, using defaults",
        "fatal: bad password",
    ];
    assert_eq!(clue(&overcome, &[]), None);
    let streams =
        clue(&["fatal: bad password"], &["dial tcp: connect: connection refused"]).unwrap();
    assert!(!streams.is_last, "the order of both streams is not known");
    let banner = clue(
        &["Picked up JAVA_TOOL_OPTIONS: -Xmx1g"],
        &["java.io.IOException: No space left on device"],
    );
    assert!(banner.unwrap().is_last, "standard error has no error");
}

#[test]
fn lines_with_the_words_of_an_error_report_none() {
    for line in [
        "0 errors: address already in use = false",
        "address already in use: false",
        "checks: permission denied: 0, timed out: 0",
        "usage: app [--on-error 'permission denied']",
        "Usage: app FILE; permission denied",
        "--ignore-eacces   skip files with permission denied",
        "-q  do not print: permission denied",
        "+ echo app: permission denied",
        "ok 3 - open: permission denied",
        "PASS: bind: address already in use",
        "test bind: address already in use ... ok",
        "AssertionError: expected [200] but not: connection refused",
        "no \"permission denied\" any more",
        "without: permission denied",
        "fixed: connection refused",
        "if you see: connection refused",
        "ignoring: open /x: permission denied",
        "cannot open /x: Permission denied, using defaults",
        "reading /x: Permission denied (ignored)",
        "was it: connection refused?",
        "last error: none (address already in use: no)",
        "on EACCES retry",
        "retry policy: on connection refused",
        "Supported errors: ECONNREFUSED",
        "error codes: EACCES, EPERM, ENOENT",
        "error pages: 403 Permission denied",
    ] {
        assert_eq!(clue(&[line], &[]), None, "{line}");
    }
    for line in [
        "permission denied errors will be printed here",
        "the words connection refused are in this line",
        "options are address already in use, permission denied, timed out",
        "connection refused: 17",
        "GET /x: connection refused, will retry",
    ] {
        assert_eq!(cause(&[line]), None, "{line}");
    }
}
