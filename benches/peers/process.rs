//! Processes that a bench starts: servers, which end when their standard input does, and programs that are
//! asked for one line.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::scenario::Failure;

/// A server of the same executable; dropping it ends it.
pub(crate) struct Process(Child);

impl Process {
    /// Starts it, on the cores of the calling thread, and waits for the line in which it says where it
    /// listens.
    pub(crate) fn start<T>(
        words: &[&str],
        listens: fn(&str) -> Result<T, Failure>,
    ) -> Result<(Self, T), Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        // If it has said something else, its end is that of its input.
        let process = Self(child);
        match listens(line.trim()) {
            Ok(listens) => Ok((process, listens)),
            Err(_) => Err(format!("the server said {line:?} instead of its address").into()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Nothing can be done about a failure to end it, and the process sees its input end in any case.
        let _ = self.0.wait();
    }
}

/// Ends this process, which is such a server, when its standard input ends.
pub(crate) fn end_with_input() {
    std::thread::spawn(|| {
        // Whatever ends the input, a read error included, ends the server.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
}

/// Has a program do something; gives the line it prints.
pub(crate) fn ask(program: impl AsRef<OsStr>, words: &[String]) -> Result<String, Failure> {
    let output = Command::new(program).args(words).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The numbers of such a line.
pub(crate) fn numbers<const N: usize>(line: &str) -> Result<[f64; N], Failure> {
    let numbers: Vec<f64> = line
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    numbers
        .try_into()
        .map_err(|_| format!("{line:?} where {N} numbers were expected").into())
}
