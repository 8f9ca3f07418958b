// SPDX-License-Identifier: Apache-2.0
//! Stops every process that Hull makes at the entry of its `execve`, and looks at it from outside.
//!
//! One thread traces (`ptrace(2)`): the daemon's threads, or one program, are seized; what they clone is
//! traced from its first instruction. The rule: nothing waits here but in `waitpid`, and a process goes
//! on as soon as it was looked at. When the thread ends the kernel lets all of them go.

use hull_tests::ExpectExt as _;
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::HashSet;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

/// `PTRACE_SYSCALL_INFO_ENTRY`.
const ENTRY: u8 = 1;
/// O_CLOEXEC in the flags of fdinfo, which are octal.
const CLOEXEC: u32 = 0o2_000_000;
/// Longest program name that is shown.
const NAME_BYTES_MAX: usize = 4096;

/// A descriptor of a stopped process.
#[derive(Debug, Clone)]
pub(crate) struct Descriptor {
    pub(crate) number: u32,
    /// As /proc shows it.
    pub(crate) target: String,
    pub(crate) is_pipe: bool,
    pub(crate) is_directory: bool,
    pub(crate) closes_at_exec: bool,
    /// Device and inode of what it is open on.
    pub(crate) file: (u64, u64),
}

/// A process at the entry of `execve`.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    pub(crate) pid: i32,
    /// The path that the kernel is about to resolve; empty when it is that of a descriptor.
    pub(crate) program: String,
    pub(crate) descriptors: Vec<Descriptor>,
    /// Device and inode of its root directory, and of what many `..` lead to from its directory.
    pub(crate) root: (u64, u64),
    pub(crate) above_cwd: (u64, u64),
    pub(crate) mount_namespace: PathBuf,
    pub(crate) user_namespace: PathBuf,
    /// Mappings that other processes can have too, and that are written to.
    pub(crate) shared_memory: Vec<String>,
    /// The program that it runs so far.
    pub(crate) exe: String,
}

impl Moment {
    /// Whether it is in a mount namespace of its own: what happens on the host is not a container's.
    pub(crate) fn is_inside(&self) -> bool {
        fs::read_link("/proc/self/ns/mnt").is_ok_and(|ours| ours != self.mount_namespace)
    }

    /// Program, process and user, for messages.
    pub(crate) fn name(&self) -> String {
        let program = if self.program.is_empty() { "(a descriptor)" } else { &self.program };
        let user = if self.is_mapped() { ", mapped" } else { "" };
        format!("`{program}` ({}{user}, by {})", self.pid, self.exe)
    }

    /// Whether it is in another user namespace than we are.
    pub(crate) fn is_mapped(&self) -> bool {
        fs::read_link("/proc/self/ns/user").is_ok_and(|ours| ours != self.user_namespace)
    }
}

/// Traces until [`Tracer::moments`] is called.
#[derive(Debug)]
pub(crate) struct Tracer {
    /// Its end is the sign for the thread to end: a child of the thread reads from here.
    bell: Option<std::io::PipeWriter>,
    thread: Option<JoinHandle<Vec<Moment>>>,
}

impl Tracer {
    /// Traces all that a running process makes from now on; the process itself is not slowed down.
    pub(crate) fn of_process(pid: i32) -> Self {
        Self::start(move || seize_threads(pid))
    }

    /// Traces a process that waits for something, itself and all that it makes.
    pub(crate) fn of_waiting(pid: i32) -> Self {
        Self::start(move || {
            for thread in seize_threads(pid) {
                // From its next stop on it goes from one system call to the next.
                ptrace::interrupt(thread).or_fail("stop what is traced");
            }
            HashSet::new()
        })
    }

