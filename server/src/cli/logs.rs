// SPDX-License-Identifier: Apache-2.0
//! `hull logs`: prints and follows the log files of containers.

use super::args::Logs;
use super::client::Client;
use super::error::{Error, Result};
use super::follow::{Tail, Watch};
use super::logline::Printer;
use super::names::{Object, Objects, Prefer, attempt, container_name, pod_name};
use super::{parse, wait};
use hull_proto::cri as api;
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use hull_sys::time::{now_ns, rfc3339};
use std::io::{self, BufWriter, Stderr, Stdout};
use std::path::PathBuf;

/// A printer to our own stdout and stderr.
pub(crate) type Streams = Printer<BufWriter<Stdout>, BufWriter<Stderr>>;

/// Size of the buffer of each stream, in bytes.
const BUFFER: usize = 64 << 10;

/// Creates a printer to stdout and stderr.
pub(crate) fn streams(timestamps: bool) -> Streams {
    Printer::new(
        BufWriter::with_capacity(BUFFER, io::stdout()),
        BufWriter::with_capacity(BUFFER, io::stderr()),
        timestamps,
    )
}

/// One log to print.
struct Log {
    /// Id of the container; `None` if only its log is left.
    id: Option<String>,
    path: PathBuf,
    /// Printed before each line.
    prefix: String,
    runs: bool,
}

/// Prints the logs of containers, side by side with -f.
pub(crate) async fn logs(mut client: Client, args: &Logs) -> Result<()> {
    let objects = Objects::fetch(&mut client).await?;
    let containers = selected(&objects, args)?;
    let several = containers.len() > 1;
    let mut logs = Vec::new();
    for container in containers {
        logs.push(log(&mut client, &objects, container, args.previous, several).await?);
    }
    let now = now_ns();
    let time = |text: &Option<String>, flag| {
        text.as_ref().map(|text| parse::time(flag, text, now)).transpose()
    };
    let (since, until) = (time(&args.since, "--since")?, time(&args.until, "--until")?);
    let all = logs.into_iter().map(|log| {
        let mut to = streams(args.timestamps);
        to.set_prefix(&log.prefix);
        to.set_times(since.map(|at| rfc3339(at).to_vec()), until.map(|at| rfc3339(at).to_vec()));
        print(client.clone(), log, args, to)
    });
    if args.follow {
        return futures_util::future::try_join_all(all).await.map(drop);
    }
    for one in all {
        one.await?;
    }
    Ok(())
}

/// The containers of the command line.
fn selected<'k>(objects: &'k Objects, args: &Logs) -> Result<Vec<&'k api::Container>> {
    let mut containers = Vec::new();
    for name in &args.containers {
        match objects.find(name, Prefer::Container)? {
            Object::Pod(pod) if args.all_containers => {
                containers.extend(objects.newest_of(&pod.id))
            }
            Object::Container(container) if args.all_containers => {
                containers.extend(objects.newest_of(&container.pod_sandbox_id));
            }
            Object::Pod(_) | Object::Container(_) => {
                containers.push(objects.find_container(name)?);
            }
        }
    }
    Ok(containers)
}

/// Finds the log of a container, or of its previous attempt.
async fn log(
    client: &mut Client,
    objects: &Objects,
    container: &api::Container,
    previous: bool,
    several: bool,
) -> Result<Log> {
    let of = if previous { objects.previous(container) } else { Some(container) };
    let status = wait::status_of(client, of.map_or(&container.id, |of| &of.id)).await?;
    if status.log_path.is_empty() {
        return Err(Error::Response {
            operation: "find the log of the container",
            missing: "log path: the container was created without a log",
        });
    }
    let mut path = PathBuf::from(&status.log_path);
    if of.is_none() {
        // The kubelet keeps the log of a removed attempt beside the newest: `<attempt>.log`.
        let gone = || Error::NotFound {
            kind: "a previous attempt of container",
            name: container_name(container).to_owned(),
        };
        let attempt = attempt(container).checked_sub(1).ok_or_else(gone)?;
        path.set_file_name(format!("{attempt}.log"));
        if !path.try_exists().unwrap_or(false) {
            return Err(gone());
        }
    }
    let pod = objects.pod_of(container).map_or("", pod_name);
    let shown = |name| shown(name, MESSAGE_BYTES_MAX);
    let prefix = format!("[{}/{}] ", shown(pod), shown(container_name(container)));
    Ok(Log {
        runs: of.is_some() && status.state != api::ContainerState::ContainerExited as i32,
        id: of.map(|of| of.id.clone()),
        path,
        prefix: if several { prefix } else { String::new() },
    })
}

async fn print(client: Client, log: Log, args: &Logs, mut to: Streams) -> Result<()> {
    let mut tail = Tail::open(&log.path, args.tail)?;
    if let (true, true, Some(id)) = (args.follow, log.runs, log.id) {
        let mut watch = Watch::beside(&log.path)?;
        tail.pump(&mut to)?;
        follow(client, id, &mut tail, &mut watch, &mut to).await?;
    }
    tail.finish(&mut to)
}

/// Prints new lines until the container has exited or was removed.
async fn follow(
    client: Client,
    id: String,
    tail: &mut Tail,
    watch: &mut Watch,
    to: &mut Streams,
) -> Result<()> {
    let ended = wait::until_exited(client, id);
    tokio::pin!(ended);
    loop {
        tokio::select! {
            status = &mut ended => return match status {
                // It was removed meanwhile, so its log has ended, too.
                Err(Error::Daemon { .. }) | Ok(_) => Ok(()),
                Err(other) => Err(other),
            },
            () = watch.changed() => tail.pump(to)?,
        }
    }
}
