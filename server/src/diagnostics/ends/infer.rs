// SPDX-License-Identifier: Apache-2.0
//! From a clue to its cause (pure): what the recognised error and the container's spec have in common.

use super::clues::Clue;
use super::facts::Facts;
use super::inference::{Inference, likely};
use super::phrases::Phrase;
use super::{files, forks, network, privileges, resources, startup};
use hull_plan::elf::Found;
use hull_plan::{Certainty, Layer};

/// The most probable cause of a clue; `None` if the spec and the node explain nothing.
pub(super) fn cause(clue: &Clue, facts: &Facts) -> Option<Inference> {
    if let Some(found) = resources::other(clue) {
        return Some(found);
    }
    match clue.phrase {
        Phrase::LibraryMissing => {
            Some(startup::of_clue(clue, facts).unwrap_or_else(|| library(clue, facts)))
        }
        Phrase::SymbolMissing => Some(likely(
            "library-version",
            Layer::Process,
            format!(
                "`{}` was built for a newer C library, or another version of one, than the image has",
                facts.program()
            ),
            "build the program on the image's own base image, or use a newer base image",
        )),
        Phrase::CommandMissing | Phrase::WrongFormat if facts.program_fault.is_some() => {
            facts.program_fault.as_ref().map(program)
        }
        Phrase::CommandMissing => Some(command(clue, facts)),
        Phrase::SetuidIneffective => Some(privileges::setuid(clue, facts)),
        Phrase::AddressInUse => Some(network::address_in_use(clue, facts)),
        Phrase::NoSuchAddress => Some(network::no_such_address(clue)),
        Phrase::ReadOnly => Some(files::read_only(clue, facts)),
        Phrase::NoSpace | Phrase::QuotaExceeded => Some(files::no_space(clue, facts)),
        Phrase::PermissionDenied => files::denied_path(facts)
            .or_else(|| network::privileged_port(clue, facts))
            .or_else(|| privileges::missing(clue, facts))
            .or_else(|| startup::of_clue(clue, facts)),
        Phrase::NotPermitted => files::device(clue)
            .or_else(|| network::privileged_port(clue, facts))
            .or_else(|| privileges::missing(clue, facts)),
        Phrase::InvalidArgument => privileges::unmapped_id(clue, facts),
        Phrase::HostUnknown
        | Phrase::ConnectionRefused
        | Phrase::Unreachable
        | Phrase::TimedOut
        | Phrase::Certificate => network::peer(clue, facts),
        Phrase::NotImplemented => {
            privileges::refused_call(clue, facts).or_else(|| startup::of_clue(clue, facts))
        }
        Phrase::Missing => files::missing(clue, facts),
        Phrase::TooManyFiles => Some(too_many_files(facts)),
        Phrase::NoAccount => Some(no_account(facts)),
        // A socket that is not connected any more is another one than a volume.
        Phrase::NotConnected if clue.paths().next().is_none() => None,
        Phrase::ForkRefused => forks::cause(clue, facts),
        Phrase::WatchLimit
        | Phrase::OutOfMemory
        | Phrase::StaleHandle
        | Phrase::NotConnected
        | Phrase::WrongFormat
        | Phrase::NoDevice => fixed(clue.phrase),
    }
}

/// Phrases that need nothing else: kind, layer, cause and fix.
const FIXED: [(Phrase, &str, Layer, &str, &str); 6] = [
    (
        Phrase::WatchLimit,
        "inotify-limit",
        Layer::Process,
        "all containers of the node's user share `fs.inotify.max_user_watches` and `max_user_instances`",
        "raise both with sysctl on the node",
    ),
    (
        Phrase::OutOfMemory,
        "allocation-failed",
        Layer::Process,
        "the program reached a limit of its own (heap size, RLIMIT_AS), or the node refuses to overcommit; the memory \
         limit of its cgroup killed nothing",
        "raise the program's own limit (-Xmx, --max-old-space-size), and the memory limit with it",
    ),
    (
        Phrase::StaleHandle,
        "stale-volume",
        Layer::Filesystem,
        "a volume's file system lost what was mounted (NFS export or directory replaced)",
        "delete the pod, so that its volumes are mounted again, and check the storage server",
    ),
    (
        Phrase::NotConnected,
        "volume-disconnected",
        Layer::Filesystem,
        "the process that serves a volume (FUSE, CSI driver) has ended",
        "restart the volume's driver on this node, then delete the pod",
    ),
    (
        Phrase::WrongFormat,
        "wrong-format",
        Layer::Process,
        "a program that it starts is for another architecture, or a script without a `#!` line",
        "build it for this node's architecture (GOARCH, --platform), or add `#!/bin/sh`",
    ),
    (
        Phrase::NoDevice,
        "device-missing",
        Layer::Filesystem,
        "a device that it opens is not in the container, or its driver is not on the node",
        "request the device from its plugin, and check that the node has its driver",
    ),
];

