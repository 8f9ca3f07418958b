// SPDX-License-Identifier: Apache-2.0
//! The command line, which is runc's: the same commands, options and places.
//!
//! An option that is not known is an error; one that is known and not done is refused by name.

use crate::error::{Error, Result};
use lexopt::prelude::*;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

mod exec;
mod update;
mod words;

pub(crate) use exec::Exec;
pub(crate) use update::Update;
pub(crate) use words::Streams;
use words::{Words, given, switch, usage};

/// Options before the command.
#[derive(Debug)]
pub(crate) struct Global {
    pub(crate) root: PathBuf,
    /// Whether the caller has named it.
    pub(crate) is_root_given: bool,
    pub(crate) log: Option<PathBuf>,
    pub(crate) log_json: bool,
    /// Whether each command is logged, too.
    pub(crate) debug: bool,
    /// Whether cgroups of new containers are scopes of systemd.
    pub(crate) systemd_cgroup: bool,
    /// Whether the caller has no rights over the host; `None` to find out.
    pub(crate) rootless: Option<bool>,
}

#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) global: Global,
    pub(crate) command: Command,
}

#[derive(Debug)]
pub(crate) enum Command {
    Create(Create),
    Run(Create),
    Start {
        id: String,
    },
    Exec(Box<Exec>),
    Kill(Kill),
    Delete {
        id: String,
        force: bool,
    },
    State {
        id: String,
    },
    List(List),
    Ps(Ps),
    Pause {
        id: String,
    },
    Resume {
        id: String,
    },
    Update(Box<Update>),
    Events(Events),
    Features,
    Spec {
        bundle: Option<PathBuf>,
        /// For users without rights.
        rootless: bool,
    },
    /// Only to be printed.
    Text(String),
}

/// `create`, and `run`.
#[derive(Debug, Default)]
pub(crate) struct Create {
    pub(crate) id: String,
    pub(crate) bundle: Option<PathBuf>,
    pub(crate) streams: Streams,
    pub(crate) no_pivot: bool,
    pub(crate) no_new_keyring: bool,
    /// `run` leaves the container there when it has ended.
    pub(crate) keep: bool,
}

#[derive(Debug)]
pub(crate) struct Kill {
    pub(crate) id: String,
    pub(crate) signal: Option<String>,
    pub(crate) all: bool,
}

/// `events`: readings until the container ends, or one.
#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) id: String,
    /// One reading only.
    pub(crate) stats: bool,
    /// Time from one reading to the next.
    pub(crate) interval: Duration,
}

#[derive(Debug)]
pub(crate) struct List {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

#[derive(Debug)]
pub(crate) struct Ps {
    pub(crate) id: String,
    pub(crate) json: bool,
    /// Passed on to ps(1).
    pub(crate) options: Vec<String>,
}

const ROOT_DEFAULT: &str = "/run/hull-oci";
/// The default of runc.
const EVENTS_INTERVAL: Duration = Duration::from_secs(5);

const HELP: &str = "\
hull oci [GLOBAL OPTIONS] COMMAND [OPTIONS] ID: an OCI runtime with runc's command line

  create [-b DIR] [--console-socket S] [--pid-file F] [--pidfd-socket S] [--no-pivot] [--no-new-keyring]
         [--preserve-fds N] ID
  start ID
  run    [as create] [-d] [--keep] ID
  exec   [-t] [-d] [-p FILE] [--cwd DIR] [-e K=V] [-u UID[:GID]] [-g GID] [-c CAP] [--no-new-privs]
         [--console-socket S] [--pid-file F] [--preserve-fds N] [--cgroup [CONTROLLER:]SUB]
         [--pidfd-socket S] ID [COMMAND...]
  kill   [-a] ID [SIGNAL]            delete [-f] ID
  state ID                           list [-q] [-f table|json]
  ps [-f table|json] ID              pause ID, resume ID
  update [-r FILE] [--memory N …] ID events [--stats] [--interval 5s] ID
  spec [-b DIR]                      features

