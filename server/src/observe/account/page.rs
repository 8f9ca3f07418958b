// SPDX-License-Identifier: Apache-2.0
//! The text of docs/troubleshooting.md: symptoms, explained by the code behind statuses and `hull explain`. A test of
//! this file writes it, with HULL_BLESS=1, or compares it.

mod refusals;

use super::judge;
use super::reading::Reading;
use crate::diagnostics::ends::symptoms::{self, Symptom};
use crate::history::{Kind, Timeline};
use hull_image::{Cause, Error, Object, Unreachable};
use hull_plan::{Diagnosis, Layer, Process, Step, StepError, elf};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const INTRO: &str = "\
<!-- Generated from the explanations in server/src/diagnostics; a test fails when this page is stale:
HULL_BLESS=1 cargo test -p hull the_page_of_symptoms_is_fresh -->

# Troubleshooting by symptom

Hull explains a failure where you see it: in the message of the container's status (`kubectl describe pod`,
`crictl inspect`), in the error of the call, and with the evidence in `hull explain NAME`. This page lists what it can
explain, by what you see. The code that explains a failure on a node has written it, so the words are the same there;
names, numbers and paths are examples.

For the node itself: `hull check` says what the host lacks, `hull doctor` compares records with the host, and
[Operating](operate.md#looking-for-a-cause) describes both. Search this page for a word of the message.
";

const PRINTED: &str = "\
The last line of a program's output that reports an error, compared with the container's spec and the state of the
node. The message shows the cause after `likely:`, because it is inferred. Without a fact that supports one, Hull names
no cause.
";

/// The time of the examples.
const NOW_NS: i64 = 1_000_000_000_000;

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn table(page: &mut String, heading: &str, intro: &str, head: &[&str], rows: &[Vec<String>]) {
    assert!(!rows.is_empty(), "{heading} has no rows");
    // Writing to a String cannot fail.
    let _ = writeln!(page, "\n{heading}\n");
    if !intro.is_empty() {
        let _ = writeln!(page, "{}\n", intro.trim_end());
    }
    let _ = writeln!(page, "| {} |\n|{}", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        assert_eq!(row.len(), head.len(), "{heading}: {row:?}");
        let cells: Vec<String> = row.iter().map(|text| cell(text)).collect();
        let _ = writeln!(page, "| {} |", cells.join(" | "));
    }
}

fn fix(of: &Diagnosis) -> String {
    of.fix.clone().unwrap_or_else(|| panic!("nothing helps: {of}"))
}

/// A row: the symptom, the cause (or what the message says), what helps.
fn row(of: &Symptom, seen: String) -> Vec<String> {
    let seen = if of.when.is_empty() { seen } else { format!("{seen} ({})", of.when) };
    let diagnosis = &of.diagnosis;
    let cause = diagnosis.cause.clone().unwrap_or_else(|| {
        let said = [diagnosis.what.as_str()];
        let said = said.into_iter().chain(diagnosis.evidence.iter().map(String::as_str));
        said.collect::<Vec<_>>().join("; ")
    });
    vec![seen, diagnosis.layer.name().into(), cause, fix(diagnosis)]
}

fn ends(page: &mut String) {
    let head = ["You see", "Layer", "Cause", "What helps"];
    let rows = |all: Vec<Symptom>| -> Vec<Vec<String>> {
        all.iter().map(|of| row(of, of.seen.clone())).collect()
    };
    let intro = "The kernel's counters say whose limit was reached, and how much was used.";
    table(page, "## A container was killed for memory", intro, &head, &rows(symptoms::memory()));
    let intro = "Exit codes above 128 are 128 and the number of the signal.";
    table(page, "## A container was killed by a signal", intro, &head, &rows(symptoms::signals()));
    table(page, "## A container ended with a code", "", &head, &rows(symptoms::ends()));
    let _ = writeln!(
        page,
        "\n## A container failed, and its log ends with an error\n\n{}",
        PRINTED.trim_end()
    );
    let head = ["The log ends with", "Layer", "Cause", "What helps"];
    for (heading, all) in symptoms::printed() {
        let rows: Vec<_> = all.iter().map(|of| row(of, format!("`{}`", of.seen))).collect();
        table(page, &format!("### {heading}"), "", &head, &rows);
    }
    let rows: Vec<_> = symptoms::operations()
        .map(|(words, capability, instead)| vec![words, capability.to_owned(), instead.to_owned()])
        .collect();
    let intro = "The capability that `Operation not permitted` of these programs and calls lacks \
                 (`securityContext.capabilities.add`).";
    let head = ["Programs and calls", "Capability", "Or"];
    table(page, "### Capabilities", intro, &head, &rows);
}

/// The files of an image with programs that cannot be executed.
struct Programs;

impl elf::Files for Programs {
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        // The head of an ELF file of 64 bits, little-endian, for RISC-V, without program headers.
        let mut foreign = b"\x7fELF\x02\x01".to_vec();
        foreign.resize(64, 0);
        foreign[18] = 0xf3;
        Some(match path {
            "/opt/empty" => Vec::new(),
            "/opt/foreign" => foreign,
            "/opt/script" => b"#!/bin/bash\n".to_vec(),
            "/opt/windows" => b"#!/bin/sh\r\n".to_vec(),
            "/opt/text" => b"hello\n".to_vec(),
            _ => return None,
        })
    }
}

