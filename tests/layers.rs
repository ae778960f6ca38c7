//! The import table and the purity list, executable.
//!
//! Every file below `src/` belongs to a room: its folder, or the file itself when it lies directly
//! in `src/`. [`ROOMS`] says which rooms a room may name, [`PURE`] which files hold no async, no
//! clock and no system I/O. This is not a compiler: it reads tokens, follows `use` trees, `super`
//! climbs and plain renames, and knows nothing of types. It is run by `cargo test`; a failure names
//! the file, the line, the rule and what would have been allowed.
//!
//! To add a file: nothing to do. To add a room or an arrow: change the table here, and say why.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::path::Path as FilePath;

/// Who may name whom: a room and the rooms it may name besides itself and [`OPEN`].
///
/// Requests go down this list and responses come up as return values, so no arrow points upward.
const ROOMS: &[(&str, &[&str])] = &[
    (
        "client",
        &[
            "call", "policy", "pool", "body", "stats", "socket", "response",
        ],
    ),
    ("call", &["policy", "pool", "body", "stats", "response"]),
    ("policy", &[]),
    ("pool", &["connection", "socket", "body", "stats"]),
    ("connection", &["codec", "socket", "body", "stats"]),
    ("codec", &[]),
    ("socket", &["codec", "stats"]),
    ("body", &[]),
    ("stats", &[]),
    ("response", &["body", "stats", "socket"]),
    ("error", &[]),
    ("url", &[]),
    ("config", &[]),
    ("deadline", &[]),
    ("head", &[]),
];

/// Rooms that every room may name.
const OPEN: &[&str] = &["error", "url", "config", "deadline", "head"];

/// Names re-exported at the crate root that every room may use. Any other re-export has a home, and
/// is to be named there, so that the table sees it.
const ROOT_NAMES: &[&str] = &["Error", "ErrorKind", "Result"];

/// Rooms that stand on top of the table and may name everything.
const ABOVE_THE_TABLE: &[&str] = &["lib", "test"];

/// The pure files, relative to `src/`. A file that does not exist is no finding.
const PURE: &[&str] = &[
    "error.rs",
    "url.rs",
    "url/*.rs",
    "config.rs",
    "deadline.rs",
    "head.rs",
    "client/status.rs",
    "call/prepare.rs",
    "call/replay.rs",
    "call/versions.rs",
    "call/ways.rs",
    "policy/*.rs",
    "pool/actions.rs",
    "pool/age.rs",
    "pool/dialling.rs",
    "pool/host.rs",
    "pool/learned.rs",
    "pool/line.rs",
    "pool/sessions.rs",
    "pool/waiters.rs",
    "codec/decode_error.rs",
    "codec/head_lines.rs",
    "codec/request_head.rs",
    "codec/response_head.rs",
    "codec/framing.rs",
    "codec/chunked.rs",
    "codec/body.rs",
    "codec/reuse.rs",
    "socket/addresses.rs",
    "socket/guard.rs",
    "socket/name_cache.rs",
    "socket/route.rs",
    "socket/proxy.rs",
    "socket/environment.rs",
    "socket/exclusions.rs",
    "body/brotli.rs",
    "body/compress_gzip.rs",
    "body/compress_zstd.rs",
    "body/charset.rs",
    "body/decompress.rs",
    "body/flate.rs",
    "body/lines.rs",
    "body/no_charset.rs",
    "body/sse.rs",
    "body/text.rs",
    "body/zstd.rs",
    "stats/conventions.rs",
    "stats/event.rs",
    "stats/prometheus.rs",
    "stats/timings.rs",
];

/// Paths that a pure file may not name, wherever they stand inside a longer path.
const IMPURE_PATHS: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "tokio::net",
    "tokio::spawn",
    "tokio::io",
    "tokio::time::sleep",
    "std::net::TcpStream",
    "std::thread::sleep",
];

/// Crates that hand out random numbers: in a pure file those are arguments.
const RANDOM_CRATES: &[&str] = &["rand", "fastrand", "getrandom"];

/// Token sequences that a pure file may not hold, and the name a finding gives them.
const IMPURE_TOKENS: &[(&[&str], &str)] = &[
    (&["async"], "async"),
    (&[".", "await"], ".await"),
    (&[".", "elapsed", "(", ")"], ".elapsed()"),
];

/// Token sequences refused in every file outside tests.
const REFUSED_OUTSIDE_TESTS: &[(&[&str], &str)] = &[
    (&[".", "unwrap", "("], "`.unwrap()` outside tests"),
    (&["Option", "::", "unwrap"], "`.unwrap()` outside tests"),
    (&["Result", "::", "unwrap"], "`.unwrap()` outside tests"),
];

/// Token sequences refused in every file, tests included: the second and the third would bring in
/// code that this scan does not see.
const REFUSED_EVERYWHERE: &[(&[&str], &str)] = &[
    (&["unsafe"], "`unsafe` is forbidden"),
    (&["include", "!"], "`include!` hides code from this scan"),
    (
        &["#", "[", "path", "="],
        "`#[path]` hides a file from this scan",
    ),
];

/// One file: its path relative to `src/`, with `/` between the parts, and its text.
struct Source {
    path: String,
    text: String,
}

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: {}", self.path, self.line, self.rule)
    }
}

