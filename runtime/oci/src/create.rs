// SPDX-License-Identifier: Apache-2.0
//! `create`, and `run`, which is create, start, wait and delete.
//!
//! ```text
//! directory ─ record ─ start socket ─ cgroup, process, hooks ─ it waits ─ record with its process
//! ```
//!
//! The record is there before the first thing of the container is made. Killed anywhere on the way,
//! what there is has a record or nothing but a directory, and `delete --force` takes it away.

use crate::args::{Create, Global, Streams};
use crate::console::{self, Receiver};
use crate::delete::tear_down;
use crate::error::{Error, Result};
use crate::foreground;
use crate::hooks::hook_failed;
use crate::listener::{Listener, connect_agent};
use crate::resources::check_shares;
use crate::setup::{Setup, setup};
use crate::status::{self, check_thawed, failed};
use crate::store::Dir;
use crate::{log, net_devices, rootless, start, systemd};
use hull_cgroup::CgroupFs;
use hull_init::plan::Step;
use hull_init::{Io, LaunchOptions, PendingProcess, Prepare, StepError, start_socket};
use hull_records::{Durability, Location};
use rustix::io::fcntl_dupfd_cloexec;
use std::cell::Cell;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

/// The parent's handles on the container's init process.
struct CreatedContainer {
    pidfd: OwnedFd,
    /// The master of its terminal, if there is no console socket.
    master: Option<OwnedFd>,
}

pub(crate) fn create(global: &Global, args: &Create) -> Result<()> {
    make(global, args).map(drop)
}

/// The code is the container's own.
pub(crate) fn run(global: &Global, args: &Create) -> Result<u8> {
    let signals = if args.streams.detach { None } else { Some(foreground::signals()?) };
    let created = make(global, args)?;
    let started = start::start(global, &args.id);
    let code = match (started, signals) {
        (Ok(()), None) => return Ok(0),
        (Ok(()), Some(signals)) => {
            foreground::supervise(&created.pidfd, &signals, created.master.as_ref(), true)
        }
        (Err(err), _) => Err(err),
    };
    if code.is_err() || !args.keep {
        let dir = Dir::open(&global.root, &args.id)?;
        dir.lock()?;
        let record = dir.record()?;
        tear_down(global, &dir, record.as_ref())?;
    }
    code
}

fn make(global: &Global, args: &Create) -> Result<CreatedContainer> {
    let mut setup = setup(global, args)?;
    rootless::check(&setup.plan)?;
    check_streams(&args.streams, setup.terminal)?;
    net_devices::check(global, &args.id, &setup.plan, &setup.beyond.net_devices)?;
    if setup.terminal && !args.streams.detach {
        let size = &mut setup.plan.process.terminal;
        *size = size.or_else(console::own_size);
    }
    let cgroup = status::cgroup(&setup.record)?;
    check_shares(&status::host_of(&setup.record)?, &setup.plan.cgroup.limits)?;
    check_thawed(&cgroup, &args.id)?;
    let receiver = Receiver::connect("--console-socket", args.streams.console_socket.as_deref())?;
    let pidfd_receiver = Receiver::connect("--pidfd-socket", args.streams.pidfd_socket.as_deref())?;
    let listener = setup.beyond.listener.as_ref().map(connect_agent).transpose()?;
    // Not locked, as what is cloned would hold the lock too: until the record has a process, no other
    // command but `delete --force` does anything with it.
    let dir = Dir::create(&global.root, &args.id)?;
    if cgroup.is_populated_anywhere().map_err(failed(&args.id))? {
        // Not torn down: those processes are somebody else's.
        dir.remove()?;
        return Err(Error::CgroupInUse { path: setup.record.cgroup });
    }
    if setup.record.checks_memory
        && let Err(error) = cgroup.check_memory(&setup.plan.cgroup.limits)
    {
        // A cgroup without processes may still hold page cache.
        dir.remove()?;
        return Err(failed(&args.id)(error));
    }
    // Before a cgroup that a user may create.
    dir.write_record(&setup.record)?;
    let is_named = setup.names_cgroup;
    let host = match rootless::cgroups(global, &mut setup, is_named) {
        Ok(host) => host,
        Err(error) => {
            dir.remove()?;
            return Err(error);
        }
    };
    reset_affinity(global);
    let receivers = Receivers { terminal: receiver, pidfd: pidfd_receiver, listener };
    let created = build(&dir, &mut setup, args, (global, &host), receivers);
    if created.is_err()
        && let Err(left) = tear_down(global, &dir, Some(&setup.record))
    {
        log::warn(
            global,
            &format!("container `{}` is left partly created: cannot {left}", args.id),
        );
    }
    created
}

