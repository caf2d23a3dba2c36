//! Bodies: the same from any pieces, in either framing, and as a simpler reader has them.

use super::{
    adapter::{self, EXTENSION_BYTES_MAX, Moved, MovedEnd, TRAILER_BYTES_MAX, move_body},
    reference::{Reading, ReadingEnd, read_chunked},
};
use crate::h1::body::{BodyLength, Framing};

/// Bodies up to this length are cut in two at every place.
const EVERY_CUT_MAX: usize = 48;

/// Reads the bytes as a chunked body, and as bodies of lengths around theirs.
pub fn chunked_body(data: &[u8]) {
    let reading = read_chunked(data);
    let whole = move_body(data, &[], BodyLength::Chunked, Framing::Identity);
    agrees(&reading, &whole);
    for cuts in ways_to_cut(data) {
        let pieces = move_body(data, &cuts, BodyLength::Chunked, Framing::Identity);
        assert_eq!(
            (&pieces.out, pieces.end),
            (&whole.out, whole.end),
            "cuts at {cuts:?} change the body"
        );
        if whole.end == MovedEnd::Done {
            assert_eq!(pieces.consumed, whole.consumed, "cuts at {cuts:?} move the end");
        }
        let again = move_body(data, &cuts, BodyLength::Chunked, Framing::Chunked);
        assert_eq!(again.end, whole.end);
        in_chunks(&again, &whole.out);
    }
    for length in [data.len() / 2, data.len(), data.len() + 1] {
        known_length(data, length);
    }
}

/// Judges the reader by the reference, which knows no bounds.
fn agrees(reading: &Reading, whole: &Moved) {
    let over = |(most, least): (usize, usize), max: usize| (most > max, least > max);
    let extensions = over(reading.extension_bytes, EXTENSION_BYTES_MAX);
    let trailers = over(reading.trailer_bytes, TRAILER_BYTES_MAX);
    if whole.end == MovedEnd::Malformed && reading.end != ReadingEnd::Malformed {
        assert!(extensions.0 || trailers.0, "refused without a reason: {reading:?}");
        assert!(reading.data.starts_with(&whole.out), "other data than {reading:?}");
        return;
    }
    assert!(!extensions.1 && !trailers.1 || whole.end == MovedEnd::Malformed, "beyond a bound");
    match reading.end {
        ReadingEnd::Complete(consumed) => {
            assert_eq!((whole.end, whole.consumed), (MovedEnd::Done, consumed));
        }
        ReadingEnd::Incomplete => assert_eq!(whole.end, MovedEnd::Incomplete),
        ReadingEnd::Malformed => assert_eq!(whole.end, MovedEnd::Malformed),
    }
    // Up to a bound that was passed there may be less.
    assert!(reading.data.starts_with(&whole.out), "other data than {reading:?}");
    assert!(extensions.0 || trailers.0 || reading.data == whole.out, "less than {reading:?}");
}

/// What was written in chunks is read strictly as this data, and ends as it should.
pub(super) fn in_chunks(moved: &Moved, data: &[u8]) {
    let reading = read_chunked(&moved.out);
    assert_eq!(reading.data, data, "written in chunks it is something else");
    let end = match moved.end {
        MovedEnd::Done => ReadingEnd::Complete(moved.out.len()),
        // What is not complete must not look as if it were.
        MovedEnd::Incomplete | MovedEnd::Malformed => ReadingEnd::Incomplete,
    };
    assert_eq!(reading.end, end);
}

fn known_length(data: &[u8], length: usize) {
    let cuts = adapter::cuts(data);
    let body = BodyLength::Known(length as u64);
    let available = length.min(data.len());
    let end = if available == length { MovedEnd::Done } else { MovedEnd::Incomplete };
    let plain = move_body(data, &cuts, body, Framing::Identity);
    assert_eq!(
        (plain.out.as_slice(), plain.consumed, plain.end),
        (&data[..available], available, end)
    );
    if length > 0 {
        let chunked = move_body(data, &cuts, body, Framing::Chunked);
        assert_eq!((chunked.consumed, chunked.end), (available, end));
        in_chunks(&chunked, &data[..available]);
    }
}

fn ways_to_cut(data: &[u8]) -> Vec<Vec<usize>> {
    let mut ways = vec![Vec::new(), (0..data.len()).collect(), adapter::cuts(data)];
    if data.len() <= EVERY_CUT_MAX {
        ways.extend((0..data.len()).map(|cut| vec![cut]));
    }
    ways
}
