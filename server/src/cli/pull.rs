// SPDX-License-Identifier: Apache-2.0
//! `hull pull`, and the pull of `hull run`. Progress goes to stderr, as bars on a terminal and as plain
//! lines elsewhere; with `--json` to stdout, one line per step.

use super::args::Pull;
use super::client::Client;
use super::error::{Error, Result};
use super::{format, login, output, stored};
use hull_proto::admin as api;
use hull_proto::admin::layer_progress::State;
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashMap;
use std::io::{IsTerminal as _, Read as _};

/// Longest password read from stdin, in bytes.
const PASSWORD_BYTES_MAX: u64 = 64 << 10;
/// The line of a layer that is received, on a terminal of 80 columns or more.
const TEMPLATE: &str =
    "{prefix} [{bar:14}] {bytes:>10}/{total_bytes:10} {binary_bytes_per_sec:>13} {wide_msg}";
/// The line of any other layer: nothing was received, or it has ended.
const STILL: &str = "{prefix} [{bar:14}] {bytes:>10}/{total_bytes:10} {wide_msg}";
/// Number of printed digits of a digest.
const DIGITS: usize = 12;
/// Longest text after a bar, in bytes.
const WAIT_BYTES_MAX: usize = 200;

/// Credentials for a registry.
#[derive(Clone, Default)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) password: String,
}

/// Pulls the images one after the other, and prints their ids.
pub(crate) async fn pull(mut client: Client, args: &Pull) -> Result<()> {
    let given = account(args.user.as_deref(), args.password_stdin)?;
    let mut rows = Vec::new();
    for image in &args.images {
        let account = if args.user.is_some() { given.clone() } else { saved(image).await? };
        if args.json {
            follow(&mut client, image, &account, Progress::Json { image: image.clone() }).await?;
            continue;
        }
        let id = one(&mut client, image, &account, args.quiet).await?;
        if stored::is_selected(&args.output) {
            rows.push(stored::of(&mut client, &id, image).await?);
        } else {
            output::line(&id)?;
        }
    }
    if stored::is_selected(&args.output) {
        format::print(&stored::PULLED, &rows, &args.output)?;
    }
    Ok(())
}

/// The credentials from the flags and stdin.
pub(crate) fn account(user: Option<&str>, password_stdin: bool) -> Result<Account> {
    let Some(user) = user else { return Ok(Account::default()) };
    if password_stdin {
        let mut password = String::new();
        std::io::stdin()
            .take(PASSWORD_BYTES_MAX)
            .read_to_string(&mut password)
            .map_err(Error::io("read the password from stdin"))?;
        let password = password.trim_end_matches(['\r', '\n']).to_owned();
        return Ok(Account { name: user.to_owned(), password });
    }
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    Ok(Account { name: name.to_owned(), password: password.to_owned() })
}

/// The credentials that docker's configuration of this user has for the registry of an image.
pub(crate) async fn saved(image: &str) -> Result<Account> {
    let Some(path) = login::file() else { return Ok(Account::default()) };
    // The daemon says what is wrong with a name.
    let Ok(reference) = hull_image::Reference::parse(image) else { return Ok(Account::default()) };
    let found = hull_image::docker::find(&path, &reference).await;
    let found = found.map_err(|why| Error::DockerConfig { path, why })?;
    Ok(found.map_or_else(Account::default, |(name, password)| Account { name, password }))
}

/// Pulls one image and returns its id.
pub(crate) async fn one(
    client: &mut Client,
    image: &str,
    account: &Account,
    quiet: bool,
) -> Result<String> {
    follow(client, image, account, Progress::new(quiet)).await
}

async fn follow(
    client: &mut Client,
    image: &str,
    account: &Account,
    mut progress: Progress,
) -> Result<String> {
    let request = api::PullRequest {
        image: image.to_owned(),
        username: account.name.clone(),
        password: account.password.clone(),
    };
    // A name that is none is refused here.
    let mut stream = client.admin.pull(request).await?.into_inner();
    progress.begin(image);
    while let Some(step) = stream.message().await? {
        if !step.done.is_empty() {
            progress.end(&step.done)?;
            return Ok(step.done);
        }
        if let Some(layer) = step.layer {
            progress.step(&layer)?;
        }
    }
    Err(Error::Response { operation: "pull the image", missing: "end" })
}

/// The progress output of a pull.
enum Progress {
    Nothing,
    /// One line per step, for programs.
    Json {
        image: String,
    },
    Bars {
        all: MultiProgress,
        layers: HashMap<String, ProgressBar>,
    },
    Lines {
        layers: HashMap<String, i32>,
    },
}

impl Progress {
    fn new(quiet: bool) -> Self {
        if quiet {
            return Self::Nothing;
        }
        if std::io::stderr().is_terminal() {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            return Self::Bars { all, layers: HashMap::new() };
        }
        Self::Lines { layers: HashMap::new() }
    }

