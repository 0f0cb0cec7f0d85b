//! Identity of a span: its trace, its id, and whether it is sampled (W3C Trace Context).

use std::fmt;

use uuid::Uuid;

/// The id of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// The id of a span.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// A span, possibly of another service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanContext {
    /// Its trace.
    pub trace: TraceId,
    /// Its id.
    pub span: SpanId,
    /// Whether it is sampled.
    pub is_sampled: bool,
}

/// Length of a `traceparent` of version 00.
pub const TRACEPARENT_BYTES: usize = 55;

/// The bit of the flags for a sampled span.
const SAMPLED: u8 = 1;

impl SpanContext {
    /// A new sampled span in a trace.
    pub fn sampled_in(trace: TraceId) -> Self {
        Self { trace, span: SpanId(random()), is_sampled: true }
    }

    /// A new span that is not sampled, in a trace.
    pub fn unsampled_in(trace: TraceId) -> Self {
        Self { is_sampled: false, ..Self::sampled_in(trace) }
    }

    /// Parses a `traceparent` (W3C Trace Context, section 3.2); later versions may have additional fields.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version: [u8; 1] = hex(parts.next()?)?;
        let (trace, span, [flags]) = (hex(parts.next()?)?, hex(parts.next()?)?, hex(parts.next()?)?);
        let fits = version != [0xff] && (version != [0] || text.len() == TRACEPARENT_BYTES);
        let is_named = trace != [0; 16] && span != [0; 8];
        let is_sampled = flags & SAMPLED != 0;
        (fits && is_named).then_some(Self { trace: TraceId(trace), span: SpanId(span), is_sampled })
    }

    /// Formats the `traceparent`.
    pub fn traceparent(&self) -> [u8; TRACEPARENT_BYTES] {
        let mut text = *b"00-________________________________-________________-00";
        encode_hex(&self.trace.0, &mut text[3..35]);
        encode_hex(&self.span.0, &mut text[36..52]);
        text[54] += u8::from(self.is_sampled);
        text
    }
}

impl TraceId {
    /// A new random id.
    pub fn random() -> Self {
        let (high, low): ([u8; 8], [u8; 8]) = (random(), random());
        let mut id = [0; 16];
        id[..8].copy_from_slice(&high);
        id[8..].copy_from_slice(&low);
        Self(id)
    }

    /// Parses an id: 32 hexadecimal digits in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        hex(text).filter(|id| *id != [0; 16]).map(Self)
    }
}

/// Random bytes: those of a random UUID, without the bits for its version and variant.
fn random() -> [u8; 8] {
    let uuid = Uuid::new_v4().into_bytes();
    let mut bytes = [0; 8];
    bytes[..6].copy_from_slice(&uuid[..6]);
    bytes[6..].copy_from_slice(&uuid[14..]);
    // All zeros would not be a valid id, but is practically impossible.
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

fn encode_hex(bytes: &[u8], text: &mut [u8]) {
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
    fn a_trace_context_round_trips() {
        let context = SpanContext::parse(GOOD).expect("well formed");
        assert!(context.is_sampled);
        assert_eq!(context.to_string(), GOOD);
        let unsampled = SpanContext { is_sampled: false, ..context };
        assert_eq!(SpanContext::parse(&unsampled.to_string()), Some(unsampled));
    }

    #[test]
    fn only_well_formed_trace_contexts_are_accepted() {
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
            for (index, byte) in id.into_iter().enumerate() {
                ones[index] |= byte;
                zeros[index] |= !byte;
            }
        }
        assert_eq!((ones, zeros), ([0xff; 16], [0xff; 16]));
    }
}
