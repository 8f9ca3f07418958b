// SPDX-License-Identifier: Apache-2.0
//! The command line: a file per command or two. All commands except `serve`, `check`, `config` and
//! `completion` are clients of the daemon. [`verbs`] is the table of all commands.
//!
//! The rule: a command prints its result to stdout and everything else to stderr, errors as `error: …` and
//! advice as `hint: …`. Its exit code is 0 or 1, or for `run` and `exec` that of the container (125 if hull
//! itself failed).

mod absent_flags;
mod absent_run_flags;
mod archives;
mod args;
mod attach;
mod audit;
pub(crate) mod client;
mod complete;
mod containerd;
mod copy;
mod ctr;
mod detach;
mod diagnose;
mod disk;
mod doctor;
mod documents;
mod ended;
mod error;
mod events;
mod exec;
mod exit_codes;
mod explain;
mod failures;
mod families;
mod follow;
mod format;
mod host_check;
mod images;
mod info;
mod inspect;
mod lifecycle;
mod live;
mod login;
mod logline;
mod logs;
mod man;
mod migrate;
mod names;
mod objects;
mod output;
mod parse;
mod play;
mod port_forward;
mod ports;
mod process;
mod processes;
mod ps;
mod publish;
mod pull;
mod raw_mode;
#[cfg(test)]
mod reference;
mod resources;
mod run;
mod run_config;
mod run_flags;
mod run_logs;
mod run_setup;
mod running;
mod schemas;
mod session;
mod settings;
mod signals;
mod stats;
mod stdin;
mod stored;
mod table;
mod trace;
mod usage;
mod verbose;
mod verbs;
mod verify;
mod wait;
mod words;

#[cfg(test)]
pub(crate) use usage::{command, fault as usage_fault};

use crate::config::{self, Config, Loaded};
use crate::observe::log_level::LogLevel;
use crate::observe::logging;
use args::{Cli, Command, ImagesWhat, Serve};
use client::Client;
use error::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Exit code of a command that failed.
const FAILURE: u8 = 1;

/// Parses the command line and runs the command. `serve` runs the daemon; its error is a message and a
/// hint.
pub(crate) fn main(
    serve: impl FnOnce(Loaded, Arc<LogLevel>) -> std::result::Result<(), (String, Option<String>)>,
) -> ExitCode {
    let cli = match usage::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    if let Command::Oci { words } = &cli.command {
        return oci(words);
    }
    if let Some(loaded) = daemon_config(&cli) {
        let (loaded, ignored) = match loaded {
            Ok(loaded) => loaded,
            Err(err) => return output::report(&err, FAILURE),
        };
        let log_level = logging::start(&loaded.config.log);
        for setting in ignored {
            tracing::warn!(
                setting,
                "a setting of containerd's configuration has no effect in Hull"
            );
        }
        return match serve(loaded, log_level) {
            Ok(()) => ExitCode::SUCCESS,
            Err((text, hint)) => {
                output::to_stderr(&error::lines(&text, hint.as_deref()));
                ExitCode::from(FAILURE)
            }
        };
    }
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match threads.map_err(Error::io("start the async runtime")) {
        Ok(threads) => threads.block_on(run_command(cli)),
        Err(err) => output::report(&err, FAILURE),
    }
}

/// Replaces this process with the OCI runtime.
pub(crate) fn oci(words: &[std::ffi::OsString]) -> ExitCode {
    let source = crate::embedded::oci::become_runtime(words);
    output::to_stderr(&error::lines(&format!("cannot start the OCI runtime: {source}"), None));
    ExitCode::from(FAILURE)
}

/// The configuration of the daemon, and settings of containerd without effect, if the command is one that runs it.
fn daemon_config(cli: &Cli) -> Option<Result<(Loaded, Vec<String>)>> {
    if let Command::Serve(flags) = &cli.command {
        return Some(serve_config(cli, flags).map(|loaded| (loaded, Vec::new())));
    }
    if let Command::Containerd(args) = &cli.command
        && containerd::serves(&args.words)
    {
        return Some(containerd::serve_config(cli.config.as_deref(), &args.words));
    }
    None
}