/// The caller's CPU affinity is not the container's. A filter around us may forbid that call: the container then has
/// fewer CPUs, which does not keep it from starting.
pub(crate) fn reset_affinity(global: &Global) {
    if let Err(error) = hull_sys::reset_affinity() {
        log::warn(global, &format!("the container runs on the CPUs of its caller only: {error}"));
    }
}

/// The sockets that get descriptors of the container.
struct Receivers {
    terminal: Option<Receiver>,
    pidfd: Option<Receiver>,
    listener: Option<Listener>,
}

fn build(
    dir: &Dir,
    setup: &mut Setup,
    args: &Create,
    (global, host): (&Global, &CgroupFs),
    receivers: Receivers,
) -> Result<CreatedContainer> {
    let receiver = receivers.terminal.as_ref();
    dir.write_record(&setup.record)?;
    if let Some(filter) = &setup.plan.process.seccomp {
        dir.write_filter(&hull_plan::encode(filter))?;
    }
    // Ends with this function: by then the container's process is in the scope, or there is none.
    let _placeholder = match &setup.scope {
        Some(scope) => {
            let placeholder =
                systemd::start(scope, &args.id, &setup.plan.cgroup.limits, &setup.unit_properties)?;
            // From now on it is ours, and goes with the container.
            setup.record.systemd_unit = Some(scope.unit.clone());
            dir.write_record(&setup.record)?;
            Some(placeholder)
        }
        None => None,
    };
    let setup = &*setup;
    let socket = start_socket::create(dir.as_fd()).map_err(Error::call)?;
    let (io, terminal) = io(setup.terminal, receiver.is_some(), args.streams.preserve_fds)?;
    let keyring = format!("_ses.{}", args.id);
    let (failed, wanted) = (Cell::new(None), &setup.beyond.net_devices);
    let give_devices = |child| {
        net_devices::give(&args.id, child, &setup.plan, wanted).map_err(|error| {
            failed.set(Some(error));
            net_devices::not_given()
        })
    };
    let launch = LaunchOptions {
        outlives: true,
        start_socket: Some(socket.as_fd()),
        kept_fds: args.streams.preserve_fds,
        keyring: (!args.no_new_keyring).then_some(keyring.as_str()),
        hooks: Some(&setup.hooks),
        hooks_directory: Some(Path::new(&setup.record.bundle)),
        prepare: (!wanted.is_empty()).then_some(Prepare(&give_devices)),
        scheduling: Some(&setup.beyond.scheduling),
        keeps_capabilities: setup.record.process.capabilities().is_none(),
        further_limits: Some(&setup.beyond.further_limits),
        write_maps: rootless::map_writer(),
        host_devices: rootless::is_rootless(global),
        groups_are_denied: rootless::groups_are_denied(),
        seccomp_listener: receivers.listener.as_ref().map(Listener::end),
        ..LaunchOptions::default()
    };
    let launched = hull_init::launch(host, &setup.plan, io, &[], &launch);
    let mut started = launched.map_err(|error| match failed.take() {
        Some(devices) => devices,
        None => described(setup, &error),
    })?;
    match hand_over(dir, setup, args, receivers, terminal.as_ref(), &mut started) {
        Ok(master) => Ok(CreatedContainer { pidfd: started.pidfd, master }),
        Err(error) => {
            // Without a cgroup nothing else finds it.
            started.kill();
            Err(error)
        }
    }
}

