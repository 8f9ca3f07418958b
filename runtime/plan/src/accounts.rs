// SPDX-License-Identifier: Apache-2.0
//! Users and groups: the one reading of ids, of `USER[:GROUP]`, and of passwd(5) and group(5) files.
//!
//! The rule: an id is ASCII digits and nothing else, and not the number that means "no id" to the kernel. Everything
//! that reads one (an image's `USER`, the CRI's user names, `--user`, the files of an image) reads it here, so that
//! no text is a number to one and a name to another. The files come from images: they are read line by line, as
//! bytes of any encoding, without white space at either end of a line (so with the line ends of Windows), and a line
//! that is not in the form is passed over, never read as user 0. The callers bound the length of a file, not that of a
//! line: a group may have thousands of members.

/// The highest id; the one above means "no id", chown(2).
pub const ID_MAX: u32 = u32::MAX - 1;
/// Longest name of a user or group, in bytes; useradd(8) takes 32.
const NAME_BYTES_MAX: usize = 256;

/// Why a text names neither a user nor a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// Nothing where a user should be.
    #[error("the user is empty")]
    NoUser,
    /// A colon, and no group behind it.
    #[error("the group is empty")]
    NoGroup,
    /// More parts than a user and a group.
    #[error("it is not USER[:GROUP]")]
    Parts,
    /// A sign before it.
    #[error("an id has no sign, and no name begins with one")]
    Sign,
    /// Digits, but too large a number.
    #[error("it is not an id between 0 and {ID_MAX}")]
    Range,
    /// Numerals of another script.
    #[error("an id is written in the digits 0 to 9")]
    Digits,
    /// White space, control characters or separators of the files.
    #[error("no name has white space, control characters, commas or slashes")]
    Characters,
    /// Longer than any name.
    #[error("it is longer than {NAME_BYTES_MAX} bytes")]
    Length,
}

/// Reads a user's or group's number.
pub fn id(text: &str) -> Result<u32, AccountError> {
    match Account::parse(text)? {
        Account::Id(id) => Ok(id),
        Account::Name(_) => Err(AccountError::Digits),
    }
}

/// A user or a group, by number or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// The number of the user or group.
    Id(u32),
    /// Its name in the image's files.
    Name(String),
}

impl Account {
    /// Reads one that is not empty.
    pub fn parse(text: &str) -> Result<Self, AccountError> {
        let is_bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | ',' | '/');
        match text {
            "" => Err(AccountError::NoUser),
            _ if text.starts_with(['+', '-']) => Err(AccountError::Sign),
            _ if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                let id = text.parse().ok().filter(|id| *id <= ID_MAX);
                id.map(Self::Id).ok_or(AccountError::Range)
            }
            _ if text.len() > NAME_BYTES_MAX => Err(AccountError::Length),
            _ if text.chars().all(char::is_numeric) => Err(AccountError::Digits),
            _ if text.contains(is_bad) => Err(AccountError::Characters),
            name => Ok(Self::Name(name.to_owned())),
        }
    }
}

/// `USER[:GROUP]`, as an image's config and `--user` have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSpec {
    /// The user, by number or name.
    pub user: Account,
    /// The group; the user's own without.
    pub group: Option<Account>,
}

impl UserSpec {
    /// Reads one that is not empty.
    pub fn parse(text: &str) -> Result<Self, AccountError> {
        let Some((user, group)) = text.split_once(':') else {
            return Ok(Self { user: Account::parse(text)?, group: None });
        };
        if group.contains(':') {
            return Err(AccountError::Parts);
        }
        if group.is_empty() {
            return Err(AccountError::NoGroup);
        }
        Ok(Self { user: Account::parse(user)?, group: Some(Account::parse(group)?) })
    }
}

/// One line of /etc/passwd, passwd(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswdEntry<'a> {
    /// The user's name, in whatever encoding the image has.
    pub name: &'a [u8],
    /// The user's id.
    pub uid: u32,
    /// The id of the user's own group.
    pub gid: u32,
    /// The home directory: absolute, printable and in UTF-8, else `/`.
    pub home: &'a str,
}

/// One line of /etc/group, group(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupEntry<'a> {
    /// The group's name, in whatever encoding the image has.
    pub name: &'a [u8],
    /// The group's id.
    pub gid: u32,
    members: &'a [u8],
}

impl GroupEntry<'_> {
    /// Whether the user of this name is a member.
    #[must_use]
    pub fn has(&self, user: &[u8]) -> bool {
        self.members.split(|byte| *byte == b',').any(|member| member == user)
    }
}

/// The fields of each line.
fn lines(file: &[u8]) -> impl Iterator<Item = impl Iterator<Item = &[u8]>> {
    let lines = file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.map(|line| line.split(|byte| *byte == b':'))
}

/// A name that is not empty and, as lines of NIS have it, not a sign before one.
fn name(text: &[u8]) -> Option<&[u8]> {
    (!text.is_empty() && !text.starts_with(b"+") && !text.starts_with(b"-")).then_some(text)
}

fn number(text: &[u8]) -> Option<u32> {
    id(std::str::from_utf8(text).ok()?).ok()
}

/// The users of a passwd file, in its order.
pub fn passwd(file: &[u8]) -> impl Iterator<Item = PasswdEntry<'_>> {
    lines(file).filter_map(|mut fields| {
        let name = name(fields.next()?)?;
        let uid = number(fields.nth(1)?)?;
        let gid = number(fields.next()?)?;
        // A control character would smuggle a line into whatever prints it.
        let is_home = |home: &&str| home.starts_with('/') && !home.chars().any(char::is_control);
        let home = fields.nth(1).and_then(|home| std::str::from_utf8(home).ok());
        Some(PasswdEntry { name, uid, gid, home: home.filter(is_home).unwrap_or("/") })
    })
}