/// Checks all files together: each by itself, and the places of `cfg(feature)` per folder.
fn check_tree(sources: &[Source]) -> Vec<Finding> {
    let scans: Vec<Scan> = sources
        .iter()
        .map(|source| Scan::new(&source.path, &source.text))
        .collect();
    let test_modules: Vec<Vec<String>> = scans.iter().flat_map(Scan::test_modules).collect();
    let mut findings = Vec::new();
    let mut features = BTreeMap::new();
    for mut scan in scans {
        if test_modules
            .iter()
            .any(|module| scan.module.starts_with(module))
        {
            scan.in_test.fill(true);
            scan.paths.iter_mut().for_each(|path| path.in_test = true);
        }
        findings.extend(scan.check());
        let lines = scan.other_feature_uses();
        if !lines.is_empty() && room_of(&scan.path) != "test" {
            let folder = scan
                .path
                .rsplit_once('/')
                .map_or("", |(folder, _)| folder)
                .to_owned();
            features
                .entry(folder)
                .or_insert_with(Vec::new)
                .push((scan.path, lines));
        }
    }
    for (folder, files) in features {
        let count: usize = files.iter().map(|(_, lines)| lines.len()).sum();
        println!(
            "src/{folder}: {count} cfg(feature) not on a `mod` or `use`, in {} file(s)",
            files.len()
        );
        let home = files[0].0.clone();
        for (path, lines) in files.into_iter().skip(1) {
            findings.extend(lines.into_iter().map(|line| Finding {
                rule: format!(
                    "cfg(feature) that is not on a `mod` or `use`: one file a folder may hold such, \
                     and src/{home} does; allowed here: `#[cfg(feature)]` on `mod` and `use`"
                ),
                path: path.clone(),
                line,
            }));
        }
    }
    findings
}

/// Checks one file by itself.
fn check_file(path: &str, text: &str) -> Vec<Finding> {
    Scan::new(path, text).check()
}

/// The room of a file: its first folder, or its own name without `.rs`.
fn room_of(path: &str) -> &str {
    let first = path.split('/').next().unwrap_or(path);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// The module a file holds, as path segments from the crate root.
fn module_of(path: &str) -> Vec<String> {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let mut module: Vec<String> = path.split('/').map(str::to_owned).collect();
    if module
        .last()
        .is_some_and(|last| last == "mod" || path == "lib")
    {
        module.pop();
    }
    module
}

/// Whether the list of pure files holds `path`; `policy/*.rs` covers the files of that folder and
/// of folders below it.
fn is_pure(path: &str) -> bool {
    PURE.iter().any(|entry| match entry.strip_suffix("*.rs") {
        Some(folder) => path.starts_with(folder),
        None => path == *entry,
    })
}

/// A file, read: its tokens, which of them are test code, and the paths they spell.
struct Scan {
    path: String,
    module: Vec<String>,
    tokens: Vec<Token>,
    in_test: Vec<bool>,
    paths: Vec<Path>,
}

impl Scan {
    fn new(path: &str, text: &str) -> Self {
        let module = module_of(path);
        let tokens = tokenize(text);
        let in_test = test_regions(&tokens);
        let paths = Walk::new(&tokens, &in_test, module.clone()).run();
        Self {
            path: path.to_owned(),
            module,
            tokens,
            in_test,
            paths,
        }
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings = BTreeSet::new();
        let mut report = |line: usize, rule: String| {
            findings.insert(Finding {
                path: self.path.clone(),
                line,
                rule,
            });
        };
        self.check_imports(&mut report);
        if is_pure(&self.path) {
            self.check_purity(&mut report);
        }
        for (sequence, rule) in REFUSED_EVERYWHERE {
            for at in self.find(sequence) {
                report(self.tokens[at].line, (*rule).to_owned());
            }
        }
        for (sequence, rule) in REFUSED_OUTSIDE_TESTS {
            for at in self.find(sequence).filter(|at| !self.in_test[*at]) {
                report(
                    self.tokens[at].line,
                    format!("{rule}; allowed: `?`, a match, or `expect(\"why it cannot fail\")`"),
                );
            }
        }
        findings.into_iter().collect()
    }

    /// The table holds for tests inside `src/` too: what a room's tests need from above belongs in
    /// `tests/suite`.
    fn check_imports(&self, report: &mut impl FnMut(usize, String)) {
        let room = room_of(&self.path);
        if ABOVE_THE_TABLE.contains(&room) {
            return;
        }
        let Some((_, may_name)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            report(
                1,
                format!("`{room}` has no row in the import table of tests/layers.rs"),
            );
            return;
        };
        let mut allowed = vec![room];
        allowed.extend(may_name.iter().chain(OPEN).filter(|name| **name != room));
        let allowed_text = format!(
            "{room} may name: {}; from the crate root: {}",
            allowed.join(", "),
            ROOT_NAMES.join(", ")
        );
        for path in &self.paths {
            match path.reach() {
                Reach::Elsewhere => {}
                Reach::Room(name)
                    if allowed.contains(&name.as_str()) || ROOT_NAMES.contains(&name.as_str()) => {}
                Reach::Room(name) if name.starts_with(char::is_uppercase) => report(
                    path.line,
                    format!(
                        "{room} may not name `crate::{name}` by its re-export at the crate root; name it where it is defined; {allowed_text}"
                    ),
                ),
                Reach::Room(name) => report(
                    path.line,
                    format!("{room} may not name `crate::{name}`; {allowed_text}"),
                ),
                Reach::WholeCrate => report(
                    path.line,
                    format!(
                        "{room} may not name the whole crate root (a glob or a rename of it); {allowed_text}"
                    ),
                ),
            }
        }
    }

    fn check_purity(&self, report: &mut impl FnMut(usize, String)) {
        let mut refuse = |line: usize, what: &str| {
            report(
                line,
                format!(
                    "`{what}` in a pure file: no async, no tokio I/O, no clock, no randomness; \
                     allowed: plain values, with `now` and random numbers as arguments"
                ),
            );
        };
        for (sequence, name) in IMPURE_TOKENS {
            for at in self.find(sequence).filter(|at| !self.in_test[*at]) {
                refuse(self.tokens[at].line, name);
            }
        }
        let renames: HashMap<&str, &[String]> = self
            .paths
            .iter()
            .filter(|path| path.in_use && !path.in_test && !path.glob)
            .filter_map(|path| Some((path.bound_name()?, path.segments.as_slice())))
            .collect();
        for path in self.paths.iter().filter(|path| !path.in_test) {
            let full = resolve(&path.segments, &renames);
            let first = full.first().map_or("", String::as_str);
            if RANDOM_CRATES.contains(&first) && (full.len() > 1 || path.in_use) {
                refuse(path.line, &format!("{first}::"));
            }
            for impure in IMPURE_PATHS {
                let wanted: Vec<&str> = impure.split("::").collect();
                let named = full.windows(wanted.len()).any(|window| window == wanted);
                let swept_in = path.glob
                    && full.len() < wanted.len()
                    && full.iter().zip(&wanted).all(|(have, want)| have == want);
                if named || swept_in {
                    refuse(path.line, impure);
                }
            }
        }
    }

    /// Lines with a `feature = ".."` condition on anything but a `mod` or a `use`, outside tests. A
    /// `cfg_attr` is not counted: a derive under a feature adds API and leaves the code the same.
    fn other_feature_uses(&self) -> Vec<usize> {
        let mut lines = Vec::new();
        for at in self.find(&["feature", "="]).filter(|at| !self.in_test[*at]) {
            // The attribute that holds the condition is the last one opened before it.
            let start = (0..at)
                .rev()
                .find(|start| sequence_at(&self.tokens, *start, &["#", "["]));
            let is_fine = start.is_some_and(|start| {
                let end = skip_group(&self.tokens, start + 1);
                let item = skip_visibility(&self.tokens, skip_attributes(&self.tokens, end));
                let gates_an_item = is(&self.tokens, start + 2, "cfg")
                    && (is(&self.tokens, item, "mod") || is(&self.tokens, item, "use"));
                end > at && (gates_an_item || is(&self.tokens, start + 2, "cfg_attr"))
            });
            if !is_fine {
                lines.push(self.tokens[at].line);
            }
        }
        lines.dedup();
        lines
    }

    /// Modules of their own file that are declared `#[cfg(test)] mod name;` here.
    fn test_modules(&self) -> Vec<Vec<String>> {
        self.find(&["mod"])
            .filter(|at| self.in_test[*at] && is(&self.tokens, at + 2, ";"))
            .filter_map(|at| {
                let mut module = self.module.clone();
                module.push(self.tokens.get(at + 1)?.text.clone());
                Some(module)
            })
            .collect()
    }

    fn find<'a>(&'a self, sequence: &'a [&'a str]) -> impl Iterator<Item = usize> + 'a {
        (0..self.tokens.len()).filter(move |at| sequence_at(&self.tokens, *at, sequence))
    }
}

