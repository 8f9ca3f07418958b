// SPDX-License-Identifier: Apache-2.0
//! The ids of the host that Hull itself gives to the user namespaces of pods. Pure.

/// Users and groups of each pod: as many as a kubelet gives to one.
pub(crate) const IDS_PER_POD: u32 = 65_536;
/// The id that the kernel has for "none".
const NO_ID: u32 = u32::MAX;

/// A range of user and group ids of the host, written as `FIRST:COUNT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdRange {
    first: u32,
    count: u32,
}

impl IdRange {
    /// Parses `FIRST:COUNT`. Users of the host, and the kernel's ids of nobody, are not in it.
    ///
    /// # Errors
    /// The reason, as a sentence.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let numbers = text.split_once(':').and_then(|(first, count)| {
            Some((first.parse::<u32>().ok()?, count.parse::<u32>().ok()?))
        });
        let Some((first, count)) = numbers else {
            return Err("it is not a first id and a count, such as 1073741824:268435456".into());
        };
        if first < IDS_PER_POD {
            return Err(format!("ids below {IDS_PER_POD} are those of the host's own users"));
        }
        if count < IDS_PER_POD {
            return Err(format!("a pod has {IDS_PER_POD} ids, and these are {count}"));
        }
        // The last number is not an id, so the end of the range may be that.
        if first.checked_add(count).is_none_or(|end| end > NO_ID) {
            return Err("the ids go past the last one of the kernel".into());
        }
        Ok(Self { first, count })
    }

    /// The first id of each pod that fits, in ascending order.
    pub(crate) fn pods(self) -> impl Iterator<Item = u32> {
        // The sum stays below the end of the range.
        (0..self.count / IDS_PER_POD).map(move |number| self.first + number * IDS_PER_POD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_into_pods() {
        let pods = |text: &str| IdRange::parse(text).unwrap().pods().collect::<Vec<_>>();
        assert_eq!(pods("65536:65536"), [65_536]);
        assert_eq!(pods("100000:200000"), [100_000, 165_536, 231_072]);
        assert_eq!(pods("1073741824:268435456").len(), 4096);
        assert_eq!(pods("4294836224:131071"), [4_294_836_224]);
    }

    #[test]
    fn ids_that_no_pod_can_have_are_refused() {
        for (text, word) in [
            ("", "not a first id"),
            ("65536", "not a first id"),
            ("65536:x", "not a first id"),
            ("-1:65536", "not a first id"),
            ("0:65536", "own users"),
            ("65535:65536", "own users"),
            ("65536:65535", "has 65536 ids"),
            ("4294967295:65536", "past the last"),
            ("4294901760:65536", "past the last"),
        ] {
            let why = IdRange::parse(text).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
    }
}