    /// Names the image, once the daemon pulls it.
    fn begin(&self, image: &str) {
        match self {
            Self::Nothing | Self::Json { .. } => {}
            Self::Bars { .. } | Self::Lines { .. } => {
                output::to_stderr(&format!("pulling {}\n", shown(image, MESSAGE_BYTES_MAX)));
            }
        }
    }

    fn step(&mut self, layer: &api::LayerProgress) -> Result<()> {
        match self {
            Self::Nothing => {}
            Self::Json { image } => return output::json(&json_step(image, layer)),
            Self::Bars { all, layers } => {
                let bar = layers.entry(layer.digest.clone()).or_insert_with(|| {
                    let bar = all.add(ProgressBar::new(layer.total));
                    bar.set_style(style(STILL));
                    bar.set_prefix(digits(&layer.digest));
                    bar
                });
                if layer.total > 0 {
                    bar.set_length(layer.total);
                }
                let receives = layer.state() == State::Receiving && layer.waits_for.is_empty();
                // A speed only of what is on its way.
                bar.set_style(style(if receives { TEMPLATE } else { STILL }));
                bar.set_position(layer.received);
                bar.set_message(message(layer));
                if matches!(layer.state(), State::Unpacked | State::Present) {
                    bar.finish();
                }
            }
            Self::Lines { layers } => {
                // One line per change of state, not per received piece.
                if layers.insert(layer.digest.clone(), layer.state) != Some(layer.state)
                    && let Some(line) = line(layer)
                {
                    output::to_stderr(&line);
                }
            }
        }
        Ok(())
    }

    fn end(&self, id: &str) -> Result<()> {
        match self {
            Self::Bars { layers, .. } => layers.values().for_each(ProgressBar::finish),
            Self::Json { image } => {
                let line = serde_json::json!({"image": image, "id": id});
                return output::json(&format!("{line}\n"));
            }
            Self::Nothing | Self::Lines { .. } => {}
        }
        Ok(())
    }
}

fn json_step(image: &str, layer: &api::LayerProgress) -> String {
    let mut line = serde_json::json!({
        "image": image, "layer": layer.digest, "state": name(layer.state()),
        "received": layer.received, "total": layer.total,
    });
    if !layer.waits_for.is_empty() {
        line["waitsFor"] = layer.waits_for.clone().into();
    }
    format!("{line}\n")
}

/// The name of a state in JSON.
fn name(state: State) -> &'static str {
    match state {
        State::Waiting => "waiting",
        State::Receiving => "receiving",
        State::Unpacked => "unpacked",
        State::Present => "present",
    }
}

/// The text after the bar of a layer: what it waits for, or its state.
fn message(layer: &api::LayerProgress) -> String {
    if layer.state() == State::Receiving && !layer.waits_for.is_empty() {
        return shown(&layer.waits_for, WAIT_BYTES_MAX);
    }
    word(layer.state()).to_owned()
}

fn style(template: &str) -> ProgressStyle {
    // Both templates are constant; if one were invalid, the default bar would be used.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn digits(digest: &str) -> String {
    let digits: String = digest.trim_start_matches("sha256:").chars().take(DIGITS).collect();
    shown(digits, MESSAGE_BYTES_MAX)
}

fn word(state: State) -> &'static str {
    match state {
        State::Waiting => "waiting",
        State::Receiving => "receiving",
        State::Unpacked => "unpacked",
        State::Present => "already present",
    }
}

fn line(layer: &api::LayerProgress) -> Option<String> {
    let digits = digits(&layer.digest);
    match layer.state() {
        State::Waiting => None,
        State::Receiving if layer.total > 0 => {
            Some(format!("layer {digits}: receiving {}\n", output::bytes(layer.total)))
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
            waits_for: String::new(),
        }
    }

    #[test]
    fn a_line_of_json_has_all_that_is_known_of_a_step() {
        let mut layer = layer(State::Receiving, 2048);
        let line: serde_json::Value = serde_json::from_str(&json_step("x", &layer)).unwrap();
        assert_eq!(
            (line["state"].as_str(), line["total"].as_u64()),
            (Some("receiving"), Some(2048))
        );
        assert!(line.get("waitsFor").is_none());
        layer.waits_for = "its turn".into();
        let line: serde_json::Value = serde_json::from_str(&json_step("x", &layer)).unwrap();
        assert_eq!(line["waitsFor"], "its turn");
    }

    #[test]
    fn the_line_on_a_terminal_is_understood() {
        for template in [TEMPLATE, STILL] {
            ProgressStyle::with_template(template).unwrap();
        }
    }

    #[test]
    fn plain_lines_name_layer_and_state() {
        assert_eq!(
            line(&layer(State::Receiving, 2048)).unwrap(),
            "layer abababababab: receiving 2.00 KiB\n"
        );
        assert_eq!(
            line(&layer(State::Present, 0)).unwrap(),
            "layer abababababab: already present\n"
        );
        assert_eq!(line(&layer(State::Waiting, 0)), None);
    }
}
