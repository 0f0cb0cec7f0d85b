//! gzip bodies in every form in which they may arrive.

use std::io::Write;

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use futures_util::{FutureExt, StreamExt, stream};
use proptest::prelude::*;

use super::*;

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

/// Decompresses bytes that arrive in chunks of this size.
fn decompressed(compressed: &[u8], chunk: usize) -> Result<Vec<u8>, Broken> {
    let chunks: Vec<_> = compressed.chunks(chunk).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    let memory = Budget::new("test", usize::MAX, usize::MAX);
    let pieces = Content::compressed(stream::iter(chunks), &memory).collect::<Vec<_>>();
    let pieces = pieces.now_or_never().expect("nothing to wait for");
    Ok(pieces.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
}

fn codings_of(lines: &[&'static str], length: &'static str) -> (bool, HeaderMap) {
    let mut headers: HeaderMap = lines.iter().map(|line| (CONTENT_ENCODING, HeaderValue::from_static(line))).collect();
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static(length));
    (take_coding(&mut headers), headers)
}

#[test]
fn a_single_gzip_coding_is_decoded_and_any_other_refused() {
    for lines in [&["gzip"][..], &["GZip"], &["x-gzip"], &[" , gzip,"], &["identity", "gzip"]] {
        let (is_compressed, headers) = codings_of(lines, "9");
        assert!(is_compressed, "{lines:?}");
        assert!(check(&headers).is_ok(), "{lines:?}");
        assert!(!headers.contains_key(CONTENT_LENGTH) && !is_empty(&headers), "{lines:?}");
    }
    for lines in [&[][..], &["identity"], &["Identity, identity"], &[""]] {
        let (is_compressed, headers) = codings_of(lines, "9");
        assert!(!is_compressed && check(&headers).is_ok() && headers.contains_key(CONTENT_LENGTH), "{lines:?}");
    }
    for lines in [&["br"][..], &["zstd"], &["deflate"], &["gzip, gzip"], &["gzip", "br"], &["gzip2"], &["*"]] {
        let (is_compressed, headers) = codings_of(lines, "9");
        assert!(!is_compressed, "{lines:?}");
        assert!(check(&headers).is_err_and(|problem| problem.is(Code::UnsupportedMediaType)), "{lines:?}");
    }
    let (is_compressed, headers) = codings_of(&["br"], "0");
    assert!(!is_compressed && check(&headers).is_ok(), "there is no body");
}

#[test]
fn headers_may_hold_a_name_a_comment_and_more() {
    let builder = GzBuilder::new().filename("rows.csv").comment("of today").extra(vec![7; 300]);
    let mut encoder = builder.write(Vec::new(), Compression::best());
    encoder.write_all(b"content").expect("memory");
    let compressed = encoder.finish().expect("memory");
    for chunk in [1, 7, compressed.len()] {
        assert_eq!(decompressed(&compressed, chunk), Ok(b"content".to_vec()));
    }
}

#[test]
fn a_decompression_bomb_is_decompressed_chunk_by_chunk() {
    let bomb = gzip(&vec![0; 64 * 1024 * 1024]);
    let memory = Budget::new("test", usize::MAX, usize::MAX);
    let mut pieces = Content::compressed(stream::iter([Ok(Bytes::from(bomb))]), &memory);
    let piece = pieces.next().now_or_never().flatten().expect("a piece").expect("whole");
    assert!(piece.len() <= CHUNK_BYTES);
    let Content::Compressed(compressed) = &pieces else { unreachable!("it is compressed") };
    assert!(compressed.inflate.total_out() <= CHUNK_BYTES as u64, "no more than that was decompressed");
}

#[test]
fn memory_of_a_decoder_is_reserved_and_released() {
    let memory = Budget::new("test", DECODER, DECODER);
    let first = Content::compressed(stream::empty::<Result<Bytes, warp::Error>>(), &memory);
    let mut second = Content::compressed(stream::empty::<Result<Bytes, warp::Error>>(), &memory);
    let refused = second.next().now_or_never().flatten();
    assert_eq!(refused, Some(Err(Broken::Refused(Refused::Exhausted))));
    drop(first);
    assert!(memory.take(Holder::Several, DECODER).is_ok());
}

proptest! {
    #[test]
    fn concatenated_members_are_one_content_for_any_chunk_size(
        members in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20_000), 1..4),
        chunk in 1..5000_usize,
    ) {
        let compressed: Vec<u8> = members.iter().flat_map(|member| gzip(member)).collect();
        prop_assert_eq!(decompressed(&compressed, chunk), Ok(members.concat()));
    }

    #[test]
    fn truncated_data_or_trailing_data_is_corrupt(
        content in prop::collection::vec(any::<u8>(), 0..2000),
        cut in any::<prop::sample::Index>(),
        behind in prop::collection::vec(any::<u8>(), 1..40),
        chunk in 1..300_usize,
    ) {
        let compressed = gzip(&content);
        let cut = cut.index(compressed.len() - 1) + 1;
        prop_assert!(matches!(decompressed(&compressed[..cut], chunk), Err(Broken::Corrupt(_))));
        prop_assert!(matches!(decompressed(&[compressed, behind].concat(), chunk), Err(Broken::Corrupt(_))));
    }

    #[test]
    fn a_changed_bit_is_detected_or_has_no_effect(
        content in prop::collection::vec(any::<u8>(), 0..2000),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let mut compressed = gzip(&content);
        let at = at.index(compressed.len());
        compressed[at] ^= 1 << bit;
        // Timestamp, operating system and similar header fields do not affect the content.
        prop_assert!(decompressed(&compressed, 100).is_err() || decompressed(&compressed, 100) == Ok(content));
    }
}