/// Follows the renames that the file's own `use` lines make, so that `use tokio::time;` does not
/// hide `time::sleep`. A rename that leads back to itself ends the walk.
fn resolve(segments: &[String], renames: &HashMap<&str, &[String]>) -> Vec<String> {
    let mut full = segments.to_vec();
    for _ in 0..4 {
        let Some(target) = full.first().and_then(|first| renames.get(first.as_str())) else {
            break;
        };
        if target.first() == full.first() {
            break;
        }
        full.splice(0..1, target.iter().cloned());
    }
    full
}

/// A path as it is spelled, with the module it is spelled in.
#[derive(Clone)]
struct Path {
    segments: Vec<String>,
    module: Vec<String>,
    line: usize,
    glob: bool,
    alias: Option<String>,
    in_use: bool,
    in_visibility: bool,
    in_test: bool,
}

/// What a path leads to, seen from the crate root.
enum Reach {
    /// Another crate, a local name, or the room the path stands in.
    Elsewhere,
    /// This name directly below the crate root.
    Room(String),
    /// The root itself, whose names this scan could not follow from there.
    WholeCrate,
}

impl Path {
    fn reach(&self) -> Reach {
        let mut base = self.module.clone();
        let mut rest = self.segments.iter().map(String::as_str).peekable();
        match rest.peek() {
            Some(&"crate") => {
                base.clear();
                rest.next();
            }
            Some(&("self" | "super")) => {}
            _ => return Reach::Elsewhere,
        }
        while let Some(step @ (&"self" | &"super")) = rest.peek() {
            if *step == "super" {
                base.pop();
            }
            rest.next();
        }
        match rest.next() {
            _ if !base.is_empty() => Reach::Elsewhere,
            Some(name) => Reach::Room(name.to_owned()),
            None if self.in_visibility => Reach::Elsewhere,
            None => Reach::WholeCrate,
        }
    }

    /// The name that a `use` of this path brings into scope.
    fn bound_name(&self) -> Option<&str> {
        self.alias
            .as_deref()
            .or(self.segments.last().map(String::as_str))
    }
}

/// One pass over the tokens that collects every path and knows which inline module it is in.
struct Walk<'a> {
    tokens: &'a [Token],
    in_test: &'a [bool],
    /// The module at this point; inline modules are pushed and popped.
    module: Vec<String>,
    /// The brace depths at which the inline modules on top of `module` end.
    inline: Vec<usize>,
    depth: usize,
    paths: Vec<Path>,
}

impl<'a> Walk<'a> {
    fn new(tokens: &'a [Token], in_test: &'a [bool], module: Vec<String>) -> Self {
        Self {
            tokens,
            in_test,
            module,
            inline: Vec::new(),
            depth: 0,
            paths: Vec::new(),
        }
    }

    fn run(mut self) -> Vec<Path> {
        let mut at = 0;
        while at < self.tokens.len() {
            at = self.step(at);
        }
        self.paths
    }

    /// Handles the token at `at` and returns the index to go on from, which is always later.
    fn step(&mut self, at: usize) -> usize {
        let tokens = self.tokens;
        let text = tokens[at].text.as_str();
        match text {
            "{" => self.depth += 1,
            "}" => {
                self.depth = self.depth.saturating_sub(1);
                if self.inline.last() == Some(&self.depth) {
                    self.inline.pop();
                    self.module.pop();
                }
            }
            "mod" if is(tokens, at + 2, "{") => {
                self.inline.push(self.depth);
                self.module.push(tokens[at + 1].text.clone());
                return at + 2;
            }
            "extern" if is(tokens, at + 1, "crate") && !is(tokens, at + 2, "self") => {
                return at + 2;
            }
            // `use<'a, T>` in a return type is no import.
            "use" if !is(tokens, at + 1, "<") => {
                let start = if is(tokens, at + 1, "::") {
                    at + 2
                } else {
                    at + 1
                };
                return self.tree(start, &[], true).max(at + 1);
            }
            _ if tokens[at].is_word() && !self.continues_a_path(at) => {
                return self.tree(at, &[], false).max(at + 1);
            }
            _ => {}
        }
        at + 1
    }

