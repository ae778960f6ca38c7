//! Replays the seeds of the fuzz targets, and mutations of them that are the same in every run.
//!
//! The targets are ordinary functions (`sockeye::test::fuzz`); a fuzzer is not needed to run them.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use sockeye::test::fuzz::{Random, TARGETS, Target};

/// The seeds of a target, by name.
fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target);
    let mut seeds: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    seeds.sort();
    seeds
}

/// Runs the target; a failure shows the input, to be kept as a seed.
#[track_caller]
fn run(target: Target, input: &[u8], from: &Path) {
    if catch_unwind(|| target(input)).is_err() {
        panic!("{} made \"{}\"", from.display(), input.escape_ascii());
    }
}

fn replay(name: &str, mutations: usize) {
    let (_, target) = TARGETS
        .iter()
        .copied()
        .find(|(known, _)| *known == name)
        .expect("a target of that name");
    let seeds = seeds(name);
    assert!(seeds.len() >= 24, "{name} has only {} seeds", seeds.len());
    for (at, (path, seed)) in seeds.iter().enumerate() {
        assert!(seed.len() <= 2048, "{} is not small", path.display());
        run(target, seed, path);
        let mut random = Random::new(at as u64 + 1);
        for _ in 0..mutations {
            run(target, &random.mutate(seed), path);
        }
    }
}

#[test]
fn every_target_has_seeds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut folders: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    let mut targets: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    if cfg!(not(feature = "multipart")) {
        targets.push("multipart");
    }
    targets.sort_unstable();
    assert_eq!(folders, targets);
}

#[test]
fn response_head() {
    replay("response_head", 100);
}

#[test]
fn framing() {
    replay("framing", 200);
}

#[test]
fn chunked() {
    replay("chunked", 200);
}

#[test]
fn decompress() {
    replay("decompress", 100);
}

#[test]
fn lines() {
    replay("lines", 200);
}

#[test]
fn sse() {
    replay("sse", 200);
}

#[test]
fn location() {
    replay("location", 200);
}

#[test]
fn exchange() {
    replay("exchange", 10);
}

#[test]
fn http2_exchange() {
    replay("http2_exchange", 20);
}

#[test]
fn proxy_handshake() {
    replay("proxy_handshake", 200);
}

#[test]
fn request_head() {
    replay("request_head", 100);
}

#[cfg(feature = "multipart")]
#[test]
fn multipart() {
    replay("multipart", 100);
}

#[test]
fn url() {
    replay("url", 100);
}

/// Spec pool, test 40: the machine of the pool beside a naive model of it.
#[test]
fn pool_model() {
    replay("pool_model", 100);
}
