// SPDX-License-Identifier: Apache-2.0
//! The user that a process runs as: requested by config or image, resolved by the image's passwd and group files.
//! [`hull_plan::accounts`] parses texts and files.

use ::oci_spec::image::ImageConfiguration;
use hull_plan::accounts::{self, Account, AccountError, ID_MAX, PasswdEntry, UserSpec};
use hull_proto::cri;

/// Most groups of a process, `NGROUPS_MAX`.
const GROUPS_MAX: usize = crate::limits::GROUPS.count();

/// A user that cannot be resolved. Texts read after "cannot".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("find user `{name}`: the image's /etc/passwd has no such user")]
    NoUser { name: String },
    #[error("find group `{name}`: the image's /etc/group has no such group")]
    NoGroup { name: String },
    #[error("take `{value}` as {field}: it is not an id between 0 and {ID_MAX}")]
    BadId { field: &'static str, value: String },
    #[error("take `{value}` as {field}")]
    BadUser { field: &'static str, value: String, source: AccountError },
    #[error("give the process {count} groups: the kernel takes {GROUPS_MAX}")]
    TooManyGroups { count: usize },
    #[error("take a group without a user")]
    GroupWithoutUser,
}

impl Error {
    /// The change by which a user fixes this.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoUser { .. } | Self::NoGroup { .. } => Some(
                "use a number (`runAsUser`, `runAsGroup`; `--user` of `hull run`), or add the name in the image".into(),
            ),
            Self::GroupWithoutUser => Some("set `runAsUser` along with `runAsGroup`".into()),
            Self::BadUser { .. } => {
                Some("set `runAsUser`, or correct `USER` of the image to USER or USER:GROUP".into())
            }
            Self::TooManyGroups { .. } => Some(
                "name fewer in `supplementalGroups`, or have the image's group file list the user less often".into(),
            ),
            Self::BadId { .. } => None,
        }
    }
}

/// The user that config and image request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RequestedUser {
    /// User 0 if `None`.
    pub(crate) user: Option<Account>,
    /// The user's primary group if `None`.
    pub(crate) group: Option<Account>,
    /// Further groups; names are found in the image's group file.
    pub(crate) supplemental: Vec<Account>,
    /// SupplementalGroupsPolicy Strict: without the groups of the image's group file.
    pub(crate) strict: bool,
}

/// The resolved ids, and the home directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResolvedUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// The user of an image's config; `None` if it has none.
pub(crate) fn of_image(image: &ImageConfiguration) -> Result<Option<UserSpec>, Error> {
    let Some(text) = image.config().as_ref().and_then(|of| of.user().as_deref()) else {
        return Ok(None);
    };
    if text.is_empty() {
        return Ok(None);
    }
    let bad = |source| Error::BadUser { field: "the image's USER", value: shown(text), source };
    UserSpec::parse(text).map(Some).map_err(bad)
}

/// The requested user: the config's, else the image's.
pub(crate) fn requested(
    config: &cri::ContainerConfig,
    image: &ImageConfiguration,
) -> Result<RequestedUser, Error> {
    let context = config.linux.as_ref().and_then(|linux| linux.security_context.clone());
    let context = context.unwrap_or_default();
    let named = context.run_as_username.as_str();
    // The image's group belongs to the image's user. Both are ignored if the config has a user.
    let (user, group) = match (&context.run_as_user, named) {
        (Some(uid), _) => (Some(Account::Id(id("run_as_user", uid.value)?)), None),
        (None, "") => of_image(image)?.map_or((None, None), |of| (Some(of.user), of.group)),
        (None, named) => {
            let bad = |source| {
                let value = shown(named);
                Error::BadUser { field: "run_as_username", value, source }
            };
            (Some(Account::parse(named).map_err(bad)?), None)
        }
    };
    let group = match &context.run_as_group {
        Some(_) if context.run_as_user.is_none() && named.is_empty() => {
            return Err(Error::GroupWithoutUser);
        }
        Some(gid) => Some(Account::Id(id("run_as_group", gid.value)?)),
        None => group,
    };
    let supplemental = context.supplemental_groups.iter();
    Ok(RequestedUser {
        user,
        group,
        supplemental: supplemental
            .map(|group| id("supplemental_groups", *group).map(Account::Id))
            .collect::<Result<_, _>>()?,
        strict: context.supplemental_groups_policy == cri::SupplementalGroupsPolicy::Strict as i32,
    })
}