fn fixed(phrase: Phrase) -> Option<Inference> {
    let (_, kind, layer, cause, fix) = FIXED.into_iter().find(|(known, ..)| *known == phrase)?;
    Some(likely(kind, layer, cause, fix))
}

fn too_many_files(facts: &Facts) -> Inference {
    const RLIMIT_NOFILE: u32 = 7;
    let limits = &facts.process.rlimits;
    let soft = limits.iter().find(|limit| limit.resource == RLIMIT_NOFILE).map(|limit| limit.soft);
    let soft = soft.map_or(String::new(), |soft| format!(", {soft}"));
    likely(
        "open-files",
        Layer::Process,
        format!("its limit of open files (RLIMIT_NOFILE{soft}) is reached"),
        "raise `nofile` in the program (ulimit -n) or in `runtime.default_ulimits`, or close files that leak",
    )
}

fn no_account(facts: &Facts) -> Inference {
    likely(
        "no-account",
        Layer::Process,
        format!("uid {} has no entry in the image's /etc/passwd", facts.process.uid),
        "add the user to the image, or set `runAsUser` to one that it has",
    )
}

/// A program that is there, but that the kernel cannot execute.
fn program(found: &Found) -> Inference {
    let fix = found.hint.clone().unwrap_or_else(|| "correct the program in the image".into());
    Inference {
        certainty: Certainty::Certain,
        ..likely("program-fault", Layer::Process, &*found.what, fix)
    }
}

/// Words of the dynamic loader about a library that is there, with the cause and the fix.
const UNUSABLE: [(&str, &str, &str); 6] = [
    (
        "failed to map segment",
        "a shared library is on a file system that is mounted noexec, or memory for it was refused",
        "put the library on a volume or path without noexec (not /tmp of a noexec mount), and see its memory limits",
    ),
    (
        "wrong elf class",
        "a shared library is for another architecture than the program (32 and 64 bits)",
        "install the library for the program's architecture",
    ),
    (
        "exec format error",
        "a shared library is for another architecture than the program",
        "install the library for the program's architecture",
    ),
    (
        "permission denied",
        "the user may not read a shared library that the program needs",
        "correct owner or mode of the library (chmod o+r) in the image or volume",
    ),
    (
        "file too short",
        "a shared library is empty or cut off",
        "install the library again; a copy or a download into the image was not complete",
    ),
    (
        "invalid elf header",
        "a file with the name of a shared library is not one (a text, or a script of the linker)",
        "install the library again; a copy or a download into the image was not complete",
    ),
];

fn library(clue: &Clue, facts: &Facts) -> Inference {
    let line = clue.line();
    if !line.contains("no such file") {
        let unusable = UNUSABLE.iter().find(|(words, ..)| line.contains(words));
        if let Some((_, cause, fix)) = unusable {
            return likely("library-unusable", Layer::Process, *cause, *fix);
        }
    }
    let name = clue
        .library()
        .map_or("a shared library".to_owned(), |name| format!("shared library `{name}`"));
    likely(
        "library-missing",
        Layer::Process,
        format!(
            "{name}, which `{}` or a program that it starts needs, is not in the image",
            facts.program()
        ),
        "install the library in the image, set LD_LIBRARY_PATH to where it is, or link the program statically",
    )
}

fn command(clue: &Clue, facts: &Facts) -> Inference {
    let known = clue.command().filter(|word| facts.shows(word));
    let name = known.map_or("a command that it runs".to_owned(), |word| {
        format!("`{}`", hull_sys::text::shown(word, 64))
    });
    likely(
        "command-missing",
        Layer::Process,
        format!("{name} is not in the image, or not in its PATH"),
        "install it in the image, or correct the command; its log names it",
    )
}
