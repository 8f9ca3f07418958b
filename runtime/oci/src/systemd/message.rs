// SPDX-License-Identifier: Apache-2.0
//! D-Bus messages, as far as a few requests to systemd need them.
//! <https://dbus.freedesktop.org/doc/dbus-specification.html>, "Message Protocol" and "Type System".

/// Longest message that is read, in bytes: answers of systemd have some hundred.
const BYTES_MAX: usize = 1 << 20;
/// The object of systemd's manager, and its interface.
pub(super) const MANAGER: &str = "/org/freedesktop/systemd1";
pub(super) const INTERFACE: &str = "org.freedesktop.systemd1.Manager";
/// Bytes before the fields of a header.
const FIXED: usize = 16;

/// A value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// `s`.
    Text(String),
    /// `b`.
    Bool(bool),
    /// `t`.
    Number(u64),
    /// `i`.
    Signed(i32),
    /// `au`.
    Numbers(Vec<u32>),
}

/// Bytes of a message under construction, in little endian.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn length(&mut self, of: usize) {
        self.u32(u32::try_from(of).unwrap_or(u32::MAX));
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.length(text.len());
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.u32(value.into());
    }

    fn signature(&mut self, text: &str) {
        self.bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    /// An array, whose items are aligned to `align`.
    fn array(&mut self, align: usize, items: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        self.align(align);
        let start = self.bytes.len();
        items(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn variant(&mut self, value: &Value) {
        match value {
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::Bool(value) => {
                self.signature("b");
                self.bool(*value);
            }
            Value::Number(value) => {
                self.signature("t");
                self.align(8);
                self.bytes.extend_from_slice(&value.to_le_bytes());
            }
            Value::Signed(value) => {
                self.signature("i");
                self.align(4);
                self.bytes.extend_from_slice(&value.to_le_bytes());
            }
            Value::Numbers(values) => {
                self.signature("au");
                self.array(4, |of| values.iter().for_each(|value| of.u32(*value)));
            }
        }
    }

    /// `a(sv)`.
    pub(crate) fn properties(&mut self, properties: &[(String, Value)]) {
        self.array(8, |of| {
            for (name, value) in properties {
                of.align(8);
                of.text(name);
                of.variant(value);
            }
        });
    }

    /// `a(sa(sv))`, an empty one.
    pub(crate) fn no_units(&mut self) {
        self.array(8, |_| {});
    }

    /// The call of a method of systemd, with this as its body: the object's path, the interface, the method.
    pub(crate) fn into_call(
        self,
        serial: u32,
        [path, interface, member]: [&str; 3],
        signature: &str,
    ) -> Vec<u8> {
        let mut header = Self::default();
        // Little endian, a method call, no flags, protocol 1.
        header.bytes.extend_from_slice(&[b'l', 1, 0, 1]);
        header.length(self.bytes.len());
        header.u32(serial);
        header.array(8, |of| {
            let fields = [
                (1, "o", path),
                (2, "s", interface),
                (3, "s", member),
                (6, "s", "org.freedesktop.systemd1"),
            ];
            for (code, kind, text) in fields {
                of.align(8);
                of.bytes.push(code);
                of.signature(kind);
                of.text(text);
            }
            of.align(8);
            of.bytes.push(8);
            of.signature("g");
            of.signature(signature);
        });
        header.align(8);
        header.bytes.extend_from_slice(&self.bytes);
        header.bytes
    }
}

/// The kinds of messages that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// The answer to the call of this serial, with its first text.
    Reply { serial: u32, first: String },
    /// The refusal of that call: name and first text.
    Refusal { serial: u32, name: String, text: String },
    /// `JobRemoved`: the job's path and its result.
    JobRemoved { job: String, result: String },
    /// Any other one.
    Other,
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4);
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.u32()?).ok()?;
        let text = self.take(length)?;
        self.byte()?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        let text = self.take(length)?;
        self.byte()?;
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

/// Length of the message whose first bytes these are: `None` while too few are there, an error if it is not one that
/// can be read.
pub(crate) fn length(bytes: &[u8]) -> Option<Result<usize, ()>> {
    let head = bytes.get(..FIXED)?;
    let number = |at: usize| {
        let of = head.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)?;
        usize::try_from(of).ok()
    };
    let all = || {
        let fields = FIXED.checked_add(number(12)?)?.checked_next_multiple_of(8)?;
        fields.checked_add(number(4)?).filter(|all| *all <= BYTES_MAX)
    };
    Some(if head[0] == b'l' { all().ok_or(()) } else { Err(()) })
}

