//! Percent-encoding, read strictly: what cannot be understood in one way only is refused.

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// `%` without two hex digits, or bytes that are not UTF-8.
    #[error("the path has a malformed percent-escape")]
    Escape,
    /// An encoded slash, backslash or control character, which others would read differently.
    #[error("the path has an encoded character that is not allowed in it")]
    Forbidden,
    /// An empty segment, `.` or `..`.
    #[error("there is no such path")]
    Segment,
}

/// The decoded segments of a path that begins with a slash.
pub fn segments(path: &str) -> Result<Vec<String>, BadPath> {
    let rest = path.strip_prefix('/').ok_or(BadPath::Segment)?;
    rest.split('/').map(segment).collect()
}

fn segment(raw: &str) -> Result<String, BadPath> {
    let decoded = decode(raw, false).ok_or(BadPath::Escape)?;
    if decoded.contains(['/', '\\']) || decoded.contains(char::is_control) {
        return Err(BadPath::Forbidden);
    }
    match decoded.as_str() {
        "" | "." | ".." => Err(BadPath::Segment),
        _ => Ok(decoded),
    }
}

/// Percent-decodes, with `+` as a space if `form`; None if it is malformed or not UTF-8.
pub fn decode(raw: &str, form: bool) -> Option<String> {
    if !raw.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Some(raw.to_owned());
    }
    let mut bytes = raw.bytes();
    let mut decoded = Vec::with_capacity(raw.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            b'+' if form => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_decoded_once() {
        assert_eq!(segments("/a%20b/%2541").unwrap(), ["a b", "%41"]);
        assert_eq!(segments("/caf%C3%A9").unwrap(), ["café"]);
    }

    #[test]
    fn tricks_are_refused() {
        for (path, why) in [
            ("/a%2Fb", BadPath::Forbidden),
            ("/a%5cb", BadPath::Forbidden),
            ("/a%00", BadPath::Forbidden),
            ("/a%", BadPath::Escape),
            ("/a%g0", BadPath::Escape),
            ("/a%c3", BadPath::Escape),
            ("/a//b", BadPath::Segment),
            ("/a/", BadPath::Segment),
            ("/a/%2e%2e/b", BadPath::Segment),
            ("a", BadPath::Segment),
        ] {
            assert_eq!(segments(path), Err(why), "{path}");
        }
    }
}
