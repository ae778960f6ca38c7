//! Bodies that are small on the wire and up to a gibibyte when decoded: what has a limit stops at it, what has none takes them
//! piece by piece, and either way the process grows by less than 16 MiB (security D2).
//!
//! A bomb is made of one mebibyte of zeros that was coded once and is sent again and again.

#![cfg(target_os = "linux")]

use std::process::Command;

use sockeye::{Client, ErrorKind, RequestBuilder, Response};

use crate::support::peer::World;
use crate::support::ways::{Way, ways};

/// A coding, and the coded zeros.
struct Bomb {
    coding: &'static str,
    first: Vec<u8>,
    /// A mebibyte, wherever it stands behind the first.
    again: Vec<u8>,
    /// The end behind so many mebibytes.
    last: fn(u64) -> Vec<u8>,
}

impl Bomb {
    fn of(&self, mebibytes: u64) -> Vec<u8> {
        let mut coded = self.first.clone();
        for _ in 1..mebibytes {
            coded.extend_from_slice(&self.again);
        }
        coded.extend((self.last)(mebibytes));
        coded
    }
}

fn bombs() -> Vec<Bomb> {
    vec![
        #[cfg(feature = "gzip")]
        gzip::members(),
        #[cfg(feature = "gzip")]
        gzip::zlib(),
        #[cfg(feature = "gzip")]
        gzip::twice(),
        #[cfg(feature = "brotli")]
        brotli_flushed(),
        #[cfg(feature = "zstd")]
        zstd_blocks(),
    ]
}

#[cfg(feature = "gzip")]
mod gzip {
    use std::io::Write;

    use flate2::write::GzEncoder;
    use flate2::{Compress, Compression, FlushCompress};

    use super::{Bomb, MIB};

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// A member for each mebibyte.
    pub(super) fn members() -> Bomb {
        let member = gzip(&vec![0; MIB]);
        Bomb {
            coding: "gzip",
            first: member.clone(),
            again: member,
            last: |_| Vec::new(),
        }
    }

    /// The same in gzip once more.
    pub(super) fn twice() -> Bomb {
        let member = gzip(&gzip(&vec![0; MIB]));
        Bomb {
            coding: "gzip, gzip",
            first: member.clone(),
            again: member,
            last: |_| Vec::new(),
        }
    }

    pub(super) fn zlib() -> Bomb {
        let mut compress = Compress::new(Compression::best(), true);
        let mut piece = || {
            let mut coded = Vec::with_capacity(64 * 1024);
            let flush = FlushCompress::Sync;
            compress
                .compress_vec(&vec![0; MIB], &mut coded, flush)
                .unwrap();
            coded
        };
        let first = piece();
        let again = piece();
        assert_eq!(compress.total_in(), 2 * MIB as u64, "all went in");
        Bomb {
            coding: "deflate",
            first,
            again,
            last: |mebibytes| {
                // An empty last block, and the checksum of zeros: one, and a sum of ones (RFC 1950 section 8.2).
                let sum = u32::try_from((mebibytes * MIB as u64) % 65_521).unwrap();
                [&[1, 0, 0, 0xff, 0xff][..], &(sum << 16 | 1).to_be_bytes()].concat()
            },
        }
    }
}

#[cfg(feature = "brotli")]
fn brotli_flushed() -> Bomb {
    use std::io::Write;

    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
    let zeros = vec![0; MIB];
    let mut ends = vec![0];
    for _ in 0..3 {
        encoder.write_all(&zeros).unwrap();
        encoder.flush().unwrap();
        ends.push(encoder.get_ref().len());
    }
    let coded = encoder.into_inner();
    let again = coded[ends[1]..ends[2]].to_vec();
    assert_eq!(again, coded[ends[2]..ends[3]], "it can be repeated");
    Bomb {
        coding: "br",
        first: coded[..ends[1]].to_vec(),
        again,
        // An empty last meta-block (RFC 7932 section 9.2), on a byte of its own behind a flush.
        last: |_| vec![3],
    }
}

/// Blocks of one byte that is to be repeated 128 Ki times (RFC 8878 section 3.1.1), in a window of 8 MiB.
#[cfg(feature = "zstd")]
fn zstd_blocks() -> Bomb {
    let header: u32 = (128 * 1024) << 3 | 1 << 1;
    let block = [&header.to_le_bytes()[..3], &[0]].concat();
    let again = block.repeat(8);
    Bomb {
        coding: "zstd",
        first: [&[0x28, 0xb5, 0x2f, 0xfd, 0, 13 << 3][..], &again].concat(),
        again,
        last: |_| vec![1, 0, 0],
    }
}

/// Runs a test of this module in a process of its own, because memory is the process's. Answers whether this is that process.
fn alone(test: &str) -> bool {
    if std::env::var_os("ALONE").is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--include-ignored",
            "--test-threads=1",
            "--nocapture",
        ])
        .arg(format!("bombs::{test}"))
        .env("ALONE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{why}"
    );
    println!("{said}");
    false
}

/// The most memory that this process has had so far, in KiB.
fn most_resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

/// How much the process grew from here on.
struct Growth(u64);