    fn start(seize: impl FnOnce() -> HashSet<Pid> + Send + 'static) -> Self {
        let (heard, bell) = std::io::pipe().or_fail("make a pipe");
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            // The thread's own child: its end is reported by the same waitpid as everything else.
            let ringer = Command::new("cat").stdin(heard).stdout(Stdio::null()).spawn();
            let ringer = pid_of(&ringer.or_fail("start `cat`"));
            let mut trace = Trace::of(seize());
            tell.send(()).or_fail("tell that tracing has begun");
            let _code = trace.run(ringer);
            trace.moments
        });
        told.recv().or_fail("begin to trace");
        Self { bell: Some(bell), thread: Some(thread) }
    }

    /// Ends tracing and gives what was seen.
    pub(crate) fn moments(mut self) -> Vec<Moment> {
        drop(self.bell.take());
        joined(self.thread.take().or_fail("find the tracing thread"))
    }
}

/// Runs a program to its end, traced with what it makes. What was seen, and its exit code.
pub(crate) fn run(command: &Command) -> (Vec<Moment>, i32) {
    // A shell that waits at a pipe until it is traced, and then becomes the program.
    let (hold, go) = std::io::pipe().or_fail("make a pipe");
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"read -r _; exec "$@" < /dev/null"#, "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.stdin(hold).stdout(Stdio::null()).stderr(Stdio::null());
    joined(std::thread::spawn(move || {
        // Nobody but this thread may wait for it: its stops would be taken for its end.
        let shell = pid_of(&shell.spawn().or_fail("start a shell"));
        let mut trace = Trace::of(seize_threads(shell.as_raw()));
        drop(go);
        let code = trace.run(shell);
        (trace.moments, code)
    }))
}

fn joined<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|_| panic!("the tracing thread panicked"))
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).or_fail("name a process"))
}

fn options() -> Options {
    Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACESYSGOOD
}

/// Seizes all threads; those that come later are traced by themselves.
fn seize_threads(pid: i32) -> HashSet<Pid> {
    let mut seized = HashSet::new();
    loop {
        let mut is_new = false;
        for name in hull_tests::shell::names(&PathBuf::from(format!("/proc/{pid}/task"))) {
            let Ok(thread) = name.parse::<i32>() else { continue };
            let thread = Pid::from_raw(thread);
            if !seized.contains(&thread) && ptrace::seize(thread, options()).is_ok() {
                is_new |= seized.insert(thread);
            }
        }
        if !is_new {
            assert!(!seized.is_empty(), "cannot trace process {pid}");
            return seized;
        }
    }
}

struct Trace {
    /// Seized, not made under our eyes: their system calls are not looked at.
    roots: HashSet<Pid>,
    /// Those that run something else than Hull, and their children.
    programs: HashSet<Pid>,
    moments: Vec<Moment>,
}

impl Trace {
    fn of(roots: HashSet<Pid>) -> Self {
        Self { roots, programs: HashSet::new(), moments: Vec::new() }
    }

