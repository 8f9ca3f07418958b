// SPDX-License-Identifier: Apache-2.0
//! Certificates for tests of TLS, made by openssl.

use crate::expect::ExpectExt;
use crate::shell;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The commands that make them.
const COMMANDS: &str = r#"
set -e
new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "$@"; }
for ca in ca other; do
    new -x509 -keyout $ca.key -out $ca.pem -days 2 -subj /CN=$ca -addext basicConstraints=critical,CA:TRUE
done
printf "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n" > extensions
for of in "server ca" "client ca" "stranger other"; do
    set -- $of
    new -keyout $1.key -out $1.csr -subj /CN=$1
    openssl x509 -req -in $1.csr -CA $2.pem -CAkey $2.key -CAcreateserial -out $1.pem -days 2 -extfile extensions
done
cp ca.pem trusted.pem
"#;

/// Makes two CAs, `ca` and `other`; certificates that `ca` has signed, for a `server` at 127.0.0.1 and a `client`; and
/// one of a `stranger`, which `other` has signed. Each is `NAME.pem` with `NAME.key`. `trusted.pem` is a copy of `ca.pem`.
pub fn make(dir: &Path) {
    let _made = shell::finish(Command::new("sh").args(["-c", COMMANDS]).current_dir(dir)).good();
}

/// Puts a FIFO that nobody writes to in the place of a file.
pub fn put_fifo(path: &Path) {
    std::fs::remove_file(path).or_fail(format!("remove {}", path.display()));
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::unistd::mkfifo(path, mode).or_fail(format!("make the FIFO {}", path.display()));
}

/// The path of a file of `dir` as a value in TOML.
#[must_use]
pub fn value(dir: &Path, name: &str) -> String {
    let path: PathBuf = dir.join(name);
    format!("{:?}", path.display().to_string())
}
