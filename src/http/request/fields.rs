//! Fields of a head that few requests have. They are looked for when they are needed.

use std::mem::MaybeUninit;

use super::{HEAD_BYTES_MAX, HEADERS_MAX, Request, is_origin};

impl<'a> Request<'a> {
    /// The values of all fields with this name, in their order.
    pub fn fields(&self, name: &str) -> Vec<&'a [u8]> {
        let mut parsed = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut head = httparse::Request::new(&mut []);
        // The head was parsed before.
        if head
            .parse_with_uninit_headers(self.head, &mut parsed)
            .is_err()
        {
            return Vec::new();
        }
        let fields = head.headers.iter();
        fields
            .filter(|field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
            .collect()
    }

    /// The value of a field that a sender gives once. `None`: it is not there, or several times.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        match self.fields(name)[..] {
            [value] => Some(value),
            _ => None,
        }
    }
}

/// The origin in a head that was refused, as far as it can be read.
pub fn origin_of_refused(input: &[u8]) -> Option<&[u8]> {
    let window = &input[..input.len().min(HEAD_BYTES_MAX)];
    let lines = window
        .split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii_end);
    let fields = lines
        .skip_while(|line| line.is_empty())
        .skip(1)
        .take_while(|line| !line.is_empty());
    let mut origins = fields.filter_map(|line| {
        let (name, value) = line.split_at_checked(b"origin:".len())?;
        name.eq_ignore_ascii_case(b"origin:")
            .then(|| value.trim_ascii())
    });
    origins.find(|value| is_origin(value))
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
        assert_eq!(request.fields("prefer"), [b"a", b"b"]);
        assert_eq!(request.field("prefer"), None);
        assert_eq!(request.field("content-type"), Some(&b"x/y"[..]));
        assert_eq!(request.field("content"), None);
    }
}