    /// Whether the word at `at` is a later segment, a field or a method, not the start of a path.
    fn continues_a_path(&self, at: usize) -> bool {
        let before = |steps: usize| at.checked_sub(steps).map(|earlier| &self.tokens[earlier]);
        let is_before = |steps, text| before(steps).is_some_and(|token| token.text == text);
        // A field or a method stands behind one point; behind two a path starts.
        let is_member = is_before(1, ".") && !is_before(2, ".");
        // `::tokio` after anything but a segment starts at the list of crates.
        let is_segment = is_before(1, "::")
            && before(2).is_some_and(|token| {
                token.text == ">"
                    || (token.is_word() && !PREFIX_WORDS.contains(&token.text.as_str()))
            });
        is_member || is_segment
    }

    /// Reads a path or a `use` tree below `prefix` and returns the index behind it.
    fn tree(&mut self, start: usize, prefix: &[String], in_use: bool) -> usize {
        let tokens = self.tokens;
        let mut segments = prefix.to_vec();
        let mut at = start;
        let mut glob = false;
        loop {
            match tokens.get(at) {
                Some(token) if token.is_word() => {
                    segments.push(token.text.clone());
                    at += 1;
                    if !is(tokens, at, "::") {
                        break;
                    }
                    at += 1;
                }
                Some(token) if token.text == "{" && (in_use || at > start) => {
                    return self.group(at, &segments, in_use);
                }
                Some(token) if token.text == "*" && (in_use || at > start) => {
                    glob = true;
                    at += 1;
                    break;
                }
                _ => break,
            }
        }
        // `a::{self}` names `a`.
        if !prefix.is_empty() && segments.last().is_some_and(|last| last == "self") {
            segments.pop();
        }
        let mut alias = None;
        if is(tokens, at, "as") && in_use {
            alias = tokens.get(at + 1).map(|token| token.text.clone());
            at += 2;
        }
        if let Some(token) = tokens.get(start) {
            let before = start.checked_sub(1).map(|before| &*tokens[before].text);
            self.paths.push(Path {
                segments,
                module: self.module.clone(),
                line: token.line,
                glob,
                alias,
                in_use,
                in_visibility: matches!(before, Some("(" | "in")) && is(tokens, at, ")"),
                in_test: self.in_test[start],
            });
        }
        at
    }

    /// Reads the `{a, b::c}` whose brace is at `open` and returns the index behind it.
    fn group(&mut self, open: usize, prefix: &[String], in_use: bool) -> usize {
        let end = skip_group(self.tokens, open);
        let mut at = open + 1;
        while at + 1 < end {
            let next = self.tree(at, prefix, in_use);
            // A comma, or a token that belongs in no tree, is stepped over.
            at = if is(self.tokens, next, ",") {
                next + 1
            } else {
                next.max(at + 1)
            };
        }
        end
    }
}

/// Keywords after which `::name` starts a new path.
const PREFIX_WORDS: &[&str] = &[
    "as", "dyn", "else", "for", "if", "impl", "in", "match", "mut", "return", "where", "while",
];

/// A word, a number, a mark, or a literal whose content is left out.
#[derive(Debug)]
struct Token {
    text: String,
    line: usize,
}

impl Token {
    fn is_word(&self) -> bool {
        self.text
            .starts_with(|first: char| first == '_' || first.is_alphabetic())
    }
}

/// Whether the token at `at` is `text`.
fn is(tokens: &[Token], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|token| token.text == text)
}

/// Whether the tokens from `at` on spell `sequence`.
fn sequence_at(tokens: &[Token], at: usize, sequence: &[&str]) -> bool {
    sequence
        .iter()
        .enumerate()
        .all(|(offset, text)| is(tokens, at + offset, text))
}

/// The index behind the group that opens at `open`, or the end if it never closes.
fn skip_group(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// The index behind all attributes that start at `at`.
fn skip_attributes(tokens: &[Token], mut at: usize) -> usize {
    while sequence_at(tokens, at, &["#", "["]) {
        at = skip_group(tokens, at + 1);
    }
    at
}

/// The index behind `pub` and `pub(..)`.
fn skip_visibility(tokens: &[Token], at: usize) -> usize {
    match (is(tokens, at, "pub"), is(tokens, at + 1, "(")) {
        (true, true) => skip_group(tokens, at + 1),
        (true, false) => at + 1,
        (false, _) => at,
    }
}

/// Marks the tokens of every item under `#[cfg(test)]` or `#[cfg(all(test, ..))]`. A condition such
/// as `any(test, feature = "x")` can hold in a user's build and marks nothing.
fn test_regions(tokens: &[Token]) -> Vec<bool> {
    let mut in_test = vec![false; tokens.len()];
    for at in 0..tokens.len() {
        let inner = sequence_at(tokens, at, &["#", "!", "["]);
        let open = at + 1 + usize::from(inner);
        if !(inner || sequence_at(tokens, at, &["#", "["]))
            || !(sequence_at(tokens, open + 1, &["cfg", "(", "test", ")"])
                || sequence_at(tokens, open + 1, &["cfg", "(", "all", "(", "test"]))
        {
            continue;
        }
        let end = if inner {
            tokens.len()
        } else {
            item_end(tokens, skip_attributes(tokens, open))
        };
        in_test[at..end].fill(true);
    }
    in_test
}

/// The index behind the item, field, variant or arm that starts at `start`.
fn item_end(tokens: &[Token], start: usize) -> usize {
    const ITEM: &[&str] = &[
        "async", "const", "enum", "extern", "fn", "impl", "let", "mod", "static", "struct",
        "trait", "type", "unsafe", "use",
    ];
    let first = skip_visibility(tokens, start);
    let is_item = ITEM.iter().any(|word| is(tokens, first, word));
    let mut at = start;
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            ";" => return at + 1,
            "," if !is_item => return at + 1,
            // The brace of whatever holds the field or arm.
            ")" | "]" | "}" => return at,
            "{" => return skip_group(tokens, at),
            "(" | "[" => at = skip_group(tokens, at),
            _ => at += 1,
        }
    }
    at
}

