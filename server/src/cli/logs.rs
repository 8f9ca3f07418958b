// SPDX-License-Identifier: Apache-2.0
//! `hull logs`: prints and follows the log file of a container.

use super::args::Logs;
use super::client::Client;
use super::error::{Error, Result};
use super::follow::{Tail, Watch};
use super::logline::Printer;
use super::names::Objects;
use super::wait;
use hull_proto::cri as api;
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

/// Prints the log of a container.
pub(crate) async fn logs(mut client: Client, args: &Logs) -> Result<()> {
    let objects = Objects::fetch(&mut client).await?;
    let id = objects.find_container(&args.container)?.id.clone();
    let status = wait::status_of(&mut client, &id).await?;
    if status.log_path.is_empty() {
        return Err(Error::Response {
            operation: "find the log of the container",
            missing: "log path: the container was created without a log",
        });
    }
    let path = PathBuf::from(&status.log_path);
    let mut to = streams(args.timestamps);
    let mut tail = Tail::open(&path, args.tail)?;
    let runs = status.state != api::ContainerState::ContainerExited as i32;
    if args.follow && runs {
        let mut watch = Watch::beside(&path)?;
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
