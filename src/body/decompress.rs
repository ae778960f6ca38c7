//! Content codings (RFC 9110 section 8.4): which are known, which were accepted, and how they are taken off a body.
//!
//! Pure: bytes in, bytes out. A coding is a [`Stage`] (`flate.rs`, `brotli.rs`, `zstd.rs`, each with its feature); a
//! [`Decoder`] is one stage or two behind each other. How far one step goes is bounded by the room of the output, so that a
//! body which grows a thousandfold grows no faster than it is asked for (security D2). `decoded.rs` drives it.

use std::fmt;

/// A coding that this build can take off.
pub(super) struct Coding {
    name: &'static str,
    /// The name that RFC 9110 section 8.4.1.3 wants taken for the same.
    alias: Option<&'static str>,
    open: fn() -> Result<Box<dyn Stage>, Fault>,
}

/// The codings of this build, in the order in which they are asked for.
const KNOWN: &[Coding] = &[
    #[cfg(feature = "gzip")]
    Coding {
        name: "gzip",
        alias: Some("x-gzip"),
        open: super::flate::gzip,
    },
    #[cfg(feature = "gzip")]
    Coding {
        name: "deflate",
        alias: None,
        open: super::flate::deflate,
    },
    #[cfg(feature = "brotli")]
    Coding {
        name: "br",
        alias: None,
        open: super::brotli::open,
    },
    #[cfg(feature = "zstd")]
    Coding {
        name: "zstd",
        alias: None,
        open: super::zstd::open,
    },
];

/// Takes one coding off.
pub(super) trait Stage: Send {
    /// Decodes from the front of `input` into the spare capacity of `output`, which it never makes larger, and answers how
    /// much of `input` was used. It goes on until all of `input` is used or `output` is full; when `output` is full there may
    /// be more to come without further input.
    fn step(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<usize, Fault>;

    /// Whether the coded content may end here. It may before its first byte: an empty body is an empty body.
    fn may_end(&self) -> bool;
}

/// What is wrong with coded bytes; the [`Decoder`] adds which coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(any(feature = "gzip", feature = "brotli", feature = "zstd")),
    expect(dead_code, reason = "only codings have faults")
)]
pub(super) enum Fault {
    /// They are not what the coding allows; the word of the library, if it has one.
    Corrupt(&'static str),
    /// Something stands behind their end.
    Trailing,
}

/// Why a body could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecompressError {
    Corrupt {
        coding: &'static str,
        detail: &'static str,
    },
    Trailing {
        coding: &'static str,
    },
    Truncated {
        coding: &'static str,
    },
    Barren {
        coding: &'static str,
    },
    TooManyCodings {
        count: usize,
    },
}

impl fmt::Display for DecompressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt { coding, detail: "" } => write!(f, "the {coding} data is corrupt"),
            Self::Corrupt { coding, detail } => {
                write!(f, "the {coding} data is corrupt ({detail})")
            }
            Self::Trailing { coding } => write!(f, "bytes follow the end of the {coding} data"),
            Self::Truncated { coding } => write!(f, "the {coding} data is cut short"),
            Self::Barren { coding } => write!(
                f,
                "over {} KiB of {coding} data in a row hold no content",
                MAX_BARREN / 1024
            ),
            Self::TooManyCodings { count } => write!(
                f,
                "{count} content codings are over the limit of {MAX_CODINGS}"
            ),
        }
    }
}

impl std::error::Error for DecompressError {}

/// The codings that a call accepts: a set of those that are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted(u8);

impl Accepted {
    /// None: bodies are left as they come.
    pub(crate) const NONE: Self = Self(0);

    /// Every coding of this build.
    pub(crate) const ALL: Self = Self((1 << KNOWN.len()) - 1);

    /// The known ones among those that Accept-Encoding fields list with a weight above zero (RFC 9110 section 12.5.3).
    pub(crate) fn listed<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let (mut named, mut accepted, mut others) = (0, 0, false);
        for element in values.flat_map(elements) {
            let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let refused = parts.any(is_zero_weight);
            match position(name) {
                Some(at) => {
                    named |= 1 << at;
                    accepted |= if refused { 0 } else { 1 << at };
                }
                None => others |= name == b"*" && !refused,
            }
        }
        if others {
            accepted |= Self::ALL.0 & !named;
        }
        Self(accepted)
    }

    /// The value of the field that asks for all codings of this build; `None` if it has none.
    pub(crate) fn field_of_all() -> Option<String> {
        let names: Vec<_> = KNOWN.iter().map(|coding| coding.name).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    fn contains(self, at: usize) -> bool {
        self.0 & (1 << at) != 0
    }
}