/// Splits a text into tokens without comments, and without what stands inside quotes.
fn tokenize(text: &str) -> Vec<Token> {
    let mut cursor = Cursor {
        chars: text.chars().collect(),
        at: 0,
        line: 1,
    };
    let mut tokens = Vec::new();
    while let Some(current) = cursor.peek(0) {
        let line = cursor.line;
        let text = match (current, cursor.peek(1)) {
            ('/', Some('/')) => {
                cursor.skip_while(|c| c != '\n');
                continue;
            }
            ('/', Some('*')) => {
                cursor.skip_block_comment();
                continue;
            }
            (c, _) if c.is_whitespace() => {
                cursor.next();
                continue;
            }
            ('"', _) => cursor.skip_string(),
            ('\'', _) => cursor.skip_quote(),
            (c, _) if c == '_' || c.is_alphabetic() => cursor.word(),
            (c, _) if c.is_ascii_digit() => cursor.number(),
            (':', Some(':')) | ('-' | '=', Some('>')) => [cursor.next(), cursor.next()]
                .into_iter()
                .flatten()
                .collect(),
            (c, _) => {
                cursor.next();
                c.to_string()
            }
        };
        tokens.push(Token { text, line });
    }
    tokens
}

/// What a literal becomes: no rule can match it.
const LITERAL: &str = "\"\"";

/// A place in a text. Every method that reads moves at least one character unless it is at the end.
struct Cursor {
    chars: Vec<char>,
    at: usize,
    line: usize,
}

impl Cursor {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn next(&mut self) -> Option<char> {
        let current = self.peek(0)?;
        self.at += 1;
        self.line += usize::from(current == '\n');
        Some(current)
    }

    fn skip_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut skipped = String::new();
        while let Some(current) = self.peek(0).filter(|c| wanted(*c)) {
            skipped.push(current);
            self.next();
        }
        skipped
    }

    /// Block comments nest.
    fn skip_block_comment(&mut self) {
        let mut depth = 0_usize;
        while let Some(current) = self.next() {
            match (current, self.peek(0)) {
                ('/', Some('*')) => depth += 1,
                ('*', Some('/')) => depth -= 1,
                _ => continue,
            }
            self.next();
            if depth == 0 {
                return;
            }
        }
    }

    /// A string with escapes, from its opening quote on.
    fn skip_string(&mut self) -> String {
        self.next();
        while let Some(current) = self.next() {
            match current {
                '\\' => {
                    self.next();
                }
                '"' => break,
                _ => {}
            }
        }
        LITERAL.to_owned()
    }

    /// A raw string, from its first `#` or its opening quote on.
    fn skip_raw_string(&mut self) -> String {
        let hashes = self.skip_while(|c| c == '#').len();
        self.next();
        while let Some(current) = self.next() {
            if current == '"' && (0..hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                for _ in 0..hashes {
                    self.next();
                }
                break;
            }
        }
        LITERAL.to_owned()
    }

    /// A character literal or a lifetime, from the quote on.
    fn skip_quote(&mut self) -> String {
        self.next();
        match (self.peek(0), self.peek(1)) {
            (Some('\\'), _) => {
                self.next();
                self.next();
                self.skip_while(|c| c != '\'');
                self.next();
            }
            (Some(_), Some('\'')) => {
                self.next();
                self.next();
            }
            _ => drop(self.skip_while(|c| c == '_' || c.is_alphanumeric())),
        }
        LITERAL.to_owned()
    }

    /// A word; or, where the word is the prefix of a literal, that literal.
    fn word(&mut self) -> String {
        let word = self.skip_while(|c| c == '_' || c.is_alphanumeric());
        let hashes = (0..)
            .take_while(|ahead| self.peek(*ahead) == Some('#'))
            .count();
        match (word.as_str(), self.peek(0), self.peek(hashes)) {
            ("b" | "c", Some('"'), _) => self.skip_string(),
            ("b", Some('\''), _) => self.skip_quote(),
            ("r" | "br" | "cr", _, Some('"')) => self.skip_raw_string(),
            // `r#name` is the name; it must not hide one.
            ("r", Some('#'), Some(_)) if hashes == 1 => {
                self.next();
                self.skip_while(|c| c == '_' || c.is_alphanumeric())
            }
            _ => word,
        }
    }

    fn number(&mut self) -> String {
        let mut number = self.skip_while(|c| c == '_' || c.is_alphanumeric());
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            self.next();
            number.push('.');
            number += &self.skip_while(|c| c == '_' || c.is_alphanumeric());
        }
        number
    }
}

