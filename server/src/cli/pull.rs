// SPDX-License-Identifier: Apache-2.0
//! `hull pull`, and the pull before a `hull run`: progress goes to stderr, as bars on a terminal and
//! as plain lines elsewhere.

use super::args::Pull;
use super::client::Client;
use super::error::{Error, Result};
use super::out;
use hull_proto::admin as api;
use hull_proto::admin::layer_progress::State;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashMap;
use std::io::{IsTerminal as _, Read as _};

/// Longest password read from stdin, in bytes.
const PASSWORD_BYTES_MAX: u64 = 64 << 10;
/// One layer's line on a terminal.
const TEMPLATE: &str = "{prefix} {msg:9} [{bar:30}] {bytes:>10} / {total_bytes}";
/// Digits of a digest that are shown.
const DIGITS: usize = 12;

/// An account at a registry.
#[derive(Clone, Default)]
pub(crate) struct Account {
    name: String,
    password: String,
}

/// Fetches every image in turn and prints their ids.
pub(crate) async fn pull(mut client: Client, args: &Pull) -> Result<()> {
    let account = account(args)?;
    for image in &args.images {
        let id = one(&mut client, image, &account, args.quiet).await?;
        out::print(&format!("{id}\n"))?;
    }
    Ok(())
}

fn account(args: &Pull) -> Result<Account> {
    let Some(user) = &args.user else { return Ok(Account::default()) };
    if args.password_stdin {
        let mut password = String::new();
        std::io::stdin()
            .take(PASSWORD_BYTES_MAX)
            .read_to_string(&mut password)
            .map_err(Error::io("read the password from stdin"))?;
        let password = password.trim_end_matches(['\r', '\n']).to_owned();
        return Ok(Account { name: user.clone(), password });
    }
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    Ok(Account { name: name.to_owned(), password: password.to_owned() })
}

/// Fetches one image and gives its id.
pub(crate) async fn one(
    client: &mut Client,
    image: &str,
    account: &Account,
    quiet: bool,
) -> Result<String> {
    let request = api::PullRequest {
        image: image.to_owned(),
        username: account.name.clone(),
        password: account.password.clone(),
    };
    let mut stream = client.admin.pull(request).await?.into_inner();
    let mut shown = Shown::new(image, quiet);
    while let Some(step) = stream.message().await? {
        if !step.done.is_empty() {
            shown.end();
            return Ok(step.done);
        }
        if let Some(layer) = step.layer {
            shown.step(&layer);
        }
    }
    Err(Error::Answer { doing: "fetch the image", lacks: "end" })
}

/// What is seen of a pull.
enum Shown {
    Nothing,
    Bars { all: MultiProgress, layers: HashMap<String, ProgressBar> },
    Lines { layers: HashMap<String, i32> },
}

impl Shown {
    fn new(image: &str, quiet: bool) -> Self {
        if quiet {
            return Self::Nothing;
        }
        out::complain(&format!("fetching {image}\n"));
        if std::io::stderr().is_terminal() {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            return Self::Bars { all, layers: HashMap::new() };
        }
        Self::Lines { layers: HashMap::new() }
    }

    fn step(&mut self, layer: &api::LayerProgress) {
        match self {
            Self::Nothing => {}
            Self::Bars { all, layers } => {
                let bar = layers.entry(layer.digest.clone()).or_insert_with(|| {
                    let bar = all.add(ProgressBar::new(layer.total));
                    bar.set_style(style());
                    bar.set_prefix(digits(&layer.digest));
                    bar
                });
                if layer.total > 0 {
                    bar.set_length(layer.total);
                }
                bar.set_position(layer.received);
                bar.set_message(word(layer.state()));
                if matches!(layer.state(), State::Unpacked | State::Present) {
                    bar.finish();
                }
            }
            Self::Lines { layers } => {
                // One line per change of state, none per piece received.
                if layers.insert(layer.digest.clone(), layer.state) != Some(layer.state)
                    && let Some(line) = line(layer)
                {
                    out::complain(&line);
                }
            }
        }
    }

    fn end(&self) {
        if let Self::Bars { layers, .. } = self {
            layers.values().for_each(ProgressBar::finish);
        }
    }
}

fn style() -> ProgressStyle {
    // The template is ours and constant; were it wrong, the plain bar would do.
    ProgressStyle::with_template(TEMPLATE)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn digits(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(DIGITS).collect()
}

fn word(state: State) -> &'static str {
    match state {
        State::Waiting => "waiting",
        State::Receiving => "receiving",
        State::Unpacked => "unpacked",
        State::Present => "was here",
    }
}

fn line(layer: &api::LayerProgress) -> Option<String> {
    let digits = digits(&layer.digest);
    match layer.state() {
        State::Waiting => None,
        State::Receiving if layer.total > 0 => {
            Some(format!("layer {digits}: receiving {}\n", out::bytes(layer.total)))
        }
        State::Receiving | State::Unpacked | State::Present => {
            Some(format!("layer {digits}: {}\n", word(layer.state())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(state: State, total: u64) -> api::LayerProgress {
        api::LayerProgress {
            digest: format!("sha256:{}", "ab".repeat(32)),
            received: 0,
            total,
            state: state as i32,
        }
    }

    #[test]
    fn the_line_on_a_terminal_is_understood() {
        ProgressStyle::with_template(TEMPLATE).unwrap();
    }

    #[test]
    fn plain_lines_name_layer_and_state() {
        assert_eq!(
            line(&layer(State::Receiving, 2048)).unwrap(),
            "layer abababababab: receiving 2.0 KiB\n"
        );
        assert_eq!(line(&layer(State::Present, 0)).unwrap(), "layer abababababab: was here\n");
        assert_eq!(line(&layer(State::Waiting, 0)), None);
    }
}
