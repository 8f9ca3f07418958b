// SPDX-License-Identifier: Apache-2.0
//! Options of a mount, as in `mount(8)` and the OCI runtime spec (`config.md`, "Linux mount options").
//!
//! ```text
//! ro, nosuid …      one attribute of the mount      rro, rnosuid …  of the mounts below it too
//! sync, dirsync …   the file system's own flags     idmap, bind …   how it is mounted
//! all others        data of the file system
//! ```

use crate::Error;
use hull_init::plan::{Attrs, BindAttributes, Propagation};
use hull_sys::Attr;

/// Attributes that a bind mount is cleared of when it has any option, as with runc. They are those of the host's mount,
/// and locked for a user namespace.
const LOCKABLE: u64 = Attr::RDONLY | Attr::NOSUID | Attr::NODEV | Attr::NOEXEC;
const NOT_LOCKABLE: u64 = Attr::NOSYMFOLLOW;

/// Attributes that were named.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Flags {
    set: u64,
    clear: u64,
    /// One of the ways of access times, which are one number; 0 is relatime.
    times: Option<u64>,
    /// Whether a way of them was named that is not to be.
    clears_times: bool,
    /// Whether any attribute was named, even one that changes nothing.
    is_named: bool,
}

impl Flags {
    fn set(&mut self, bits: u64) {
        self.set |= bits;
        self.clear &= !bits;
    }

    fn clear(&mut self, bits: u64) {
        self.clear |= bits;
        self.set &= !bits;
    }

    /// Bits to set and to clear, those of access times as a whole.
    fn bits(self) -> (u64, u64) {
        match self.times {
            Some(times) => (self.set | times, self.clear | Attr::ATIME),
            None if self.clears_times => (self.set, self.clear | Attr::ATIME),
            None => (self.set, self.clear),
        }
    }

    fn is_relatime(self) -> bool {
        self.times.map_or(self.clears_times, |times| times == 0)
    }
}

/// The parsed options of a mount.
#[derive(Debug, Default)]
pub(crate) struct MountOptions {
    top: Flags,
    all: Flags,
    /// In their order; with true for the whole tree.
    propagation: Vec<(Propagation, bool)>,
    /// Whether it is a bind mount; with true, a recursive one.
    pub(crate) bind: Option<bool>,
    /// Whether its ids are mapped; with true, those of the mounts below too.
    pub(crate) id_map: Option<bool>,
    pub(crate) copy_up: bool,
    /// Flags of the file system as a whole, which a bind mount does not change.
    super_flags: Vec<&'static str>,
    /// Options of the file system: key, and value where it takes one.
    pub(crate) data: Vec<(String, Option<String>)>,
}

impl MountOptions {
    /// # Errors
    /// `remount`: nothing of a container is mounted yet.
    pub(crate) fn parse(options: &[String]) -> Result<Self, Error> {
        let mut parsed = Self::default();
        for option in options {
            if option == "remount" {
                let value = option.clone();
                return Err(Error::Unsupported { what: "this mount option", value });
            }
            let known = named(option, &mut parsed.top)
                || option.strip_prefix('r').is_some_and(|of| named(of, &mut parsed.all))
                || parsed.propagates(option)
                || parsed.other(option);
            if !known {
                let (key, value) = match option.split_once('=') {
                    Some((key, value)) => (key, Some(value.to_owned())),
                    None => (option.as_str(), None),
                };
                parsed.data.push((key.to_owned(), value));
            }
        }
        Ok(parsed)
    }

    fn propagates(&mut self, option: &str) -> bool {
        let of = match option.strip_prefix('r').unwrap_or(option) {
            "private" => Propagation::Private,
            "slave" => Propagation::Slave,
            "shared" => Propagation::Shared,
            "unbindable" => Propagation::Unbindable,
            _ => return false,
        };
        self.propagation.push((of, option.starts_with('r')));
        true
    }

    fn other(&mut self, option: &str) -> bool {
        let flag = |flags: &mut Vec<&str>, on, off| {
            flags.retain(|have| *have != on && *have != off);
            flags.push(option_name(option));
        };
        match option {
            "bind" => self.bind = Some(false),
            "rbind" => self.bind = Some(true),
            "idmap" => self.id_map = Some(false),
            "ridmap" => self.id_map = Some(true),
            "tmpcopyup" => self.copy_up = true,
            "sync" | "async" => flag(&mut self.super_flags, "sync", "async"),
            "mand" | "nomand" => flag(&mut self.super_flags, "mand", "nomand"),
            "lazytime" | "nolazytime" => flag(&mut self.super_flags, "lazytime", "nolazytime"),
            "dirsync" => flag(&mut self.super_flags, "dirsync", ""),
            // What the kernel writes to its log; and the versions of inodes, which file systems that have them keep
            // without being asked (Linux 6.1).
            "defaults" | "silent" | "loud" | "iversion" | "noiversion" => {}
            _ => return false,
        }
        true
    }

