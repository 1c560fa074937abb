//! One SQL text on SQLite and PostgreSQL.
//!
//! A service opens a [`Db`] from its `DATABASE_URL`, applies its [`Migration`]s, and asks with [`sql`]:
//! reads and single statements on `&db` (a task that writes all the time, on a [`Held`] of its own), everything that must happen together in [`Db::write`]. Texts use
//! `$1` placeholders and the types TEXT, BIGINT, DOUBLE PRECISION, BOOLEAN and BYTEA, and run on both
//! databases; a statement that PostgreSQL deserves a better text for has both, side by side
//! ([`Sql::on_postgres`]). [`record!`] names the columns of a row.
//!
//! sqlx's `Any` driver is not used: it cannot read BOOLEAN from SQLite, and a NULL changes the type of a
//! prepared parameter on PostgreSQL. Here a value keeps its type when it is NULL ([`Val`]).
mod db;
mod error;
mod held;
pub mod jobs;
pub mod keyring;
mod migrate;
mod sql;
mod tx;

pub use db::{Db, DbOptions};
pub use error::DbError;
pub use held::Held;
pub use migrate::Migration;
pub use sql::{Column, FromRow, On, Row, Sql, Val, sql};
/// For a text that is put together at run time: says that no part of it comes from outside.
pub use sqlx::AssertSqlSafe;
pub use tx::Tx;
