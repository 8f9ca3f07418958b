// SPDX-License-Identifier: Apache-2.0
//! A real terminal with a program at it, as a person has one.

use crate::eventually::{deadline, eventually};
use crate::expect::ExpectExt;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A terminal, and the program that has it as its controlling terminal.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    /// Kept open, so its settings can be read after the program.
    slave: OwnedFd,
    child: Child,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a program at a new terminal of this size, columns and rows.
    #[must_use]
    pub fn start(program: &Command, (columns, rows): (u16, u16)) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).or_fail("open a terminal");
        grantpt(&master).or_fail("grantpt");
        unlockpt(&master).or_fail("unlockpt");
        let slave = ioctl_tiocgptpeer(&master, flags).or_fail("open the terminal's other end");
        tcsetwinsize(&master, size(columns, rows)).or_fail("set the size");
        let end = || Stdio::from(slave.try_clone().or_fail("dup"));
        // A session of its own, with this as its controlling terminal.
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(program.get_program())
            .args(program.get_args())
            .envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .or_fail("start a program at the terminal");
        let master = File::from(master);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut from, to) = (master.try_clone().or_fail("dup"), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(got @ 1..) = from.read(&mut chunk) {
                to.lock().or_fail("lock the screen").extend_from_slice(&chunk[..got]);
            }
        });
        Self { master, slave, child, screen }
    }

    /// All output so far.
    #[must_use]
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().or_fail("lock the screen")).into_owned()
    }

    /// Types these bytes.
    pub fn type_keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).or_fail("type");
    }

    /// Waits until the output contains `text`.
    pub async fn wait_for(&self, text: &str) {
        eventually(format!("the terminal shows {text:?}"), || async {
            let screen = self.screen();
            if screen.contains(text) { Ok(()) } else { Err(format!("{screen:?}")) }
        })
        .await;
    }

    /// Changes the size; the program gets SIGWINCH.
    pub fn resize(&self, columns: u16, rows: u16) {
        tcsetwinsize(&self.master, size(columns, rows)).or_fail("set the size");
    }

    /// Whether keys are echoed and signals made of them, as before any program.
    #[must_use]
    pub fn is_as_before(&self) -> bool {
        let modes = tcgetattr(&self.slave).or_fail("read the settings").local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    /// The process id of the program: setsid(1) becomes it, since it leads no process group here.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end of the program, and returns its exit code.
    pub fn finish(&mut self) -> i32 {
        let ended = crate::eventually::blocking(deadline(), || {
            match self.child.try_wait().or_fail("wait for the program") {
                Some(status) => Ok(status),
                None => Err(format!("it runs; the terminal shows {:?}", self.screen())),
            }
        });
        match ended {
            Ok(status) => status.code().unwrap_or(-1),
            Err(last) => panic!("the program at the terminal does not end: {last}"),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }
}
