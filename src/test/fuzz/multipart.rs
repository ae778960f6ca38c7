//! Any names and contents as a multipart form.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::body::{Body, Multipart, Part};

/// Makes a form of the parts that `data` describes, and reads it with a parser that knows nothing but RFC 7578: the parts must
/// come back, in their order, and nothing else.
///
/// A part is a byte of choices, then its name, its file name, its content type and its content, each ended by `|`.
pub fn multipart(data: &[u8]) {
    let mut form = Multipart::new();
    let mut expected = Vec::new();
    let mut rest = data;
    while let Some((choices, after)) = rest.split_first() {
        let mut texts = after.splitn(5, |byte| *byte == b'|');
        let mut text = || texts.next().unwrap_or_default();
        let (name, file_name) = (lossy(text()), lossy(text()));
        let (content_type, content) = (text(), text());
        rest = text();
        let times = if choices % 4 == 1 {
            // Too large to be copied, and so that the form is no longer bytes.
            (70_000 / content.len().max(1)).max(1)
        } else {
            1
        };
        let content = content.repeat(times);
        let body = Bytes::from(content.clone());
        let mut part = Part::new(match choices % 4 {
            0 => Body::wrap(Body::from(body)),
            _ => Body::from(body),
        });
        let has_file_name = choices & 4 != 0;
        if has_file_name {
            part = part.file_name(&file_name);
        }
        if choices & 8 != 0 {
            part = part.content_type(content_type);
        }
        if choices & 16 != 0 {
            part = part.header("x-note", content_type);
        }
        form = form.part(&name, part);
        expected.push(Expected {
            name: escaped(&name),
            file_name: has_file_name.then(|| escaped(&file_name)),
            content,
        });
    }
    let Ok((content_type, body)) = form.into_body() else {
        // Something in it cannot be written; which is a matter of the parts, not of their number.
        return;
    };
    let length = body.left();
    let bytes = read(body);
    assert_eq!(length, Some(bytes.len() as u64), "every part has a length");
    let content_type = content_type.to_str().expect("ASCII");
    let (_, boundary) = content_type.split_once("boundary=").expect("a boundary");
    parse(&bytes, boundary, &expected);
}

struct Expected {
    name: String,
    file_name: Option<String>,
    content: Vec<u8>,
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn escaped(name: &str) -> String {
    let name = name.replace('"', "%22");
    name.replace('\r', "%0D").replace('\n', "%0A")
}

/// Reads a body that never waits.
fn read(mut body: Body) -> Vec<u8> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut bytes = Vec::new();
    loop {
        match body.poll_next(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => {
                bytes.extend_from_slice(&frame.into_data().unwrap_or_default());
            }
            Poll::Ready(None) => return bytes,
            Poll::Ready(Some(Err(error))) => panic!("{error}"),
            Poll::Pending => panic!("nothing in it waits"),
        }
    }
}

fn parse(bytes: &[u8], boundary: &str, expected: &[Expected]) {
    let first = format!("--{boundary}");
    let between = format!("\r\n--{boundary}");
    let mut rest = bytes
        .strip_prefix(first.as_bytes())
        .expect("the first line");
    for part in expected {
        rest = rest.strip_prefix(b"\r\n").expect("the end of the line");
        let (head, behind) = split(rest, b"\r\n\r\n");
        // A value may hold bytes that are no text, as any field value may.
        let head = lossy(head);
        let mut lines = head.split("\r\n");
        let mut disposition = format!("Content-Disposition: form-data; name=\"{}\"", part.name);
        if let Some(file_name) = &part.file_name {
            disposition.push_str(&format!("; filename=\"{file_name}\""));
        }
        assert_eq!(lines.next(), Some(&*disposition));
        let names: Vec<_> = lines.map(|line| line.split(": ").next()).collect();
        let known = [Some("Content-Type"), Some("x-note")];
        assert!(
            names.len() <= 2 && names.iter().all(|name| known.contains(name)),
            "{head:?}"
        );
        assert!(!head.contains(['\0', '\x7f']), "{head:?}");
        let (content, behind) = split(behind, between.as_bytes());
        assert!(content == part.content, "the content of {:?}", part.name);
        rest = behind;
    }
    assert_eq!(rest, b"--\r\n", "the end of the form");
}

/// What is before and behind the first `mark`.
fn split<'a>(bytes: &'a [u8], mark: &[u8]) -> (&'a [u8], &'a [u8]) {
    let at = bytes
        .windows(mark.len())
        .position(|window| window == mark)
        .unwrap_or_else(|| {
            panic!(
                "no \"{}\" in \"{}\"",
                mark.escape_ascii(),
                bytes.escape_ascii()
            )
        });
    bytes
        .split_at_checked(at)
        .and_then(|(before, rest)| Some((before, rest.get(mark.len()..)?)))
        .expect("it was found there")
}
