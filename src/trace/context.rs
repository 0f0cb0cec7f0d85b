//! Who a span is: its trace, its own id, and whether it is recorded (W3C Trace Context).

use std::fmt;

use uuid::Uuid;

/// The id of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// The id of a span.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// A span, wherever it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanContext {
    /// Its trace.
    pub trace: TraceId,
    /// Its own id.
    pub span: SpanId,
    /// Whether it is recorded.
    pub is_sampled: bool,
}

/// Length of a `traceparent` of version 00.
pub const TRACEPARENT_BYTES: usize = 55;

/// The bit of the flags that says that a span is recorded.
const SAMPLED: u8 = 1;

impl SpanContext {
    /// A span that is recorded, in a trace.
    pub fn sampled_in(trace: TraceId) -> Self {
        Self { trace, span: SpanId(random()), is_sampled: true }
    }

    /// A span of a trace of its own that nobody records.
    pub fn unsampled_in(trace: TraceId) -> Self {
        Self { is_sampled: false, ..Self::sampled_in(trace) }
    }

    /// Reads a `traceparent` (W3C Trace Context, section 3.2); later versions may have more behind it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version: [u8; 1] = hex(parts.next()?)?;
        let (trace, span, [flags]) = (hex(parts.next()?)?, hex(parts.next()?)?, hex(parts.next()?)?);
        let fits = version != [0xff] && (version != [0] || text.len() == TRACEPARENT_BYTES);
        let is_named = trace != [0; 16] && span != [0; 8];
        let is_sampled = flags & SAMPLED != 0;
        (fits && is_named).then_some(Self { trace: TraceId(trace), span: SpanId(span), is_sampled })
    }

    /// The `traceparent` that continues here.
    pub fn traceparent(&self) -> [u8; TRACEPARENT_BYTES] {
        let mut text = *b"00-________________________________-________________-00";
        spell(&self.trace.0, &mut text[3..35]);
        spell(&self.span.0, &mut text[36..52]);
        text[54] += u8::from(self.is_sampled);
        text
    }
}

impl TraceId {
    /// One that nobody has used.
    pub fn random() -> Self {
        let (high, low): ([u8; 8], [u8; 8]) = (random(), random());
        let mut id = [0; 16];
        id[..8].copy_from_slice(&high);
        id[8..].copy_from_slice(&low);
        Self(id)
    }

    /// The id that a text spells, which is 32 hexadecimal digits in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        hex(text).filter(|id| *id != [0; 16]).map(Self)
    }
}

/// Bytes all of whose bits are random: of a random uuid without those that say what it is.
fn random() -> [u8; 8] {
    let uuid = Uuid::new_v4().into_bytes();
    let mut bytes = [0; 8];
    bytes[..6].copy_from_slice(&uuid[..6]);
    bytes[6..].copy_from_slice(&uuid[14..]);
    // All zeros would be no id; that happens to nobody.
    bytes
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(bytes)
}

fn spell(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, digits) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 15)];
    }
}

impl fmt::Display for SpanContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(std::str::from_utf8(&self.traceparent()).expect("hexadecimal digits are ASCII"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_read_is_what_is_written() {
        let context = SpanContext::parse(GOOD).expect("well formed");
        assert!(context.is_sampled);
        assert_eq!(context.to_string(), GOOD);
        let unsampled = SpanContext { is_sampled: false, ..context };
        assert_eq!(SpanContext::parse(&unsampled.to_string()), Some(unsampled));
    }

    #[test]
    fn only_well_formed_trace_contexts_are_taken_over() {
        for wrong in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b70-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(SpanContext::parse(wrong), None, "{wrong}");
        }
        assert!(SpanContext::parse("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later").is_some());
        assert_eq!(SpanContext::parse(&GOOD.replace("-01", "-02")).map(|found| found.is_sampled), Some(false));
    }

    #[test]
    fn every_bit_of_an_id_is_random() {
        let (mut ones, mut zeros) = ([0_u8; 16], [0_u8; 16]);
        for _ in 0..200 {
            let TraceId(id) = TraceId::random();
            for (place, byte) in id.into_iter().enumerate() {
                ones[place] |= byte;
                zeros[place] |= !byte;
            }
        }
        assert_eq!((ones, zeros), ([0xff; 16], [0xff; 16]));
    }
}
