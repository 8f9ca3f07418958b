// SPDX-License-Identifier: Apache-2.0
//! Whom a process runs as: config and image say what is wanted, the image's passwd and group what
//! it means.
//!
//! The files come from the image, so they are bounded, read line by line, and every number is
//! checked: one that does not fit is an error, never user 0.

use hull_proto::cri;
use oci_spec::image::ImageConfiguration;

/// Longest line that is looked at, in bytes.
const LINE_BYTES_MAX: usize = 4096;
/// Groups that a process can have, `NGROUPS_MAX`.
const GROUPS_MAX: usize = 65_536;
/// Ids above are "no id", `chown(2)`.
const ID_MAX: u32 = u32::MAX - 1;

/// Why a user cannot be found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("find user `{name}` in the image's /etc/passwd")]
    NoUser { name: String },
    #[error("find group `{name}` in the image's /etc/group")]
    NoGroup { name: String },
    #[error("take `{value}` as {field}: it is no id between 0 and {ID_MAX}")]
    BadId { field: &'static str, value: String },
    #[error("take a group without a user")]
    GroupWithoutUser,
}

impl Error {
    /// What the user can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoUser { .. } | Self::NoGroup { .. } => Some(
                "use a number (`runAsUser`, `runAsGroup`), or add the name in the image".into(),
            ),
            Self::GroupWithoutUser => Some("set `runAsUser` along with `runAsGroup`".into()),
            Self::BadId { .. } => None,
        }
    }
}

/// What config and image ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// A number or a name; empty is 0.
    pub(crate) user: String,
    /// A number or a name; empty is the user's own.
    pub(crate) group: String,
    pub(crate) supplemental: Vec<u32>,
    /// SupplementalGroupsPolicy Strict: not those of the image's group file.
    pub(crate) strict: bool,
}

/// Whom it comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// What is asked for: the config's user, else the image's.
pub(crate) fn wanted(
    config: &cri::ContainerConfig,
    image: &ImageConfiguration,
) -> Result<Wanted, Error> {
    let context = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let of_image = image.config().as_ref().and_then(|of| of.user().clone()).unwrap_or_default();
    let (mut user, mut group) = match of_image.split_once(':') {
        Some((user, group)) => (user.to_owned(), group.to_owned()),
        None => (of_image, String::new()),
    };
    let mut wanted = Wanted::default();
    if let Some(context) = context {
        let from_config = match (&context.run_as_user, context.run_as_username.as_str()) {
            (Some(uid), _) => Some(id("run_as_user", uid.value)?.to_string()),
            (None, "") => None,
            (None, name) => Some(name.to_owned()),
        };
        if let Some(from_config) = from_config {
            // The image's group belongs to the image's user.
            (user, group) = (from_config, String::new());
        }
        if let Some(gid) = &context.run_as_group {
            if context.run_as_user.is_none() && context.run_as_username.is_empty() {
                return Err(Error::GroupWithoutUser);
            }
            group = id("run_as_group", gid.value)?.to_string();
        }
        for group in &context.supplemental_groups {
            wanted.supplemental.push(id("supplemental_groups", *group)?);
        }
        wanted.strict =
            context.supplemental_groups_policy == cri::SupplementalGroupsPolicy::Strict as i32;
    }
    Ok(Wanted { user, group, ..wanted })
}

fn id(field: &'static str, value: i64) -> Result<u32, Error> {
    let id = u32::try_from(value).ok().filter(|id| *id <= ID_MAX);
    id.ok_or_else(|| Error::BadId { field, value: value.to_string() })
}

/// A number that is meant as one: digits only. One that does not fit is an error, not a name.
fn number(field: &'static str, text: &str) -> Result<Option<u32>, Error> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let id = text.parse::<u32>().ok().filter(|id| *id <= ID_MAX);
    id.map(Some).ok_or_else(|| Error::BadId { field, value: text.chars().take(40).collect() })
}

/// One line of /etc/passwd, `passwd(5)`.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn lines(file: &[u8]) -> impl Iterator<Item = &str> {
    file.split(|byte| *byte == b'\n')
        .filter(|line| line.len() <= LINE_BYTES_MAX)
        .filter_map(|line| std::str::from_utf8(line).ok())
}

fn accounts(passwd: &[u8]) -> impl Iterator<Item = Account<'_>> {
    lines(passwd).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Account { name, uid, gid, home })
    })
}

