//! Fields of a head that few requests have. They are looked for when they are needed.

use super::{HEAD_BYTES_MAX, Request, is_origin};

impl<'a> Request<'a> {
    /// The values of all fields with this name, in their order.
    pub fn fields(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        fields(self.head, name)
    }

    /// The value of a field that a sender gives once. `None`: it is not there, or several times.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.fields(name);
        let value = values.next()?;
        values.next().is_none().then_some(value)
    }
}

/// The origin in a head that was refused, as far as it can be read.
pub fn origin_of_refused(input: &[u8]) -> Option<&[u8]> {
    let window = &input[..input.len().min(HEAD_BYTES_MAX)];
    fields(window, "origin").find(|value| is_origin(value))
}

/// The values of the fields with a name, by the lines of a head: the first is that of the request, and an empty one ends it.
fn fields<'a>(head: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    let lines = head
        .split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii_end);
    let fields = lines
        .skip_while(|line| line.is_empty())
        .skip(1)
        .take_while(|line| !line.is_empty());
    fields.filter_map(move |line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        found
            .eq_ignore_ascii_case(name.as_bytes())
            .then(|| value.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn a_field_is_found_by_its_name_in_any_case() {
        let head =
            b"POST / HTTP/1.1\r\nHost: h\r\nPREFER: a\r\nPrefer: b\r\nContent-Type: x/y\r\n\r\n";
        let (request, length) = parse(head).unwrap().unwrap();
        assert_eq!(length, head.len());
        assert_eq!(request.fields("prefer").collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(request.field("prefer"), None);
        assert_eq!(request.field("content-type"), Some(&b"x/y"[..]));
        assert_eq!(request.field("content"), None);
    }
}