/// The groups of a group file, in its order.
pub fn groups(file: &[u8]) -> impl Iterator<Item = GroupEntry<'_>> {
    lines(file).filter_map(|mut fields| {
        let name = name(fields.next()?)?;
        let gid = number(fields.nth(1)?)?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or_default() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_is_digits_and_everything_else_is_a_name_or_an_error() {
        for (text, read) in [
            ("0", Ok(Account::Id(0))),
            ("007", Ok(Account::Id(7))),
            ("4294967294", Ok(Account::Id(ID_MAX))),
            ("4294967295", Err(AccountError::Range)),
            ("4294967296", Err(AccountError::Range)),
            ("99999999999999999999999", Err(AccountError::Range)),
            ("+1000", Err(AccountError::Sign)),
            ("-1", Err(AccountError::Sign)),
            ("-0", Err(AccountError::Sign)),
            ("", Err(AccountError::NoUser)),
            (" 0", Err(AccountError::Characters)),
            ("0\n", Err(AccountError::Characters)),
            ("a b", Err(AccountError::Characters)),
            ("a:b", Err(AccountError::Characters)),
            ("\u{661}\u{660}", Err(AccountError::Digits)),
            ("\u{ff10}", Err(AccountError::Digits)),
            ("web", Ok(Account::Name("web".into()))),
            ("0x10", Ok(Account::Name("0x10".into()))),
            ("7up", Ok(Account::Name("7up".into()))),
            ("1e3", Ok(Account::Name("1e3".into()))),
        ] {
            assert_eq!(Account::parse(text), read, "{text:?}");
        }
        assert_eq!(Account::parse(&"a".repeat(300)), Err(AccountError::Length));
        assert_eq!(id("7"), Ok(7));
        id("web").unwrap_err();
    }

    #[test]
    fn a_user_with_a_group_has_two_parts_that_say_something() {
        let both = UserSpec::parse("web:4").unwrap();
        assert_eq!(
            both,
            UserSpec { user: Account::Name("web".into()), group: Some(Account::Id(4)) }
        );
        assert_eq!(UserSpec::parse("7").unwrap().group, None);
        for (text, error) in [
            (":", AccountError::NoGroup),
            ("7:", AccountError::NoGroup),
            (":0", AccountError::NoUser),
            ("7:8:9", AccountError::Parts),
            ("7::", AccountError::Parts),
            ("7:+8", AccountError::Sign),
            ("7: 8", AccountError::Characters),
        ] {
            assert_eq!(UserSpec::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_line_that_is_not_in_the_form_is_nobodys() {
        let file = b"+::::::\n+nis:x:0:0::/:\n-out:x:0:0::/:\n:x:0:0::/:\nplus:x:+0:0::/:\nempty:x::0::/:\n\
            space:x: 0:0::/:\nhigh:x:4294967295:0::/:\ngroup:x:0:-1::/:\nshort:x:0\nnul\0:x:5:5::relative:\n\
            esc:x:6:6::/a\x1b[2J:\n\xff:x:0:0::/:\nweb:x:7:8::/srv:/bin/sh:odd:more\n";
        let read: Vec<_> = passwd(file).map(|of| (of.name, of.uid, of.gid, of.home)).collect();
        let named = |name: &'static str, id, gid, home| (name.as_bytes(), id, gid, home);
        let others = [named("nul\0", 5, 5, "/"), named("esc", 6, 6, "/"), (b"\xff", 0, 0, "/")];
        assert_eq!(read, [&others[..], &[named("web", 7, 8, "/srv")]].concat());
        let file = b"+:::\nbad:x:+4:web\nlogs:x:4:web,other\nsome:x:5\n";
        let read: Vec<_> = groups(file).map(|of| (of.name, of.gid, of.has(b"web"))).collect();
        assert_eq!(read, [(&b"logs"[..], 4, true), (b"some", 5, false)]);
    }

    #[test]
    fn a_line_may_be_long_in_any_encoding_and_end_as_on_windows() {
        let members: Vec<_> = (0..5000).map(|number| format!("member-{number}")).collect();
        let file = format!("all:x:9:{}\r\nweb:x:7:web\r\n", members.join(","));
        let read: Vec<_> = groups(file.as_bytes())
            .map(|of| (of.gid, of.has(b"member-4999"), of.has(b"web")))
            .collect();
        assert_eq!(read, [(9, true, false), (7, false, true)]);
        let latin = b"web:x:7:8:Andr\xe9 M\xfcller:/srv:/bin/sh\r\nm\xfcller:x:9:9:::\r\n  app:x:5:5::/app\r\n";
        let read: Vec<_> = passwd(latin).map(|of| (of.name, of.uid, of.home)).collect();
        let (muller, app) = ((&b"m\xfcller"[..], 9, "/"), (&b"app"[..], 5, "/app"));
        assert_eq!(read, [(&b"web"[..], 7, "/srv"), muller, app]);
    }

    proptest! {
        /// The standard library's reading is wider; where both have a number it is the same.
        #[test]
        fn no_text_has_two_numbers(text in "[+-]?[ 0-9]{0,12}") {
            if let Ok(id) = id(&text) {
                prop_assert_eq!(text.parse::<u64>(), Ok(u64::from(id)));
            }
        }
    }
}
