// SPDX-License-Identifier: Apache-2.0
//! A container that prints lines of a hundred bytes as fast as they are taken, into its CRI log.
//!
//! The lines come out of a file of its own by `cat`, which costs next to nothing. The container waits at
//! a pipe until an exec writes to it, and prints `END` last; the time is from the one until the other is in
//! the log. Then the log's lines are counted: none may be missing.

use crate::error::verb;
use crate::samples::{Sink, Unit};
use crate::size::Size;
use crate::target::{Network, Target};
use crate::{Error, Result};
use hull_proto::cri as api;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of a line, with its end.
const LINE_BYTES: u8 = 100;
/// Lines of the file that is printed again and again: 10 MB.
const FILE_LINES: u64 = 100_000;
/// Longest wait for the last line.
const MAX: Duration = Duration::from_secs(150);
/// Between two looks at the log's end.
const TICK: Duration = Duration::from_millis(1);

/// `$1`: lines of the file, `$2`: times that it is printed, `$3`: a line.
const PRODUCE: &str = "\
yes \"$3\" | head -n $1 > /lines
mkfifo /begin
echo READY
read -r word < /begin
i=0
while [ $i -lt $2 ]; do cat /lines; i=$((i + 1)); done
echo END
exec sleep 1000000";

pub(super) async fn run(target: &Target, size: &Size, sink: &mut Sink<'_>) -> Result<()> {
    let lines = size.log_bytes / u64::from(LINE_BYTES);
    let file_lines = lines.min(FILE_LINES);
    let times = lines / file_lines;
    let (of_file, of_times) = (file_lines.to_string(), times.to_string());
    let line: String = ('a'..='z').cycle().take(usize::from(LINE_BYTES) - 1).collect();
    let command = ["sh", "-c", PRODUCE, "produce", &of_file, &of_times, &line];
    let config = target.container_config("logs", &command, Network::Pod);
    let pod = target.run_pod(Network::Pod).await?;
    let container = target.create(&pod, config).await?;
    target.start(&container).await?;
    let log = PathBuf::from(target.cri.status(&container).await.log_path);
    ends_with(&log, "READY").await?;

    let (before, producer_before) = (target.cpu()?, used_by(target, &container).await?);
    let began = Instant::now();
    target.exec(&container, &["sh", "-c", "echo > /begin"]).await?;
    ends_with(&log, "END").await?;
    let took = began.elapsed();
    let (after, producer_after) = (target.cpu()?, used_by(target, &container).await?);

    let counted = count_lines(&log)?;
    let wanted = file_lines * times + 2;
    if counted != wanted {
        let what = format!("{wanted} lines, not {counted}");
        return Err(Error::Content { what, path: log });
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let mb = (file_lines * times * u64::from(LINE_BYTES)) as f64 / 1e6;
    sink.add("log, lines of 100 bytes", Unit::MbPerSecond, mb / took.as_secs_f64());
    if let (Some(before), Some(after)) = (before, after) {
        let producer = producer_after.saturating_sub(producer_before);
        let spent = after.saturating_sub(before).saturating_sub(producer);
        sink.cpu("CPU per logged GB, without the producer", Some(spent), mb / 1e3);
    }
    Ok(())
}

/// CPU time of the container itself.
async fn used_by(target: &Target, container: &str) -> Result<Duration> {
    let request = api::ContainerStatsRequest { container_id: container.to_owned() };
    let asked = target.cri.runtime.clone().container_stats(request).await;
    let stats = asked.map_err(verb("ContainerStats"))?.into_inner().stats;
    let used = stats.and_then(|stats| stats.cpu?.usage_core_nano_seconds);
    let missing = Error::Answer { verb: "ContainerStats", what: "CPU time" };
    used.map(|used| Duration::from_nanos(used.value)).ok_or(missing)
}

/// Waits until the last line of the log is `word`.
async fn ends_with(log: &Path, word: &str) -> Result<()> {
    let (began, wanted) = (Instant::now(), format!(" {word}\n"));
    let mut tick = tokio::time::interval(TICK);
    loop {
        let tail = tail(log).unwrap_or_default();
        if tail.ends_with(&wanted) {
            return Ok(());
        }
        if began.elapsed() > MAX {
            let what = "the log has the container's last line";
            return Err(Error::Late { what, seconds: MAX.as_secs(), last: tail });
        }
        let _now = tick.tick().await;
    }
}

/// The last bytes of a file.
fn tail(path: &Path) -> std::io::Result<String> {
    let file = File::open(path)?;
    let mut bytes = [0; 64];
    let length = file.metadata()?.len();
    let read = file.read_at(&mut bytes, length.saturating_sub(64))?;
    Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
}

/// Lines of the container: those in pieces (tag `P`) count with their last one (`F`).
fn count_lines(path: &Path) -> Result<u64> {
    let failed = |source| Error::File { act: "read", path: path.to_owned(), source };
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
    let (mut line, mut lines) = (Vec::new(), 0);
    while file.read_until(b'\n', &mut line).map_err(failed)? > 0 {
        let tag = line.splitn(4, |byte| *byte == b' ').nth(2);
        lines += u64::from(tag == Some(b"F"));
        line.clear();
    }
    Ok(lines)
}