fn process(program: &str) -> Process {
    let oci =
        serde_json::json!({"cwd": "/work", "args": [program], "user": {"uid": 1000, "gid": 1000}});
    let spec = ::oci_spec::runtime::Spec::default();
    let oci = serde_json::from_value(oci).unwrap();
    hull_plan::process(&oci, &spec, &hull_plan::HostFacts::default()).unwrap()
}

/// Failed starts: a step of the start, and the errno of its call.
fn starts(page: &mut String) {
    const EPERM: i32 = 1;
    const ENOENT: i32 = 2;
    const EAGAIN: i32 = 11;
    const ENOMEM: i32 = 12;
    const EACCES: i32 = 13;
    const ENOTDIR: i32 = 20;
    const EINVAL: i32 = 22;
    const EMFILE: i32 = 24;
    const ENOSPC: i32 = 28;
    let mut rows = Vec::new();
    for program in ["/opt/empty", "/opt/foreign", "/opt/script", "/opt/windows", "/opt/text"] {
        let found = elf::explain(&process(program), &Programs);
        let found = found.unwrap_or_else(|| panic!("{program} is not explained"));
        // The page is the same wherever it is written.
        let what = match found.what.rsplit_once(", this node is ") {
            Some((what, _)) => format!("{what}, this node is …"),
            None => found.what,
        };
        rows.push(vec![what, Layer::Process.name().into(), found.hint.unwrap()]);
    }
    let steps = [
        (Step::Exec, ENOENT),
        (Step::Exec, EACCES),
        (Step::Cwd, ENOENT),
        (Step::Cwd, EACCES),
        (Step::Cwd, ENOTDIR),
        (Step::Clone, EAGAIN),
        (Step::Clone, ENOMEM),
        (Step::Clone, ENOSPC),
        (Step::Clone, EPERM),
        (Step::Rlimit(0), EPERM),
        (Step::Identity, EINVAL),
        (Step::SecurityModule, ENOENT),
        (Step::Seccomp, EACCES),
        (Step::Scheduling, EINVAL),
        (Step::PauseRoot, ENOSPC),
        (Step::Pipe, EPERM),
        (Step::Pipe, EMFILE),
    ];
    for (step, errno) in steps {
        let error = StepError { step, errno, call: String::new() };
        let failure = hull_plan::diagnose_process(&process("/opt/app"), &error);
        let hint = failure.hint.unwrap_or_else(|| panic!("nothing helps: {}", failure.what));
        rows.push(vec![failure.what, failure.layer.name().into(), hint]);
    }
    let intro = "The pod's events and the answer of StartContainer name the step that failed.";
    let head = ["You see", "Layer", "What helps"];
    table(page, "## A container does not start", intro, &head, &rows);
}

