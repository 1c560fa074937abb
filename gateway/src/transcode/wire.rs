//! The protobuf wire: the few primitives that both directions need.
use super::WireError;

/// Wire type of a varint.
pub const VARINT: u8 = 0;
/// Wire type of eight bytes.
pub const FIXED64: u8 = 1;
/// Wire type of a length and bytes.
pub const BYTES: u8 = 2;
/// Wire type of four bytes.
pub const FIXED32: u8 = 5;

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field's tag.
pub fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: u8) {
    put_varint(out, u64::from(number) << 3 | u64::from(wire_type));
}

/// Appends a whole length-delimited field.
pub fn put_bytes_field(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Where a length-delimited value began; its length is known only at its end.
#[derive(Clone, Copy)]
pub struct Open(usize);

/// Begins a length-delimited value. One byte is kept for its length, which is enough for most.
pub fn open(out: &mut Vec<u8>) -> Open {
    out.push(0);
    Open(out.len())
}

/// Ends it: writes the length, moving the value along if the length takes more than a byte.
pub fn close(out: &mut Vec<u8>, Open(start): Open) {
    let length = out.len() - start;
    if length < 0x80 {
        out[start - 1] = length as u8;
        return;
    }
    let mut prefix = Vec::with_capacity(10);
    put_varint(&mut prefix, length as u64);
    out.splice(start - 1..start, prefix);
}

/// Reads wire bytes from their beginning.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub fn position(&self) -> usize {
        self.at
    }

    pub fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(WireError::Malformed)?;
            self.at += 1;
            if shift == 63 && byte > 1 {
                return Err(WireError::Malformed);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::Malformed)
    }

    /// A tag: field number and wire type.
    pub fn tag(&mut self) -> Result<(u32, u8), WireError> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_large| WireError::Malformed)?;
        if number == 0 {
            return Err(WireError::Malformed);
        }
        Ok((number, (tag & 7) as u8))
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let end = self.at.checked_add(length).ok_or(WireError::Malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or(WireError::Malformed)?;
        self.at = end;
        Ok(taken)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let length = usize::try_from(self.varint()?).map_err(|_large| WireError::Malformed)?;
        self.take(length)
    }

    pub fn fixed32(&mut self) -> Result<u32, WireError> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub fn fixed64(&mut self) -> Result<u64, WireError> {
        let low = u64::from(self.fixed32()?);
        let high = u64::from(self.fixed32()?);
        Ok(high << 32 | low)
    }

    /// The value after a tag: its raw bytes, without the length of a length-delimited one. Groups are refused;
    /// nothing of ours has them.
    pub fn value(&mut self, wire_type: u8) -> Result<&'a [u8], WireError> {
        match wire_type {
            VARINT => {
                let start = self.at;
                self.varint()?;
                Ok(&self.bytes[start..self.at])
            }
            FIXED64 => self.take(8),
            BYTES => self.bytes(),
            FIXED32 => self.take(4),
            _ => Err(WireError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_gets_its_length_in_front() {
        let mut out = Vec::new();
        put_tag(&mut out, 1, BYTES);
        let begun = open(&mut out);
        out.extend_from_slice(&[7; 300]);
        close(&mut out, begun);
        let mut reader = Reader::new(&out);
        assert_eq!(reader.tag().unwrap(), (1, BYTES));
        assert_eq!(reader.bytes().unwrap(), [7; 300]);
        assert!(reader.is_empty());
    }

    #[test]
    fn an_endless_varint_is_refused() {
        assert!(Reader::new(&[0xff; 20]).varint().is_err());
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).varint().unwrap(), u64::MAX);
    }

    #[test]
    fn a_length_past_the_end_is_refused() {
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).bytes().is_err());
    }
}
