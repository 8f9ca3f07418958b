// SPDX-License-Identifier: Apache-2.0
//! `hull logs`: prints and follows the log files of containers.

use super::args::Logs;
use super::args::place::{LinesOrNamespace, Place};
use super::client::Client;
use super::error::{Error, Result};
use super::follow::{Last, Tail, Watch};
use super::logline::Printer;
use super::names::{Object, Objects, Prefer, attempt, container_name, pod_name};
use super::{parse, ps, verbose, wait};
use hull_proto::cri as api;
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use hull_sys::time::{now_ns, rfc3339};
use std::io::{self, BufWriter, Stderr, Stdout, Write as _};
use std::path::PathBuf;
use std::time::Duration;

/// A printer to our own stdout and stderr.
pub(crate) type Streams = Printer<BufWriter<Stdout>, BufWriter<Stderr>>;

/// Size of the buffer of each stream, in bytes.
const BUFFER: usize = 64 << 10;

/// How often a follower asks for the daemon.
const ABSENCE_POLL: Duration = Duration::from_secs(2);
/// Printed once while there is none.
const ABSENT: &str = "the daemon does not answer, so it is unknown whether the container runs; new output is still shown";

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
    /// The run whose lines are printed; `None` for all that is in the log.
    run: Option<Run>,
}

/// The times between which a run of a container wrote its lines, in nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    from_ns: i64,
    until_ns: i64,
}

/// Prints the logs of containers, side by side with -f.
pub(crate) async fn logs(mut client: Client, args: &Logs) -> Result<()> {
    let (tail, place) = lines_and_place(args)?;
    let objects = Objects::fetch_in(&mut client, &place).await?;
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
        let (since, until) = within(log.run, since, until);
        to.set_times(since.map(|at| rfc3339(at).to_vec()), until.map(|at| rfc3339(at).to_vec()));
        print(client.clone(), log, (args.follow, tail), to)
    });
    if args.follow {
        return whole(futures_util::future::try_join_all(all).await?.into_iter().sum());
    }
    let mut gaps = 0;
    for one in all {
        gaps += one.await?;
    }
    whole(gaps)
}

/// Fails if output is missing.
fn whole(gaps: usize) -> Result<()> {
    if gaps == 0 { Ok(()) } else { Err(Error::LogGaps { count: gaps }) }
}

/// The last lines to print, and the namespace. `-n` is one of the two.
fn lines_and_place(args: &Logs) -> Result<(Option<usize>, Place)> {
    let (mut tail, mut namespace) = (args.tail, args.namespace.clone());
    for given in &args.lines_or_namespace {
        let is_twice = match given {
            LinesOrNamespace::Lines(lines) => tail.replace(*lines).is_some(),
            LinesOrNamespace::Namespace(name) => namespace.replace(name.clone()).is_some(),
        };
        if is_twice {
            let text = "-n and the option that it stands for are both given".into();
            return Err(Error::Usage { text });
        }
    }
    Ok((tail, Place { namespace }))
}

/// The times of lines that are of a run and asked for.
fn within(run: Option<Run>, since: Option<i64>, until: Option<i64>) -> (Option<i64>, Option<i64>) {
    let Some(Run { from_ns, until_ns }) = run else { return (since, until) };
    // The next run begins at that very time.
    let last_ns = until_ns.saturating_sub(1);
    (
        Some(since.map_or(from_ns, |since| since.max(from_ns))),
        Some(until.map_or(last_ns, |until| until.min(last_ns))),
    )
}