/// Name, id and members of each group, `group(5)`.
fn groups(file: &[u8]) -> impl Iterator<Item = (&str, u32, &str)> {
    lines(file).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

/// Works out the ids.
pub(crate) fn resolve(
    wanted: &Wanted,
    passwd: Option<&[u8]>,
    group: Option<&[u8]>,
) -> Result<Resolved, Error> {
    let (passwd, group_file) = (passwd.unwrap_or_default(), group.unwrap_or_default());
    let asked = if wanted.user.is_empty() { "0" } else { &wanted.user };
    let account = match number("the user", asked)? {
        Some(uid) => accounts(passwd).find(|account| account.uid == uid).or(Some(Account {
            name: "",
            uid,
            gid: 0,
            home: "/",
        })),
        None => accounts(passwd).find(|account| account.name == asked),
    };
    let shown = |name: &str| name.chars().take(80).flat_map(char::escape_default).collect();
    let account = account.ok_or_else(|| Error::NoUser { name: shown(asked) })?;
    let gid = match (wanted.group.as_str(), number("the group", &wanted.group)?) {
        ("", _) => account.gid,
        (_, Some(gid)) => gid,
        (name, None) => {
            let found = groups(group_file).find(|(known, ..)| *known == name);
            found.ok_or_else(|| Error::NoGroup { name: shown(name) })?.1
        }
    };
    let mut all = vec![gid];
    if !wanted.strict && !account.name.is_empty() {
        let of_user = groups(group_file)
            .filter(|(_, _, members)| members.split(',').any(|member| member == account.name))
            .map(|(_, gid, _)| gid);
        all.extend(of_user);
    }
    all.extend(&wanted.supplemental);
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|group| seen.insert(*group));
    all.truncate(GROUPS_MAX);
    // A home with a control character would smuggle a line into whatever prints it.
    let home = if account.home.is_empty() || account.home.chars().any(char::is_control) {
        "/"
    } else {
        account.home
    };
    Ok(Resolved { uid: account.uid, gid, groups: all, home: home.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:web:/srv:/bin/false\nbad:x:99999999999:0::/:/x\n";
    const GROUP: &[u8] = b"root:x:0:\nweb:x:102:\nlogs:x:4:web,other\n";

    fn resolved(user: &str, group: &str) -> Result<Resolved, Error> {
        let wanted = Wanted { user: user.into(), group: group.into(), ..Wanted::default() };
        resolve(&wanted, Some(PASSWD), Some(GROUP))
    }

    #[test]
    fn names_and_numbers_are_found() {
        let web = resolved("web", "").unwrap();
        assert_eq!((web.uid, web.gid, web.home.as_str()), (101, 102, "/srv"));
        assert_eq!(web.groups, [102, 4]);
        assert_eq!(resolved("101", "").unwrap(), web, "a number takes the account's groups too");
        let other = resolved("4711", "").unwrap();
        assert_eq!((other.uid, other.gid, other.home.as_str()), (4711, 0, "/"));
        assert_eq!(resolved("web", "root").unwrap().gid, 0);
    }

    #[test]
    fn what_is_not_there_or_does_not_fit_is_an_error() {
        assert!(matches!(resolved("nobody", ""), Err(Error::NoUser { .. })));
        assert!(matches!(resolved("web", "nogroup"), Err(Error::NoGroup { .. })));
        assert!(matches!(resolved("4294967295", ""), Err(Error::BadId { .. })));
        assert!(matches!(resolved("99999999999999999999", ""), Err(Error::BadId { .. })));
        assert!(
            matches!(resolved("bad", ""), Err(Error::NoUser { .. })),
            "an overflow never becomes 0"
        );
    }

    #[test]
    fn strict_leaves_the_images_groups_out() {
        let wanted =
            Wanted { user: "web".into(), supplemental: vec![7], strict: true, ..Wanted::default() };
        assert_eq!(resolve(&wanted, Some(PASSWD), Some(GROUP)).unwrap().groups, [102, 7]);
    }

    proptest! {
        #[test]
        fn no_file_makes_somebody_root_who_is_not(
            passwd in proptest::collection::vec(any::<u8>(), 0..400), uid in 1..u32::MAX - 1,
        ) {
            let wanted = Wanted { user: uid.to_string(), ..Wanted::default() };
            let resolved = resolve(&wanted, Some(&passwd), None).unwrap();
            prop_assert_eq!(resolved.uid, uid);
            prop_assert!(!resolved.home.chars().any(char::is_control));
        }
    }
}
