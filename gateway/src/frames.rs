//! gRPC's message frames: a flag byte, four bytes of length, the message.
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use tonic::Status;
use weft_core::Reason;

use crate::relay::broken_off;

/// Bytes in front of each message.
pub const PREFIX: usize = 5;
/// The flag of grpc-web's trailer frame.
const TRAILERS_FLAG: u8 = 0x80;

/// Begins a frame whose message is then appended; [`seal`] writes its length.
pub fn begin(capacity: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(PREFIX + capacity);
    frame.extend_from_slice(&[0; PREFIX]);
    frame
}

/// Writes the length of the one message in a frame made by [`begin`].
pub fn seal(mut frame: Vec<u8>) -> Bytes {
    let length = u32::try_from(frame.len() - PREFIX).unwrap_or(u32::MAX);
    frame[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    Bytes::from(frame)
}

/// The flag and length at the beginning of a frame.
fn prefix(bytes: &[u8]) -> Option<(u8, usize)> {
    let (head, _message) = bytes.split_at_checked(PREFIX)?;
    Some((head[0], u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize))
}

/// Checks that a request body is exactly one plain message within the limit, and nothing else.
///
/// # Errors
/// `payload_too_large`, UNIMPLEMENTED for a compressed message, INVALID_ARGUMENT for anything else.
pub fn check_one(body: &[u8], limit: usize) -> Result<(), Status> {
    let (flag, length) =
        prefix(body).ok_or_else(|| Reason::InvalidArgument.status("send one message, framed as gRPC frames it"))?;
    check_prefix(flag, length, limit)?;
    if length != body.len() - PREFIX {
        return Err(Reason::InvalidArgument.status("the length of the message is not that of the body"));
    }
    Ok(())
}

fn check_prefix(flag: u8, length: usize, limit: usize) -> Result<(), Status> {
    match flag {
        0 => {}
        // A small message can become a huge one; the edge does not find out which.
        1 => return Err(Reason::Unimplemented.status("compressed messages are not taken here, send them plain")),
        _ => return Err(Reason::InvalidArgument.status("a message begins with an unknown flag")),
    }
    if length > limit {
        return Err(Reason::PayloadTooLarge.status(format!("the message is over the limit of {limit} bytes")));
    }
    Ok(())
}

/// Watches a stream of request bytes go by: every message within the limit, none compressed.
#[derive(Debug)]
pub struct Meter {
    limit: usize,
    head: Vec<u8>,
    left: usize,
}

impl Meter {
    /// Messages of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Meter { limit, head: Vec::with_capacity(PREFIX), left: 0 }
    }

    /// Looks at the next bytes. A frame is refused by its first five bytes, before its message is there.
    ///
    /// # Errors
    /// As [`check_one`].
    pub fn pass(&mut self, mut bytes: &[u8]) -> Result<(), Status> {
        while !bytes.is_empty() {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = &bytes[skipped..];
            let (head, rest) = bytes.split_at(bytes.len().min(PREFIX - self.head.len()));
            self.head.extend_from_slice(head);
            bytes = rest;
            if let Some((flag, length)) = prefix(&self.head) {
                check_prefix(flag, length, self.limit)?;
                self.left = length;
                self.head.clear();
            }
        }
        Ok(())
    }
}

/// Cuts a service's stream of bytes into messages.
#[derive(Debug, Default)]
pub struct Splitter {
    buffer: BytesMut,
}

impl Splitter {
    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// What is not yet a whole frame, or was not yet asked for.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// The next whole frame with its prefix.
    ///
    /// # Errors
    /// INTERNAL for a compressed one: we have not said that we take them. `payload_too_large` over the limit.
    pub fn next(&mut self, limit: usize) -> Result<Option<Bytes>, Status> {
        let Some((flag, length)) = prefix(&self.buffer) else { return Ok(None) };
        if flag != 0 {
            return Err(Reason::Internal.status("the service compressed its answer without being asked"));
        }
        if length > limit {
            return Err(Reason::PayloadTooLarge.status("the service's answer is too large"));
        }
        if self.buffer.len() < PREFIX + length {
            return Ok(None);
        }
        Ok(Some(self.buffer.split_to(PREFIX + length).freeze()))
    }
}

/// The message of a whole frame.
pub fn message(mut frame: Bytes) -> Bytes {
    frame.advance(PREFIX.min(frame.len()));
    frame
}

/// The one message of a unary answer; None if the body is empty.
///
/// # Errors
/// UNAVAILABLE for a part of a message, INTERNAL for anything else that is not one plain message.
pub fn only_message(body: Bytes) -> Result<Option<Bytes>, Status> {
    if body.is_empty() {
        return Ok(None);
    }
    match prefix(&body) {
        Some((0, length)) if length == body.len() - PREFIX => Ok(Some(message(body))),
        Some((0, length)) if length < body.len() - PREFIX => Err(not_one()),
        Some((0, _)) | None => Err(broken_off()),
        Some(_) => Err(not_one()),
    }
}

fn not_one() -> Status {
    Reason::Internal.status("the service's answer is not one message")
}

/// Trailers as grpc-web's last frame: `name:value` lines.
pub fn trailer_frame(trailers: &HeaderMap) -> Bytes {
    let mut frame = BytesMut::with_capacity(64);
    frame.put_u8(TRAILERS_FLAG);
    frame.put_u32(0);
    for (name, value) in trailers {
        frame.put_slice(name.as_str().as_bytes());
        frame.put_u8(b':');
        frame.put_slice(value.as_bytes());
        frame.put_slice(b"\r\n");
    }
    let length = u32::try_from(frame.len() - PREFIX).unwrap_or(u32::MAX);
    frame[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_sees_messages_however_they_are_cut() {
        let stream = [0, 0, 0, 0, 2, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 1, 1, 1];
        for cut in 0..stream.len() {
            let mut meter = Meter::new(3);
            meter.pass(&stream[..cut]).unwrap();
            meter.pass(&stream[cut..]).unwrap();
            let mut strict = Meter::new(2);
            let outcome = strict.pass(&stream[..cut]).and_then(|()| strict.pass(&stream[cut..]));
            assert_eq!(Reason::of(&outcome.unwrap_err()), Some(Reason::PayloadTooLarge), "cut at {cut}");
        }
    }

    #[test]
    fn a_message_is_refused_before_it_arrives() {
        assert!(Meter::new(10).pass(&[0, 0, 0, 0, 11]).is_err());
        assert!(Meter::new(10).pass(&[1, 0, 0, 0, 1]).is_err());
        assert!(Meter::new(10).pass(&[0, 0, 0, 0, 10]).is_ok());
    }

    #[test]
    fn a_splitter_gives_whole_frames_however_they_are_cut() {
        let stream = [0, 0, 0, 0, 2, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9];
        for cut in 0..stream.len() {
            let mut splitter = Splitter::default();
            let mut messages = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                splitter.push(part);
                while let Some(frame) = splitter.next(10).unwrap() {
                    messages.push(message(frame).to_vec());
                }
            }
            assert_eq!(messages, [vec![7, 8], vec![], vec![9]], "cut at {cut}");
        }
    }

    #[test]
    fn a_body_is_one_message_or_refused() {
        assert!(check_one(&[0, 0, 0, 0, 1, 9], 10).is_ok());
        for bad in
            [&[] as &[u8], &[0, 0, 0, 0], &[0, 0, 0, 0, 2, 9], &[0, 0, 0, 0, 0, 9], &[2, 0, 0, 0, 0], &[1, 0, 0, 0, 0]]
        {
            assert!(check_one(bad, 10).is_err(), "{bad:?}");
        }
    }
}