    /// The file system's own options: flags, and data.
    pub(crate) fn of_file_system(&self) -> Vec<(String, Option<String>)> {
        // A file system is async, nomand and nolazytime by default.
        let asked = self
            .super_flags
            .iter()
            .filter(|flag| !matches!(**flag, "async" | "nomand" | "nolazytime"));
        let flags = asked.map(|flag| ((*flag).to_owned(), None));
        flags.chain(self.data.iter().cloned()).collect()
    }

    /// Attributes of a new mount, below which there are no others.
    pub(crate) fn of_new_mount(&self) -> Attrs {
        let (set, _) = self.top.bits();
        let (all, _) = self.all.bits();
        attrs(set | all, self.top.is_relatime() || self.all.is_relatime())
    }

    /// The propagation of a new mount that is not the one it has anyway: no mount of the host gets into it, and it gets
    /// into none.
    pub(crate) fn of_new_propagation(&self) -> Vec<Propagation> {
        let kinds = self.propagation.iter().map(|(of, _)| *of);
        kinds.filter(|of| matches!(of, Propagation::Shared | Propagation::Unbindable)).collect()
    }

    /// Attributes of a bind mount: those that are named change.
    pub(crate) fn of_bind(&self) -> BindAttributes {
        let ((set, clear), (set_all, clear_all)) = (self.top.bits(), self.all.bits());
        let propagation = self.propagation.clone();
        BindAttributes { set, clear, set_all, clear_all, propagation }
    }

    /// As runc: with any attribute named, the mount has the named ones and no others of its source. Access times
    /// change only if a way of them is named; what is locked for a user namespace stays unless it is named.
    pub(crate) fn of_bind_like_runc(&self, user_namespace: bool) -> BindAttributes {
        let mut attributes = self.of_bind();
        if !self.top.is_named {
            return attributes;
        }
        let implied = if user_namespace { NOT_LOCKABLE } else { LOCKABLE | NOT_LOCKABLE };
        let named = self.top.clear & (LOCKABLE | NOT_LOCKABLE);
        attributes.clear = (implied | named) & !attributes.set;
        if self.top.times.is_some() || self.top.set & Attr::NODIRATIME != 0 {
            attributes.clear |= Attr::ATIME | Attr::NODIRATIME;
        }
        attributes
    }

    /// The same in the form of [`Op::Bind`](hull_init::plan::Op::Bind), which every release knows: attributes, those of
    /// the whole tree, those to clear, and the propagation; `None` if that form has no room for them.
    pub(crate) fn as_before(
        &self,
        recursive: bool,
    ) -> Option<(Attrs, Attrs, Attrs, Option<Propagation>)> {
        let plain = LOCKABLE | NOT_LOCKABLE | Attr::NODIRATIME;
        let has_room = self.all.clear == 0
            && self.top.clear & !plain == 0
            && self.propagation.len() <= 1
            && self.propagation.iter().all(|(_, whole)| *whole || !recursive);
        let of = |flags: Flags| attrs(flags.bits().0, flags.is_relatime());
        let propagation = self.propagation.first().map(|(of, _)| *of);
        has_room.then(|| (of(self.top), of(self.all), attrs(self.top.clear, false), propagation))
    }
}

/// The option itself, which lives as long as the program.
fn option_name(option: &str) -> &'static str {
    let names = ["sync", "async", "mand", "nomand", "lazytime", "nolazytime", "dirsync"];
    names.into_iter().find(|name| *name == option).unwrap_or_default()
}

/// Applies an attribute; false if `option` names none.
fn named(option: &str, flags: &mut Flags) -> bool {
    match option {
        "ro" => flags.set(Attr::RDONLY),
        "rw" => flags.clear(Attr::RDONLY),
        "nosuid" => flags.set(Attr::NOSUID),
        "suid" => flags.clear(Attr::NOSUID),
        "nodev" => flags.set(Attr::NODEV),
        "dev" => flags.clear(Attr::NODEV),
        "noexec" => flags.set(Attr::NOEXEC),
        "exec" => flags.clear(Attr::NOEXEC),
        "nosymfollow" => flags.set(Attr::NOSYMFOLLOW),
        "symfollow" => flags.clear(Attr::NOSYMFOLLOW),
        "nodiratime" => flags.set(Attr::NODIRATIME),
        "diratime" => flags.clear(Attr::NODIRATIME),
        "noatime" => flags.times = Some(Attr::NOATIME),
        "strictatime" => flags.times = Some(Attr::STRICTATIME),
        "relatime" => flags.times = Some(0),
        // Neither of the others: relatime, unless one of them is named too.
        "atime" | "norelatime" | "nostrictatime" => flags.clears_times = true,
        _ => return false,
    }
    flags.is_named = true;
    true
}

