// SPDX-License-Identifier: Apache-2.0
//! `hull login` and `logout`: credentials in docker's configuration file, or in the helper that it names.
//!
//! The password is not tried: only a pull shows whether a registry accepts it, and what for.

use super::args::images::{Login, Logout};
use super::error::{Error, Result};
use super::output;
use hull_image::docker;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::path::PathBuf;

/// Longest name or password, in bytes.
const INPUT_BYTES_MAX: u64 = 64 << 10;

/// The configuration file of docker.
pub(crate) fn file() -> Option<PathBuf> {
    if let Some(directory) = std::env::var_os("DOCKER_CONFIG").filter(|of| !of.is_empty()) {
        return Some(PathBuf::from(directory).join("config.json"));
    }
    let home = std::env::var_os("HOME").filter(|of| !of.is_empty())?;
    Some(PathBuf::from(home).join(".docker/config.json"))
}

fn required() -> Result<PathBuf> {
    file().ok_or_else(|| Error::Usage { text: "neither DOCKER_CONFIG nor HOME is set".into() })
}

fn failed(path: PathBuf) -> impl FnOnce(String) -> Error {
    move |why| Error::DockerConfig { path, why }
}

/// Stores the credentials for a registry.
pub(crate) async fn login(args: &Login) -> Result<()> {
    let path = required()?;
    let name = match &args.username {
        Some(name) => name.clone(),
        None => asked("user name: ", false)?,
    };
    let password = match (&args.password, args.password_stdin) {
        (Some(password), _) => password.clone(),
        (None, true) => {
            let mut text = String::new();
            io::stdin()
                .take(INPUT_BYTES_MAX)
                .read_to_string(&mut text)
                .map_err(Error::io("read the password from stdin"))?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        (None, false) => asked("password: ", true)?,
    };
    if name.is_empty() || password.is_empty() {
        return Err(Error::Usage { text: "the user name or the password is empty".into() });
    }
    let stored = docker::store(&path, &args.registry, &name, &password).await;
    let place = stored.map_err(failed(path))?;
    output::line(&format!("stored in {place}; a pull shows whether the registry accepts it"))
}

/// Removes the credentials for a registry. It is an error if there are none.
pub(crate) async fn logout(args: &Logout) -> Result<()> {
    let path = required()?;
    let place = docker::remove(&path, &args.registry).await.map_err(failed(path))?;
    output::line(&format!("removed from {place}"))
}

/// Asks on the terminal; without one, nobody can answer.
fn asked(prompt: &str, hidden: bool) -> Result<String> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        let text = "stdin is not a terminal to ask; use --username and --password-stdin";
        return Err(Error::Usage { text: text.into() });
    }
    output::to_stderr(prompt);
    if hidden {
        return asked_hidden(stdin.lock());
    }
    let mut text = String::new();
    let read = stdin.lock().take(INPUT_BYTES_MAX).read_line(&mut text);
    read.map_err(Error::io("read the answer"))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Reads a line without showing it. The terminal sends no signals meanwhile, which would leave it without echo: their
/// keys are read here.
fn asked_hidden(mut stdin: io::StdinLock<'_>) -> Result<String> {
    let failed = |source| Error::Kernel { operation: "hide the password on the terminal", source };
    let before = tcgetattr(&stdin).map_err(failed)?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    tcsetattr(&stdin, OptionalActions::Flush, &quiet).map_err(failed)?;
    let line = hidden_line(&mut stdin);
    tcsetattr(&stdin, OptionalActions::Flush, &before).map_err(failed)?;
    output::to_stderr("\n");
    line.map_err(Error::io("read the answer"))
}

/// Keys up to Enter; Backspace and Ctrl-U take away, Ctrl-C and Ctrl-\\ end it with an error.
fn hidden_line(keys: &mut impl io::BufRead) -> io::Result<String> {
    let mut text = Vec::new();
    for key in keys.bytes() {
        match key? {
            b'\r' | b'\n' | 4 => break,
            3 | 28 => return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted")),
            8 | 127 => drop(text.pop()),
            21 => text.clear(),
            byte if (text.len() as u64) < INPUT_BYTES_MAX => text.push(byte),
            _ => return Err(io::Error::other("it is too long")),
        }
    }
    String::from_utf8(text).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_line_ends_at_enter_and_is_edited_as_on_a_terminal() {
        let line = |keys: &[u8]| hidden_line(&mut &keys[..]).map_err(|err| err.to_string());
        assert_eq!(line(b"secret\nrest"), Ok("secret".into()));
        assert_eq!(line(b"wrong\x15secrex\x7ft\r"), Ok("secret".into()));
        assert_eq!(line(b"sec\x03ret\n"), Err("interrupted".into()));
        assert!(line(b"\xff\n").is_err());
    }
}