/// The message in these bytes, which are as many as [`length`] says; `None` if it is broken.
pub(crate) fn parse(bytes: &[u8]) -> Option<Message> {
    let mut reader = Reader { bytes, at: 0 };
    let (_, kind) = (reader.byte()?, reader.byte()?);
    reader.at = FIXED - 4;
    let end = FIXED + usize::try_from(reader.u32()?).ok()?;
    let (mut serial, mut member, mut name, mut signature) = (0, None, None, String::new());
    while reader.at < end {
        reader.align(8);
        let code = reader.byte()?;
        match (code, reader.signature()?.as_str()) {
            (5, "u") => serial = reader.u32()?,
            (3, "s") => member = Some(reader.text()?),
            (4, "s") => name = Some(reader.text()?),
            (8, "g") => signature = reader.signature()?,
            (_, "s" | "o") => drop(reader.text()?),
            (_, "u") => drop(reader.u32()?),
            (_, "g") => drop(reader.signature()?),
            _ => return None,
        }
    }
    reader.align(8);
    let starts_with_text = signature.starts_with(['s', 'o']);
    let first = |reader: &mut Reader<'_>| {
        if signature == "v" {
            return match reader.signature()?.as_str() {
                "s" | "o" => reader.text(),
                _ => Some(String::new()),
            };
        }
        if starts_with_text { reader.text() } else { Some(String::new()) }
    };
    Some(match (kind, member.as_deref(), name) {
        (2, ..) => Message::Reply { serial, first: first(&mut reader)? },
        (3, _, name) => {
            Message::Refusal { serial, name: name.unwrap_or_default(), text: first(&mut reader)? }
        }
        (4, Some("JobRemoved"), _) if signature == "uoss" => {
            reader.u32()?;
            let job = reader.text()?;
            let _unit = reader.text()?;
            Message::JobRemoved { job, result: reader.text()? }
        }
        _ => Message::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_the_bytes_of_the_specification() {
        let mut body = Writer::default();
        body.text("a.scope");
        body.properties(&[
            ("PIDs".into(), Value::Numbers(vec![7])),
            ("Delegate".into(), Value::Bool(true)),
            ("MemoryMax".into(), Value::Number(1 << 20)),
        ]);
        let call = body.into_call(3, [MANAGER, INTERFACE, "StartTransientUnit"], "sa(sv)");
        assert_eq!(length(&call), Some(Ok(call.len())));
        assert_eq!(&call[..4], &[b'l', 1, 0, 1]);
        assert_eq!(&call[8..12], &3_u32.to_le_bytes());
        // The body begins at a multiple of 8 with the length of its first text.
        let body_bytes = u32::from_le_bytes(call[4..8].try_into().unwrap());
        let start = call.len() - usize::try_from(body_bytes).unwrap();
        assert_eq!((start % 8, &call[start..start + 4]), (0, &7_u32.to_le_bytes()[..]));
        // Properties begin at a multiple of 8 behind their length.
        assert_eq!(&call[start + 16..start + 24], b"\x04\0\0\0PIDs");
        assert!(call.ends_with(&(1_u64 << 20).to_le_bytes()));
    }

    fn message(kind: u8, fields: impl FnOnce(&mut Writer), body: Writer) -> Vec<u8> {
        let mut header = Writer::default();
        header.bytes.extend_from_slice(&[b'l', kind, 0, 1]);
        header.length(body.bytes.len());
        header.u32(9);
        header.array(8, fields);
        header.align(8);
        header.bytes.extend_from_slice(&body.bytes);
        header.bytes
    }

    fn field(of: &mut Writer, code: u8, kind: &str, text: &str) {
        of.align(8);
        of.bytes.push(code);
        of.signature(kind);
        if kind == "g" { of.signature(text) } else { of.text(text) }
    }

    #[test]
    fn answers_and_signals_are_read() {
        let mut body = Writer::default();
        body.u32(5);
        ["/job/5", "a.scope", "done"].iter().for_each(|text| body.text(text));
        let signal = message(
            4,
            |of| {
                field(of, 1, "o", "/org/freedesktop/systemd1");
                field(of, 3, "s", "JobRemoved");
                field(of, 8, "g", "uoss");
            },
            body,
        );
        let want = Message::JobRemoved { job: "/job/5".into(), result: "done".into() };
        assert_eq!(parse(&signal), Some(want));
        let mut body = Writer::default();
        body.text("no such unit");
        let refusal = message(
            3,
            |of| {
                of.align(8);
                of.bytes.push(5);
                of.signature("u");
                of.u32(3);
                field(of, 4, "s", "org.x.NoSuchUnit");
                field(of, 8, "g", "s");
            },
            body,
        );
        let want = Message::Refusal {
            serial: 3,
            name: "org.x.NoSuchUnit".into(),
            text: "no such unit".into(),
        };
        assert_eq!(parse(&refusal), Some(want));
        for cut in 0..refusal.len() {
            let _no_panic = (length(&refusal[..cut]), parse(&refusal[..cut]));
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let mut head = vec![b'l', 2, 0, 1];
        head.resize(FIXED, 0xff);
        assert_eq!(length(&head), Some(Err(())));
        head[0] = b'B';
        assert_eq!(length(&head), Some(Err(())));
        assert_eq!(length(&head[..FIXED - 1]), None);
    }
}