  --root DIR            where containers are kept (/run/hull-oci)
  --log FILE            where errors are written too
  --log-format F        text or json
  --systemd-cgroup      cgroups are scopes of systemd; `linux.cgroupsPath` is slice:prefix:name
  --debug               writes what is done, to the file of --log or to stderr
";

fn refuse<T>(what: &str, hint: &'static str) -> Result<T> {
    Err(Error::NotSupported { what: what.into(), hint })
}

/// Reads the words after the program's name.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Invocation> {
    let mut words = Words::from_iter(words);
    let mut global = Global {
        root: root_default(),
        is_root_given: false,
        log: None,
        log_json: false,
        debug: false,
        systemd_cgroup: false,
        rootless: None,
    };
    let command = loop {
        match words.next()? {
            Some(Long("root")) => {
                global.root = words.value()?.into();
                global.is_root_given = true;
            }
            Some(Long("log")) => global.log = Some(words.value()?.into()),
            Some(Long("log-format")) => global.log_json = is_json(&words.value()?, "text")?,
            Some(Long("debug")) => global.debug = switch(&mut words)?,
            Some(Long("systemd-cgroup")) => global.systemd_cgroup = switch(&mut words)?,
            Some(Long("rootless")) => global.rootless = rootless(&words.value()?)?,
            // Long out of use, and still passed.
            Some(Long("criu")) => drop(words.value()?),
            Some(Long("version") | Short('v')) => break Command::Text(version()),
            Some(Long("help") | Short('h')) | None => break Command::Text(HELP.into()),
            Some(Value(name)) => break command(&name.string()?, &mut words)?,
            Some(other) => return Err(other.unexpected().into()),
        }
    };
    Ok(Invocation { global, command })
}

fn rootless(value: &OsString) -> Result<Option<bool>> {
    match value.to_str() {
        Some("auto") => Ok(None),
        Some("true" | "1") => Ok(Some(true)),
        Some("false" | "0") => Ok(Some(false)),
        _ => Err(usage(format!("{value:?} is not true, false or auto"))),
    }
}

/// Root's, or that of a user, as their login has it.
fn root_default() -> PathBuf {
    let of_user = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    match of_user.filter(|_| !rustix::process::geteuid().is_root()) {
        Some(dir) => PathBuf::from(dir).join("hull-oci"),
        None => ROOT_DEFAULT.into(),
    }
}

fn version() -> String {
    format!("hull-oci version {}\nspec: {}\n", env!("CARGO_PKG_VERSION"), crate::features::SPEC_MAX)
}

fn command(name: &str, words: &mut Words) -> Result<Command> {
    Ok(match name {
        "create" => Command::Create(create(words, false)?),
        "run" => Command::Run(create(words, true)?),
        "exec" => Command::Exec(Box::new(exec::exec(words)?)),
        "kill" => Command::Kill(kill(words)?),
        "delete" => {
            let (id, force) = id_and_switch(words, "force", 'f')?;
            Command::Delete { id, force }
        }
        "start" => Command::Start { id: only_id(words)? },
        "state" => Command::State { id: only_id(words)? },
        "pause" => Command::Pause { id: only_id(words)? },
        "resume" => Command::Resume { id: only_id(words)? },
        "list" => Command::List(list(words)?),
        "ps" => Command::Ps(ps(words)?),
        "update" => Command::Update(Box::new(update(words)?)),
        "events" => Command::Events(events(words)?),
        "features" => nothing_more(words).map(|()| Command::Features)?,
        "spec" => spec(words)?,
        "help" => Command::Text(HELP.into()),
        "checkpoint" | "restore" => return refuse(name, "use runc with CRIU for it"),
        other => return Err(usage(format!("there is no command `{other}`"))),
    })
}

fn is_json(value: &OsString, other: &str) -> Result<bool> {
    match value {
        value if value == "json" => Ok(true),
        value if value == other => Ok(false),
        value => Err(usage(format!("{value:?} is neither json nor {other}"))),
    }
}

fn take_id(id: &mut String, word: OsString) -> Result<()> {
    let word = word.string()?;
    if !id.is_empty() {
        return Err(usage(format!("`{word}` is one word too many")));
    }
    *id = word;
    Ok(())
}

fn only_id(words: &mut Words) -> Result<String> {
    let mut id = String::new();
    while let Some(word) = words.next()? {
        match word {
            Value(word) => take_id(&mut id, word)?,
            other @ (Short(_) | Long(_)) => return Err(other.unexpected().into()),
        }
    }
    given(id)
}

fn nothing_more(words: &mut Words) -> Result<()> {
    match words.next()? {
        None => Ok(()),
        Some(other) => Err(other.unexpected().into()),
    }
}

fn id_and_switch(words: &mut Words, long: &str, short: char) -> Result<(String, bool)> {
    let (mut id, mut on) = (String::new(), false);
    while let Some(word) = words.next()? {
        match word {
            Long(name) if name == long => on = switch(words)?,
            Short(name) if name == short => on = switch(words)?,
            Value(word) => take_id(&mut id, word)?,
            other @ (Short(_) | Long(_)) => return Err(other.unexpected().into()),
        }
    }
    Ok((given(id)?, on))
}