/// The codings that are to be taken off one body, in the order in which they were put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    One(u8),
    Two(u8, u8),
    /// More than may be: reading the body fails.
    TooMany(usize),
}

impl Applied {
    /// What the values of Content-Encoding say. `None` if there is nothing to take off: no coding, one that is not known, or
    /// one that the call does not accept; then the body is left as it is, because half decoded it would be of use to nobody.
    pub(crate) fn of<'a>(
        values: impl Iterator<Item = &'a [u8]>,
        accepted: Accepted,
    ) -> Option<Self> {
        let mut count = 0;
        let mut found = [0; MAX_CODINGS];
        for element in values.flat_map(elements) {
            if element.is_empty() || element.eq_ignore_ascii_case(b"identity") {
                continue;
            }
            let at = position(element).filter(|at| accepted.contains(*at))?;
            if let Some(slot) = found.get_mut(count) {
                *slot = u8::try_from(at).ok()?;
            }
            count += 1;
        }
        match (count, found) {
            (0, _) => None,
            (1, [one, _]) => Some(Self::One(one)),
            (2, [inner, outer]) => Some(Self::Two(inner, outer)),
            (count, _) => Some(Self::TooMany(count)),
        }
    }
}

/// The elements of a list (RFC 9110 section 5.6.1), without the blanks around them.
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

fn position(name: &[u8]) -> Option<usize> {
    let same = |known: &str| known.as_bytes().eq_ignore_ascii_case(name);
    KNOWN
        .iter()
        .position(|coding| same(coding.name) || coding.alias.is_some_and(same))
}

/// `q=0`, `q=0.0` and so on (RFC 9110 section 12.4.2).
fn is_zero_weight(parameter: &[u8]) -> bool {
    let [b'q' | b'Q', b'=', weight @ ..] = parameter else {
        return false;
    };
    weight.first() == Some(&b'0') && weight.iter().all(|byte| matches!(byte, b'0' | b'.'))
}

/// Takes the codings of a body off.
pub(crate) struct Decoder {
    /// The coding that was put on last, and what came out of it, if there are two.
    outer: Option<(Link, Between)>,
    inner: Link,
}

/// One coding of a chain.
struct Link {
    coding: &'static str,
    stage: Box<dyn Stage>,
    /// Bytes used since the last one that came out.
    barren: usize,
}

/// What lies between two codings.
struct Between {
    bytes: Vec<u8>,
    used: usize,
}

/// How far a step came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Bytes of the input that were used.
    pub(crate) used: usize,
    /// Whether another step may give more without further input.
    pub(crate) more: bool,
}

impl Decoder {
    /// Opens what takes `applied` off.
    pub(crate) fn new(applied: Applied) -> Result<Self, DecompressError> {
        match applied {
            Applied::One(one) => Ok(Self {
                outer: None,
                inner: Link::open(one)?,
            }),
            Applied::Two(inner, outer) => {
                let between = Between {
                    bytes: Vec::with_capacity(BETWEEN),
                    used: 0,
                };
                Ok(Self {
                    outer: Some((Link::open(outer)?, between)),
                    inner: Link::open(inner)?,
                })
            }
            Applied::TooMany(count) => Err(DecompressError::TooManyCodings { count }),
        }
    }