/// The containers of the command line.
fn selected<'k>(objects: &'k Objects, args: &Logs) -> Result<Vec<&'k api::Container>> {
    let mut containers = Vec::new();
    for name in &args.containers {
        if let Some(container) = &args.in_pod.container {
            containers.push(objects.find_in(name, Some(container))?);
            continue;
        }
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

/// Finds the log of a container, or of its previous run: an attempt that is there, a part of its own log, or the file
/// that a kubelet keeps.
async fn log(
    client: &mut Client,
    objects: &Objects,
    container: &api::Container,
    previous: bool,
    several: bool,
) -> Result<Log> {
    let run = if previous { previous_run(client, container).await? } else { None };
    let is_other = previous && run.is_none();
    let of = if is_other { objects.previous(container) } else { Some(container) };
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
    let prefix = if several { prefix } else { String::new() };
    Ok(Log { container: of.cloned(), path, prefix, run })
}

/// The run before the last start of a container that was started again with the same id.
async fn previous_run(client: &mut Client, container: &api::Container) -> Result<Option<Run>> {
    let answer = verbose::container(client, &container.id).await?;
    let info = verbose::info(&answer.info, "find the previous run of the container")?;
    let time = |name: &str| info["previousRun"][name].as_i64();
    let times = time("from_ns").zip(time("until_ns"));
    Ok(times.map(|(from_ns, until_ns)| Run { from_ns, until_ns }))
}

/// Prints a log. Returns how often output of it is missing.
async fn print(
    client: Client,
    log: Log,
    (follows, lines): (bool, Option<usize>),
    mut to: Streams,
) -> Result<usize> {
    let last = lines.map(|count| Last { count, before_ns: log.run.map(|run| run.until_ns) });
    let mut tail = Tail::open(&log.path, last)?;
    // Also of one that has exited: the daemon may restart it.
    if let (true, Some(container)) = (follows, log.container) {
        let mut watch = Watch::beside(&log.path)?;
        tail.pump(&mut to)?;
        follow(client, container, &mut tail, &mut watch, &mut to).await?;
    }
    tail.finish(&mut to)?;
    Ok(tail.gaps())
}

/// Prints new lines until the container has exited or was removed, and is not restarted.
async fn follow(
    client: Client,
    container: api::Container,
    tail: &mut Tail,
    watch: &mut Watch,
    to: &mut Streams,
) -> Result<()> {
    let absence = report_absence(client.clone());
    let ended = ended(client, container);
    tokio::pin!(ended, absence);
    let mut is_reported = false;
    loop {
        tokio::select! {
            ended = &mut ended => return ended,
            () = &mut absence, if !is_reported => is_reported = true,
            () = watch.changed() => tail.pump(to)?,
        }
    }
}

/// Reports once that there is no daemon. A restart is over sooner.
async fn report_absence(mut client: Client) {
    let mut unanswered = 0;
    while unanswered < 2 {
        tokio::time::sleep(ABSENCE_POLL).await;
        unanswered = if wait::answers(&mut client).await { 0 } else { unanswered + 1 };
    }
    // Without stderr nobody reads it.
    let _reported = writeln!(io::stderr(), "hull: {ABSENT}");
}

/// Resolves when the container has exited or was removed, and the daemon does not restart it. A restart continues the
/// same log.
async fn ended(mut client: Client, container: api::Container) -> Result<()> {
    loop {
        match wait::until_exited(client.clone(), container.id.clone()).await {
            Ok(_) => {}
            Err(Error::Daemon { .. }) => {
                match wait::is_known(&mut client, &container.id).await {
                    Some(true) => {}
                    // It was removed meanwhile, so its log has ended, too.
                    Some(false) => return Ok(()),
                    None => tokio::time::sleep(wait::POLL).await,
                }
                continue;
            }
            Err(other) => return Err(other),
        }
        match starts_again(&mut client, &container.id).await {
            Ok(true) => {}
            Ok(false) if wait::answers(&mut client).await => return Ok(()),
            // There is no daemon now that could have restarted it.
            Ok(false) | Err(Error::Daemon { .. }) => tokio::time::sleep(wait::POLL).await,
            Err(other) => return Err(other),
        }
    }
}

/// Whether a container that has exited was started again, once the daemon does not wait for that any more.
async fn starts_again(client: &mut Client, id: &str) -> Result<bool> {
    loop {
        // The mark first: what is restarted in between is found by the status.
        let is_marked = ps::marks(client).await?.restarting_ids.iter().any(|of| of == id);
        match wait::status_of(client, id).await {
            Ok(status) if status.state() != api::ContainerState::ContainerExited => {
                return Ok(true);
            }
            Ok(_) if is_marked => tokio::time::sleep(wait::POLL).await,
            Ok(_) | Err(Error::Daemon { .. }) => return Ok(false),
            Err(other) => return Err(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_run_end_where_the_next_one_begins() {
        let run = Some(Run { from_ns: 10, until_ns: 20 });
        assert_eq!(within(run, None, None), (Some(10), Some(19)));
        assert_eq!(within(run, Some(15), Some(17)), (Some(15), Some(17)));
        assert_eq!(within(run, Some(5), Some(25)), (Some(10), Some(19)));
        assert_eq!(within(None, Some(5), None), (Some(5), None));
    }
}