    /// Until `last` has ended; its exit code.
    fn run(&mut self, last: Pid) -> i32 {
        // Of this thread's children and tracees alone: others wait for theirs elsewhere.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            match waitpid(None, Some(flags)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == last => return code,
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == last => {
                    return 128 + signal as i32;
                }
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => {
                    self.roots.remove(&pid);
                    self.programs.remove(&pid);
                }
                Ok(WaitStatus::PtraceSyscall(pid)) => {
                    self.at_call(pid);
                    self.go_on(pid, None);
                }
                Ok(WaitStatus::PtraceEvent(pid, _, event)) => {
                    self.event(pid, event);
                    self.go_on(pid, None);
                }
                Ok(WaitStatus::Stopped(pid, signal)) => self.go_on(pid, Some(signal)),
                Ok(WaitStatus::Continued(_) | WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
                Err(errno) => panic!("cannot wait for what is traced: {errno}"),
            }
        }
    }

    /// One that was killed meanwhile does not go on: its end comes next.
    fn go_on(&self, pid: Pid, signal: Option<Signal>) {
        let gone = if self.roots.contains(&pid) || self.programs.contains(&pid) {
            ptrace::cont(pid, signal)
        } else {
            ptrace::syscall(pid, signal)
        };
        let _killed = gone.is_err();
    }

    fn event(&mut self, pid: Pid, event: i32) {
        match event {
            libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
                let made = ptrace::getevent(pid).ok().and_then(|raw| i32::try_from(raw).ok());
                let Some(made) = made.map(Pid::from_raw) else { return };
                let is_thread = fs::metadata(format!("/proc/{pid}/task/{made}")).is_ok();
                if self.roots.contains(&pid) && is_thread {
                    self.roots.insert(made);
                } else if self.programs.contains(&pid) {
                    self.programs.insert(made);
                }
            }
            libc::PTRACE_EVENT_EXEC => {
                let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
                let is_hull = exe.to_string_lossy().contains("hull");
                if self.roots.contains(&pid) {
                    // The command of a trace: from hull on, its calls count.
                    if is_hull {
                        self.roots.remove(&pid);
                    }
                } else if !is_hull {
                    self.programs.insert(pid);
                }
            }
            _ => {}
        }
    }

    fn at_call(&mut self, pid: Pid) {
        if !ptrace::syscall_info(pid).is_ok_and(|info| info.op == ENTRY) {
            return;
        }
        let text = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = words.first().and_then(|word| word.parse::<i64>().ok());
        let path = match number {
            Some(libc::SYS_execve) => words.get(1),
            Some(libc::SYS_execveat) => words.get(2),
            _ => return,
        };
        let path =
            path.and_then(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
        let program = path.map_or_else(String::new, |at| text_at(pid, at));
        self.moments.extend(moment(pid, program));
    }
}

/// The C string at an address of a process.
fn text_at(pid: Pid, at: u64) -> String {
    let mut bytes = vec![0; NAME_BYTES_MAX];
    let read = fs::File::open(format!("/proc/{pid}/mem")).and_then(|mut memory| {
        memory.seek(SeekFrom::Start(at))?;
        memory.read(&mut bytes)
    });
    let text = &bytes[..read.unwrap_or(0)];
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    String::from_utf8_lossy(&text[..end]).into_owned()
}

/// The lines of `proc(5)` /proc/pid/maps about shared, writable mappings.
fn shared_memory(maps: &str) -> Vec<String> {
    let maps = fs::read_to_string(maps).unwrap_or_default();
    let is_shared = |line: &&str| line.split_whitespace().nth(1) == Some("rw-s");
    maps.lines().filter(is_shared).map(ToOwned::to_owned).collect()
}

fn moment(pid: Pid, program: String) -> Option<Moment> {
    let at = |name: &str| format!("/proc/{pid}/{name}");
    let place =
        |path: String| fs::metadata(path).map(|is| (is.dev(), is.ino())).unwrap_or_default();
    let link = |name: &str| fs::read_link(at(name)).unwrap_or_default();
    let mut descriptors = Vec::new();
    for name in hull_tests::shell::names(&PathBuf::from(at("fd"))) {
        let (path, info) = (at(&format!("fd/{name}")), at(&format!("fdinfo/{name}")));
        let is = fs::metadata(&path).ok()?;
        let info = fs::read_to_string(info).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|text| u32::from_str_radix(text.trim(), 8).ok())?;
        descriptors.push(Descriptor {
            number: name.parse().ok()?,
            target: fs::read_link(&path).ok()?.display().to_string(),
            is_pipe: is.file_type().is_fifo(),
            is_directory: is.is_dir(),
            closes_at_exec: flags & CLOEXEC != 0,
            file: (is.dev(), is.ino()),
        });
    }
    Some(Moment {
        pid: pid.as_raw(),
        program,
        descriptors,
        root: place(at("root/")),
        above_cwd: place(at("cwd/../../../../../../../../../../../..")),
        mount_namespace: link("ns/mnt"),
        user_namespace: link("ns/user"),
        shared_memory: shared_memory(&at("maps")),
        exe: link("exe").display().to_string(),
    })
}