/// All `.rs` files below `folder`, with their paths relative to it.
fn read_sources(folder: &FilePath, prefix: &str, sources: &mut Vec<Source>) {
    let entries = fs::read_dir(folder).expect("src and the folders below it can be listed");
    for entry in entries {
        let entry = entry.expect("an entry of a folder below src can be read");
        let name = entry.file_name();
        let name = name.to_str().expect("file names below src are UTF-8");
        let path = format!("{prefix}{name}");
        if entry.path().is_dir() {
            read_sources(&entry.path(), &format!("{path}/"), sources);
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(entry.path()).expect("source files are UTF-8");
            sources.push(Source { path, text });
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
}

/// The sources of the library.
fn library() -> Vec<Source> {
    let mut sources = Vec::new();
    let root = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("src");
    read_sources(&root, "", &mut sources);
    sources
}

#[test]
fn the_library_keeps_the_table() {
    let findings = check_tree(&library());
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(
        findings.is_empty(),
        "{} broken rule(s):\n{}",
        lines.len(),
        lines.join("\n")
    );
}

#[test]
fn the_scan_sees_the_library() {
    let sources = library();
    assert!(sources.len() > 10, "only {} files scanned", sources.len());
    assert!(sources.iter().any(|source| source.path == "lib.rs"));
    for source in &sources {
        // Nothing but comments would mean that the tokenizer lost its way in a literal.
        assert!(
            !tokenize(&source.text).is_empty(),
            "no token in {}",
            source.path
        );
    }
    let crate_paths: usize = sources
        .iter()
        .map(|source| Scan::new(&source.path, &source.text).paths)
        .map(|paths| {
            paths
                .iter()
                .filter(|path| matches!(path.reach(), Reach::Room(_)))
                .count()
        })
        .sum();
    assert!(crate_paths > 10, "only {crate_paths} paths into the crate");
}

#[test]
fn the_table_has_no_cycle_and_no_unknown_name() {
    for (room, may_name) in ROOMS {
        for named in *may_name {
            assert!(ROOMS.iter().any(|(name, _)| name == named), "{named}");
        }
        let mut reached = BTreeSet::new();
        let mut open: Vec<&str> = may_name.to_vec();
        while let Some(next) = open.pop() {
            if reached.insert(next) {
                open.extend(
                    ROOMS
                        .iter()
                        .filter(|(name, _)| *name == next)
                        .flat_map(|(_, names)| names.iter()),
                );
            }
        }
        assert!(!reached.contains(room), "{room} reaches itself");
    }
}

/// Checks a planted text: the lines found, each with a part of its message, in order.
fn check(path: &str, text: &str, expected: &[(usize, &str)]) {
    let findings = check_file(path, text);
    let matches = findings.len() == expected.len()
        && findings
            .iter()
            .zip(expected)
            .all(|(finding, (line, part))| finding.line == *line && finding.rule.contains(part));
    assert!(
        matches,
        "{path}: {text}\nexpected {expected:?}\nfound {findings:?}"
    );
}

/// Checks planted lines of the form `path | text | a part of the one message`; `-` in the last place
/// means that nothing may be found. `~` starts a new line in the text; the finding is on the last.
fn check_lines(lines: &str) {
    let mut checked = 0;
    for planted in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let parts: Vec<&str> = planted.splitn(3, " | ").collect();
        let [path, text, part] = parts[..] else {
            panic!("not a planted line: {planted}");
        };
        let text = text.replace('~', "\n");
        match part {
            "-" => check(path, &text, &[]),
            part => check(path, &text, &[(text.lines().count(), part)]),
        }
        checked += 1;
    }
    assert!(checked > 0, "no planted line");
}

#[test]
fn an_upward_import_is_found_in_every_room() {
    check_lines(
        "
        call/mod.rs | use crate::client::Client; | call may not name `crate::client`
        call/mod.rs | use crate::connection::Connection; | call may not name `crate::connection`
        policy/retry.rs | use crate::call::Call; | policy may not name `crate::call`
        policy/retry.rs | use crate::stats::Stats; | policy may not name `crate::stats`
        pool/mod.rs | use crate::policy::Policies; | pool may not name `crate::policy`
        pool/mod.rs | use crate::codec::Framing; | pool may not name `crate::codec`
        connection/http1.rs | use crate::pool::Pool; | connection may not name `crate::pool`
        connection/http2/session.rs | use crate::response::Response; | may not name `crate::response`
        codec/framing.rs | use crate::body::Body; | codec may not name `crate::body`
        codec/mod.rs | use crate::socket::Socket; | codec may not name `crate::socket`
        socket/tls.rs | use crate::connection::open; | socket may not name `crate::connection`
        body/mod.rs | use crate::pool::Lease; | body may not name `crate::pool`
        stats/mod.rs | use crate::pool::Pool; | stats may not name `crate::pool`
        client/mod.rs | use crate::connection::open; | client may not name `crate::connection`
        client/mod.rs | use crate::test::MemNet; | client may not name `crate::test`
        response.rs | use crate::pool::Lease; | response may not name `crate::pool`
        error.rs | use crate::stats::Stats; | error may not name `crate::stats`
        url.rs | use crate::policy::Redirects; | url may not name `crate::policy`
        config.rs | use crate::body::Body; | config may not name `crate::body`
        deadline.rs | use crate::response::Response; | deadline may not name `crate::response`
        head.rs | use crate::codec::Framing; | head may not name `crate::codec`
        ",
    );
}

#[test]
fn what_the_table_allows_is_not_found() {
    for (room, may_name) in ROOMS {
        for name in may_name.iter().chain(OPEN).chain([room]) {
            let text = format!("use crate::{name}::Thing; fn f() {{ crate::{name}::f() }}");
            check(&format!("{room}/mod.rs"), &text, &[]);
            check(&format!("{room}.rs"), &text, &[]);
        }
    }
    let everything = "pub use crate::client::Client; use crate::codec::Framing; use crate::*;";
    check("lib.rs", everything, &[]);
    check("test/mod.rs", everything, &[]);
    check(
        "codec/mod.rs",
        "pub(crate) mod framing; pub(crate) use crate::{Error, ErrorKind, Result};\n\
         pub(in crate::codec) fn f(self) {} pub(super) fn g() {} pub(crate) struct S(pub(crate) u8);\n\
         use std::pool::Thing; use http::client::Other; extern crate alloc;",
        &[],
    );
}

#[test]
fn every_spelling_of_a_path_is_followed() {
    check_lines(
        "
        connection/http1.rs | use crate::{error::Error, pool::Pool}; | `crate::pool`
        connection/http1.rs | use crate::{error, {url, {pool::{Lease}}}}; | `crate::pool`
        connection/http1.rs | pub(crate) use crate::{body::{Body, Empty}, pool as basin}; | `crate::pool`
        connection/http1.rs | use {crate::error::Error, crate::pool::Pool}; | `crate::pool`
        connection/http1.rs | use crate::{~error::Error,~pool::{~Lease}}; | `crate::pool`
        connection/http1.rs | fn f() { let x: crate::pool::Pool = g(); } | `crate::pool`
        connection/http1.rs | fn f() -> crate::pool::Pool { g() } | `crate::pool`
        connection/http1.rs | fn f() { crate :: pool :: f::<u8>() } | `crate::pool`
        connection/http1.rs | impl<T> From<T> for Vec<crate::pool::Pool> {} | `crate::pool`
        connection/http1.rs | fn f() { <X as crate::pool::Pool>::g() } | `crate::pool`
        connection/http1.rs | macro_rules! m { () => { $crate::pool::f() } } | `crate::pool`
        connection/http1.rs | use crate::r#pool::Pool; | `crate::pool`
        connection/http1.rs | for i in 0..crate::pool::COUNT {} | `crate::pool`
        connection/http1.rs | fn f() { x.pool.crate_pool() } | -
        connection/http1.rs | #[cfg(test)] mod tests { use crate::pool::Pool; } | `crate::pool`
        connection/http2/session.rs | use super::super::super::pool::Pool; | `crate::pool`
        connection/http2/session.rs | use self::super::super::super::pool; | `crate::pool`
        connection/http2/session.rs | use super::super::super::{error, pool::Pool}; | `crate::pool`
        connection/http2/session.rs | mod a { use super::super::super::super::pool::Pool; } | `crate::pool`
        connection/http2/session.rs | fn f() { super::super::super::pool::g() } | `crate::pool`
        connection/http2/session.rs | use super::super::pool::Pool; | -
        connection/http2/mod.rs | use super::super::pool::Pool; | `crate::pool`
        codec/framing.rs | use super::super::pool::Pool; | `crate::pool`
        codec/framing.rs | mod pool {} use super::pool::Pool; | -
        codec/framing.rs | mod inner { use super::super::pool; } | -
        codec/mod.rs | use super::pool::Pool; | `crate::pool`
        codec/mod.rs | mod a { mod b {} } mod c { use super::pool; }~use super::pool; | `crate::pool`
        error.rs | ~~use super::pool::Pool; | `crate::pool`
        ",
    );
}

#[test]
fn the_crate_root_is_no_way_around_the_table() {
    check_lines(
        "
        codec/mod.rs | use crate::Client; | by its re-export at the crate root
        call/mod.rs | use crate::{Error, Body}; | by its re-export at the crate root
        body/mod.rs | use super::Response; | by its re-export at the crate root
        codec/mod.rs | use crate::*; | the whole crate root
        codec/mod.rs | use crate::{error::*, *}; | the whole crate root
        codec/mod.rs | use crate as root; | the whole crate root
        codec/mod.rs | use crate::{self as root}; | the whole crate root
        codec/mod.rs | use super as root; | the whole crate root
        codec/mod.rs | use super::*; | the whole crate root
        codec/framing.rs | use super::super::*; | the whole crate root
        codec/framing.rs | use super::*; mod tests { use super::*; } | -
        codec/mod.rs | extern crate self as sockeye; | the whole crate root
        codec/mod.rs | fn f() { crate::helper!() } | may not name `crate::helper`
        shortcut.rs | fn f() {} | `shortcut` has no row
        internal/mod.rs | fn f() {} | `internal` has no row
        ",
    );
}

#[test]
fn comments_and_strings_are_not_code() {
    for path in ["codec/framing.rs", "error.rs", "policy/retry.rs"] {
        check(
            path,
            r####"
            //! use crate::pool::Pool; async unsafe
            /// `crate::pool::Pool::f().await`
            // Instant::now() x.unwrap()
            /* use crate::pool; /* unsafe */ async */
            const A: &str = "use crate::pool; \" unsafe async";
            const B: &str = r#"crate::pool "quoted" unsafe"#;
            const C: &[u8] = b"crate::pool async";
            const D: &[u8] = br##"crate::pool "# async"##;
            const E: (char, char, u8) = ('"', '\'', b'"');
            const F: &std::ffi::CStr = c"unsafe";
            const G: (char, char) = ('\u{22}', '\\');
            fn f<'a>(x: &'a str) -> &'a str { x }
            #[doc = "crate::pool::Pool unsafe"]
            const H: &str = "a multi-line \
                             crate::pool string";
            "####,
            &[],
        );
    }
    // Code goes on behind each of them, on the right line.
    let tails = [
        "/* /* */ */ unsafe {}",
        "const A: &str = \"\\\\\"; unsafe {}",
        "const A: &str = r#\"\"\"#; unsafe {}",
        "const A: char = '\\''; unsafe {}",
        "const A: u8 = b'\"'; unsafe {}",
        "fn f<'a>(x: &'a ()) {} unsafe {}",
        "let x = 1.0; let y = 0..5; unsafe {}",
    ];
    for tail in tails {
        check("codec/mod.rs", &format!("\n{tail}"), &[(2, "unsafe")]);
    }
    check(
        "codec/mod.rs",
        "// a\n\"\n\n\";\nunsafe {}",
        &[(5, "unsafe")],
    );
}