fn attrs(bits: u64, relatime: bool) -> Attrs {
    Attrs {
        rdonly: bits & Attr::RDONLY != 0,
        nosuid: bits & Attr::NOSUID != 0,
        nodev: bits & Attr::NODEV != 0,
        noexec: bits & Attr::NOEXEC != 0,
        noatime: bits & Attr::NOATIME != 0,
        relatime,
        strictatime: bits & Attr::STRICTATIME != 0,
        nodiratime: bits & Attr::NODIRATIME != 0,
        nosymfollow: bits & Attr::NOSYMFOLLOW != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &[&str]) -> MountOptions {
        let options: Vec<_> = options.iter().map(|of| (*of).to_owned()).collect();
        MountOptions::parse(&options).unwrap()
    }

    fn bits(options: &[&str], user_namespace: bool) -> (u64, u64) {
        let BindAttributes { set, clear, .. } = parsed(options).of_bind_like_runc(user_namespace);
        (set, clear)
    }

    #[test]
    fn every_option_of_the_spec_is_known() {
        let options = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime \
            nodev nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private \
            ratime rbind rdev rdiratime relatime rexec ridmap rnoatime rnodev rnodiratime rnoexec rnorelatime \
            rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid \
            rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable idmap";
        let options: Vec<_> = options.split_whitespace().collect();
        assert_eq!(parsed(&options).data, []);
        let size = ("size".to_owned(), Some("5k".to_owned()));
        assert_eq!(parsed(&["size=5k", "rwx"]).data, [size, ("rwx".to_owned(), None)]);
        MountOptions::parse(&["remount".to_owned()]).unwrap_err();
    }

    #[test]
    fn the_last_of_two_that_contradict_each_other_counts() {
        let top = parsed(&["ro", "rw", "dev", "nodev"]).of_bind();
        assert_eq!((top.set, top.clear), (Attr::NODEV, Attr::RDONLY));
        let flags = parsed(&["sync", "dirsync", "async", "lazytime"]).of_file_system();
        let names: Vec<_> = flags.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["dirsync", "lazytime"]);
    }

    #[test]
    fn options_with_an_r_are_for_the_mounts_below_too() {
        let all = parsed(&["rro", "rdev", "rnoatime"]).of_bind();
        assert_eq!((all.set, all.clear), (0, 0));
        assert_eq!(
            (all.set_all, all.clear_all),
            (Attr::RDONLY | Attr::NOATIME, Attr::NODEV | Attr::ATIME)
        );
        for option in ["ratime", "rrelatime", "rnorelatime", "rnostrictatime"] {
            let all = parsed(&[option]).of_bind();
            assert_eq!((all.set_all, all.clear_all), (0, Attr::ATIME), "{option}");
        }
    }

    #[test]
    fn a_bind_mount_with_options_has_no_others_of_its_source() {
        let all = LOCKABLE | NOT_LOCKABLE;
        assert_eq!(bits(&["rprivate"], false), (0, 0));
        assert_eq!(bits(&["ro"], false), (Attr::RDONLY, all & !Attr::RDONLY));
        assert_eq!(bits(&["dev"], false), (0, all));
        assert_eq!(bits(&["atime"], false), (0, all));
        let times = Attr::ATIME | Attr::NODIRATIME;
        assert_eq!(bits(&["strictatime"], false), (Attr::STRICTATIME, all | times));
        assert_eq!(bits(&["nodiratime"], false), (Attr::NODIRATIME, all | times));
        // In a user namespace those that are locked stay, unless they are named.
        assert_eq!(bits(&["ro"], true), (Attr::RDONLY, NOT_LOCKABLE));
        assert_eq!(bits(&["rw"], true), (0, NOT_LOCKABLE | Attr::RDONLY));
    }

    #[test]
    fn the_form_of_every_release_is_kept_where_it_has_room() {
        let (set, all, clear, propagation) =
            parsed(&["ro", "rnosuid", "exec", "rslave"]).as_before(true).unwrap();
        assert!(set.rdonly && all.nosuid && clear.noexec && !clear.rdonly);
        assert_eq!(propagation, Some(Propagation::Slave));
        for options in [&["slave"][..], &["rrw"], &["rprivate", "rshared"]] {
            assert!(parsed(options).as_before(true).is_none(), "{options:?}");
        }
    }
}