fn create(words: &mut Words, runs: bool) -> Result<Create> {
    let mut args = Create::default();
    while let Some(word) = words.next()? {
        match word {
            Short('b') => args.bundle = Some(words.value()?.into()),
            Short('d') if runs => args.streams.detach = switch(words)?,
            Long(name) => {
                let name = name.to_owned();
                match name.as_str() {
                    "bundle" => args.bundle = Some(words.value()?.into()),
                    "no-pivot" => args.no_pivot = switch(words)?,
                    "no-new-keyring" => args.no_new_keyring = switch(words)?,
                    "detach" if runs => args.streams.detach = switch(words)?,
                    "keep" if runs => args.keep = switch(words)?,
                    // We never reap what is not ours.
                    "no-subreaper" if runs => drop(switch(words)?),
                    name if args.streams.take(name, words)? => {}
                    name => return Err(usage(format!("there is no option `--{name}`"))),
                }
            }
            Value(word) => take_id(&mut args.id, word)?,
            other => return Err(other.unexpected().into()),
        }
    }
    args.streams.detach |= !runs;
    args.id = given(args.id)?;
    Ok(args)
}

fn kill(words: &mut Words) -> Result<Kill> {
    let mut args = Kill { id: String::new(), signal: None, all: false };
    while let Some(word) = words.next()? {
        match word {
            Long("all") | Short('a') => args.all = switch(words)?,
            Value(word) if args.id.is_empty() => args.id = word.string()?,
            Value(word) if args.signal.is_none() => args.signal = Some(word.string()?),
            other @ (Short(_) | Long(_) | Value(_)) => return Err(other.unexpected().into()),
        }
    }
    args.id = given(args.id)?;
    Ok(args)
}

fn events(words: &mut Words) -> Result<Events> {
    let mut args = Events { id: String::new(), stats: false, interval: EVENTS_INTERVAL };
    while let Some(word) = words.next()? {
        match word {
            Long("stats") => args.stats = switch(words)?,
            Long("interval") => args.interval = duration(&words.value()?.string()?)?,
            Value(word) => take_id(&mut args.id, word)?,
            other @ (Short(_) | Long(_)) => return Err(other.unexpected().into()),
        }
    }
    args.id = given(args.id)?;
    Ok(args)
}

/// A time such as `5s` or `100ms`, one number with its unit, and more than none.
fn duration(text: &str) -> Result<Duration> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let found = units.into_iter().find_map(|(unit, milliseconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(milliseconds)
    });
    let long = found.filter(|milliseconds| (1..=u64::from(u32::MAX)).contains(milliseconds));
    long.map(Duration::from_millis)
        .ok_or_else(|| usage(format!("`{text}` is not a time such as 5s or 100ms")))
}

fn list(words: &mut Words) -> Result<List> {
    let mut args = List { json: false, quiet: false };
    while let Some(word) = words.next()? {
        match word {
            Long("format") | Short('f') => args.json = is_json(&words.value()?, "table")?,
            Long("quiet") | Short('q') => args.quiet = switch(words)?,
            other @ (Short(_) | Long(_) | Value(_)) => return Err(other.unexpected().into()),
        }
    }
    Ok(args)
}

fn ps(words: &mut Words) -> Result<Ps> {
    let mut args = Ps { id: String::new(), json: false, options: Vec::new() };
    while let Some(word) = words.next()? {
        match word {
            Long("format") | Short('f') => args.json = is_json(&words.value()?, "table")?,
            Value(id) => {
                args.id = id.string()?;
                let rest = words.raw_args()?.map(ValueExt::string);
                args.options = rest.collect::<std::result::Result<_, _>>()?;
                break;
            }
            other @ (Short(_) | Long(_)) => return Err(other.unexpected().into()),
        }
    }
    args.id = given(args.id)?;
    Ok(args)
}

fn spec(words: &mut Words) -> Result<Command> {
    let (mut bundle, mut rootless) = (None, false);
    while let Some(word) = words.next()? {
        match word {
            Long("bundle") | Short('b') => bundle = Some(words.value()?.into()),
            Long("rootless") => rootless = switch(words)?,
            other @ (Short(_) | Long(_) | Value(_)) => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Spec { bundle, rootless })
}

fn update(words: &mut Words) -> Result<Update> {
    let mut args = Update::default();
    while let Some(word) = words.next()? {
        match word {
            Short('r') => args.file = Some(words.value()?.into()),
            Long(name) => {
                let name = name.to_owned();
                args.take(&name, words.value()?.string()?)?;
            }
            Value(word) => take_id(&mut args.id, word)?,
            other @ Short(_) => return Err(other.unexpected().into()),
        }
    }
    args.id = given(args.id)?;
    Ok(args)
}

#[cfg(test)]
mod tests;