/// Waits until the container's process is ready, and gives what was asked of it to those who asked: the record, an
/// agent, sockets and the pid file. Returns the terminal, if it stays with this process.
fn hand_over(
    dir: &Dir,
    setup: &Setup,
    args: &Create,
    receivers: Receivers,
    terminal: Option<&OwnedFd>,
    started: &mut PendingProcess,
) -> Result<Option<OwnedFd>> {
    if let Some(listener) = receivers.listener {
        listener.pass_on(&setup.record, "creating", started)?;
    }
    started.wait().map_err(|error| described(setup, &error))?;
    let mut record = setup.record.clone();
    record.first = Some(status::first(started.pid)?);
    dir.write_record(&record)?;
    if let Some(receiver) = &receivers.pidfd {
        receiver.give_pidfd(&started.pidfd)?;
    }
    let master = console::receive(terminal, receivers.terminal.as_ref())?;
    if let Some(path) = &args.streams.pid_file {
        write_pid(path, started.pid)?;
    }
    Ok(master)
}

/// Why a step of the way failed, in words.
fn described(setup: &Setup, error: &StepError) -> Error {
    let id = setup.record.id.clone();
    if let Step::Hook(_) = error.step {
        return hook_failed(&setup.hooks, id, error);
    }
    let cgroup = status::cgroup(&setup.record);
    let error = error.clone();
    let error = cgroup.map_or(error.clone(), |cgroup| error.or_memory(&cgroup, 0));
    Error::Start { id, failure: Box::new(hull_plan::diagnose(&setup.plan, &error)) }
}

/// A terminal goes to somebody, and only a terminal does.
pub(crate) fn check_streams(streams: &Streams, terminal: bool) -> Result<()> {
    let wrong = match (terminal, streams.detach, streams.console_socket.is_some()) {
        (true, true, false) => "a terminal without --console-socket, where nobody stays to hold it",
        (false, _, true) => "--console-socket without a terminal (`process.terminal`)",
        (true, false, true) => "--console-socket for a process that is not detached",
        _ => return check_kept(streams.preserve_fds),
    };
    Err(Error::Usage { what: wrong.into() })
}

fn check_kept(count: u32) -> Result<()> {
    for number in 3..3 + count {
        if rustix::fs::stat(format!("/proc/self/fd/{number}")).is_err() {
            let what = format!("--preserve-fds {count}: descriptor {number} is not open");
            return Err(Error::Usage { what });
        }
    }
    Ok(())
}

/// The streams of a process: a terminal with the socket over which its master comes, or ours. `kept` descriptors stay
/// where they are.
pub(crate) fn io(terminal: bool, has_receiver: bool, kept: u32) -> Result<(Io, Option<OwnedFd>)> {
    if terminal {
        return console::terminal(has_receiver).map(|(io, socket)| (io, Some(socket)));
    }
    let above = i32::try_from(kept).unwrap_or(0) + 3;
    let copy = |fd: BorrowedFd<'_>| {
        fcntl_dupfd_cloexec(fd, above).map_err(Error::of(|| "fcntl(F_DUPFD_CLOEXEC)"))
    };
    let io = Io::Streams {
        stdin: copy(rustix::stdio::stdin())?,
        stdout: copy(rustix::stdio::stdout())?,
        stderr: copy(rustix::stdio::stderr())?,
    };
    Ok((io, None))
}

/// Whole or not at all: who waits for the file finds a number in it.
pub(crate) fn write_pid(path: &Path, pid: i32) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    // Not in a directory of our own: the name must not be one that the caller uses.
    new.push(format!(".new-{}", std::process::id()));
    let (file, scratch) = (Location::at(path), Location::at(Path::new(&new)));
    hull_records::replace(file, scratch, pid.to_string().as_bytes(), 0o666, Durability::Process)
        .map_err(|source| Error::OptionPath { option: "--pid-file", path: path.to_owned(), source })
}