/// The configuration of the daemon: the files, then the flags.
fn serve_config(cli: &Cli, flags: &Serve) -> Result<Loaded> {
    let text = |key: &str, path: &PathBuf| {
        format!("{key}={}", toml::Value::from(path.to_string_lossy().as_ref()))
    };
    let mut set = flags.set.clone();
    set.extend(flags.state_dir.iter().map(|path| text("state_dir", path)));
    set.extend(flags.data_dir.iter().map(|path| text("data_dir", path)));
    set.extend(cli.socket.iter().map(|path| text("socket", path)));
    set.extend(
        flags
            .log_level
            .iter()
            .map(|level| format!("log.level={}", toml::Value::from(level.as_str()))),
    );
    config::load(cli.config.as_deref(), &set).map_err(|source| Error::Config { source })
}

/// Runs any command except `serve` and `oci`.
async fn run_command(cli: Cli) -> ExitCode {
    let done = if matches!(cli.command, Command::Run(_) | Command::Exec(_) | Command::Attach(_)) {
        with_own_code(&cli).await
    } else if let Command::Check(args) = &cli.command {
        host_check::check(&loaded_or_default(&cli), args).map_err(|err| (err, FAILURE))
    } else if let Command::Diagnose(command) = &cli.command {
        diagnose::run(async || connect(&cli).await, || loaded_or_default(&cli), command)
            .await
            .map_err(|err| (err, FAILURE))
    } else {
        plain(&cli).await.map(|()| ExitCode::SUCCESS).map_err(|err| (err, FAILURE))
    };
    done.unwrap_or_else(|(err, code)| output::report(&err, code))
}

/// Runs the commands whose exit code is that of the container.
async fn with_own_code(cli: &Cli) -> Result<ExitCode, (Error, u8)> {
    let client = connect(cli).await.map_err(|err| (err, exit_codes::OWN_FAILURE))?;
    let code = if let Command::Run(args) = &cli.command {
        run::run(client, args).await?
    } else if let Command::Exec(args) = &cli.command {
        exec::exec(client, args).await?
    } else if let Command::Attach(args) = &cli.command {
        attach::attach(client, args).await?
    } else {
        0
    };
    Ok(ExitCode::from(code))
}

/// Runs the commands whose exit code is 0 or 1.
async fn plain(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::Ps(args) => ps::containers(connect(cli).await?, args).await,
        Command::Logs(args) => logs::logs(connect(cli).await?, args).await,
        Command::Stop(args) => objects::stop(connect(cli).await?, args).await,
        Command::Rm(args) => objects::remove(connect(cli).await?, args).await,
        Command::Pull(args) => pull::pull(connect(cli).await?, args).await,
        Command::Images(args) => match &args.what {
            None => images::list(connect(cli).await?, args).await,
            Some(ImagesWhat::Verify(args)) => verify::verify(connect(cli).await?, args).await,
        },
        Command::Rmi(args) => images::remove(connect(cli).await?, args).await,
        Command::Import(args) => archives::import(connect(cli).await?, args).await,
        Command::Export(args) => archives::export(connect(cli).await?, args).await,
        Command::Containerd(args) if ctr::wants_help(&args.words) => help_of("containerd"),
        Command::Containerd(args) => containerd::run(cli.config.as_deref(), &args.words),
        Command::Ctr(args) if ctr::wants_help(&args.words) => help_of("ctr"),
        Command::Ctr(args) => {
            ctr::run(async |address| connect_as_ctr(cli, address).await, &args.words).await
        }
        Command::Inspect(args) => {
            inspect::inspect(connect(cli).await?, args, inspect::What::Any).await
        }
        Command::Stats(args) => stats::stats(connect(cli).await?, args, false).await,
        Command::Audit(args) => audit::audit(connect(cli).await?, &socket(cli)?, args).await,
        Command::Config(args) => {
            settings::config(cli.config.as_deref(), async || connect(cli).await, &args.what).await
        }
        Command::Reload(args) => settings::reload(connect(cli).await?, &args.list).await,
        Command::LogLevel(args) => settings::log_level(connect(cli).await?, args).await,
        Command::Migrate(args) => {
            let socket = migrated_socket(cli, args)?;
            migrate::migrate(async || connect(cli).await, &socket, args).await
        }
        Command::Completion(args) => output::raw(&complete::script(args.shell)),
        Command::Schema(args) => schemas::print(args.command.as_deref()),
        Command::Complete { words } => complete::names(async || connect(cli).await, words).await,
        Command::Version(args) => info::version(connect(cli).await, &args.output).await,
        Command::Containers(command) => families::containers(connect(cli).await?, command).await,
        Command::Pods(command) => families::pods(connect(cli).await?, command).await,
        Command::Stored(command) => families::stored(async || connect(cli).await, command).await,
        // The callers have run these.
        Command::Serve(_)
        | Command::Run(_)
        | Command::Exec(_)
        | Command::Attach(_)
        | Command::Check(_)
        | Command::Diagnose(_)
        | Command::Oci { .. } => Ok(()),
    }
}

