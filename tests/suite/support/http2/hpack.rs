//! Field blocks of RFC 7541: literals to write, and a whole decoder for what a client sends.
//!
//! The decoder is our own: it is small once one knows that the Huffman code is canonical, so that the lengths of its codes
//! say all.

use std::collections::{HashMap, VecDeque};
use std::sync::OnceLock;

/// A field block of literals that are not indexed, without Huffman codes. Names and values may be anything.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        literal(&mut block, name.as_bytes(), value.as_bytes());
    }
    block
}

/// Appends a literal field that is not indexed.
pub(crate) fn literal(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    for text in [name, value] {
        integer(block, 7, 0, text.len());
        block.extend_from_slice(text);
    }
}

/// Appends a literal field that enters the dynamic table.
pub(crate) fn indexed_literal(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let start = block.len();
    literal(block, name, value);
    block[start] = 0x40;
}

/// Appends an integer with a prefix of so many bits (RFC 7541 section 5.1).
pub(crate) fn integer(block: &mut Vec<u8>, bits: u32, above: u8, value: usize) {
    let most = (1_usize << bits) - 1;
    if value < most {
        block.push(above | u8::try_from(value).expect("less than a byte"));
        return;
    }
    block.push(above | u8::try_from(most).expect("less than a byte"));
    let mut rest = value - most;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).expect("seven bits") | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).expect("seven bits"));
}

/// Decodes the field blocks of one connection, in order. It panics at what is no field block: a client has to be right.
pub(crate) struct Decoder {
    table: VecDeque<(String, String)>,
    size: usize,
    limit: usize,
}

impl Decoder {
    /// A decoder with the table size that a server has if it says nothing.
    pub(crate) fn new() -> Self {
        Self {
            table: VecDeque::new(),
            size: 0,
            limit: 4096,
        }
    }

    /// The fields of a block.
    pub(crate) fn decode(&mut self, block: &[u8]) -> Vec<(String, String)> {
        let mut input = Input(block);
        let mut fields = Vec::new();
        while let Some(&first) = input.0.first() {
            if first & 0x80 != 0 {
                let index = input.integer(7);
                fields.push(self.entry(index));
            } else if first & 0xe0 == 0x20 {
                assert!(fields.is_empty(), "a size update inside a block");
                let limit = input.integer(5);
                assert!(limit <= 4096, "a table of {limit}");
                self.limit = limit;
                self.evict();
            } else {
                let indexed = first & 0x40 != 0;
                let name = match input.integer(if indexed { 6 } else { 4 }) {
                    0 => input.string(),
                    index => self.entry(index).0,
                };
                let field = (name, input.string());
                if indexed {
                    self.size += field.0.len() + field.1.len() + 32;
                    self.table.push_front(field.clone());
                    self.evict();
                }
                fields.push(field);
            }
        }
        fields
    }

    fn entry(&self, index: usize) -> (String, String) {
        assert!(index > 0, "index 0");
        match STATIC.get(index - 1) {
            Some((name, value)) => ((*name).to_owned(), (*value).to_owned()),
            None => self.table[index - 1 - STATIC.len()].clone(),
        }
    }

    fn evict(&mut self) {
        while self.size > self.limit {
            let (name, value) = self.table.pop_back().expect("an entry has a size");
            self.size -= name.len() + value.len() + 32;
        }
    }
}

/// What is left of a block.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().expect("more of the block");
        self.0 = rest;
        *first
    }

    fn integer(&mut self, bits: u32) -> usize {
        let most = (1_usize << bits) - 1;
        let mut value = usize::from(self.byte()) & most;
        if value < most {
            return value;
        }
        for shift in (0..28).step_by(7) {
            let byte = usize::from(self.byte());
            value += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return value;
            }
        }
        panic!("an integer of more than four bytes");
    }

    fn string(&mut self) -> String {
        let coded = self.0[0] & 0x80 != 0;
        let length = self.integer(7);
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        let text = if coded { decode(text) } else { text.to_vec() };
        String::from_utf8(text).expect("a field of UTF-8")
    }
}

/// Decodes Huffman codes.
fn decode(coded: &[u8]) -> Vec<u8> {
    let codes = codes();
    let mut text = Vec::new();
    let (mut length, mut code) = (0, 0_u32);
    for byte in coded {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            length += 1;
            if let Some(symbol) = codes.get(&(length, code)) {
                text.push(*symbol);
                (length, code) = (0, 0);
            }
        }
    }
    // What is left over pads the last byte with the beginning of the end's code, which is all ones.
    assert!(
        length < 8 && code == (1 << length) - 1,
        "padding of a Huffman code"
    );
    text
}

/// Symbols by the length and the value of their code. Shorter codes come first, codes of one length in the order of their
/// symbols.
fn codes() -> &'static HashMap<(u32, u32), u8> {
    static CODES: OnceLock<HashMap<(u32, u32), u8>> = OnceLock::new();
    CODES.get_or_init(|| {
        let mut codes = HashMap::new();
        let mut code = 0;
        for length in 5..=30 {
            code <<= 1;
            for (symbol, letter) in (0..=255).zip(LENGTHS.bytes()) {
                if u32::from(letter - b'A') + 5 == length {
                    codes.insert((length, code), symbol);
                    code += 1;
                }
            }
        }
        codes
    })
}

/// The lengths of the codes of the 256 bytes (RFC 7541 appendix B): `A` for 5 bits, `B` for 6, up to `Z` for 30.
const LENGTHS: &str = "ISXXXXXXXTZXXZXXXXXXXXZXXXXXXXXXBFFHIBDGFFDGDBBBAAABBBBBBBCDKBHFIBCCCCCCCCCCCCCCCCCCCCCCDC\
     DIOIJBKABABABBBACCBBBABCBAABCCCCCKGJIXPRPPRRRSRSSSSSTSTTRSTSSSSQRSRSSTRQPRRSSQSRRTQRSSQQRQSRSSPRRRSRRSVVPORSRUVVVWWV\
     TUOQVWWVWTQQVVXWWWPTPQRQQSRRUUTTVSVWVVWWWWWXWWWWWV";

/// The static table (RFC 7541 appendix A).
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];
