//! PostgreSQL: statements that write groups of rows.
//!
//! A row by itself is given as values, several as arrays: the server begins with a scan of arrays for each table, and of
//! one row that costs more than all the rest of the statement.
use std::fmt::Write;

use weft_db::{AssertSqlSafe, Sql, Val, sql};

/// The values of a statement. Who adds one is told how the text names it.
#[derive(Default)]
pub struct Values(Vec<Val>);

impl Values {
    /// A value of the whole group.
    pub fn add(&mut self, value: impl Into<Val>) -> String {
        self.0.push(value.into());
        format!("${}", self.0.len())
    }

    /// Rows, whose columns follow; None if there are none.
    pub fn rows<'a, T>(&'a mut self, rows: &'a [T]) -> Option<Rows<'a, T>> {
        (!rows.is_empty()).then(|| Rows { before: self.0.len(), values: self, rows, columns: Vec::new() })
    }

    /// The statement with these values.
    pub fn into_sql(self, text: String) -> Sql {
        // It is made of constants and of places for values.
        self.0.into_iter().fold(sql(AssertSqlSafe(text)), Sql::bind)
    }
}

/// Rows that a statement reads from, column by column.
pub struct Rows<'a, T> {
    values: &'a mut Values,
    rows: &'a [T],
    /// How many values there were before.
    before: usize,
    /// The name and the type of each.
    columns: Vec<(&'static str, &'static str)>,
}

impl<T> Rows<'_, T> {
    /// A column of TEXT.
    pub fn text(self, name: &'static str, of: impl Fn(&T) -> &str) -> Self {
        self.column(name, "TEXT", |row| of(row).to_owned())
    }

    /// A column of BIGINT.
    pub fn int(self, name: &'static str, of: impl Fn(&T) -> i64) -> Self {
        self.column(name, "BIGINT", of)
    }

    /// A column of BOOLEAN.
    pub fn flag(self, name: &'static str, of: impl Fn(&T) -> bool) -> Self {
        self.column(name, "BOOLEAN", of)
    }

    /// A column of BYTEA.
    pub fn bytes(self, name: &'static str, of: impl Fn(&T) -> Vec<u8>) -> Self {
        self.column(name, "BYTEA", of)
    }

    fn column<V>(mut self, name: &'static str, kind: &'static str, of: impl Fn(&T) -> V) -> Self
    where
        V: Into<Val>,
        Vec<V>: Into<Val>,
    {
        self.values.0.push(match self.rows {
            [row] => of(row).into(),
            rows => rows.iter().map(of).collect::<Vec<V>>().into(),
        });
        self.columns.push((name, kind));
        self
    }

    /// What a FROM names: the rows as `a`.
    pub fn source(&self) -> String {
        let columns = self.columns.iter().zip(self.before + 1..);
        if self.rows.len() == 1 {
            let places = listed(columns, |text, ((name, kind), at)| write!(text, "${at}::{kind} AS {name}"));
            format!("(SELECT {places}) AS a")
        } else {
            let places = listed(columns, |text, ((_, kind), at)| write!(text, "${at}::{kind}[]"));
            format!("unnest({places}) AS a ({})", self.names())
        }
    }

    /// Adds the rows to `table` for each row of `condition`, which has one or none. `conflict` is what becomes of those
    /// that are there.
    pub fn insert(&self, table: &str, condition: &str, conflict: &str) -> String {
        let (names, source) = (self.names(), self.source());
        format!("INSERT INTO {table} ({names}) SELECT a.* FROM {condition}, {source} {conflict}")
    }

    fn names(&self) -> String {
        listed(self.columns.iter(), |text, (name, _)| text.write_str(name))
    }
}

/// In one text, because it is made for every statement: with one for each column it was a fifth of a lane's work.
fn listed<I: Iterator>(items: I, write: impl Fn(&mut String, I::Item) -> std::fmt::Result) -> String {
    let mut text = String::with_capacity(512);
    for item in items {
        if !text.is_empty() {
            text.push_str(", ");
        }
        // A text takes whatever is written.
        let _written = write(&mut text, item);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_by_itself_is_values_and_several_are_arrays() {
        let insert = |rows: &[(&str, i64)]| {
            let mut values = Values::default();
            let rows = values.rows(rows).unwrap().text("name", |row| row.0).int("n", |row| row.1);
            let text = rows.insert("t", "agreed", "");
            (text, values.0)
        };
        let (text, values) = insert(&[("a", 1)]);
        assert_eq!(
            text,
            "INSERT INTO t (name, n) SELECT a.* FROM agreed, (SELECT $1::TEXT AS name, $2::BIGINT AS n) AS a "
        );
        assert_eq!(values, [Val::from("a"), Val::from(1)]);
        let (text, values) = insert(&[("a", 1), ("b", 2)]);
        assert_eq!(
            text,
            "INSERT INTO t (name, n) SELECT a.* FROM agreed, unnest($1::TEXT[], $2::BIGINT[]) AS a (name, n) "
        );
        assert_eq!(values, [Val::Texts(vec!["a".into(), "b".into()]), Val::Ints(vec![1, 2])]);
    }
}