/// Prints the help of a command whose arguments clap passes on unread.
fn help_of(command: &str) -> Result<()> {
    let mut hull = usage::command();
    hull.build();
    let help = hull.find_subcommand_mut(command).map(|of| of.render_long_help().to_string());
    output::raw(&help.unwrap_or_default())
}

/// Connects to the daemon at --socket, or at `socket` of the configuration.
async fn connect(cli: &Cli) -> Result<Client> {
    Client::connect(&socket(cli)?).await
}

/// Connects as ctr does: at `address`, or the address of the environment. Hull's own option and variable are closer.
/// Without any of them it is the configured socket, or that of `hull containerd` where only that one is there.
async fn connect_as_ctr(cli: &Cli, address: Option<PathBuf>) -> Result<Client> {
    let environment = || std::env::var_os(ctr::ADDRESS).filter(|value| !value.is_empty());
    let address = match (address, &cli.socket) {
        (Some(address), _) => Some(address),
        (None, Some(_)) => None,
        (None, None) => environment().map(PathBuf::from),
    };
    match address {
        Some(address) => Client::connect(&address).await,
        None => {
            let is_there = |path: &Path| std::fs::metadata(path).is_ok();
            let (own, other) = (socket(cli)?, Path::new(containerd::SOCKET));
            let is_other = cli.socket.is_none() && !is_there(&own) && is_there(other);
            Client::connect(if is_other { other } else { &own }).await
        }
    }
}

fn socket(cli: &Cli) -> Result<PathBuf> {
    if let Some(socket) = &cli.socket {
        return Ok(socket.clone());
    }
    let loaded =
        config::load(cli.config.as_deref(), &[]).map_err(|source| Error::Config { source })?;
    Ok(loaded.config.socket)
}

/// The socket that a kubelet is pointed at: that of this machine's configuration, or the default for another root.
fn migrated_socket(cli: &Cli, args: &args::migrate::Migrate) -> Result<PathBuf> {
    if args.root != Path::new("/") {
        return Ok(Config::default().socket);
    }
    let loaded =
        config::load(cli.config.as_deref(), &[]).map_err(|source| Error::Config { source })?;
    Ok(loaded.config.socket)
}

/// The configuration for `check`: an error in it is printed, and the check goes on with the defaults.
fn loaded_or_default(cli: &Cli) -> Config {
    let mut config = match config::load(cli.config.as_deref(), &[]) {
        Ok(loaded) => loaded.config,
        Err(source) => {
            output::report(&Error::Config { source }, FAILURE);
            Config::default()
        }
    };
    if let Some(socket) = &cli.socket {
        config.socket.clone_from(socket);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser as _};

    #[test]
    fn flags_of_serve_override_the_files() {
        let words = [
            "hull",
            "--socket",
            "/x/s",
            "--config",
            "/dev/null",
            "serve",
            "--state-dir",
            "/a \"b\"",
            "--set",
            "network.mtu=1280",
        ];
        let cli = Cli::try_parse_from(words).unwrap();
        let Command::Serve(serve) = &cli.command else { panic!() };
        let config = serve_config(&cli, serve).unwrap().config;
        assert_eq!(config.socket, PathBuf::from("/x/s"));
        assert_eq!(config.state_dir, PathBuf::from("/a \"b\""));
        assert_eq!(config.network.mtu, Some(1280));
    }

    #[test]
    fn every_command_has_help_of_its_own() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            for arg in command.get_arguments().filter(|arg| arg.get_id() != "help") {
                assert!(
                    arg.get_help().is_some(),
                    "{} {} has no help",
                    command.get_name(),
                    arg.get_id()
                );
            }
        }
    }
}
