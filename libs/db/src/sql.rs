//! A statement with its values, and the rows that come back.
use std::future::Future;

use sqlx::error::UnexpectedNullError;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{ColumnIndex, Decode, Postgres, SqlSafeStr, SqlStr, Sqlite, Type, ValueRef};

use crate::DbError;

/// A value of a statement. NULL keeps its type, because PostgreSQL prepares a statement once for its types.
#[derive(Clone, Debug, PartialEq)]
pub enum Val {
    /// TEXT
    Text(Option<String>),
    /// BIGINT; also times (ms since 1970) and money (minor units, micro-credits)
    Int(Option<i64>),
    /// DOUBLE PRECISION
    Float(Option<f64>),
    /// BOOLEAN
    Bool(Option<bool>),
    /// BYTEA
    Bytes(Option<Vec<u8>>),
    /// TEXT[], for `unnest` on PostgreSQL; SQLite has no arrays and refuses it
    Texts(Vec<String>),
    /// BIGINT[], likewise
    Ints(Vec<i64>),
    /// BOOLEAN[], likewise
    Bools(Vec<bool>),
    /// BYTEA[], likewise
    ByteStrings(Vec<Vec<u8>>),
}

macro_rules! vals {
    ($($from:ty => $variant:ident $owned:path;)*) => {$(
        impl From<$from> for Val {
            fn from(value: $from) -> Self { Val::$variant(Some($owned(value))) }
        }
        impl From<Option<$from>> for Val {
            fn from(value: Option<$from>) -> Self { Val::$variant(value.map($owned)) }
        }
    )*};
}
vals! {
    &str => Text String::from;
    &String => Text String::clone;
    String => Text String::from;
    i64 => Int i64::from;
    f64 => Float f64::from;
    bool => Bool bool::from;
    &[u8] => Bytes Vec::from;
    &Vec<u8> => Bytes Vec::clone;
    Vec<u8> => Bytes Vec::from;
}

macro_rules! arrays {
    ($($from:ty => $variant:ident;)*) => {$(
        impl From<Vec<$from>> for Val {
            fn from(values: Vec<$from>) -> Self { Val::$variant(values) }
        }
    )*};
}
arrays! { String => Texts; i64 => Ints; bool => Bools; Vec<u8> => ByteStrings; }

/// The same fold for both drivers, whose query types have no common trait for it; `$array` are the types that
/// only this driver has, `$no` those that it does not.
macro_rules! bound {
    ($query:expr, $vals:expr; $($array:ident)*; $($no:ident)*) => {
        $vals.into_iter().fold($query, |query, val| match val {
            Val::Text(value) => query.bind(value),
            Val::Int(value) => query.bind(value),
            Val::Float(value) => query.bind(value),
            Val::Bool(value) => query.bind(value),
            Val::Bytes(value) => query.bind(value),
            $(Val::$array(value) => query.bind(value),)*
            $(Val::$no(_) => query,)*
        })
    };
}
/// A statement; made by [`sql`].
#[must_use = "a statement does nothing until it is run"]
pub struct Sql {
    text: SqlStr,
    postgres: Option<&'static str>,
    vals: Vec<Val>,
}

/// A statement with `$1`, `$2` … for the values that [`Sql::bind`] adds in that order.
///
/// A text put together at run time needs [`AssertSqlSafe`](crate::AssertSqlSafe) around it.
pub fn sql(text: impl SqlSafeStr) -> Sql {
    Sql { text: text.into_sql_str(), postgres: None, vals: Vec::new() }
}

impl Sql {
    /// Another text with the same values for PostgreSQL, where it has something better.
    pub fn on_postgres(mut self, text: &'static str) -> Self {
        self.postgres = Some(text);
        self
    }

    /// The next value.
    pub fn bind(mut self, value: impl Into<Val>) -> Self {
        self.vals.push(value.into());
        self
    }

    /// The first row, if there is one.
    pub async fn opt<T: FromRow>(self, on: &impl On) -> Result<Option<T>, DbError> {
        on.fetch(self).await?.first().map(T::from_row).transpose()
    }

    /// The first row; none is [`DbError::NoRow`].
    pub async fn one<T: FromRow>(self, on: &impl On) -> Result<T, DbError> {
        self.opt(on).await?.ok_or(DbError::NoRow)
    }

    /// Every row: the text has a LIMIT.
    pub async fn all<T: FromRow>(self, on: &impl On) -> Result<Vec<T>, DbError> {
        on.fetch(self).await?.iter().map(T::from_row).collect()
    }

    /// Runs it and says how many rows it changed.
    pub async fn run(self, on: &impl On) -> Result<u64, DbError> {
        on.run(self).await
    }

    /// Whether it only reads, so that a reading connection of SQLite can take it. What is not plainly a SELECT
    /// goes to the writing one.
    pub(crate) fn reads(&self) -> bool {
        self.text.as_str().trim_start().get(..6).is_some_and(|word| word.eq_ignore_ascii_case("select"))
    }

    /// Refuses text that PostgreSQL cannot store, on both databases.
    pub(crate) fn check(&self) -> Result<(), DbError> {
        let nul = self.vals.iter().any(|val| match val {
            Val::Text(Some(text)) => text.contains('\0'),
            Val::Texts(texts) => texts.iter().any(|text| text.contains('\0')),
            _ => false,
        });
        if nul { Err(DbError::NulInText) } else { Ok(()) }
    }