#[test]
fn a_pure_file_has_no_async_no_clock_and_no_system() {
    let planted = r#"
        async fn f() {} | async
        fn f() { let g = async move { 1 }; } | async
        fn f() { g().await; } | .await
        fn f() { g()~.await; } | .await
        fn f() { Instant::now(); } | Instant::now
        fn f() { std::time::Instant::now(); } | Instant::now
        fn f() { x.get_or_insert_with(Instant::now) } | Instant::now
        use std::time::Instant as Clock;~fn f() { Clock::now(); } | Instant::now
        fn f() { started.elapsed() } | .elapsed()
        fn f() { SystemTime::now(); } | SystemTime::now
        use tokio::net::TcpStream; | tokio::net
        use tokio::{net::TcpStream, sync::Notify}; | tokio::net
        use ::tokio::net; | tokio::net
        fn f() -> ::tokio::net::TcpStream { g() } | tokio::net
        fn f() { tokio::spawn(g()); } | tokio::spawn
        use tokio::io::AsyncRead; | tokio::io
        use tokio as t;~fn f() { t::io::copy() } | tokio::io
        fn f() { tokio::time::sleep(d); } | tokio::time::sleep
        use tokio::time;~fn f() { time::sleep(d); } | tokio::time::sleep
        use tokio::time::{self};~fn f() { time::sleep(d); } | tokio::time::sleep
        use tokio::time::*; | tokio::time::sleep
        use std::net::TcpStream; | std::net::TcpStream
        use std::net::{IpAddr, TcpStream}; | std::net::TcpStream
        use std::net::*; | std::net::TcpStream
        fn f() { rand::random() } | rand::
        use rand; | rand::
        #[cfg(any(test, feature = "x"))] mod m { async fn f() {} } | async
        #[cfg(test)] mod tests { fn f() {} } async fn f() {} | async
        #[cfg(test)] use x::{y}; async fn f() {} | async
        struct S { #[cfg(test)] x: u8, y: Z } async fn f() {} | async
        #[cfg(not(test))] async fn f() {} | async
    "#;
    for planted in planted
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let (text, name) = planted.split_once(" | ").expect("a text and a name");
        check_lines(&format!(
            "policy/retry.rs | {text} | `{name}` in a pure file"
        ));
        // The same text is no finding where system I/O belongs.
        check_lines(&format!("connection/http1.rs | {text} | -"));
    }
    for entry in PURE {
        let path = entry.replace('*', "any");
        check(&path, "\nasync fn f() {}", &[(2, "`async` in a pure file")]);
    }
}

