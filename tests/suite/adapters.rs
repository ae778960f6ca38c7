//! Every way to read a body over every way in which one comes: each framing of HTTP/1.1 and HTTP/2, in each coding and in
//! none, in pieces of several sizes; read whole, cut off, broken, and dropped in the middle. The next request works each time.

use std::time::Duration;

use sockeye::{Error, ErrorKind, Response};
use tokio::io::AsyncReadExt;

use crate::support::coding::CODINGS;
use crate::support::peer::World;
use crate::support::streams::within_polls;
use crate::support::ways::{Way, ways};

/// What a response can be turned into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Adapter {
    Bytes,
    Text,
    #[cfg(feature = "json")]
    Json,
    Collect,
    Chunk,
    Body,
    Stream,
    Reader,
    Lines,
    #[cfg(feature = "json")]
    Ndjson,
    #[cfg(feature = "sse")]
    Events,
    CopyTo,
    Save,
}

const ADAPTERS: &[Adapter] = &[
    Adapter::Bytes,
    Adapter::Text,
    #[cfg(feature = "json")]
    Adapter::Json,
    Adapter::Collect,
    Adapter::Chunk,
    Adapter::Body,
    Adapter::Stream,
    Adapter::Reader,
    Adapter::Lines,
    #[cfg(feature = "json")]
    Adapter::Ndjson,
    #[cfg(feature = "sse")]
    Adapter::Events,
    Adapter::CopyTo,
    Adapter::Save,
];

/// What was read of a body, put together again.
#[derive(Debug, Default)]
struct Read {
    content: Vec<u8>,
    /// Whether there were trailers; `None` if this adapter does not tell.
    trailers: Option<bool>,
}

impl Adapter {
    /// A body of so many items that this adapter can read.
    fn content(self, items: u32) -> Vec<u8> {
        let text: String = match self {
            #[cfg(feature = "json")]
            Self::Json => {
                let numbers: Vec<_> = (0..items).map(|n| n.wrapping_mul(0x9e37_79b9)).collect();
                serde_json::to_string(&numbers).unwrap()
            }
            #[cfg(feature = "json")]
            Self::Ndjson => (0..items).map(|n| format!("[{n},\"\u{e4}\"]\n")).collect(),
            #[cfg(feature = "sse")]
            Self::Events => (0..items)
                .map(|n| format!("data: {n} \u{e4}\n\n"))
                .collect(),
            _ => (0..items).map(|n| format!("line {n} \u{e4}\n")).collect(),
        };
        text.into_bytes()
    }

    async fn read(self, mut response: Response) -> Result<Read, Error> {
        let mut content = Vec::new();
        let trailers = match self {
            Self::Bytes => {
                content.extend_from_slice(&response.bytes().await?);
                None
            }
            Self::Text => {
                content.extend_from_slice(response.text().await?.as_bytes());
                None
            }
            #[cfg(feature = "json")]
            Self::Json => {
                let numbers: Vec<u32> = response.json().await?;
                content = serde_json::to_vec(&numbers).unwrap();
                None
            }
            Self::Collect => {
                let collected = response.collect().await?;
                content.extend_from_slice(&collected.bytes);
                Some(collected.trailers.is_some())
            }
            Self::Chunk => {
                while let Some(piece) = response.chunk().await? {
                    assert!(!piece.is_empty());
                    content.extend_from_slice(&piece);
                }
                Some(response.trailers().await?.is_some())
            }
            Self::Body => {
                let collected = response.into_body().collect().await?;
                content.extend_from_slice(&collected.bytes);
                Some(collected.trailers.is_some())
            }
            Self::Stream => {
                let mut stream = response.bytes_stream();
                while let Some(piece) = stream.next().await {
                    content.extend_from_slice(&piece?);
                }
                assert!(stream.next().await.is_none());
                Some(stream.trailers().is_some())
            }
            Self::Reader => {
                let mut reader = response.into_reader();
                let read = reader.read_to_end(&mut content).await;
                read.map_err(|error| {
                    let inside = error.get_ref().unwrap().downcast_ref::<Error>();
                    inside.expect("the crate's own error").clone()
                })?;
                Some(reader.trailers().is_some())
            }
            Self::Lines => {
                let mut lines = response.lines();
                while let Some(line) = lines.next().await {
                    content.extend_from_slice(line?.as_bytes());
                    content.push(b'\n');
                }
                assert!(lines.next().await.is_none());
                Some(lines.trailers().is_some())
            }
            #[cfg(feature = "json")]
            Self::Ndjson => {
                let mut rows = response.ndjson::<(u32, String)>();
                while let Some(row) = rows.next().await {
                    serde_json::to_writer(&mut content, &row?).unwrap();
                    content.push(b'\n');
                }
                assert!(rows.next().await.is_none());
                Some(rows.trailers().is_some())
            }
            #[cfg(feature = "sse")]
            Self::Events => {
                let mut events = response.events();
                while let Some(event) = events.next().await {
                    content.extend_from_slice(format!("data: {}\n\n", event?.data()).as_bytes());
                }
                assert!(events.next().await.is_none());
                Some(events.trailers().is_some())
            }
            Self::CopyTo => {
                let size = response.copy_to(&mut content).await?;
                assert_eq!(size, content.len() as u64);
                Some(response.trailers().await?.is_some())
            }
            Self::Save => {
                let file = Scratch::new();
                let size = response.save(&file.0).await?;
                content = std::fs::read(&file.0).unwrap();
                assert_eq!(size, content.len() as u64);
                Some(response.trailers().await?.is_some())
            }
        };
        Ok(Read { content, trailers })
    }
}

