//! How the process ends when it cannot go on: one sentence and a status from sysexits.
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// Why the process ends.
#[derive(Debug)]
pub struct Failure {
    status: u8,
    message: String,
}

impl Failure {
    /// The configuration is wrong (EX_USAGE). Nothing was started.
    pub fn config(message: impl Display) -> Self {
        Failure { status: 64, message: message.to_string() }
    }

    /// Something that is needed is not there: a database, a server (EX_UNAVAILABLE).
    pub fn unavailable(message: impl Display) -> Self {
        Failure { status: 69, message: message.to_string() }
    }

    /// A file, folder or port cannot be had (EX_CANTCREAT).
    pub fn cannot_create(message: impl Display) -> Self {
        Failure { status: 73, message: message.to_string() }
    }

    /// A service ended by itself.
    pub fn stopped(message: impl Display) -> Self {
        Failure { status: 1, message: message.to_string() }
    }

    /// Says why on standard error and gives the exit status.
    pub fn report(&self) -> ExitCode {
        // Nothing is left to do if even standard error is closed.
        let _closed = writeln!(std::io::stderr(), "weft: {}", self.message);
        ExitCode::from(self.status)
    }
}
