//! PostgreSQL: statements that write groups of rows.
//!
//! A row by itself is given as values, several as arrays: the server begins with a scan of arrays for each table, and of
//! one row that costs more than all the rest of the statement.
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
        (!rows.is_empty()).then(|| Rows { values: self, rows, names: Vec::new(), places: Vec::new() })
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
    names: Vec<&'static str>,
    places: Vec<String>,
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

    fn column<V>(mut self, name: &'static str, kind: &str, of: impl Fn(&T) -> V) -> Self
    where
        V: Into<Val>,
        Vec<V>: Into<Val>,
    {
        let place = match self.rows {
            [row] => format!("{}::{kind} AS {name}", self.values.add(of(row))),
            rows => format!("{}::{kind}[]", self.values.add(rows.iter().map(of).collect::<Vec<V>>())),
        };
        self.names.push(name);
        self.places.push(place);
        self
    }

    /// What a FROM names: the rows as `a`.
    pub fn source(&self) -> String {
        let (names, places) = (self.names.join(", "), self.places.join(", "));
        if self.rows.len() == 1 {
            format!("(SELECT {places}) AS a")
        } else {
            format!("unnest({places}) AS a ({names})")
        }
    }

    /// Adds the rows to `table`, if `condition` holds. `conflict` is what becomes of those that are there.
    pub fn insert(&self, table: &str, condition: &str, conflict: &str) -> String {
        let (names, source) = (self.names.join(", "), self.source());
        format!("INSERT INTO {table} ({names}) SELECT a.* FROM {source} WHERE {condition} {conflict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_by_itself_is_values_and_several_are_arrays() {
        let insert = |rows: &[(&str, i64)]| {
            let mut values = Values::default();
            let rows = values.rows(rows).unwrap().text("name", |row| row.0).int("n", |row| row.1);
            let text = rows.insert("t", "TRUE", "");
            (text, values.0)
        };
        let (text, values) = insert(&[("a", 1)]);
        assert_eq!(
            text,
            "INSERT INTO t (name, n) SELECT a.* FROM (SELECT $1::TEXT AS name, $2::BIGINT AS n) AS a WHERE TRUE "
        );
        assert_eq!(values, [Val::from("a"), Val::from(1)]);
        let (text, values) = insert(&[("a", 1), ("b", 2)]);
        assert_eq!(
            text,
            "INSERT INTO t (name, n) SELECT a.* FROM unnest($1::TEXT[], $2::BIGINT[]) AS a (name, n) WHERE TRUE "
        );
        assert_eq!(values, [Val::Texts(vec!["a".into(), "b".into()]), Val::Ints(vec![1, 2])]);
    }
}
