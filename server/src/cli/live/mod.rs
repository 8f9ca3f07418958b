// SPDX-License-Identifier: Apache-2.0
//! `hull top` without names: a live view of all running containers and of pulls under way, or one reading of it with
//! --once. Rates are the difference of two readings of the daemon's counters.

mod rates;
mod screen;
mod view;

pub(crate) use view::LOAD;

use super::args::containers::Top;
use super::client::Client;
use super::error::Result;
use super::format;
use std::io::IsTerminal as _;
use std::time::Duration;
use view::read;

/// Prints one reading, or shows the live view on a terminal until a key or signal ends it.
pub(crate) async fn top(mut client: Client, args: &Top) -> Result<()> {
    let interval = Duration::from_secs(args.interval);
    let is_plain = args.once || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal();
    if !is_plain {
        return screen::show(&mut client, interval).await;
    }
    let before = read(&mut client).await?;
    tokio::time::sleep(interval).await;
    let after = read(&mut client).await?;
    format::list(&LOAD, rates::rows(&before, &after), &args.list)
}