/// A file that is gone when the test is.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Self {
        use std::sync::atomic::{AtomicUsize, Ordering};

        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sockeye-adapters-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The fields of a body in this coding.
fn fields(coding: Option<&'static str>) -> Vec<(&'static str, &'static str)> {
    let mut fields = vec![("content-type", "text/event-stream")];
    fields.extend(coding.map(|coding| ("content-encoding", coding)));
    fields
}

/// Puts a coding on.
type Encode = fn(&[u8]) -> Vec<u8>;

/// No coding, and each of this build.
fn codings() -> Vec<(Option<&'static str>, Encode)> {
    let plain: Encode = <[u8]>::to_vec;
    let coded = CODINGS
        .iter()
        .map(|(coding, encode)| (Some(*coding), *encode));
    [(None, plain)].into_iter().chain(coded).collect()
}

/// What is done of each combination.
struct Combination {
    adapter: Adapter,
    way: Way,
    coding: Option<&'static str>,
    encode: Encode,
}

fn combinations() -> impl Iterator<Item = Combination> {
    ADAPTERS.iter().flat_map(|adapter| {
        ways().into_iter().flat_map(move |way| {
            codings()
                .into_iter()
                .map(move |(coding, encode)| Combination {
                    adapter: *adapter,
                    way,
                    coding,
                    encode,
                })
        })
    })
}

impl Combination {
    fn name(&self) -> String {
        format!("{:?} {:?} {:?}", self.adapter, self.way, self.coding)
    }