/// Findings about containers that run.
fn running(page: &mut String) {
    let timeline = Timeline {
        kind: Kind::Container,
        id: "c".into(),
        pod: "p".into(),
        namespace: "default".into(),
        pod_name: "web".into(),
        name: "app".into(),
        ..Timeline::default()
    };
    let reading = Reading {
        runs: true,
        memory_bytes: 95 << 20,
        memory_limit_bytes: Some(100 << 20),
        cpu_periods: 100,
        cpu_throttled_periods: 40,
        faults: symptoms::running(),
        ..Reading::default()
    };
    let readings = BTreeMap::from([("c".to_owned(), reading)]);
    let findings = judge::findings(&[timeline], &readings, NOW_NS);
    let row = |of: &Diagnosis| {
        let evidence = of.evidence.iter().map(|seen| format!("; {seen}")).collect::<String>();
        vec![format!("{}{evidence}", of.what), of.layer.name().into(), fix(of)]
    };
    let rows: Vec<_> = findings.iter().map(|of| row(&of.diagnosis)).collect();
    let intro = "`hull explain NAME` finds these while the container runs.";
    let head = ["You see", "Layer", "What helps"];
    table(page, "## A container runs, but not well", intro, &head, &rows);
}

/// Errors of a registry's host, as pulls have them.
fn pull_errors() -> Vec<Cause> {
    use Unreachable as U;
    let host = || "registry.example".to_owned();
    let what = || "manifest team/app:1".to_owned();
    let unreachable =
        |kind| Cause::Unreachable { host: host(), kind, detail: String::new(), registry: None };
    let answer = |status| Cause::Answer {
        host: host(),
        status,
        what: what(),
        detail: String::new(),
        registry: None,
        redirected_by: None,
    };
    let denied = |with_credentials| Cause::Denied {
        host: host(),
        what: what(),
        detail: String::new(),
        with_credentials,
    };
    let absent = |what: &str, object| Cause::NotFound { host: host(), what: what.into(), object };
    let kinds = [
        U::NoSuchHost,
        U::NoNameServer,
        U::NoRoute,
        U::Refused,
        U::Timeout,
        U::Certificate,
        U::BadCertificate,
        U::Expired,
        U::NotYetValid,
        U::OtherName,
        U::PlainHttp,
        U::SpeaksTls,
        U::NotHttp,
        U::Tls,
        U::Broken,
        U::NoResponse,
        U::Stalled,
        U::Redirect,
        U::Other,
    ];
    let mut causes = vec![
        absent("manifest team/app:1", Object::Tag),
        absent("layer sha256:1f2e…", Object::Blob),
        denied(false),
        denied(true),
        answer(403),
        answer(429),
        answer(503),
        Cause::Page { host: host(), status: 200, what: what() },
    ];
    causes.extend(kinds.into_iter().map(unreachable));
    causes.extend([
        Cause::Platform { want: "linux/amd64".into(), there: "linux/arm64".into() },
        Cause::NotAnImage { media_type: "application/vnd.cncf.helm.config.v1+json".into() },
        Cause::WrongDigest {
            what: "layer sha256:1f2e…".into(),
            want: "sha256:1f2e…".into(),
            got: "sha256:90ab…".into(),
        },
    ]);
    causes
}

/// The errors of failed pulls.
fn pulls(page: &mut String) {
    let row = |cause: Cause| {
        let seen = cause.to_string();
        let error = Error::Pull { image: "registry.example/team/app:1".into(), source: cause };
        let hint = error.hint().unwrap_or_else(|| panic!("nothing helps: {seen}"));
        vec![seen, hint]
    };
    let rows: Vec<_> = pull_errors().into_iter().map(row).collect();
    let intro = "`ImagePullBackOff` and `ErrImagePull`: the pod's events have the message of the last pull.";
    table(page, "## An image is not pulled", intro, &["You see", "What helps"], &rows);
}

/// Errors of verbs.
fn refused(page: &mut String) {
    for (heading, intro, all) in refusals::all() {
        let row = |(seen, hint): (String, Option<String>)| {
            let hint = hint.unwrap_or_else(|| panic!("nothing helps: {seen}"));
            vec![format!("cannot {seen}"), hint]
        };
        let rows: Vec<_> = all.into_iter().map(row).collect();
        table(page, heading, intro, &["You see", "What helps"], &rows);
    }
}

/// The text of the page.
fn text() -> String {
    let mut page = String::from(INTRO);
    pulls(&mut page);
    refused(&mut page);
    starts(&mut page);
    ends(&mut page);
    running(&mut page);
    page
}

mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_page_of_symptoms_is_fresh() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/troubleshooting.md");
        let text = text();
        if std::env::var_os("HULL_BLESS").is_some() {
            std::fs::write(&page, &text).unwrap();
        }
        let there = std::fs::read_to_string(&page).unwrap_or_default();
        assert!(there == text, "docs/troubleshooting.md is stale: run this test with HULL_BLESS=1");
    }
}
