//! For the tests of decoders: the same bytes in all the pieces that matter, and with more behind them.
//!
//! A decoder must come to one verdict, and use the same bytes, however they arrive (spec http1 d, invariants 1 and 3).

use std::fmt::Debug;

/// Reads `input` whole, byte by byte, in every two parts, and with further bytes behind it. `read` takes the input and where
/// it is cut, and answers the verdict, or `None` if more is needed; all verdicts must be the same.
#[track_caller]
pub(super) fn every_split<T: Debug + PartialEq>(
    input: &[u8],
    read: impl Fn(&[u8], &[usize]) -> Option<T>,
) -> Option<T> {
    let shown = input.escape_ascii();
    let whole = read(input, &[]);
    let single: Vec<_> = (0..input.len()).collect();
    assert_eq!(read(input, &single), whole, "byte by byte: {shown}");
    for cut in 0..=input.len() {
        assert_eq!(read(input, &[cut]), whole, "cut at {cut}: {shown}");
    }
    if whole.is_some() {
        for behind in [
            &b"X"[..],
            b"\r\n",
            b"\n\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"0\r\n\r\n",
        ] {
            let longer = [input, behind].concat();
            let behind = behind.escape_ascii();
            assert_eq!(read(&longer, &[]), whole, "with {behind} behind: {shown}");
            let cut = [input.len()];
            assert_eq!(read(&longer, &cut), whole, "and {behind} later: {shown}");
        }
    }
    whole
}