    /// Answers a GET with `body`, reads it with `read`, and sees that the next request works.
    async fn answered<T>(
        &self,
        body: &[u8],
        piece: usize,
        read: impl AsyncFnOnce(Response) -> T,
    ) -> T {
        let world = World::new();
        let client = self.way.client(&world);
        let fields = fields(self.coding);
        let ((), read) = tokio::join!(self.way.answer(&world, &fields, body, piece), async {
            let response = client.get("http://peer.test/").send().await;
            read(response.unwrap()).await
        });
        self.way.next_works(&world, &client).await;
        read
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_read_whole() {
    for combination in combinations() {
        let Combination {
            adapter,
            way,
            encode,
            ..
        } = combination;
        for (items, piece) in [(0, 1), (100, usize::MAX), (100, 97)] {
            let content = adapter.content(items);
            let name = format!("{} {items} {piece}", combination.name());
            let read = combination
                .answered(&encode(&content), piece, async |response| {
                    adapter.read(response).await
                })
                .await;
            let read = read.unwrap_or_else(|error| panic!("{name}: {error}"));
            let shown = String::from_utf8_lossy(&read.content);
            assert!(read.content == content, "{name}: {shown}");
            if let Some(trailers) = read.trailers {
                assert_eq!(trailers, way.has_trailers(), "{name}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_can_be_dropped_in_the_middle() {
    for (number, combination) in combinations().enumerate() {
        let coded = (combination.encode)(&combination.adapter.content(1000));
        let polls = 1 + number % 4;
        let read = combination
            .answered(&coded, coded.len() / 8, async |response| {
                within_polls(polls, combination.adapter.read(response)).await
            })
            .await;
        let name = combination.name();
        assert!(read.is_none(), "{name} {polls}: it was dropped too late");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_cut_off_is_never_whole() {
    for combination in combinations().filter(|combination| combination.way.shows_its_end()) {
        let Combination {
            adapter,
            way,
            encode,
            ..
        } = combination;
        let coded = encode(&adapter.content(150));
        // In the last case all of the content is there, and only the framing says that it is not.
        for len in [0, 1, coded.len() / 2, coded.len()] {
            let name = format!("{} {len}", combination.name());
            let world = World::new();
            let client = way.client(&world);
            let fields = fields(combination.coding);
            let ((), read) = tokio::join!(way.cut(&world, &fields, &coded[..len]), async {
                let response = client.get("http://peer.test/").send().await;
                adapter.read(response.unwrap()).await
            });
            let error = read.expect_err(&name);
            assert_eq!(error.kind(), ErrorKind::Protocol, "{name}: {error}");
            way.next_works(&world, &client).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn coded_data_that_is_cut_or_followed_by_more_is_an_error() {
    for combination in combinations() {
        let Some(coding) = combination.coding else {
            continue;
        };
        let adapter = combination.adapter;
        let coded = (combination.encode)(&adapter.content(150));
        let cases = [
            (
                coded[..coded.len() - 1].to_vec(),
                format!("the {coding} data is cut short"),
            ),
            (
                coded[..coded.len() / 2].to_vec(),
                format!("the {coding} data is cut short"),
            ),
            (
                [&coded[..], b"!"].concat(),
                format!("bytes follow the end of the {coding} data"),
            ),
        ];
        for ((body, says), piece) in cases.into_iter().zip([usize::MAX, 200, 97]) {
            let name = format!("{} {says} {piece}", combination.name());
            let read = combination
                .answered(&body, piece, async |response| adapter.read(response).await)
                .await;
            let error = read.expect_err(&name);
            assert_eq!(error.kind(), ErrorKind::Decode, "{name}: {error}");
            assert!(error.to_string().contains(&says), "{name}: {error}");
        }
    }
}

/// Each of these waits in a `select!` that something else wins again and again.
macro_rules! select_all {
    ($dropped:ident, $next:expr) => {
        loop {
            tokio::select! {
                biased;
                item = $next => break item,
                () = tokio::task::yield_now() => $dropped += 1,
            }
        }
    };
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_in_a_select() {
    for combination in combinations() {
        let adapter = combination.adapter;
        let content = adapter.content(40);
        let coded = (combination.encode)(&content);
        let name = combination.name();
        let (read, dropped) = combination
            .answered(&coded, 23, async |response| select(adapter, response).await)
            .await;
        let Some(read) = read else {
            continue;
        };
        assert!(dropped > 0, "{name}: nothing was dropped");
        assert!(
            read == content,
            "{name}: {}",
            String::from_utf8_lossy(&read)
        );
    }
}

/// What was read, and how often a future was dropped; `None` of those that take the whole body.
async fn select(adapter: Adapter, mut response: Response) -> (Option<Vec<u8>>, usize) {
    let (mut content, mut dropped) = (Vec::new(), 0);
    match adapter {
        Adapter::Chunk => {
            while let Some(piece) = select_all!(dropped, response.chunk()).unwrap() {
                content.extend_from_slice(&piece);
            }
        }
        Adapter::Stream => {
            let mut stream = response.bytes_stream();
            while let Some(piece) = select_all!(dropped, stream.next()) {
                content.extend_from_slice(&piece.unwrap());
            }
        }
        Adapter::Reader => {
            let mut reader = response.into_reader();
            let mut buffer = [0; 7];
            loop {
                match select_all!(dropped, reader.read(&mut buffer)).unwrap() {
                    0 => break,
                    count => content.extend_from_slice(&buffer[..count]),
                }
            }
        }
        Adapter::Lines => {
            let mut lines = response.lines();
            while let Some(line) = select_all!(dropped, lines.next()) {
                content.extend_from_slice(line.unwrap().as_bytes());
                content.push(b'\n');
            }
        }
        #[cfg(feature = "json")]
        Adapter::Ndjson => {
            let mut rows = response.ndjson::<(u32, String)>();
            while let Some(row) = select_all!(dropped, rows.next()) {
                serde_json::to_writer(&mut content, &row.unwrap()).unwrap();
                content.push(b'\n');
            }
        }
        #[cfg(feature = "sse")]
        Adapter::Events => {
            let mut events = response.events();
            while let Some(event) = select_all!(dropped, events.next()) {
                let event = format!("data: {}\n\n", event.unwrap().data());
                content.extend_from_slice(event.as_bytes());
            }
        }
        // It says that a piece may be lost to the writer, and none to the body: with a writer that takes all at once there
        // is no such piece.
        Adapter::CopyTo => {
            select_all!(dropped, response.copy_to(&mut content)).unwrap();
        }
        _ => return (None, 0),
    }
    (Some(content), dropped)
}

/// The limit of a read strikes each adapter alike.
#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_runs_into_the_read_limit() {
    for adapter in ADAPTERS {
        let world = World::new();
        let timeouts = sockeye::Timeouts::default().with_read(Some(Duration::from_secs(3)));
        let client = world.builder().timeouts(timeouts).build().unwrap();
        let (connection, read) = tokio::join!(
            async {
                let mut connection = world.accept().await;
                connection.read_request().await;
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 100\r\n\r\n";
                connection.write(head).await;
                connection
            },
            async {
                let response = client.get("http://peer.test/").send().await.unwrap();
                let begun = tokio::time::Instant::now();
                let read = adapter.read(response).await;
                assert_eq!(begun.elapsed(), Duration::from_secs(3), "{adapter:?}");
                read
            }
        );
        let error = read.unwrap_err();
        assert!(error.is_timeout(), "{adapter:?}: {error}");
        drop(connection);
        crate::support::framing::next_works(&world, &client).await;
    }
}