/// Checks an id of a CRI message.
pub(crate) fn id(field: &'static str, value: i64) -> Result<u32, Error> {
    let id = u32::try_from(value).ok().filter(|id| *id <= ID_MAX);
    id.ok_or_else(|| Error::BadId { field, value: value.to_string() })
}

/// A name for a message, escaped and shortened.
fn shown(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_default).collect()
}

/// Resolves the user by the image's passwd and group files.
pub(crate) fn resolve(
    requested: &RequestedUser,
    passwd: Option<&[u8]>,
    group: Option<&[u8]>,
) -> Result<ResolvedUser, Error> {
    let (passwd, group_file) = (passwd.unwrap_or_default(), group.unwrap_or_default());
    let account = match requested.user.as_ref().unwrap_or(&Account::Id(0)) {
        Account::Id(uid) => {
            let unknown = PasswdEntry { name: b"", uid: *uid, gid: 0, home: "/" };
            accounts::passwd(passwd).find(|of| of.uid == *uid).unwrap_or(unknown)
        }
        Account::Name(name) => accounts::passwd(passwd)
            .find(|of| of.name == name.as_bytes())
            .ok_or_else(|| Error::NoUser { name: shown(name) })?,
    };
    let gid_of = |group: &Account| match group {
        Account::Id(gid) => Ok(*gid),
        Account::Name(name) => {
            let found = accounts::groups(group_file).find(|of| of.name == name.as_bytes());
            found.map(|of| of.gid).ok_or_else(|| Error::NoGroup { name: shown(name) })
        }
    };
    let gid = requested.group.as_ref().map_or(Ok(account.gid), gid_of)?;
    let mut all = vec![gid];
    if !requested.strict && !account.name.is_empty() {
        let of_user = accounts::groups(group_file).filter(|of| of.has(account.name));
        all.extend(of_user.map(|of| of.gid));
    }
    for group in &requested.supplemental {
        all.push(gid_of(group)?);
    }
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|group| seen.insert(*group));
    if all.len() > GROUPS_MAX {
        return Err(Error::TooManyGroups { count: all.len() });
    }
    Ok(ResolvedUser { uid: account.uid, gid, groups: all, home: account.home.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:web:/srv:/bin/false\nbad:x:99999999999:0::/:/x\n";
    const GROUP: &[u8] = b"root:x:0:\nweb:x:102:\nlogs:x:4:web,other\n";

    /// An image with this USER.
    fn image(user: &str) -> ImageConfiguration {
        let json = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {"User": user},
            "rootfs": {"type": "layers", "diff_ids": []}, "history": [],
        });
        serde_json::from_value(json).unwrap()
    }

    fn resolved(user: &str, group: &str) -> Result<ResolvedUser, Error> {
        let text = if group.is_empty() { user.to_owned() } else { format!("{user}:{group}") };
        resolve(
            &requested(&cri::ContainerConfig::default(), &image(&text))?,
            Some(PASSWD),
            Some(GROUP),
        )
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
        assert_eq!(resolved("", "").unwrap().uid, 0);
    }

    #[test]
    fn a_user_of_a_file_in_another_encoding_keeps_home_and_groups() {
        let passwd = b"m\xfcller:x:7:8:M\xfcller:/srv:/bin/sh\r\nweb:x:9:9:W\xe9b:/web:/bin/sh\r\n";
        let group = b"logs:x:4:m\xfcller,web\r\nlast:x:5:other,web\r\n";
        let resolved = |user| {
            let requested = RequestedUser { user: Some(user), ..RequestedUser::default() };
            let of = resolve(&requested, Some(passwd), Some(group)).unwrap();
            (of.uid, of.groups, of.home)
        };
        assert_eq!(resolved(Account::Id(7)), (7, vec![8, 4], "/srv".into()));
        assert_eq!(resolved(Account::Name("web".into())), (9, vec![9, 4, 5], "/web".into()));
    }

    #[test]
    fn unknown_names_and_invalid_ids_are_errors() {
        assert!(matches!(resolved("nobody", ""), Err(Error::NoUser { .. })));
        assert!(matches!(resolved("web", "nogroup"), Err(Error::NoGroup { .. })));
        for bad in ["4294967295", "99999999999999999999", "+0", "-1", "0 ", "101:", ":0", "0:0:0"] {
            assert!(matches!(resolved(bad, ""), Err(Error::BadUser { .. })), "{bad:?}");
        }
        assert!(matches!(resolved("web", "+0"), Err(Error::BadUser { .. })));
        assert!(
            matches!(resolved("bad", ""), Err(Error::NoUser { .. })),
            "an overflow never becomes 0"
        );
    }

    #[test]
    fn the_user_of_the_config_precedes_an_invalid_one_of_the_image() {
        let config = |context| cri::ContainerConfig {
            linux: Some(cri::LinuxContainerConfig {
                security_context: Some(context),
                ..Default::default()
            }),
            ..Default::default()
        };
        let named = |name: &str| {
            let run_as_username = name.to_owned();
            config(cri::LinuxContainerSecurityContext { run_as_username, ..Default::default() })
        };
        let image = image("+0:x:y");
        requested(&cri::ContainerConfig::default(), &image).unwrap_err();
        assert_eq!(
            requested(&named("web"), &image).unwrap().user,
            Some(Account::Name("web".into()))
        );
        for bad in ["+1000", "web:web", "1000:", " 1000", "-1"] {
            requested(&named(bad), &image).unwrap_err();
        }
        let number = |value| {
            let run_as_user = Some(cri::Int64Value { value });
            config(cri::LinuxContainerSecurityContext { run_as_user, ..Default::default() })
        };
        assert_eq!(requested(&number(7), &image).unwrap().user, Some(Account::Id(7)));
        for bad in [-1, 4_294_967_295, 4_294_967_296, i64::MIN] {
            requested(&number(bad), &image).unwrap_err();
        }
    }

    #[test]
    fn strict_ignores_the_groups_of_the_image() {
        let user = Some(Account::Name("web".into()));
        let requested = RequestedUser {
            user,
            supplemental: vec![Account::Id(7)],
            strict: true,
            ..RequestedUser::default()
        };
        assert_eq!(resolve(&requested, Some(PASSWD), Some(GROUP)).unwrap().groups, [102, 7]);
        let named = |name: &str| {
            let supplemental = vec![Account::Name(name.into()), Account::Id(4)];
            let requested = RequestedUser { supplemental, ..requested.clone() };
            resolve(&requested, Some(PASSWD), Some(GROUP)).map(|of| of.groups)
        };
        assert_eq!(named("logs").unwrap(), [102, 4], "a name and its number are one group");
        assert!(matches!(named("none"), Err(Error::NoGroup { .. })));
    }

    proptest! {
        #[test]
        fn no_passwd_file_changes_a_requested_uid(
            passwd in proptest::collection::vec(any::<u8>(), 0..400), uid in 1..u32::MAX - 1,
        ) {
            let requested = RequestedUser { user: Some(Account::Id(uid)), ..RequestedUser::default() };
            let resolved = resolve(&requested, Some(&passwd), None).unwrap();
            prop_assert_eq!(resolved.uid, uid);
            prop_assert!(!resolved.home.chars().any(char::is_control));
        }
    }
}