    pub(crate) fn sqlite(self) -> Result<sqlx::query::Query<'static, Sqlite, SqliteArguments>, DbError> {
        let array = |val: &Val| matches!(val, Val::Texts(_) | Val::Ints(_) | Val::Bools(_) | Val::ByteStrings(_));
        if self.vals.iter().any(array) {
            return Err(sqlx::Error::Encode("sqlite has no arrays, give it a statement for each row".into()).into());
        }
        Ok(bound!(sqlx::query(self.text), self.vals; ; Texts Ints Bools ByteStrings))
    }

    pub(crate) fn postgres(self) -> sqlx::query::Query<'static, Postgres, PgArguments> {
        let text = self.postgres.map_or(self.text, SqlStr::from_static);
        bound!(sqlx::query(text), self.vals; Texts Ints Bools ByteStrings; )
    }
}

/// Where a statement runs: on a [`Db`](crate::Db), by itself, or in a [`Tx`](crate::Tx).
pub trait On: Sync {
    /// The rows of a statement; for [`Sql::opt`], [`Sql::one`] and [`Sql::all`].
    fn fetch(&self, sql: Sql) -> impl Future<Output = Result<Vec<Row>, DbError>> + Send;

    /// The number of rows a statement changed; for [`Sql::run`].
    fn run(&self, sql: Sql) -> impl Future<Output = Result<u64, DbError>> + Send;
}

/// A row of either database.
pub enum Row {
    /// From SQLite.
    Sqlite(SqliteRow),
    /// From PostgreSQL.
    Postgres(PgRow),
}

impl Row {
    pub(crate) fn sqlite(rows: Vec<SqliteRow>) -> Vec<Row> {
        rows.into_iter().map(Row::Sqlite).collect()
    }

    pub(crate) fn postgres(rows: Vec<PgRow>) -> Vec<Row> {
        rows.into_iter().map(Row::Postgres).collect()
    }

    /// A column by its name.
    pub fn get<T: Column>(&self, name: &str) -> Result<T, DbError> {
        match self {
            Row::Sqlite(row) => read(row, name, T::NULLABLE),
            Row::Postgres(row) => read(row, name, T::NULLABLE),
        }
    }

    /// A column by its place, from 0.
    pub fn at<T: Column>(&self, place: usize) -> Result<T, DbError> {
        match self {
            Row::Sqlite(row) => read(row, place, T::NULLABLE),
            Row::Postgres(row) => read(row, place, T::NULLABLE),
        }
    }
}

/// From SQLite the driver would read a NULL as 0, false or empty: here it is an error unless an `Option` is asked for.
fn read<'r, R, I, T>(row: &'r R, index: I, nullable: bool) -> Result<T, DbError>
where
    R: sqlx::Row,
    I: ColumnIndex<R>,
    T: Decode<'r, R::Database> + Type<R::Database>,
{
    if !nullable && row.try_get_raw(&index)?.is_null() {
        let source = Box::new(UnexpectedNullError);
        return Err(sqlx::Error::ColumnDecode { index: format!("{index:?}"), source }.into());
    }
    Ok(row.try_get(index)?)
}

/// What both databases can read from a column: `String`, `i64`, `f64`, `bool`, `Vec<u8>` and `Option` of these.
pub trait Column: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres> {
    /// Whether it can hold a NULL.
    const NULLABLE: bool;
}

/// What a row becomes: a [`record!`](crate::record), one column, or a tuple of columns.
pub trait FromRow: Sized {
    /// Reads the row; a missing column or a wrong type is [`DbError::Column`].
    fn from_row(row: &Row) -> Result<Self, DbError>;
}

macro_rules! columns {
    ($($column:ty, $nullable:literal;)+) => {$(
        impl Column for $column {
            const NULLABLE: bool = $nullable;
        }
        impl FromRow for $column {
            fn from_row(row: &Row) -> Result<Self, DbError> { row.at(0) }
        }
    )+};
}
columns! {
    String, false; Option<String>, true;
    i64, false; Option<i64>, true;
    f64, false; Option<f64>, true;
    bool, false; Option<bool>, true;
    Vec<u8>, false; Option<Vec<u8>>, true;
}

macro_rules! tuples {
    ($($($column:ident $place:tt),+;)+) => {$(
        impl<$($column: Column),+> FromRow for ($($column,)+) {
            fn from_row(row: &Row) -> Result<Self, DbError> { Ok(($(row.at::<$column>($place)?,)+)) }
        }
    )+};
}
tuples! { A 0, B 1; A 0, B 1, C 2; A 0, B 1, C 2, D 3; }

/// A struct whose fields are the columns of a row, by name.
///
/// ```
/// weft_db::record! {
///     /// An account as it is stored.
///     #[derive(Clone, Debug)]
///     pub struct UserRow {
///         /// UUID v7.
///         pub id: String,
///         /// ms since 1970; none while it was never confirmed.
///         pub confirmed_at: Option<i64>,
///     }
/// }
/// ```
#[macro_export]
macro_rules! record {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty),* $(,)?
    }) => {
        $(#[$meta])*
        $vis struct $name { $($(#[$field_meta])* $field_vis $field: $type,)* }

        impl $crate::FromRow for $name {
            fn from_row(row: &$crate::Row) -> ::core::result::Result<Self, $crate::DbError> {
                ::core::result::Result::Ok(Self { $($field: row.get(::core::stringify!($field))?,)* })
            }
        }
    };
}