    /// Decodes from the front of `input` into the spare capacity of `output`, which has room for a byte at least. One step
    /// fills no more than that, and does a bounded amount of work.
    pub(crate) fn step(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<Progress, DecompressError> {
        let Some((outer, between)) = &mut self.outer else {
            let used = self.inner.step(input, output)?;
            let more = output.len() == output.capacity();
            return Ok(Progress { used, more });
        };
        let mut used = 0;
        for _ in 0..ROUNDS {
            let rest = between.bytes.get(between.used..).unwrap_or_default();
            between.used += self.inner.step(rest, output)?;
            if output.len() == output.capacity() {
                return Ok(Progress { used, more: true });
            }
            // The inner coding has used everything between, for its output is not full.
            between.bytes.clear();
            between.used = 0;
            let rest = input.get(used..).unwrap_or_default();
            used += outer.step(rest, &mut between.bytes)?;
            if between.bytes.is_empty() {
                return Ok(Progress { used, more: false });
            }
        }
        Ok(Progress { used, more: true })
    }

    /// Judges the end of the body; all that was to come without further input has come.
    pub(crate) fn finish(&self) -> Result<(), DecompressError> {
        let outer = self.outer.as_ref().map(|(outer, _)| outer);
        match outer
            .into_iter()
            .chain([&self.inner])
            .find(|link| !link.stage.may_end())
        {
            Some(link) => Err(DecompressError::Truncated {
                coding: link.coding,
            }),
            None => Ok(()),
        }
    }
}

impl Link {
    fn open(at: u8) -> Result<Self, DecompressError> {
        let coding = KNOWN
            .get(usize::from(at))
            .expect("only `Applied::of` makes these, from places in the table");
        Ok(Self {
            coding: coding.name,
            stage: (coding.open)().map_err(|fault| fault.of(coding.name))?,
            barren: 0,
        })
    }

    fn step(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<usize, DecompressError> {
        let before = output.len();
        let used = self
            .stage
            .step(input, output)
            .map_err(|fault| fault.of(self.coding))?;
        self.barren = match output.len() > before {
            true => 0,
            false => self.barren + used,
        };
        if self.barren > MAX_BARREN {
            return Err(DecompressError::Barren {
                coding: self.coding,
            });
        }
        Ok(used)
    }
}

impl Fault {
    fn of(self, coding: &'static str) -> DecompressError {
        match self {
            Self::Corrupt(detail) => DecompressError::Corrupt { coding, detail },
            Self::Trailing => DecompressError::Trailing { coding },
        }
    }
}

/// Content codings on one body (security D1): more have no use but to make a small body huge.
const MAX_CODINGS: usize = 2;

/// Bytes of coded data in a row that may hold no content: empty blocks, metadata, headers. Only an attack has more.
const MAX_BARREN: usize = 1024 * 1024;

/// Bytes that are kept between two codings.
const BETWEEN: usize = 16 * 1024;

/// How often one step refills what lies between two codings: 256 KiB, so that a step which gives nothing is short, too.
const ROUNDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_is_what_is_listed_and_known() {
        let listed = |value: &str| Accepted::listed([value.as_bytes()].into_iter());
        for nothing in [
            "",
            "identity",
            "dcb, dcz",
            "*;q=0",
            "gzip;q=0",
            "gzip; Q=0.000",
        ] {
            assert_eq!(listed(nothing), Accepted::NONE, "{nothing}");
        }
        assert_eq!(listed("*"), Accepted::ALL);
        assert_eq!(listed("foo, * ;q=0.1"), Accepted::ALL);
        let all = Accepted::field_of_all().unwrap_or_default();
        assert_eq!(listed(&all), Accepted::ALL);
        #[cfg(feature = "gzip")]
        {
            let gzip = listed("X-GZIP;q=0.5, deflate;q=0");
            assert_eq!(gzip, listed(" gzip "));
            assert!(gzip.contains(0) && !gzip.contains(1));
            let but_gzip = listed("gzip;q=0, *");
            assert!(!but_gzip.contains(0) && but_gzip.contains(1));
        }
    }

    #[cfg(feature = "gzip")]
    #[test]
    fn what_is_applied_is_read_from_every_field() {
        let of = |values: &[&str], accepted| {
            Applied::of(values.iter().map(|value| value.as_bytes()), accepted)
        };
        let all = |values: &[&str]| of(values, Accepted::ALL);
        assert_eq!(all(&[]), None);
        assert_eq!(all(&["identity", ""]), None);
        assert_eq!(all(&["GZIP"]), Some(Applied::One(0)));
        assert_eq!(all(&["x-gzip, identity"]), Some(Applied::One(0)));
        assert_eq!(all(&["deflate , gzip"]), Some(Applied::Two(1, 0)));
        assert_eq!(all(&["deflate", "gzip"]), Some(Applied::Two(1, 0)));
        assert_eq!(all(&["gzip,gzip,gzip"]), Some(Applied::TooMany(3)));
        assert_eq!(
            all(&["gzip, compress"]),
            None,
            "half decoded it is of no use"
        );
        assert_eq!(of(&["gzip"], Accepted::NONE), None);
    }
}
