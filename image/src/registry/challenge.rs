// SPDX-License-Identifier: Apache-2.0
//! Parses the challenges in `WWW-Authenticate`: RFC 9110, 11.6.1.
//!
//! Pure. Several challenges may share a header, and commas separate both them and their parameters.

/// A challenge: its scheme in lower case, and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The parameter `name`, which is in lower case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Parses one header. The list ends at the first invalid part.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let word_end = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        if word_end == 0 {
            return challenges;
        }
        let (word, behind) = rest.split_at(word_end);
        let trimmed = behind.trim_start_matches([' ', '\t']);
        match (trimmed.strip_prefix('='), challenges.last_mut()) {
            (Some(value), Some(challenge)) if !value.starts_with('=') => {
                let Some((value, behind)) = value_of(value.trim_start_matches([' ', '\t'])) else {
                    return challenges;
                };
                challenge.parameters.push((word.to_ascii_lowercase(), value));
                rest = behind;
            }
            (Some(_), _) => return challenges,
            (None, _) => {
                challenges
                    .push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
                rest = behind;
            }
        }
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// A word or a quoted string, and the rest of the text.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        // Some registries do not quote addresses.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bearer_challenge_has_its_parameters() {
        let all = parse(
            r#"Bearer realm="https://auth.example.org/token",service="registry.example.org",scope="repository:a/b:pull,push""#,
        );
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].scheme, "bearer");
        assert_eq!(all[0].get("realm"), Some("https://auth.example.org/token"));
        assert_eq!(all[0].get("scope"), Some("repository:a/b:pull,push"));
        assert_eq!(all[0].get("error"), None);
    }

    #[test]
    fn several_challenges_may_share_a_header() {
        let all = parse(
            r#"Negotiate, BASIC realm="a \"b\", c" , Bearer Realm=https://x/t, service = "s""#,
        );
        let schemes: Vec<&str> = all.iter().map(|of| of.scheme.as_str()).collect();
        assert_eq!(schemes, ["negotiate", "basic", "bearer"]);
        assert_eq!(all[1].get("realm"), Some(r#"a "b", c"#));
        assert_eq!((all[2].get("realm"), all[2].get("service")), (Some("https://x/t"), Some("s")));
    }

    #[test]
    fn what_cannot_be_read_ends_the_list() {
        assert_eq!(parse(""), []);
        assert_eq!(parse("=x"), []);
        assert_eq!(parse(r#"Basic realm="never ends"#).len(), 1);
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(header in "\\PC{0,60}") {
            let _any = parse(&header);
        }
    }
}
