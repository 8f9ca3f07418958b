// SPDX-License-Identifier: Apache-2.0
//! `hull logs`: prints and follows the log files of containers.

use super::args::Logs;
use super::client::Client;
use super::error::{Error, Result};
use super::follow::{Tail, Watch};
use super::logline::Printer;
use super::names::{Object, Objects, Prefer, attempt, container_name, pod_name};
use super::{parse, ps, wait};
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
    /// The container; `None` if only its log is left.
    container: Option<api::Container>,
    path: PathBuf,
    /// Printed before each line.
    prefix: String,
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
    Ok(Log { container: of.cloned(), path, prefix: if several { prefix } else { String::new() } })
}

async fn print(client: Client, log: Log, args: &Logs, mut to: Streams) -> Result<()> {
    let mut tail = Tail::open(&log.path, args.tail)?;
    // Also of one that has exited: the daemon may restart it.
    if let (true, Some(container)) = (args.follow, log.container) {
        let mut watch = Watch::beside(&log.path)?;
        tail.pump(&mut to)?;
        follow(client, container, &mut tail, &mut watch, &mut to).await?;
    }
    tail.finish(&mut to)
}

/// Prints new lines until the container has exited or was removed, and is not restarted.
async fn follow(
    client: Client,
    container: api::Container,
    tail: &mut Tail,
    watch: &mut Watch,
    to: &mut Streams,
) -> Result<()> {
    let ended = ended(client, container);
    tokio::pin!(ended);
    loop {
        tokio::select! {
            ended = &mut ended => return ended,
            () = watch.changed() => tail.pump(to)?,
        }
    }
}

/// Resolves when the container has exited or was removed, and the daemon does not restart it. A restart continues the
/// same log.
async fn ended(mut client: Client, mut container: api::Container) -> Result<()> {
    loop {
        match wait::until_exited(client.clone(), container.id.clone()).await {
            // It was removed meanwhile, so its log has ended, too.
            Err(Error::Daemon { .. }) | Ok(_) => {}
            Err(other) => return Err(other),
        }
        match next_attempt(&mut client, &container).await? {
            Some(next) => container = next,
            None => return Ok(()),
        }
    }
}

/// The attempt that follows an exited one, once the daemon has restarted it.
async fn next_attempt(client: &mut Client, of: &api::Container) -> Result<Option<api::Container>> {
    loop {
        // The mark first: what is restarted in between is found by the list.
        let is_marked = ps::marks(client).await?.restarting_ids.contains(&of.id);
        let objects = Objects::fetch(client).await?;
        let newest = objects.newest_of(&of.pod_sandbox_id);
        let is_next = |new: &&api::Container| {
            container_name(new) == container_name(of) && attempt(new) > attempt(of)
        };
        if let Some(next) = newest.into_iter().find(is_next) {
            return Ok(Some(next.clone()));
        }
        if !is_marked {
            return Ok(None);
        }
        tokio::time::sleep(wait::POLL).await;
    }
}