impl Growth {
    /// The first calls do what is done once, and bring the program itself into memory.
    async fn begin() -> Self {
        for way in ways() {
            let body = read(way, "identity", b"small", get, Response::bytes).await;
            assert_eq!(body.unwrap(), "small");
        }
        Self(most_resident())
    }

    #[track_caller]
    fn check(&self, what: &str) {
        // Linux sums up what each processor has counted only now and then, so that the number may fall a little.
        let grown = most_resident().saturating_sub(self.0);
        println!("{what}: {grown} KiB");
        assert!(grown < 16 * 1024, "{what}: it grew by {grown} KiB");
    }
}

/// Reads a bomb, and sees that the next request works.
async fn read<T>(
    way: Way,
    coding: &str,
    coded: &[u8],
    build: impl FnOnce(&Client) -> RequestBuilder,
    read: impl AsyncFnOnce(Response) -> T,
) -> T {
    let world = World::new();
    // What lies between the two ends is little, so that what is measured is the client's.
    world.buffer(64 * 1024);
    let client = way.client(&world);
    let fields = [
        ("content-type", "text/event-stream"),
        ("content-encoding", coding),
    ];
    let ((), read) = tokio::join!(way.answer(&world, &fields, coded, 8 * 1024), async {
        let response = build(&client).send().await.unwrap();
        read(response).await
    });
    way.next_works(&world, &client).await;
    read
}

fn get(client: &Client) -> RequestBuilder {
    client.get("http://peer.test/").max_body(LIMIT)
}

/// Each of these has a limit; the kind of error that it is over it.
async fn stop(how: usize, response: Response) -> Option<ErrorKind> {
    let mut response = response;
    let error = match how {
        0 => response.bytes().await.unwrap_err(),
        1 => response.text().await.unwrap_err(),
        2 => response.collect().await.unwrap_err(),
        3 => response.trailers().await.unwrap_err(),
        4 => response.lines().max_line(LIMIT).next().await?.unwrap_err(),
        #[cfg(feature = "json")]
        5 => response.json::<u32>().await.unwrap_err(),
        #[cfg(feature = "json")]
        6 => {
            let mut rows = response.ndjson::<u32>().max_line(LIMIT);
            rows.next().await?.unwrap_err()
        }
        #[cfg(feature = "sse")]
        7 => response
            .events()
            .max_event(LIMIT)
            .next()
            .await?
            .unwrap_err(),
        _ => return None,
    };
    Some(error.kind())
}

#[test]
fn from_a_mebibyte_to_a_gibibyte_it_stops_at_the_limit() {
    if !alone("from_a_mebibyte_to_a_gibibyte_it_stops_at_the_limit") {
        return;
    }
    paused(async {
        let bombs = bombs();
        let growth = Growth::begin().await;
        for bomb in &bombs {
            for mebibytes in [1, 32, 1024] {
                let coded = bomb.of(mebibytes);
                assert!(coded.len() < 3 << 20);
                for (number, way) in ways().into_iter().cycle().take(8).enumerate() {
                    let kind = read(way, bomb.coding, &coded, get, async |response| {
                        stop(number, response).await
                    })
                    .await;
                    assert!(
                        kind.is_none_or(|kind| kind == ErrorKind::TooLarge),
                        "{} {mebibytes} {way:?}: {kind:?}",
                        bomb.coding
                    );
                }
                growth.check(&format!("{} of {mebibytes} MiB", bomb.coding));
            }
        }
    });
}

/// Without a limit every byte comes, and no piece is large.
async fn read_all(bomb: &Bomb, mebibytes: u64, way: Way) {
    let coded = bomb.of(mebibytes);
    let all = mebibytes * MIB as u64;
    let size = read(way, bomb.coding, &coded, get, async |mut response| {
        let mut size = 0;
        while let Some(piece) = response.chunk().await.unwrap() {
            assert!(piece.len() <= 64 * 1024);
            size += piece.len() as u64;
        }
        size
    })
    .await;
    assert_eq!(size, all, "{} {way:?}", bomb.coding);
    let copied = read(way, bomb.coding, &coded, get, async |mut response| {
        response.copy_to(&mut tokio::io::sink()).await.unwrap()
    })
    .await;
    assert_eq!(copied, all);
}

#[test]
fn piece_by_piece_it_is_read_in_little_memory() {
    if !alone("piece_by_piece_it_is_read_in_little_memory") {
        return;
    }
    paused(async {
        let bombs = bombs();
        let growth = Growth::begin().await;
        for bomb in &bombs {
            for way in ways() {
                read_all(bomb, 4, way).await;
            }
            growth.check(bomb.coding);
        }
    });
}

#[test]
#[ignore = "decodes ten gibibytes; run with the interop tests"]
fn interop_a_gibibyte_is_read_in_little_memory() {
    if !alone("interop_a_gibibyte_is_read_in_little_memory") {
        return;
    }
    paused(async {
        let bombs = bombs();
        let growth = Growth::begin().await;
        for bomb in &bombs {
            read_all(bomb, 1024, ways()[0]).await;
            growth.check(bomb.coding);
        }
    });
}

fn paused(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(test);
}

const MIB: usize = 1 << 20;

/// Bytes that a body, a line and an event may have.
const LIMIT: usize = 512 * 1024;
