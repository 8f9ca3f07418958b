// SPDX-License-Identifier: Apache-2.0
//! The live view on a terminal: the alternate screen, painted again at each reading. `q`, Ctrl-C, Ctrl-D,
//! Escape and signals end it; the terminal is as before then.

use super::super::client::Client;
use super::super::error::Result;
use super::super::output;
use super::super::raw_mode::{self, RawMode};
use super::super::signals::EndSignals;
use super::super::stdin::Stdin;
use super::rates;
use super::view::{read, table};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// Enters and leaves the alternate screen without a cursor, and paints from its top; `console_codes(4)`, xterm's
/// control sequences.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const PAINT: &str = "\x1b[H\x1b[J";
/// Size of a terminal that says none, in columns and lines.
const SIZE: (u16, u16) = (80, 24);

/// The alternate screen in raw mode. On drop, the terminal is as before.
struct Screen {
    _raw: RawMode,
}

impl Screen {
    fn enter() -> Result<Self> {
        let screen = Self { _raw: RawMode::enter()? };
        output::raw(ENTER)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Fails if the terminal is gone.
        let _gone = output::raw(LEAVE);
    }
}

/// Shows the view until a key or a signal ends it.
pub(super) async fn show(client: &mut Client, interval: Duration) -> Result<()> {
    let mut before = read(client).await?;
    let mut signals = EndSignals::new()?;
    let mut keys = Stdin::default();
    let _screen = Screen::enter()?;
    let mut next = tokio::time::interval(interval);
    // After a daemon that answered late, the next reading is a whole interval away: no ticks are made up for.
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is now, and there is only one reading yet.
    next.tick().await;
    output::raw(&frame("", size()))?;
    loop {
        tokio::select! {
            _ = next.tick() => {}
            _ = signals.next() => return Ok(()),
            key = keys.next() => match key? {
                Some(key) if !ends(&key) => continue,
                Some(_) | None => return Ok(()),
            },
        }
        let reading = read(client);
        tokio::pin!(reading);
        // A daemon that does not answer keeps nobody here.
        let after = loop {
            tokio::select! {
                after = &mut reading => break after?,
                _ = signals.next() => return Ok(()),
                key = keys.next() => match key? {
                    Some(key) if !ends(&key) => {}
                    Some(_) | None => return Ok(()),
                },
            }
        };
        let size = size();
        output::raw(&frame(&table(&rates::rows(&before, &after), size.0), size))?;
        before = after;
    }
}

/// Whether these keys end the view: `q`, Ctrl-C, Ctrl-D or Escape.
fn ends(keys: &[u8]) -> bool {
    keys == [0x1b] || keys.iter().any(|key| matches!(key, b'q' | b'Q' | 3 | 4))
}

fn size() -> (u16, u16) {
    raw_mode::size().map_or(SIZE, |size| (size.width, size.height))
}

/// The bytes of one picture: as many lines as there are, and help in the last one. The table is escaped.
fn frame(table: &str, (_, height): (u16, u16)) -> String {
    let room = usize::from(height).saturating_sub(2);
    let mut frame = String::from(PAINT);
    for line in table.lines().take(room) {
        frame.push_str(line);
        // Raw mode does not add the return.
        frame.push_str("\r\n");
    }
    let left = table.lines().count().saturating_sub(room);
    if left > 0 {
        frame.push_str(&format!("… {left} more; "));
    }
    frame.push_str("q: quit");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_as_many_lines_as_the_terminal() {
        let table = "HEAD\n".to_owned() + &"row\n".repeat(50);
        let frame = frame(&table, (80, 24));
        assert_eq!(frame.matches("\r\n").count(), 22);
        assert!(frame.starts_with(PAINT) && frame.ends_with("… 29 more; q: quit"), "{frame:?}");
        assert!(super::frame("", (0, 0)).ends_with("q: quit"));
    }

    #[test]
    fn only_some_keys_end_the_view() {
        for keys in [&b"q"[..], b"\x03", b"\x1b", b"xq"] {
            assert!(ends(keys), "{keys:?}");
        }
        assert!(!ends(b"\x1b[A") && !ends(b"x"), "an arrow");
    }
}
