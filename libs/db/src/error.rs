//! What can go wrong between a service and its database, told apart as far as a service acts on it.
use std::error::Error as _;
use std::fmt;

/// Why a statement, a transaction, a connection or a migration failed.
///
/// A service maps [`is_unavailable`](DbError::is_unavailable) to UNAVAILABLE,
/// [`is_conflict`](DbError::is_conflict) to ABORTED, acts on
/// [`is_unique_violation`](DbError::is_unique_violation), and treats the rest as internal.
#[derive(thiserror::Error)]
pub enum DbError {
    /// The database cannot be reached, is starting up or going down, or has no free connection in time.
    #[error("the database cannot be used right now, try again")]
    Unavailable(#[source] sqlx::Error),
    /// A unique or primary key is taken.
    #[error("a row with this key exists already")]
    UniqueViolation(#[source] sqlx::Error),
    /// The transaction met others (serialization failure, deadlock), and went on to after every retry.
    #[error("the transaction met others that change the same rows, try again")]
    Conflict(#[source] sqlx::Error),
    /// A statement is wrong or breaks a constraint other than a unique key.
    #[error("the database refused a statement")]
    Statement(#[source] sqlx::Error),
    /// A row does not have the column, or not with the type, that the code asks for.
    #[error("a row does not look as the code expects")]
    Column(#[source] sqlx::Error),
    /// [`Sql::one`](crate::Sql::one) found nothing.
    #[error("the statement gave no row where one was expected")]
    NoRow,
    /// A statement of the transaction failed before; nothing of the transaction was kept.
    #[error("an earlier statement of the transaction failed, so none of it was kept")]
    RolledBack,
    /// Text with a NUL character: PostgreSQL cannot store it, so neither database is given it.
    #[error("text must not contain a NUL character")]
    NulInText,
    /// The database URL, the folder or the login is wrong; the text says what to do.
    #[error("{0}")]
    Connect(String, #[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// The schema is not the one this program needs; the text says what to do.
    #[error("{0}")]
    Schema(String),
}

impl DbError {
    /// A unique or primary key is taken.
    pub fn is_unique_violation(&self) -> bool {
        matches!(self, DbError::UniqueViolation(_))
    }

    /// The database is away or has no time; the same call may work in a moment. After a commit this leaves
    /// open whether the transaction took place.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, DbError::Unavailable(_))
    }

    /// The transaction lost against others, also after the retries of [`Db::write`](crate::Db::write).
    pub fn is_conflict(&self) -> bool {
        matches!(self, DbError::Conflict(_))
    }

    /// The caller sent text that no database can keep: an INVALID_ARGUMENT.
    pub fn is_invalid_text(&self) -> bool {
        matches!(self, DbError::NulInText)
    }
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => DbError::Unavailable(error),
            sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnIndexOutOfBounds { .. } => DbError::Column(error),
            sqlx::Error::RowNotFound => DbError::NoRow,
            sqlx::Error::Database(database) if database.is_unique_violation() => DbError::UniqueViolation(error),
            sqlx::Error::Database(database) => {
                let sqlite = database.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some();
                match database.code().as_deref() {
                    Some(code) if sqlite && sqlite_is_unavailable(code) => DbError::Unavailable(error),
                    Some("40001" | "40P01") if !sqlite => DbError::Conflict(error),
                    Some(code) if !sqlite && postgres_is_unavailable(code) => DbError::Unavailable(error),
                    _ => DbError::Statement(error),
                }
            }
            _ => DbError::Statement(error),
        }
    }
}

/// Only the messages: the `Debug` of a driver's error holds PostgreSQL's DETAIL, which quotes the row, and
/// what users write must not get into a log.
impl fmt::Debug for DbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        self.source().map_or(Ok(()), |source| write!(f, ": {source}"))
    }
}

/// SQLITE_BUSY 5, LOCKED 6, IOERR 10, FULL 13, CANTOPEN 14; an extended code has the primary one in its low byte.
/// <https://www.sqlite.org/rescode.html>
fn sqlite_is_unavailable(code: &str) -> bool {
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 10 | 13 | 14))
}

/// Connection trouble (class 08), too many connections, going down or starting up (57P), a statement or lock
/// that ran out of time (57014, 55P03, 25P03), a server that has become read-only (25006).
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn postgres_is_unavailable(code: &str) -> bool {
    code.starts_with("08") || code.starts_with("57P") || matches!(code, "53300" | "57014" | "55P03" | "25P03" | "25006")
}
