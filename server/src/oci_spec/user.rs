// SPDX-License-Identifier: Apache-2.0
//! The user that a process runs as: config and image say which, the image's passwd and group files what
//! that means. Texts and files are read by [`hull_plan::accounts`], as everywhere.

use ::oci_spec::image::ImageConfiguration;
use hull_plan::accounts::{self, Account, AccountError, ID_MAX, PasswdEntry, UserSpec};
use hull_proto::cri;

/// Groups that a process can have, `NGROUPS_MAX`.
const GROUPS_MAX: usize = crate::limits::GROUPS.count();

/// Why a user cannot be found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("find user `{name}` in the image's /etc/passwd")]
    NoUser { name: String },
    #[error("find group `{name}` in the image's /etc/group")]
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
    /// What the user can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoUser { .. } | Self::NoGroup { .. } => Some(
                "use a number (`runAsUser`, `runAsGroup`), or add the name in the image".into(),
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

/// What config and image ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// User 0 without.
    pub(crate) user: Option<Account>,
    /// The user's own group without.
    pub(crate) group: Option<Account>,
    pub(crate) supplemental: Vec<u32>,
    /// SupplementalGroupsPolicy Strict: not those of the image's group file.
    pub(crate) strict: bool,
}

/// The resolved ids, and the home directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// The user that an image's config names; `None` when it names none.
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

/// What is asked for: the config's user, else the image's.
pub(crate) fn wanted(
    config: &cri::ContainerConfig,
    image: &ImageConfiguration,
) -> Result<Wanted, Error> {
    let context = config.linux.as_ref().and_then(|linux| linux.security_context.clone());
    let context = context.unwrap_or_default();
    let named = context.run_as_username.as_str();
    // The image's group belongs to the image's user; both are of no interest beside another user.
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
    Ok(Wanted {
        user,
        group,
        supplemental: supplemental
            .map(|group| id("supplemental_groups", *group))
            .collect::<Result<_, _>>()?,
        strict: context.supplemental_groups_policy == cri::SupplementalGroupsPolicy::Strict as i32,
    })
}

/// An id as the CRI has it.
pub(crate) fn id(field: &'static str, value: i64) -> Result<u32, Error> {
    let id = u32::try_from(value).ok().filter(|id| *id <= ID_MAX);
    id.ok_or_else(|| Error::BadId { field, value: value.to_string() })
}

/// A name from outside, escaped and bounded.
fn shown(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_default).collect()
}

/// Works out the ids.
pub(crate) fn resolve(
    wanted: &Wanted,
    passwd: Option<&[u8]>,
    group: Option<&[u8]>,
) -> Result<Resolved, Error> {
    let (passwd, group_file) = (passwd.unwrap_or_default(), group.unwrap_or_default());
    let account = match wanted.user.as_ref().unwrap_or(&Account::Id(0)) {
        Account::Id(uid) => {
            let nobodys = PasswdEntry { name: "", uid: *uid, gid: 0, home: "/" };
            accounts::passwd(passwd).find(|of| of.uid == *uid).unwrap_or(nobodys)
        }
        Account::Name(name) => accounts::passwd(passwd)
            .find(|of| of.name == name)
            .ok_or_else(|| Error::NoUser { name: shown(name) })?,
    };
    let gid = match &wanted.group {
        None => account.gid,
        Some(Account::Id(gid)) => *gid,
        Some(Account::Name(name)) => {
            let found = accounts::groups(group_file).find(|of| of.name == name);
            found.ok_or_else(|| Error::NoGroup { name: shown(name) })?.gid
        }
    };
    let mut all = vec![gid];
    if !wanted.strict && !account.name.is_empty() {
        let of_user = accounts::groups(group_file).filter(|of| of.has(account.name));
        all.extend(of_user.map(|of| of.gid));
    }
    all.extend(&wanted.supplemental);
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|group| seen.insert(*group));
    if all.len() > GROUPS_MAX {
        return Err(Error::TooManyGroups { count: all.len() });
    }
    Ok(Resolved { uid: account.uid, gid, groups: all, home: account.home.to_owned() })
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

    fn resolved(user: &str, group: &str) -> Result<Resolved, Error> {
        let text = if group.is_empty() { user.to_owned() } else { format!("{user}:{group}") };
        resolve(
            &wanted(&cri::ContainerConfig::default(), &image(&text))?,
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
    fn what_is_not_there_or_does_not_fit_is_an_error() {
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
    fn what_the_config_says_goes_before_an_image_that_makes_no_sense() {
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
        wanted(&cri::ContainerConfig::default(), &image).unwrap_err();
        assert_eq!(wanted(&named("web"), &image).unwrap().user, Some(Account::Name("web".into())));
        for bad in ["+1000", "web:web", "1000:", " 1000", "-1"] {
            wanted(&named(bad), &image).unwrap_err();
        }
        let number = |value| {
            let run_as_user = Some(cri::Int64Value { value });
            config(cri::LinuxContainerSecurityContext { run_as_user, ..Default::default() })
        };
        assert_eq!(wanted(&number(7), &image).unwrap().user, Some(Account::Id(7)));
        for bad in [-1, 4_294_967_295, 4_294_967_296, i64::MIN] {
            wanted(&number(bad), &image).unwrap_err();
        }
    }

    #[test]
    fn strict_leaves_the_images_groups_out() {
        let user = Some(Account::Name("web".into()));
        let wanted = Wanted { user, supplemental: vec![7], strict: true, ..Wanted::default() };
        assert_eq!(resolve(&wanted, Some(PASSWD), Some(GROUP)).unwrap().groups, [102, 7]);
    }

    proptest! {
        #[test]
        fn no_file_makes_somebody_root_who_is_not(
            passwd in proptest::collection::vec(any::<u8>(), 0..400), uid in 1..u32::MAX - 1,
        ) {
            let wanted = Wanted { user: Some(Account::Id(uid)), ..Wanted::default() };
            let resolved = resolve(&wanted, Some(&passwd), None).unwrap();
            prop_assert_eq!(resolved.uid, uid);
            prop_assert!(!resolved.home.chars().any(char::is_control));
        }
    }
}
