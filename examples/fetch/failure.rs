//! Why the command failed: a message for people and an exit code for scripts, with the meaning that curl gives it.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use sockeye::{Error, ErrorKind, Phase};

/// How the command ends when it fails.
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// `None` where there is nothing to tell, or nobody to tell it to.
    message: Option<String>,
}

/// The exit codes. Except for the first they are those of curl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Without a URL: something was not as expected.
    Differed = 1,
    Usage = 2,
    BadUrl = 3,
    Resolve = 6,
    Connect = 7,
    /// The connection ended within the body.
    Partial = 18,
    /// The status is 400 or more.
    Status = 22,
    /// The output could not be written.
    Write = 23,
    /// The file with the data could not be read.
    Read = 26,
    Timeout = 28,
    TlsHandshake = 35,
    /// The connection ended before any byte of the response.
    EmptyReply = 52,
    Send = 55,
    /// The response could not be received, or is not HTTP.
    Receive = 56,
    /// The server's certificate is not trusted.
    Certificate = 60,
    /// The file with the CA certificates cannot be used.
    CaFile = 77,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            exit,
            message: Some(message.to_string()),
        }
    }

    /// A failure that was told already.
    pub(crate) fn told(exit: Exit) -> Self {
        Self {
            exit,
            message: None,
        }
    }

    /// Writes the message to stderr. If stderr is closed there is nobody left to tell that.
    pub(crate) fn tell(&self) {
        if let Some(message) = &self.message {
            let _ = writeln!(io::stderr(), "fetch: {message}");
        }
    }
}

/// What the library says: its line tells the whole story, so only the code is to be found.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(Exit::of(&error), error)
    }
}

/// Writing the output is the only I/O of the command's own that fails with a bare `io::Error`.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // `fetch URL | head` is no failure worth a line.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::told(Exit::Write);
        }
        Self::new(Exit::Write, format!("cannot write the output: {error}"))
    }
}

impl Exit {
    /// Kind and phase of an error say nearly all that a program needs to decide what to do next.
    fn of(error: &Error) -> Self {
        match (error.kind(), error.phase()) {
            (ErrorKind::InvalidRequest, _) => Self::Usage,
            (ErrorKind::Resolve, _) => Self::Resolve,
            (ErrorKind::Connect, _) => Self::Connect,
            (ErrorKind::Timeout, _) => Self::Timeout,
            (ErrorKind::Status, _) => Self::Status,
            (ErrorKind::Tls, Some(Phase::Tls)) if says(error, "the certificate") => {
                Self::Certificate
            }
            (ErrorKind::Tls, Some(Phase::Tls)) => Self::TlsHandshake,
            (ErrorKind::Io, Some(Phase::Write)) => Self::Send,
            (ErrorKind::Io, Some(Phase::Head))
                if error.io_kind() == Some(io::ErrorKind::UnexpectedEof) =>
            {
                Self::EmptyReply
            }
            (ErrorKind::Protocol, Some(Phase::Read)) if says(error, "the connection ended") => {
                Self::Partial
            }
            _ => Self::Receive,
        }
    }
}

/// Whether the cause begins with these words: kind and phase are the same for these cases and their neighbours.
fn says(error: &Error, words: &str) -> bool {
    error
        .cause()
        .is_some_and(|cause| cause.to_string().starts_with(words))
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