#[test]
fn what_a_pure_file_may_hold_is_not_found() {
    check(
        "pool/host.rs",
        "use std::net::{IpAddr, SocketAddr};\n\
         use std::time::{Duration, Instant};\n\
         use tokio::sync::Notify;\n\
         fn f(now: Instant, rand: u64, asynchronous: bool) -> u64 { now.now; rand }\n\
         #[cfg(test)]\n\
         mod tests { #[tokio::test] async fn f() { let x = Instant::now(); g().await.unwrap(); } }",
        &[],
    );
}

#[test]
fn unsafe_and_unwrap_are_found() {
    check_lines(
        r#"
        connection/http1.rs | fn f() {~ unsafe { g() } } | `unsafe`
        test/mod.rs | unsafe impl Send for X {} | `unsafe`
        lib.rs | #![forbid(unsafe_code)] | -
        lib.rs | fn f() { g()~  .unwrap() } | `.unwrap()`
        pool/mod.rs | fn f() { x.map(Option::unwrap) } | `.unwrap()`
        pool/mod.rs | fn f() { x.unwrap_or(0); y.expect("why"); unwrap() } | -
        pool/mod.rs | #[cfg(test)] mod tests { fn f() { x.unwrap() } } | -
        pool/mod.rs | #[cfg(test)] #[allow(x)] fn f() { x.unwrap() } | -
        pool/mod.rs | #[cfg(all(test, feature = "x"))] mod t { fn f() { x.unwrap() } } | -
        pool/mod.rs | #[cfg(any(test, feature = "x"))] mod t { fn f() { x.unwrap() } } | `.unwrap()`
        pool/mod.rs | #[cfg(test)] mod tests {} fn f() { x.unwrap() } | `.unwrap()`
        pool/mod.rs | include!("x.rs"); | `include!`
        pool/mod.rs | #[path = "../x.rs"] mod x; | `#[path]`
        "#,
    );
}

/// Checks planted files together and returns `file:line` of what was found.
fn places(files: &[(&str, &str)]) -> Vec<String> {
    let sources: Vec<Source> = files
        .iter()
        .map(|(path, text)| Source {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        })
        .collect();
    check_tree(&sources)
        .iter()
        .map(|finding| format!("{}:{}", finding.path, finding.line))
        .collect()
}

#[test]
fn a_folder_varies_by_feature_in_one_file() {
    let gates = "#[cfg(feature = \"tls\")]\nmod tls;\n\
                 #[cfg(any(feature = \"a\", not(feature = \"b\")))] #[doc(hidden)] pub(crate) use x::Y;\n\
                 #[cfg(test)] mod tests { #[cfg(feature = \"tls\")] fn f() {} }";
    let variant = "enum E { A,\n#[cfg(feature = \"tls\")] B,\n#[cfg(feature = \"tls\")] C }";
    let asked = "fn f() -> bool { cfg!(feature = \"tls\") }";
    let derived = "#[cfg_attr(feature = \"json\", derive(S))] pub struct X;";
    let method = "#[cfg(feature = \"json\")] pub fn f() {}";
    assert!(places(&[("socket/mod.rs", gates), ("socket/tls.rs", gates)]).is_empty());
    assert!(places(&[("socket/mod.rs", variant), ("socket/tls.rs", gates)]).is_empty());
    assert!(places(&[("socket/mod.rs", variant), ("pool/mod.rs", variant)]).is_empty());
    assert!(places(&[("test/a.rs", variant), ("test/b.rs", variant)]).is_empty());
    assert_eq!(
        places(&[("socket/mod.rs", variant), ("socket/tls.rs", variant)]),
        ["socket/tls.rs:2", "socket/tls.rs:3"]
    );
    assert!(places(&[("socket/mod.rs", variant), ("socket/tls.rs", derived)]).is_empty());
    for other in [asked, method] {
        assert_eq!(
            places(&[("error.rs", variant), ("url.rs", other)]),
            ["url.rs:1"]
        );
    }
}

#[test]
fn a_test_module_in_its_own_file_is_test_code() {
    let text = "async fn f() { x.unwrap() }";
    let declared = "#[cfg(test)]\nmod tests;";
    assert!(
        places(&[
            ("policy/retry.rs", declared),
            ("policy/retry/tests.rs", text)
        ])
        .is_empty()
    );
    assert_eq!(
        places(&[
            ("policy/retry.rs", "mod tests;"),
            ("policy/retry/tests.rs", text)
        ]),
        ["policy/retry/tests.rs:1", "policy/retry/tests.rs:1"]
    );
}

#[test]
fn a_finding_names_place_rule_and_what_is_allowed() {
    let findings = check_file("codec/mod.rs", "\nuse crate::pool::Pool;");
    assert_eq!(
        findings.iter().map(Finding::to_string).collect::<Vec<_>>(),
        [
            "src/codec/mod.rs:2: codec may not name `crate::pool`; codec may name: codec, error, url, \
          config, deadline, head; from the crate root: Error, ErrorKind, Result"
        ]
    );
}
